#!/bin/bash
# sessions.sh FOLDER_OF_PROGRAMS [DEPTH]: conversations simulated against executed. On a paced device 50 named users of whom 5 are at once have three turns each
# (a load whose turns come at times of their own, then one where everybody asks again at once), with a KV mirror that parks them and without one; hf-plan
# simulates the same requests under the same plan. Prints signed errors, simulated over executed, and what the mirror is worth, predicted and
# measured. Routing counts and stage times come from a run of other prompts beforehand. About three minutes; wants a quiet machine.
. tests/cli/lib.sh
tiny=examples/tiny-moe
depth=${2:-1}
users=5 sessions=${SESSIONS:-50} turns=3
device=paced:paced-desk:${DEVICE_SIZE:-$((6 + 2 * depth))M}

plan() { # DEPTH MORE...
  expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users $users --context 320 --prompt-tokens 64 --output-tokens 12 \
    --gpu "$device" --depth "$1" --standby ram --parked $((sessions - users)) --out "$tmp/plan.json" --json --quiet "${@:2}"
}

# talk GAP_S: turns of about 60 tokens and answers of 8 to 15; the next turn of a user comes GAP_S after the one before, at the soonest
talk() {
  jq -c -s --argjson gap "$1" --argjson n "$sessions" --argjson turns $turns '. as $all
    | [range($turns) as $t | range($n) as $s | {session: "user \($s)", id: "\($s)-\($t)", prompt: $all[(($t * $n + $s) * 67 + 1) % ($all | length)].prompt,
       max_tokens: (8 + ($s * 5 + $t * 7) % 8), arrival_s: ($gap * ($t + (($s * 37) % $n) / $n))}] | sort_by(.arrival_s)[]' $tiny/prompts.jsonl >"$tmp/talk.jsonl"
}

percentiles() { # FILE MEMBER -> [p50, p95], nearest rank
  jq -cs --arg m "$2" '[.[][$m] | select(. != null)] | sort | [.[((length * 50 + 99) / 100 | floor) - 1], .[((length * 95 + 99) / 100 | floor) - 1]]' "$1"
}

compare() { # NAME STANDBY
  expect_exit 0 "$bin/hf-run" --plan "$tmp/plan.json" --model $tiny --prompts "$tmp/talk.jsonl" --ignore-eos --quiet --json --users $users \
    --standby "$2" --check-every 0 --out "$tmp/run.jsonl"
  cp "$out" "$tmp/run.json"
  jq -cs 'sort_by(.arrival_s)[]' "$tmp/run.jsonl" >"$tmp/trace.jsonl"
  expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan.json" --trace "$tmp/trace.jsonl" --slots $users --standby "$2" --parked $((sessions - users)) --json --quiet
  cp "$out" "$tmp/sim-$2.json"
  cp "$tmp/run.json" "$tmp/run-$2.json"
  jq -rn --slurpfile s "$out" --slurpfile r "$tmp/run.json" --arg name "$1, standby $2" \
    --argjson ttft "$(percentiles "$tmp/run.jsonl" ttft_s)" --argjson tpot "$(percentiles "$tmp/run.jsonl" tpot_s)" '
    def off($p; $m): (($p / $m - 1) * 1000 | round / 10) as $e | "\(if $e >= 0 then "+" else "" end)\($e) %";
    $s[0] as $p | $r[0] as $m | ($m.standby.restored_tokens // 0) as $back
    | "| \($name) | \($ttft[0] * 1000 | round) ms, \(off($p.ttft_s.p50; $ttft[0])) | \(off($p.ttft_s.p95; $ttft[1])) | \($tpot[0] * 100000 | round / 100) ms, \(off($p.tpot_s.p50; $tpot[0])) | \(off($p.tpot_s.p95; $tpot[1])) | \($m.tok_per_s_wall * 10 | round / 10), \(off($p.tok_per_s; $m.tok_per_s_wall)) | \($m.prompt_tokens), \($p.parking.computed_tokens) | \($back), \($p.parking.restored_tokens) |"'
}

plan 1 --census $tiny/census.json
talk 0
jq -c 'del(.session) | .arrival_s = 0' "$tmp/talk.jsonl" | tail -n 50 >"$tmp/others.jsonl"
expect_exit 0 "$bin/hf-run" --plan "$tmp/plan.json" --model $tiny --prompts "$tmp/others.jsonl" --ignore-eos --quiet --json --users $users --standby none
plan "$depth" --from-run "$(jq .run_id "$out")"
echo "| $sessions users, $users at once, depth $depth | TTFT p50: executed, error | p95 | TPOT p50: executed, error | p95 | tokens/s: executed, error | prompt tokens computed: executed, simulated | read back: executed, simulated |"
echo "|---|---|---|---|---|---|---|---|"
for gap in ${GAPS:-16 0}; do
  talk "$gap"
  for standby in ram none; do compare "turns every $gap s" $standby; done
  jq -rn --slurpfile sr "$tmp/sim-ram.json" --slurpfile sn "$tmp/sim-none.json" --slurpfile rr "$tmp/run-ram.json" --slurpfile rn "$tmp/run-none.json" '
    "worth of the mirror in tokens/s: executed \($rr[0].tok_per_s_wall / $rn[0].tok_per_s_wall * 1000 | round / 1000), simulated \($sr[0].tok_per_s / $sn[0].tok_per_s * 1000 | round / 1000)"' >>"$tmp/worth"
done
cat "$tmp/worth"
