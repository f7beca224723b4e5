#!/usr/bin/env bash
# Builds the API server of test/modern from Kubernetes' newest library code, and prints the path of the binary.
#
#   modern-apiserver.sh FOLDER
#
# Go and k8s.io/apiserver are Debian's own packages of the suite sid (scripts/debian-go.sh). The first time takes 3 minutes on
# 2 cores and 3.5 GB; what is in FOLDER already is used.
# Exit codes: 69 where this machine or its mirror has no such packages, 1 for anything else that fails.
set -euo pipefail
# shellcheck source=scripts/debian-go.sh
source "$(dirname "$0")/debian-go.sh"
# The first release whose library has all that is tried: constrained impersonation is on by default from it.
readonly oldest=0.36
sources=$(cd "$(dirname "$0")/../test/modern" && pwd)
mkdir -p "${1:?usage: modern-apiserver.sh FOLDER}"
folder=$(cd "$1" && pwd)

go_tree "$folder" golang-k8s-apiserver-dev "$oldest" golang-k8s-apiserver-dev
version=$(cat "$folder/root/version")
binary=$folder/modern-apiserver-$(cat "$sources"/*.go "$folder/root/version" | sha256sum | cut -c 1-16)
if [[ ! -x $binary ]]; then
  release=v1.${version#0.}
  release=${release%%[-+~]*}
  say "building Kubernetes $release's API server"
  go_build "$folder" "$sources" "$binary" "-X k8s.io/component-base/version.gitVersion=$release"
fi
echo "$binary"
