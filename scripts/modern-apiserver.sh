#!/usr/bin/env bash
# Builds the API server of test/modern from Kubernetes' newest library code, and prints the path of the binary.
#
#   modern-apiserver.sh FOLDER
#
# Go and k8s.io/apiserver are Debian's own packages of the suite sid, from the mirror that this machine's apt has
# (NESTGATE_DEBIAN_MIRROR names another). They are unpacked into FOLDER and nothing is installed: apt works on a state of its
# own there, so no root is needed. The first time takes 3 minutes on 2 cores and 3.5 GB; what is in FOLDER already is used.
# Exit codes: 69 where this machine or its mirror has no such packages, 1 for anything else that fails.
set -euo pipefail
readonly none=69
readonly packages=(golang-go golang-k8s-apiserver-dev)
# The first release whose library has all that is tried: constrained impersonation is on by default from it.
readonly oldest=0.36
sources=$(cd "$(dirname "$0")/../test/modern" && pwd)
mkdir -p "${1:?usage: modern-apiserver.sh FOLDER}"
folder=$(cd "$1" && pwd)
root=$folder/root
say() { echo "modern-apiserver: $*" >&2; }
lacks() { say "$*"; exit $none; }

mirror() {
  [[ -z ${NESTGATE_DEBIAN_MIRROR:-} ]] || { echo "$NESTGATE_DEBIAN_MIRROR"; return; }
  env -u APT_CONFIG apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    sed -n 's/^Debian //p' | grep -v -- '-security' | head -n 1
}

own_apt() { # a state of its own, in which nothing is installed yet
  local uri=$1 apt=$folder/apt
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

unpack() {
  local uri version
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || lacks "not a Debian machine: there is no apt-get"
  uri=$(mirror)
  [[ -n $uri ]] || lacks "apt has no Debian mirror here; name one by NESTGATE_DEBIAN_MIRROR"
  own_apt "$uri"
  apt-get update -qq >&2 || lacks "the mirror $uri does not serve the suite sid"
  version=$(apt-cache policy golang-k8s-apiserver-dev | sed -n 's/^ *Candidate: //p')
  [[ -n $version && $version != '(none)' ]] || lacks "the mirror $uri has no golang-k8s-apiserver-dev in sid"
  dpkg --compare-versions "$version" ge $oldest || lacks "golang-k8s-apiserver-dev is $version there; $oldest or newer is needed"
  say "fetching Go and k8s.io/apiserver $version"
  apt-get install -y -qq --download-only "${packages[@]}" >&2
  rm -rf "$root.new"
  mkdir -p "$root.new"
  # Only the sources and the Go tools: the rest of what they depend on is for C, which is not used.
  for package in "$folder"/apt/archives/golang-*.deb; do dpkg-deb -x "$package" "$root.new"; done
  echo "$version" >"$root.new/version"
  rm -f "$folder"/apt/archives/*.deb
  rm -rf "$root"
  mv "$root.new" "$root"
}

build() {
  local version release
  version=$(cat "$root/version")
  release=v1.${version#0.}
  release=${release%%[-+~]*}
  GOROOT=$(echo "$root"/usr/lib/go-*)
  export GOROOT GOPATH=$root/usr/share/gocode GOCACHE=$folder/cache GO111MODULE=off GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=
  say "building Kubernetes $release's API server"
  (cd "$sources" && nice -n 10 "$GOROOT/bin/go" build -p 2 -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$release" -o "$1.new" .) >&2
  mv "$1.new" "$1"
}

[[ -f $root/version ]] || unpack
binary=$folder/modern-apiserver-$(cat "$sources"/*.go "$root/version" | sha256sum | cut -c 1-16)
[[ -x $binary ]] || build "$binary"
echo "$binary"
