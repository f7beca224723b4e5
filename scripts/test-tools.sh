#!/usr/bin/env bash
# Runs before `npm test`: the programs that tests use as real clients of the sidecar, and the PostgreSQL server that they
# start. What is missing is installed where that is possible (root on Debian or Ubuntu); elsewhere it is named.
set -euo pipefail
missing=()
for program in curl perl ps python3 socat; do
  command -v "$program" >/dev/null || missing+=("$([[ $program == ps ]] && echo procps || echo "$program")")
done
# tar of three authors
command -v busybox >/dev/null || missing+=(busybox)
command -v bsdtar >/dev/null || missing+=(libarchive-tools)
# One that every user may run: a version manager's may lie in root's home.
[[ -x /usr/bin/python3 || " ${missing[*]} " == *' python3 '* ]] || missing+=(python3)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
((${#missing[@]})) || exit 0
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "installing what the tests need: ${missing[*]}" >&2
  install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
  apt-get update -qq
  if [[ " ${missing[*]} " == *' postgresql '* ]]; then
    # the tests make servers of their own: the package need not start one
    install postgresql-common
    sed -ri "s/^#?(create_main_cluster) .*$/\1 = false/" /etc/postgresql-common/createcluster.conf
  fi
  install "${missing[@]}"
else
  echo "the tests need ${missing[*]}: install them and run again" >&2
  exit 1
fi
