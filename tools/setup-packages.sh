#!/bin/bash
# Installs the Debian packages that building needs, only when some are missing.
#   tools/setup-packages.sh [lint] [fuzz] [pages]     also those that the named targets need; pages: a browser, for tests/cli/pages.sh
set -euo pipefail

packages="build-essential cmake ninja-build pkg-config libglpk-dev libsqlite3-dev libnuma-dev libcjson-dev libpcre2-dev
          libdnnl-dev libcmocka-dev libjs-chart.js coinor-cbc jq sqlite3 libopenmpi-dev openmpi-bin"
for group in "$@"; do
  case $group in
    lint) packages+=" clang-format universal-ctags" ;;
    fuzz) packages+=" clang libclang-rt-14-dev" ;;
    pages) packages+=" chromium fonts-dejavu-core" ;;
    *) echo "setup-packages: unknown group '$group' (lint, fuzz and pages are known)" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "setup-packages: no Debian package system here; these packages, or their like, must be installed:" $packages >&2
  exit 0
fi
missing=""
for p in $packages; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) || state=none
  if [ "$state" != installed ]; then missing+=" $p"; fi
done
if [ -z "$missing" ]; then exit 0; fi

as_root=()
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup-packages: missing:$missing" >&2
    echo "setup-packages: installing needs root: run 'apt-get install$missing' as root, then make again" >&2
    exit 3
  fi
  as_root=(sudo)
fi

echo "Installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; }
# Without the package lists of today an install fails on any machine that has been standing for a while.
if ! apt update; then
  echo "setup-packages: apt-get update failed (trying to install with the lists that are there):" >&2
  tail -n 5 "$log" >&2
fi
# shellcheck disable=SC2086
if ! apt install --no-install-recommends -y $missing; then
  tail -n 20 "$log" >&2
  echo "setup-packages: apt-get could not install$missing" >&2
  exit 3
fi
