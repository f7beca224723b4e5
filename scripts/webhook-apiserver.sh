#!/usr/bin/env bash
# Prints a folder of Kubernetes binaries whose kube-apiserver survives an admission webhook that patches.
#
#   webhook-apiserver.sh ASSETS
#
# Debian's Kubernetes 1.20 vendors a reflect2 that calls a function of the Go runtime by the signature it had before
# Go 1.18 (modern-go/reflect2, fixed in 1.0.2). Built with Debian 12's Go 1.19, its API server ends with a memory fault
# at the first patch of a mutating webhook. Where ASSETS holds such a binary and its source lies beside it, the API
# server is built once more with Debian's own, newer reflect2 laid over the vendored one, into ASSETS-webhooks;
# everything else there is a link. Any other ASSETS is printed as it is. Needs root for apt-get, once; about 6 minutes.
set -euo pipefail
assets=$(cd "$1" && pwd)
source_tree=$assets/../src/gopath/src/k8s.io/kubernetes
vendored=$source_tree/vendor/github.com/modern-go/reflect2
fixed=$assets-webhooks
newer=/usr/share/gocode/src/github.com/modern-go/reflect2

is_affected() { # a reflect2 from before 1.0.2 in a binary of Go 1.18 or later
  grep -qs 'func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) \*hiter' "$vendored/unsafe_link.go" || return 1
  local minor
  minor=$(go version "$assets/kube-apiserver" | sed -n 's/.*go1\.\([0-9]*\).*/\1/p')
  [[ -n $minor ]] && ((minor >= 18))
}

overlay() { # the newer files in place of the vendored ones; a vendored file the newer release lacks is left out
  local name names=()
  for name in "$newer"/*.go "$vendored"/*.go; do
    name=${name##*/}
    [[ $name == *_test.go || " ${names[*]} " == *" $name "* ]] || names+=("$name")
  done
  printf '{"Replace": {'
  local separator=
  for name in "${names[@]}"; do
    printf '%s"%s": "%s"' "$separator" "$vendored/$name" "$([[ -f $newer/$name ]] && echo "$newer/$name")"
    separator=', '
  done
  printf '}}\n'
}

build() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go golang-github-modern-go-reflect2-dev >/dev/null
  local work package git_version flags='-s -w'
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  git_version=$("$assets/kube-apiserver" --version | awk '{print $2}')
  for package in component-base/version client-go/pkg/version; do   # --version reads the one, /version the other
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitVersion=$git_version"
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMajor=1"
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMinor=$(cut -d. -f2 <<<"$git_version")"
  done
  overlay >"$work/overlay.json"
  (cd "$source_tree" && env -u GOFLAGS GOPATH="$assets/../src/gopath" GO111MODULE=off CGO_ENABLED=0 GOCACHE="$work/cache" \
    go build -overlay "$work/overlay.json" -ldflags "$flags" -o "$work/kube-apiserver" ./cmd/kube-apiserver)
  mkdir -p "$fixed"
  local file
  for file in "$assets"/*; do ln -sfn "$file" "$fixed/${file##*/}"; done
  rm -f "$fixed/kube-apiserver"
  mv "$work/kube-apiserver" "$fixed/kube-apiserver"
}

if ! is_affected; then
  echo "$assets"
  exit 0
fi
if [[ ! -x $fixed/kube-apiserver || $assets/kube-apiserver -nt $fixed/kube-apiserver ]]; then
  echo "building an API server that survives webhooks that patch; see ${0##*/}" >&2
  build >&2
fi
echo "$fixed"
