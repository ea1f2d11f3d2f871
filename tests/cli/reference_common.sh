# reference_common.sh: one comparison, a family's comparisons, and the instruction sets this machine has; sourced after lib.sh, which
# gives $bin.
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

# All comparisons of tests/golden/NAME: device x share of experts on it x depth x batch, every ISA mask, both activation modes.
check_family() { # NAME OPTIONS...
  local model=tests/golden/$1 ref=tests/golden/$1/reference.json depth batch share isa
  shift
  if [ -e "$model/model.gguf" ]; then model=$model/model.gguf; fi
  for depth in 1 2 3; do
    for batch in 1 5 16; do
      check "$model" "$ref" --gpu none --depth $depth --batch $batch "$@"
      for share in 0 50 100; do check "$model" "$ref" --gpu virtual:1G --experts-on-gpu $share --depth $depth --batch $batch "$@"; done
    done
  done
  for isa in $masks; do
    check "$model" "$ref" --isa "$isa" --batch 5 "$@"
    check "$model" "$ref" --isa "$isa" --activations fast --batch 5 --experts-on-gpu 50 --depth 2 "$@"
  done
}
