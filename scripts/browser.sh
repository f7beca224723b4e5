#!/bin/sh
# Prints the path of a Chromium for the tests in test/browser. Where there is none, Debian's is installed, which takes root.
set -eu
for name in chromium chromium-browser google-chrome; do
  if found=$(command -v "$name"); then
    echo "$found"
    exit 0
  fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo 'there is no chromium: install one' >&2
  exit 1
fi
{
  apt-get update
  apt-get install -y --no-install-recommends chromium fonts-dejavu-core
} >&2
command -v chromium
