#!/usr/bin/env bash
# Renders manifests/chart: writes manifests/base, manifests/components, manifests/nestgate.yaml and the expected results of
# test/golden/chart. With --check it writes nothing and fails where one of them is not what the chart gives.
#
#   render-chart.sh [--check]
#   render-chart.sh --prepare    only gets ready
#
# Debian has no Helm: scripts/render does what `helm template` does, with the libraries that Helm is made of, which are Debian's own
# packages (scripts/debian-go.sh), unpacked into NESTGATE_RENDER_FOLDER (default build/render; 750 MB, half a minute the first time).
# Where there is a `helm`, its result is compared as well.
# Exit codes: 69 where this machine or its mirror has no such packages, 1 for anything else that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian-go.sh
source scripts/debian-go.sh
folder=${NESTGATE_RENDER_FOLDER:-build/render}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# The newest major versions of what Helm 3 has; any newer ones will do.
go_tree "$folder" golang-github-masterminds-sprig-dev 3.2 \
  golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev golang-github-xeipuuv-gojsonschema-dev
renderer=$folder/render-$(cat scripts/render/*.go "$folder/root/version" | sha256sum | cut -c 1-16)
[[ -x $renderer ]] || go_build "$folder" "$PWD/scripts/render" "$renderer"
[[ ${1:-} == --prepare ]] && exit
# The pinned Node, whatever started this.
PATH=$PWD/node_modules/.bin:$PATH node scripts/render-chart.ts "$renderer" "$@"
