#!/bin/bash
# sim_vs_run.sh FOLDER_OF_PROGRAMS [DEPTH]: simulated against executed. Runs the example model on a paced device, 1, 5 and 16 sequences at
# once with all requests waiting from the start, then Poisson arrivals at 70 % of what 5 sequences can serve; the simulator replays the
# same requests (arrival, prompt, output) under the same plan. Prints signed errors, simulated over executed. Popularity of experts comes from
# the committed census of these prompts, so that nothing of a run goes into its prediction. About two minutes; wants a quiet machine.
. tests/cli/lib.sh
tiny=examples/tiny-moe
depth=${2:-1}
device=paced:paced-desk:${DEVICE_SIZE:-8M}

plan() { # USERS
  expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users "$1" --context 224 --prompt-tokens 64 --output-tokens 48 \
    --gpu "$device" --depth "$(($1 < depth ? $1 : depth))" --census $tiny/census.json --out "$tmp/plan$1.json" --json --quiet
}

# requests COUNT [ARRIVALS]: prompts of all kinds in turn, answers of 24 to 72 tokens
requests() {
  jq -c --slurpfile at "${2:-/dev/null}" -s --argjson n "$1" \
    '[limit($n; .[range(0; length; 13)], .[range(1; length; 13)], .[range(2; length; 13)], .[range(3; length; 13)], .[range(4; length; 13)])]
     | to_entries[] | {id: "\(.key)", prompt: .value.prompt, max_tokens: (24 + (.key * 19) % 49), arrival_s: ($at[.key].arrival_s // 0)}' \
    $tiny/prompts.jsonl >"$tmp/requests.jsonl"
}

percentiles() { # FILE MEMBER -> [p50, p95], nearest rank
  jq -cs --arg m "$2" '[.[][$m] | select(. != null)] | sort | [.[((length * 50 + 99) / 100 | floor) - 1], .[((length * 95 + 99) / 100 | floor) - 1]]' "$1"
}

compare() { # NAME USERS
  expect_exit 0 "$bin/hf-run" --plan "$tmp/plan$2.json" --model $tiny --prompts "$tmp/requests.jsonl" --ignore-eos --quiet --json --users "$2" \
    --out "$tmp/run.jsonl"
  cp "$out" "$tmp/run.json"
  expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan$2.json" --trace "$tmp/run.jsonl" --slots "$2" ${SAMPLE:+--sample-routing} --json --quiet
  jq -rn --slurpfile s "$out" --slurpfile r "$tmp/run.json" --arg name "$1" \
    --argjson ttft "$(percentiles "$tmp/run.jsonl" ttft_s)" --argjson tpot "$(percentiles "$tmp/run.jsonl" tpot_s)" '
    def off($p; $m): (($p / $m - 1) * 1000 | round / 10) as $e | "\(if $e >= 0 then "+" else "" end)\($e) %";
    $s[0] as $p | $r[0].tok_per_s_wall as $rate
    | "| \($name) | \($p.requests) | \($ttft[0] * 1000 | round) ms, \(off($p.ttft_s.p50; $ttft[0])) | \(off($p.ttft_s.p95; $ttft[1])) | \($tpot[0] * 100000 | round / 100) ms, \(off($p.tpot_s.p50; $tpot[0])) | \(off($p.tpot_s.p95; $tpot[1])) | \(if $rate then off($p.tok_per_s; $rate) else "" end) |"'
}

echo "| load (depth $depth) | requests | TTFT p50: executed, error | p95 | TPOT p50: executed, error | p95 | tokens/s |"
echo "|---|---|---|---|---|---|---|"
for users in 1 5 16; do
  plan $users
  requests $((users == 1 ? 10 : 5 * users))
  compare "$users at once" $users
done
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan5.json" --users 5 --prompt-tokens 64 --output-tokens 48 --json --quiet
rate=$(jq '0.7 * .requests_per_s' "$out")
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan5.json" --rate "$rate" --requests 60 --seed 4 --requests-out "$tmp/arrivals.unsorted" --json --quiet
jq -cs 'sort_by(.arrival_s)[]' "$tmp/arrivals.unsorted" >"$tmp/arrivals.jsonl"
requests 60 "$tmp/arrivals.jsonl"
compare "Poisson, 70 % of 5" 5
