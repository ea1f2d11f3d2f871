# What hf-plan counts for weights in memory is what hf-run takes for them, to the byte: every family and format, odd numbers of rows, tied embeddings.
. tests/cli/lib.sh
grep -q avx2 /proc/cpuinfo || skip "no AVX2: hf-run uses no tiles here, hf-plan counts them"
unset HF_ISA
cat >"$tmp/odd.json" <<'JSON'
{"model_type": "qwen3_moe", "num_hidden_layers": 3, "hidden_size": 96, "vocab_size": 301, "num_attention_heads": 3, "num_key_value_heads": 1,
 "head_dim": 40, "moe_intermediate_size": 50, "intermediate_size": 70, "num_experts": 7, "num_experts_per_tok": 2, "norm_topk_prob": true,
 "decoder_sparse_step": 1, "mlp_only_layers": [0], "max_position_embeddings": 512}
JSON
jq '.tie_word_embeddings = true' "$tmp/odd.json" >"$tmp/tied.json"
jq '.hidden_size = 256 | .moe_intermediate_size = 256 | .num_attention_heads = 5 | .head_dim = 24' "$tmp/odd.json" >"$tmp/wide.json"
echo '{"id":"1","ids":[1,2,3]}' >"$tmp/p.jsonl"
compare() { # MODEL: a device too small for anything makes hf-run print its table
  expect_exit 1 "$bin/hf-run" --model "$1" --prompts "$tmp/p.jsonl" --gpu virtual:4K --json --quiet
  local run plan
  run=$(jq -c '[[.budget[] | select(.what == "attention, dense and shared weights").bytes], [.budget[] | select(.what == "experts on the CPU").bytes] | add]' "$out")
  expect_exit 0 "$bin/hf-plan" plan --model "$1" --machine epyc9654-1s-rtx4090 --gpu none --users 1 --context 64 --json --no-store
  plan=$(jq -c '[[.budget[] | select(.what | test("^(attention|embedding)")).bytes], [.budget[] | select(.what == "experts on the CPU").bytes] | add]' "$out")
  expect_same "$run" "$plan" "$1: bytes of hf-run and of hf-plan"
}
for format in bf16 f16 fp8 q8_0 f32; do
  compare "synth:$tmp/odd.json,format=$format"
  compare "synth:$tmp/tied.json,format=$format"
done
for format in q4_k iq4_xs mxfp4 nvfp4 iq2_xs q4_k_m; do compare "synth:$tmp/wide.json,format=$format"; done
for folder in tests/golden/*/config.json tests/golden/*_gguf/model.gguf; do compare "${folder%/config.json}"; done
# and the padding is there: 50 rows are counted as 64, 96 and 301 as 96 and 304
expect_exit 0 "$bin/hf-plan" plan --model "synth:$tmp/odd.json,format=bf16" --machine epyc9654-1s-rtx4090 --gpu none --users 1 --context 64 --json --no-store
expect_json '[.budget[] | select(.what == "experts on the CPU").bytes] == [2 * 7 * (2 * 64 * 96 * 2 + 96 * 50 * 2)]'
# Slices of experts on the nodes of a machine are the same bytes.
echo '{"nodes": [{"cpus": 1, "mem_bytes": 4294967296}, {"cpus": 1, "mem_bytes": 4294967296}]}' >"$tmp/nodes.json"
export HF_TOPOLOGY=$tmp/nodes.json
compare "synth:$tmp/odd.json,format=q8_0"
compare "synth:$tmp/wide.json,format=q4_k"
compare tests/golden/gpt_oss_mxfp4
