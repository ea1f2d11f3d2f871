# The engine against known answers, second half of the families: as reference_families.sh, which also shows that wrong answers fail.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

for name in kimi_k2 qwen2_moe mixtral mixtral_gguf olmoe gpt_oss glm4_moe; do check_family "$name"; done

# Weights whose scales are tensors of their own, loaded as numbers; without being asked to a format that no kernel takes is refused, and the
# budget is that of what is loaded.
for name in deepseek_v3_fp8 kimi_k2_int4 gpt_oss_mxfp4; do check_family "$name" --dequantise f32; done
fp8=tests/golden/deepseek_v3_fp8
expect_error 2 'fp8 cannot be executed as they are; --dequantise bf16' "$bin/hf-run" --check-reference $fp8/reference.json --model $fp8
expect_error 2 'neither bf16 nor f32' "$bin/hf-run" --check-reference $fp8/reference.json --model $fp8 --dequantise f16
resident() {
  expect_exit 1 "$bin/hf-run" --check-reference $fp8/reference.json --model $fp8 --gpu virtual:1K --experts-on-gpu 100 --dequantise "$1" --json
  json '.budget[] | select(.what == "resident experts") | .bytes'
}
expect_same "$(resident f32)" "$(($(resident bf16) * 2))" "room of the experts, f32 and bf16"
for isa in $masks; do check $fp8 $fp8/reference.json --isa "$isa" --dequantise bf16 --activations fast --batch 5 --experts-on-gpu 50; done

# The benchmark knows every part of a family, and what a dequantised weight weighs.
read_per_token() { # MODEL OPTIONS...
  expect_exit 0 "$bin/hf-run" --bench --users 2 --output-tokens 2 --no-log --quiet --json --model "$@"
  json '.results[0].dram_bytes_per_token'
}
for name in kimi_k2 qwen2_moe mixtral olmoe gpt_oss glm4_moe; do
  expect_same "$(jq -n "$(read_per_token tests/golden/$name) > 10000")" true "bytes read by $name"
done
expect_same "$(jq -n "$(read_per_token $fp8 --dequantise f32) > 1.5 * $(read_per_token $fp8 --dequantise bf16)")" true "bytes read, f32 and bf16"

# What makes each of them itself is computed, not skipped: without it the answers are others.
cp -r tests/golden/gpt_oss tests/golden/glm4_moe tests/golden/mixtral "$tmp"
differs() { # MODEL FILTER: the config with this change does not pass
  jq "$2" "tests/golden/$1/config.json" >"$tmp/$1/config.json"
  expect_exit 1 "$bin/hf-run" --check-reference "tests/golden/$1/reference.json" --model "$tmp/$1" --json
  expect_json '.verdict == "failed"'
}
differs gpt_oss '.swiglu_limit = 100'
differs gpt_oss '.sliding_window += 1'
differs gpt_oss '.layer_types = [.layer_types[] | "full_attention"]'
differs glm4_moe '.partial_rotary_factor = 1 | del(.rope_parameters.partial_rotary_factor)'
differs mixtral '.rms_norm_eps = 1e-3'

echo "$n comparisons with known answers"
