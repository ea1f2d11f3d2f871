# wide_common.sh: a small model whose experts are as wide as asked, three prompts of ids and what hf-run answers them; sourced after lib.sh, which gives
# $bin and $tmp.
# shellcheck shell=bash

wide_model() { # WIDTH: $tmp/wide.json, for synth:
  jq -n --argjson ff "$1" '{model_type: "qwen3_moe", num_hidden_layers: 2, hidden_size: 256, vocab_size: 300, num_attention_heads: 2,
    num_key_value_heads: 1, head_dim: 128, moe_intermediate_size: $ff, intermediate_size: 256, num_experts: 6, num_experts_per_tok: 2,
    norm_topk_prob: true, max_position_embeddings: 512}' >"$tmp/wide.json"
}
for i in 1 2 3; do echo "{\"id\":\"$i\",\"ids\":[$i,7,9,$((i + 20)),100]}"; done >"$tmp/prompts.jsonl"
tokens() { # MODEL options...
  local model=$1
  shift
  expect_exit 0 "$bin/hf-run" --model "$model" --prompts "$tmp/prompts.jsonl" --max-tokens 6 --ignore-eos --quiet --out "$tmp/o" --json "$@"
  jq -c '[.id, .ids]' "$tmp/o" | sort
}
