#!/usr/bin/env bash
# Runs before `npm test`: the programs that tests use as real clients of the sidecar. What is missing is installed
# where that is possible (root on Debian or Ubuntu); elsewhere it is named.
set -euo pipefail
missing=()
for program in curl perl python3 socat; do
  command -v "$program" >/dev/null || missing+=("$program")
done
# One that every user may run: a version manager's may lie in root's home.
[[ -x /usr/bin/python3 || " ${missing[*]} " == *' python3 '* ]] || missing+=(python3)
((${#missing[@]})) || exit 0
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "installing what the tests need: ${missing[*]}" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "the tests need ${missing[*]}: install them and run again" >&2
  exit 1
fi
