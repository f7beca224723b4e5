# Sourced: Go and libraries of Go from Debian's suite sid, unpacked into a folder; nothing is installed and no root is needed.
# The mirror is the one that this machine's apt has (NESTGATE_DEBIAN_MIRROR names another): apt works on a state of its own.
#
#   go_tree FOLDER LIBRARY OLDEST PACKAGE...   FOLDER/root has Go and the packages; its file `version` the version of LIBRARY,
#                                              at least OLDEST. What is there already is used.
#   go_build FOLDER SOURCES OUT [LDFLAGS]      builds the program in SOURCES with it
#
# Both end the script: with 69 where this machine or its mirror has no such packages, with 1 for anything else that fails.
readonly none=69
say() { echo "${0##*/}: $*" >&2; }
lacks() { say "$*"; exit $none; }

go_mirror() {
  [[ -z ${NESTGATE_DEBIAN_MIRROR:-} ]] || { echo "$NESTGATE_DEBIAN_MIRROR"; return; }
  env -u APT_CONFIG apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    sed -n 's/^Debian //p' | grep -v -- '-security' | head -n 1
}

go_own_apt() { # a state of its own, in which nothing is installed yet
  local uri=$1 apt=$2/apt
  mkdir -p "$apt"/{lists/partial,archives/partial,etc/apt.conf.d,etc/preferences.d,etc/sources.list.d,etc/trusted.gpg.d}
  : >"$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri sid main" >"$apt/etc/sources.list"
  # A mirror that keeps the state of one day is as good; its signature is still checked.
  cat >"$apt/apt.conf" <<CONF
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc "$apt/etc";
APT::Architecture "$(dpkg --print-architecture)";
APT::Architectures { "$(dpkg --print-architecture)"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
CONF
  export APT_CONFIG=$apt/apt.conf
}

go_tree() {
  local folder=$1 library=$2 least=$3 uri version package
  shift 3
  [[ ! -f $folder/root/version ]] || return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || lacks "not a Debian machine: there is no apt-get"
  uri=$(go_mirror)
  [[ -n $uri ]] || lacks "apt has no Debian mirror here; name one by NESTGATE_DEBIAN_MIRROR"
  go_own_apt "$uri" "$folder"
  apt-get update -qq >&2 || lacks "the mirror $uri does not serve the suite sid"
  version=$(apt-cache policy "$library" | sed -n 's/^ *Candidate: //p')
  [[ -n $version && $version != '(none)' ]] || lacks "the mirror $uri has no $library in sid"
  dpkg --compare-versions "$version" ge "$least" || lacks "$library is $version there; $least or newer is needed"
  say "fetching Go and $library $version"
  apt-get install -y -qq --download-only golang-go "$@" >&2
  rm -rf "$folder/root.new"
  mkdir -p "$folder/root.new"
  # Only the sources and the Go tools: the rest of what they depend on is for C, which is not used.
  for package in "$folder"/apt/archives/golang-*.deb; do dpkg-deb -x "$package" "$folder/root.new"; done
  echo "$version" >"$folder/root.new/version"
  rm -f "$folder"/apt/archives/*.deb
  rm -rf "$folder/root"
  mv "$folder/root.new" "$folder/root"
}

go_build() {
  local folder=$1 sources=$2 out=$3 goroot
  goroot=$(echo "$folder"/root/usr/lib/go-*)
  (
    export GOROOT=$goroot GOPATH=$folder/root/usr/share/gocode GOCACHE=$folder/cache
    export GO111MODULE=off GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=
    cd "$sources" && nice -n 10 "$goroot/bin/go" build -p 2 -trimpath -ldflags "-s -w ${4:-}" -o "$out.new" .
  ) >&2
  mv "$out.new" "$out"
}
