#!/bin/bash
# grid.sh FOLDER_OF_PROGRAMS [OUT_FOLDER [SECONDS]]: predictions against runs, by one command. Profiles this machine for two models (Qwen3-MoE and
# DeepSeek-V2-Lite in small, weights from a seed) in three formats; runs 1, 2, 5, 8 and 16 users with prompts of 32, 128 and 512 tokens on the CPU, and
# Q8_0 on a paced device with 0, 50 and 100 % of the experts there at depth 1 and 2; prints the signed table. SECONDS (default 900) is the time for all
# runs together; cells come in a scattered order, and what an earlier call has left in OUT_FOLDER is not run again. Runs on the CPU wait for memory
# to be read as fast as in the profile, nearly. Wants a quiet machine: chrt -r 10 keeps other programs away.
# OUT_FOLDER/profiles.csv and runs.csv are what tests/validation/grid-*.csv were made of.
set -euo pipefail
build=$(dirname "${1:?folder of the programs}") seconds=${3:-900}
out=${2:-$build/grid}
mkdir -p "$out"
# A machine that others share changes within minutes: each profile is made right before its cells.
for model in qwen3-moe deepseek-v2-lite; do
  for format in q8_0 q4_k bf16; do
    name=$model-$format
    if ! grep -qs "^$name,cores," "$out/profiles.csv"; then
      "$build/bin/hf-profile" --quick --db "$out/grid.db" --model "synth:tests/bench/grid-$model.json,format=$format" --name "$name" --quiet --json >/dev/null
      "$build/bench/bench_grid" rows "$out/grid.db" "$name" "$out/profiles.csv"
    fi
    "$build/bench/bench_grid" run "$out/grid.db" "$name" "$model" "$format" "$out/runs.csv" $((seconds / 12)) cpu
  done
  "$build/bench/bench_grid" run "$out/grid.db" $model-q8_0 $model q8_0 "$out/runs.csv" $((seconds / 4)) paced
done
"$build/bench/bench_grid" table "$out/profiles.csv" "$out/runs.csv"
