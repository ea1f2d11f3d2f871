#!/bin/bash
# tools/bench.sh BUILD_FOLDER: every benchmark program, then every tests/bench/*.sh (which gets the folder of the programs).
set -euo pipefail
build=$1 ran=0
for program in "$build"/bench/bench_*; do
  if [ ! -x "$program" ]; then continue; fi
  echo "== ${program##*/}"
  "$program"
  ran=1
done
for script in tests/bench/*.sh; do
  if [ ! -e "$script" ]; then continue; fi
  echo "== ${script##*/}"
  bash "$script" "$build/bin"
  ran=1
done
if [ $ran = 0 ]; then echo "bench: there is no benchmark" >&2; exit 1; fi
