#!/bin/bash
# Who computes a product is what was measured fastest: rows of a database decide, the plan names the candidate, hf-run says so and keeps to known
# answers; a machine without it computes with its own.
. tests/cli/lib.sh
run=$bin/hf-run plan=$bin/hf-plan
f32=tests/golden/mixtral_gguf q8=examples/tiny-moe

expect_exit 0 "$bin/hf-profile" --quick --only norm --threads 1
expect_stderr_line '^library for products of many tokens: oneDNN'
expect_stdout_line '^  library +oneDNN'
grep -q 'library for .* oneDNN [0-9.]*$' "$err" || skip "no oneDNN here: $(grep library "$err")"
machine=$(sqlite3 "$HETEROFLOW_DB" 'SELECT max(id) FROM machine')

# row KERNEL FORMAT CANDIDATE TOKENS NS
row() {
  sqlite3 "$HETEROFLOW_DB" "INSERT INTO kernel_curve VALUES ($machine, 'cpu', '$1', '$3', '$2', 'any', 64, 64, $4, 0, 1, '',
    $5, $5, $5, 0, 16384, 9, 'measured')"
}
# rows FORMAT OWN OTHER FACTOR: OTHER takes FACTOR of the time of OWN from 16 tokens on.
rows() {
  for kernel in matmul expert_ffn; do
    for t in 1 4 16 64; do row $kernel "$1" "$2" $t $((1000 * t)); done
    for t in 16 64; do row $kernel "$1" "$3" $t $((10 * t * $4)); done
  done
}
make_plan() { # MODEL [OPTIONS]
  local model=$1
  shift
  expect_exit 0 "$plan" plan --model "$model" --gpu none --threads 1 --users 1 --context 64 --prompt-tokens 40 \
    --output-tokens 24 --json "$@"
}
names() { jq -r '[.kernels[] | "\(.op) \(.format) \(.candidate) \(.tokens_lo)"] | join("; ")' "$out"; }

# ---- rows decide
rows f32 f32.avx2 f32.onednn 50
make_plan $f32/model.gguf
id=$(json .plan_id)
expect_same "$(names)" "matmul f32 f32.avx2 1; matmul f32 f32.onednn 16; expert_ffn f32 f32.avx2 1; expert_ffn f32 f32.onednn 16" \
  "kernels of the plan"
expect_exit 0 "$plan" plan --model $f32/model.gguf --gpu none --threads 1 --users 1 --context 64
expect_stdout_line '^  kernels +matmul in f32: f32.avx2; from 16 tokens f32.onednn$'
expect_exit 0 "$run" --check-reference $f32/reference.json --model $f32/model.gguf --plan "$id" --json
expect_json '.verdict == "passed"'
expect_json '.max_abs_logit_diff <= 5e-4 and .greedy_match == .greedy_total and .routing_match == .routing_total'
expect_stderr_line "the plan's kernels: matmul in f32 from 16 tokens by f32.onednn \(oneDNN [0-9.]+\)"
with=$(json .max_abs_logit_diff)
expect_exit 0 "$run" --check-reference $f32/reference.json --model $f32/model.gguf --json
[ "$with" != "$(json .max_abs_logit_diff)" ] || fail "the last bits are those of the own kernels: the library did not compute"

# ---- a machine that has it not: another instruction set, with one line
expect_exit 0 "$run" --check-reference $f32/reference.json --model $f32/model.gguf --plan "$id" --isa scalar --json
expect_stderr_line "no kernel 'f32.onednn' for f32; using the default"

# ---- four per cent are not worth other last bits
sqlite3 "$HETEROFLOW_DB" "DELETE FROM kernel_curve"
rows f32 f32.avx2 f32.onednn 96
make_plan $f32/model.gguf
expect_same "$(names)" "matmul f32 f32.avx2 1; expert_ffn f32 f32.avx2 1" "kernels of the plan"

# ---- what rounds more than the format's contract has it computes only when asked for, and within the tolerance of 8-bit activations
rows q8_0 q8_0.tile.avx2 q8_0.rounded.onednn 50
make_plan $q8/tiny-moe-q8_0.gguf
[[ $(names) != *rounded* ]] || fail "a rounding kernel that nobody asked for: $(names)"
without=$(json .predicted.ttft_s.p50)
make_plan $q8/tiny-moe-q8_0.gguf --rounded
id=$(json .plan_id)
[[ $(names) == *"expert_ffn q8_0 q8_0.rounded.onednn 16"* ]] || fail "kernels of the plan: $(names)"
jq -e --argjson a "$without" '.predicted.ttft_s.p50 < $a' "$out" >/dev/null || fail "the prediction does not know the faster kernel"
expect_exit 0 "$run" --check-reference $q8/reference-q8_0.json --model $q8/tiny-moe-q8_0.gguf --plan "$id" --activations fast --json
if [[ $(json .isa) == *+bf16* ]]; then
  expect_stderr_line "the plan's kernels: expert_ffn in q8_0 from 16 tokens by q8_0.rounded.onednn \(.*\), weights and activations rounded to BF16"
else
  expect_stderr_line "no kernel 'q8_0.rounded.onednn' for q8_0; using the default"
fi
