# reference_common.sh: one comparison, and the instruction sets this machine has; sourced after lib.sh, which gives $bin.
# shellcheck shell=bash

n=0
check() { # MODEL REFERENCE OPTIONS...
  local model=$1 reference=$2
  shift 2
  expect_exit 0 "$bin/hf-run" --check-reference "$reference" --model "$model" --json "$@"
  expect_json '.verdict == "passed" and .prompts == .passed and .prompts > 0'
  n=$((n + 1))
}

masks="scalar"
for isa in avx2 avx512 avx512vnni avx512bf16; do
  if "$bin/hf-run" --check-reference tests/golden/qwen3_moe/reference.json --model tests/golden/qwen3_moe --isa "$isa" --json >/dev/null 2>&1; then
    masks="$masks $isa"
  fi
done
echo "instruction sets of this machine: $masks"
