# The engine against known answers, second half of the families: as reference_families.sh, which also shows that wrong answers fail.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

for name in kimi_k2 qwen2_moe mixtral mixtral_gguf olmoe gpt_oss glm4_moe; do check_family "$name"; done

# The benchmark knows every part of a family.
read_per_token() { # MODEL OPTIONS...
  expect_exit 0 "$bin/hf-run" --bench --users 2 --output-tokens 2 --no-log --quiet --json --model "$@"
  json '.results[0].dram_bytes_per_token'
}
for name in kimi_k2 qwen2_moe mixtral olmoe gpt_oss glm4_moe; do
  expect_same "$(jq -n "$(read_per_token tests/golden/$name) > 10000")" true "bytes read by $name"
done

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
