#!/bin/bash
# adapt.sh FOLDER_OF_PROGRAMS [ROUNDS]: hf-run --adapt on a paced device (paced-desk, 7.5 MiB, five users, depth 1) with the example model. The language of
# the texts changes after the first ones; the static plan is the one that hf-plan makes of the census of these. Also what the best static plan gives for the
# texts after the change, a bound for adapting, and a load that stays the same. In turn, ROUNDS times (default 3); about a minute a round; wants a
# quiet machine.
. tests/cli/lib.sh
tiny=examples/tiny-moe
rounds=${2:-3}
every=${EVERY:-1.5}
for kind in swedish code; do
  expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users 5 --context 256 --prompt-tokens 70 --output-tokens 64 --gpu paced:paced-desk:7.5M \
    --depth 1 --census $tiny/census.json --census-kind $kind --out "$tmp/$kind.json" --json --quiet
done
texts() { jq -c --arg d "$1" 'select(.domain == $d)' $tiny/prompts.jsonl; }
(texts swedish | sed -n 1,5p; texts code; texts code | sed -n 1,16p) >"$tmp/shift.jsonl" # 5 and 40
(texts code; texts code | sed -n 1,16p) >"$tmp/same.jsonl"

run() { # NAME PLAN PROMPTS MORE...
  expect_exit 0 "$bin/hf-run" --plan "$2" --model $tiny --prompts "$3" --max-tokens 64 --ignore-eos --quiet --json "${@:4}"
  jq -c --arg name "$1" '{name: $name, rate: .decode_tok_per_s, wall: .tok_per_s_wall, changes: (.adapt.changes // []), asked: (.adapt.asked // 0)}' "$out" >>"$tmp/runs"
}
for ((i = 0; i < rounds; i++)); do
  run static "$tmp/swedish.json" "$tmp/shift.jsonl"
  run adapt "$tmp/swedish.json" "$tmp/shift.jsonl" --adapt --adapt-every "$every"
  run bound "$tmp/code.json" "$tmp/same.jsonl"
  run same "$tmp/code.json" "$tmp/same.jsonl" --adapt --adapt-every "$every"
done
jq -rs '
  def med: sort | .[length / 2 | floor];
  def of($n; f): map(select(.name == $n) | f);
  def r: . * 10 | round / 10;
  def pct: . * 1000 | round / 10;
  (of("static"; .rate) | med) as $s | (of("static"; .wall) | med) as $w
  | "| load, plan | decode, tokens/s (all rounds) | median | with prompts, median | asked; changes: promised, measured, outcome |", "|---|---|---|---|---|",
    (["static", "adapt", "bound", "same"][] as $n | "| \($n) | \(of($n; .rate | r) | map(tostring) | join(", ")) | \(of($n; .rate) | med | r) | \(of($n; .wall) | med | r) | "
      + (of($n; "\(.asked); " + (.changes | map("\(.pairs) pairs \(.gain_expected | pct) %, " + (if .gain_measured then "\(.gain_measured | pct) %" else "-" end) + ", \(.outcome)") | join(" and "))) | join(" / ")) + " |"),
    "adapting against static: \((of("adapt"; .rate) | med) / $s - 1 | pct) % of decode, \((of("adapt"; .wall) | med) / $w - 1 | pct) % with prompts"' "$tmp/runs"
