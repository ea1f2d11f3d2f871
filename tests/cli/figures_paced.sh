# The headline figures of hf-run, recomputed from what else it prints: rate from the requests' own times, error from predicted and measured,
# bandwidth share from bytes and rate, bytes a token from the model's shape.
. tests/cli/lib.sh
tiny=examples/tiny-moe

near() { # A B TOLERANCE WHAT
  jq -en --argjson a "$1" --argjson b "$2" --argjson t "$3" '($a / $b - 1 | fabs) <= $t' >/dev/null || fail "$4: $1 and $2 differ by more than $3"
}

# Four users of equal load, each stage as long as on paced-desk: all decode together, so the rate is users over the time per token.
expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users 4 --context 64 --prompt-tokens 8 --output-tokens 40 \
  --gpu paced:paced-desk:32M --depth 1 --out "$tmp/plan.json" --quiet
for i in 1 2 3 4; do printf '{"id":"u%s","ids":[0,%s,30,40,50,60,70,80],"max_tokens":40}\n' $i $((10 + i)); done >"$tmp/p.jsonl"
together() { # the one figure here that the clock judges: whoever loses the CPU for a moment no longer decodes with the others
  expect_exit 0 "$bin/hf-run" --plan "$tmp/plan.json" --model $tiny --prompts "$tmp/p.jsonl" --ignore-eos --out "$tmp/out.jsonl" --quiet --json
  note_others
  tpot=$(jq -s '[.[].tpot_s] | sort | .[1]' "$tmp/out.jsonl")
  wrong="decode_tok_per_s $(json .decode_tok_per_s) against the requests' times of $tpot s"
  jq -en --argjson a "$(json .decode_tok_per_s)" --argjson t "$tpot" '($a * $t / 4 - 1 | fabs) <= 0.15' >/dev/null
}
settle together
near "$(json .tpot_s.p50)" "$tpot" 1e-6 "tpot_s.p50"
near "$(json .ttft_s.p50)" "$(jq -s '[.[].ttft_s] | sort | .[1]' "$tmp/out.jsonl")" 1e-6 "ttft_s.p50"
near "$(json '.signed_error.decode_tok_per_s + 1')" "$(json '.predicted.decode_tok_per_s.likely / .decode_tok_per_s')" 1e-9 "signed_error"
near "$(json '.signed_error.tpot_s + 1')" "$(json '.predicted.tpot_s.p50 / .tpot_s.p50')" 1e-9 "signed_error of TPOT"
expect_same "$(json .output_tokens)" 160 "output tokens"
run=$(json .run_id)
near "$(sqlite3 "$HETEROFLOW_DB" "select signed_error + 1 from run_error where run_id = $run and metric = 'decode_tok_per_s'")" \
  "$(json '.signed_error.decode_tok_per_s + 1')" 1e-6 "the database's view"

# The same load on another device is another run: no error is stated.
expect_exit 0 "$bin/hf-run" --plan "$tmp/plan.json" --model $tiny --prompts "$tmp/p.jsonl" --limit 2 --ignore-eos --quiet --json
expect_json '.signed_error == null and (.unlike_plan | test("2 at once, the plan is for 4"))'

# One user reads every dense matrix and top_k experts of each layer once a token: BF16, 2 bytes a weight.
expect_exit 0 "$bin/hf-profile" --quick --only experts --quiet --json
expect_exit 0 "$bin/hf-run" --bench --model $tiny --users 1,4 --output-tokens 16 --quiet --json
weights=$(jq '. as $c | ($c.hidden_size) as $d | ($c.num_attention_heads) as $h
  | ($d * $c.q_lora_rank + $c.q_lora_rank * $h * ($c.qk_nope_head_dim + $c.qk_rope_head_dim) + $d * ($c.kv_lora_rank + $c.qk_rope_head_dim)
     + $h * $c.kv_lora_rank * ($c.qk_nope_head_dim + $c.v_head_dim) + $h * $c.v_head_dim * $d) as $attn
  | $c.num_hidden_layers * $attn + 3 * $d * $c.intermediate_size + $c.vocab_size * $d
    + ($c.num_hidden_layers - 1) * ($d * $c.n_routed_experts + 3 * $d * $c.moe_intermediate_size * (1 + $c.num_experts_per_tok))' $tiny/config.json)
near "$(json '.results[0].dram_bytes_per_token')" "$(jq -n "2 * $weights")" 0.01 "bytes a token"
for i in 0 1; do
  near "$(json ".results[$i].bandwidth_fraction")" \
    "$(json ".results[$i] | .dram_bytes_per_token * .decode_tok_per_s / .dram_bytes_per_s")" 1e-9 "bandwidth_fraction"
  near "$(json ".results[$i].signed_error + 1")" "$(json ".results[$i] | .predicted_decode_tok_per_s / .decode_tok_per_s")" 1e-9 "signed_error of the benchmark"
done
