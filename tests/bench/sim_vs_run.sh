#!/bin/bash
# sim_vs_run.sh FOLDER_OF_PROGRAMS [DEPTH]: simulated against executed. Runs the example model on a paced device, 1, 5 and 16 sequences at
# once with all requests waiting from the start, then Poisson arrivals at 70 % of what 5 sequences can serve; the simulator replays the
# same requests (arrival, prompt, output) under the same plan. Prints signed errors, simulated over executed. How often experts are chosen and how long
# stages take comes from a run of other prompts beforehand (--from-run), so that nothing of a run goes into its own prediction. About two
# minutes; wants a quiet machine.
. tests/cli/lib.sh
tiny=examples/tiny-moe
depth=${2:-1}
device=paced:paced-desk:${DEVICE_SIZE:-$((6 + 2 * depth))M} # deeper pipelines have more activation buffers

# prompts FROM COUNT: prompts of the nine kinds of text, well mixed; the first 90 are requests, the others calibrate
prompts() {
  jq -c -s --argjson from "$1" --argjson n "$2" '. as $all | [range($from; $from + $n) | $all[(. * 67 + 1) % ($all | length)]][]' $tiny/prompts.jsonl
}

plan() { # USERS DEPTH MORE...
  local users=$1 deep=$2
  shift 2
  expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users "$users" --context 224 --prompt-tokens 64 --output-tokens 48 \
    --gpu "$device" --depth "$((users < deep ? users : deep))" "$@" --out "$tmp/plan$users.json" --json --quiet
}

calibrate() {
  plan 5 1 --census $tiny/census.json
  prompts 90 50 | jq -c '{prompt, max_tokens: 48}' >"$tmp/others.jsonl"
  expect_exit 0 "$bin/hf-run" --plan "$tmp/plan5.json" --model $tiny --prompts "$tmp/others.jsonl" --ignore-eos --quiet --json --users 5
  calibration=$(jq .run_id "$out")
}

# requests COUNT [ARRIVALS]: answers of 24 to 72 tokens
requests() {
  prompts 0 "$1" | jq -c --slurpfile at "${2:-/dev/null}" -s 'to_entries[]
    | {id: "\(.key)", prompt: .value.prompt, max_tokens: (24 + (.key * 19) % 49), arrival_s: ($at[.key].arrival_s // 0)}' >"$tmp/requests.jsonl"
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

calibrate
echo "| load (depth $depth) | requests | TTFT p50: executed, error | p95 | TPOT p50: executed, error | p95 | tokens/s |"
echo "|---|---|---|---|---|---|---|"
for users in 1 5 16; do
  plan $users "$depth" --from-run "$calibration"
  requests $((users == 1 ? 10 : 5 * users))
  compare "$users at once" $users
done
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan5.json" --users 5 --prompt-tokens 64 --output-tokens 48 --json --quiet
rate=$(jq '0.7 * .requests_per_s' "$out")
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan5.json" --rate "$rate" --requests 60 --seed 4 --requests-out "$tmp/arrivals.unsorted" --json --quiet
jq -cs 'sort_by(.arrival_s)[]' "$tmp/arrivals.unsorted" >"$tmp/arrivals.jsonl"
requests 60 "$tmp/arrivals.jsonl"
compare "Poisson, 70 % of 5" 5
