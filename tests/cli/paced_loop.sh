# The closed loop on a paced device (every stage lasts at least as long as on the catalog's paced-desk, so the figures do not depend on this
# machine): plan for unknown routing, run one kind of text, plan again from the run's counts, run again. The experts that come in must
# be the ones that kind of text uses, and the gain must have the expected sign and lie within a factor of two.
. tests/cli/lib.sh
tiny=examples/tiny-moe

run() { # PLAN: sets rate
  expect_exit 0 "$bin/hf-run" --plan "$1" --model $tiny --prompts $tiny/prompts.jsonl --where domain=swedish --limit 5 --max-tokens 96 --ignore-eos --quiet --json
  expect_json '.decode_tok_per_s > 0 and .signed_error.decode_tok_per_s != null and .run_id > 0'
  note_others
  rate=$(json .decode_tok_per_s)
}

# Old and new plan in turn, three pairs: the median of the ratios is what a busy moment of this machine spoils least. When it is out of bounds
# four more pairs decide, all seven together.
pairs() { # HOW_MANY
  local i before
  for ((i = 0; i < $1; i++)); do
    run "$tmp/plan1.json"
    before=$rate
    run "$tmp/plan2.json"
    ratios="$ratios $(jq -n "$rate / $before")"
  done
  measured=$(tr ' ' '\n' <<<"$ratios" | sed '/^$/d' | sort -n | sed -n "$(($(wc -w <<<"$ratios") / 2 + 1))p")
}
in_bounds() {
  jq -en --argjson ratio "$measured" --argjson gain "$gain" '($ratio - 1) as $m | $m > 0 and $m > $gain / 2 and $m < $gain * 2' >/dev/null
}

loop() {
  ratios=
  run "$tmp/plan1.json"
  expect_exit 0 "$bin/hf-plan" plan --from-run latest --depth 1 --out "$tmp/plan2.json" --json --quiet
  expect_json '.changes.moved > 0'
  gain=$(json .changes.gain_expected)
  wrong="expected gain $gain where more than 0.1 is expected"
  jq -en "$gain > 0.1" >/dev/null || return 1
  # What came in is chosen more often in Swedish text (census of all prompts of that kind) than what went out.
  jq -e --slurpfile census $tiny/census.json '
    [.changes.layers[] | $census[0].swedish.counts["\(.layer)"] as $c | {in: [.in[] | $c[.]], out: [.out[] | $c[.]]}]
    | (map(.in[]) | add / length) > 1.5 * (map(.out[]) | add / length)' "$out" >/dev/null || fail "experts moved that Swedish text does not use"
  pairs 3
  if ! in_bounds; then pairs 4; fi
  wrong="expected gain $gain, measured ratios $ratios"
  in_bounds
}

expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users 5 --context 224 --prompt-tokens 70 --output-tokens 96 \
  --gpu paced:paced-desk:7.5M --depth 1 --out "$tmp/plan1.json" --json --quiet
settle loop
echo "expected gain $(jq -n "$gain * 1000 | round / 10") %, measured $(jq -n "($measured - 1) * 1000 | round / 10") % (ratios $ratios)"
