# The engine against known answers of checkpoints whose weights have scales in tensors of their own: FP8, INT4, MXFP4.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

# As they are, and FP8 loaded as numbers; the budget is that of what is loaded.
for name in deepseek_v3_fp8 kimi_k2_int4 gpt_oss_mxfp4; do check_family "$name"; done
check_family deepseek_v3_fp8 --dequantise f32
fp8=tests/golden/deepseek_v3_fp8
expect_error 2 'neither bf16 nor f32' "$bin/hf-run" --check-reference $fp8/reference.json --model $fp8 --dequantise f16
resident() {
  expect_exit 1 "$bin/hf-run" --check-reference $fp8/reference.json --model $fp8 --gpu virtual:1K --experts-on-gpu 100 --dequantise "$1" --json
  json '.budget[] | select(.what == "resident experts") | .bytes'
}
expect_same "$(resident f32)" "$(($(resident bf16) * 2))" "room of the experts, f32 and bf16"
for isa in $masks; do check $fp8 $fp8/reference.json --isa "$isa" --dequantise bf16 --activations fast --batch 5 --experts-on-gpu 50; done

# The benchmark knows what a dequantised weight weighs.
read_per_token() { # MODEL OPTIONS...
  expect_exit 0 "$bin/hf-run" --bench --users 2 --output-tokens 2 --no-log --quiet --json --model "$@"
  json '.results[0].dram_bytes_per_token'
}
expect_same "$(jq -n "$(read_per_token $fp8 --dequantise f32) > 1.5 * $(read_per_token $fp8 --dequantise bf16)")" true "bytes read, f32 and bf16"

echo "$n comparisons with known answers"
