#!/bin/bash
# tools/fuzz.sh BUILD_FOLDER SECONDS: runs every libFuzzer program of the build folder that long, from the repository root.
set -euo pipefail
build=$1 seconds=$2 failed=0 found=0
export ASAN_OPTIONS=allocator_may_return_null=1 # an absurd size is refused by the code under test, not by the sanitizer
mkdir -p "$build/findings"
for program in "$build"/fuzz/fuzz_*; do
  if [ ! -x "$program" ]; then continue; fi
  found=1
  name=${program##*/fuzz_}
  mkdir -p "$build/corpus/$name"
  log=$build/findings/$name.log
  if "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -close_fd_mask=1 \
      -artifact_prefix="$build/findings/$name-" "$build/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
    echo "fuzz $name: good, $(awk '/number_of_executed_units/ { print $2 }' "$log") inputs in $seconds s"
  else
    failed=1
    echo "fuzz $name: FAILED, see $log:" >&2
    grep -m 3 -E 'ERROR|SUMMARY|runtime error|Test unit written' "$log" >&2 || tail -n 5 "$log" >&2
  fi
done
if [ $found = 0 ]; then echo "fuzz: no program in $build/fuzz" >&2; exit 1; fi
exit $failed
