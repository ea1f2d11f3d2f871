#!/bin/bash
# Times every kernel variant (tests/bench/README.md). The program belongs to the tests, which a build may leave out.
set -euo pipefail
program=$1/../tests/check_kernels
if [ ! -x "$program" ]; then
  echo "kernels: check_kernels is not built; configure with -DBUILD_TESTING=ON" >&2
  exit 0
fi
"$program" --time
