# Long prompts of a model with latent attention: computed plain where that is less work, with the same logits whatever is in the step beside them and
# wherever their chunks are cut by neighbours; another form of attention is another rounding, so that the forms can be told apart.
. tests/cli/lib.sh

jq '.num_hidden_layers = 2 | .hidden_size = 256 | .intermediate_size = 256 | .moe_intermediate_size = 128 | .n_routed_experts = 8 | .num_experts_per_tok = 2
  | .num_attention_heads = 4 | .num_key_value_heads = 4 | .vocab_size = 512' tests/bench/grid-deepseek-v2-lite.json >"$tmp/config.json"
model="synth:$tmp/config.json,format=q8_0,seed=1"
jq -nc '[300, 190, 520, 37, 410] | to_entries[] | .value as $n | .key as $k | {id: "\($k)", ids: [range($n) | (. * 7919 + $k * 104729) % 500 + 2], max_tokens: 4}' >"$tmp/prompts.jsonl"

answers() { # OUT OPTIONS...
  expect_exit 0 "$bin/hf-run" --model "$model" --prompts "$tmp/prompts.jsonl" --ignore-eos --logprobs 1 --quiet --json --out "$@"
  jq -c '[.id, .ids, .logprobs]' "$1" | sort
}

alone=$(answers "$tmp/alone.jsonl" --gpu none --batch 1 --chunk 256 --threads 1)
for options in "--batch 5 --chunk 256" "--batch 5 --threads 2 --chunk 128" "--batch 3 --threads 2 --no-shared-prefixes --chunk 512" "--batch 5 --chunk 131"; do
  # shellcheck disable=SC2086
  expect_same "$alone" "$(answers "$tmp/other.jsonl" --gpu none $options)" "answers with $options"
done
absorbed=$(answers "$tmp/absorbed.jsonl" --gpu none --batch 1 --chunk 256 --mla absorbed)
[ "$absorbed" != "$alone" ] || fail "long prompts are not computed plain"
# The short prompt is absorbed either way.
expect_same "$(jq -c 'select(.id == "3") | [.ids, .logprobs]' "$tmp/alone.jsonl")" "$(jq -c 'select(.id == "3") | [.ids, .logprobs]' "$tmp/absorbed.jsonl")" "the short prompt"
expect_error 2 '--mla' "$bin/hf-run" --model "$model" --prompts "$tmp/prompts.jsonl" --mla half --quiet
