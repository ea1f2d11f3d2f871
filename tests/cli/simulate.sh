# hf-plan simulate: a plan under every kind of load, answers that agree with each other, and one clear error for what is wrong.
. tests/cli/lib.sh

expect_exit 0 "$bin/hf-plan" plan --model examples/tiny-moe --machine paced-desk --users 4 --context 128 --prompt-tokens 40 --output-tokens 24 \
  --gpu paced:paced-desk:8M --out "$tmp/plan.json" --trace "$tmp/plan-trace.json" --json --quiet
jq -e '[.traceEvents[] | select(.ph == "X")] | length > 100 and all(.dur > 0 and .ts >= 0)' "$tmp/plan-trace.json" >/dev/null || fail "no stages in the trace"
simulate() { expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan.json" --json "$@"; }

# The plan's own load, in the same places of the answer; equal seeds give equal answers.
simulate --seed 3 --spread 0.5
expect_json '.requests == 80 and .ttft_s.p50 > 0 and .tpot_s.p50 > 0 and ([.ttft_s, .tpot_s, .e2e_s] | all(.p50 <= .p90 and .p90 <= .p95 and .p95 <= .p99))'
cp "$out" "$tmp/first.json"
simulate --seed 3 --spread 0.5
cmp -s "$out" "$tmp/first.json" || fail "equal seeds, different answers"

# A plan is anybody's file: what it says of itself does not reach the terminal as it is.
jq '.machine = "desk\u001b[31m"' "$tmp/plan.json" >"$tmp/odd.json"
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/odd.json"
if grep -q "$(printf '\033')" "$out"; then fail "an escape sequence of a plan is printed"; fi

# A stored plan by its number; rates; goodput within the limits falls as the rate rises.
expect_exit 0 "$bin/hf-plan" simulate --plan 1 --rate 0.5 --requests 200 --slo-ttft 0.25 --slo-tpot 0.02 --json
expect_json '.question.plan_id == 1 and .goodput > 0.9 and .waiting < 0.1'
expect_json '.overloaded == false and .capacity_requests_per_s > 0.5'
cap=$(json .capacity_requests_per_s)
expect_exit 1 "$bin/hf-plan" simulate --plan 1 --rate "$(jq -n "$cap * 1.01")" --requests 200 --json
expect_json '.overloaded and .requests == 200'
expect_stderr_line '^hf-plan: overloaded: at most [0-9.e+]+ requests per minute fit'
# Beyond the capacity the queue grows with the number of requests, below it does not: the capacity is no guess.
expect_exit 1 "$bin/hf-plan" simulate --plan 1 --rate "$(jq -n "$cap * 1.3")" --requests 2000 --json
expect_json --argjson c "$cap" '.max_waiting > 200 and ((.requests_per_s / $c) - 1 | fabs < 0.1)'
expect_exit 0 "$bin/hf-plan" simulate --plan 1 --rate "$(jq -n "$cap * 0.7")" --requests 2000 --json
expect_json '.max_waiting < 100'
expect_exit 1 "$bin/hf-plan" simulate --plan 1 --rate 50 --requests 200 --slo-ttft 0.25 --slo-tpot 0.02 --json
expect_json '.goodput < 0.2 and .max_waiting > 50'
for kind in "--rate 4 --cv 3" "--rate 4 --burst-on 2 --burst-off 6" "--users 9 --think-mean 1 --duration 20" "--rate 4 --lengths lognormal --length-cv 1" \
  "--rate 4 --prefix-share 0.5" "--rate 4 --sample-routing" "--rate 4 --resolution steps" "--rate 4 --depth 1 --slots 2"; do
  # shellcheck disable=SC2086
  simulate $kind --gpu-idle-w 20 --gpu-active-w 200 --cpu-idle-w 50 --cpu-active-w 150
  expect_json '.requests > 20 and .tok_per_s > 0 and .joule_per_token > 0 and all(.resources[]; .busy >= 0 and .busy <= 1)'
done

# More users than the plan has places: who waits is said, and nothing where nobody does.
places=$(jq -n "$(sqlite3 "$HETEROFLOW_DB" "select users from plan where id = 1")")
simulate --users $((places + 3))
expect_json --argjson n "$places" '.question.max_seqs == $n and (.question.load | contains("; \($n) places for \($n + 3) users, so 3 wait at any time"))'
expect_exit 0 "$bin/hf-plan" simulate --plan 1 --users $((places + 3))
expect_stdout_line "^  load: .*; $places places for $((places + 3)) users, so 3 wait at any time"
simulate --users "$places"
expect_json '.question.load | test("places") | not'

# Requests written down and read again are the same load.
simulate --rate 3 --requests 50 --requests-out "$tmp/requests.jsonl"
p95=$(json .ttft_s.p95)
jq -cs 'sort_by(.arrival_s)[]' "$tmp/requests.jsonl" >"$tmp/sorted.jsonl"
simulate --trace "$tmp/sorted.jsonl"
expect_json ".requests == 50 and (.ttft_s.p95 - $p95 | fabs) < 1e-6"
printf 'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,37,44\n2023-11-16 18:15:47.99,39,10\n2023-11-16 18:15:51,8790,55\n' >"$tmp/azure.csv"
simulate --trace "$tmp/azure.csv" --chrome "$tmp/chrome.json"
expect_json '.requests == 2 and .refused == 1 and .resolution == "layers"'
jq -e '.traceEvents | length > 100' "$tmp/chrome.json" >/dev/null || fail "no Chrome trace"
# each gap of it is named, and busy and idle time add up, as hf-run --trace tells of a run
expect_json '.trace as $t | [.trace.resources[] | (.busy_s + ([.waits_for[].idle_s] | add // 0)) / $t.span_s] | length >= 2 and all(. > 0.999 and . < 1.001)'
expect_json '[.trace.resources[] | select(.resource == "cpu").waits_for[].what] | index("attention") != null'
jq -e '[.traceEvents[] | select(.cat == "idle").args.waits_for] | length > 20' "$tmp/chrome.json" >/dev/null || fail "gaps without a name"
simulate --users 2 --requests-per-user 1 --resolution steps --chrome "$tmp/steps.json"
expect_json 'has("trace") | not'
jq -e '[.traceEvents[] | select(.ph == "M").args.name] | length >= 1 and all(startswith("micro-batch "))' "$tmp/steps.json" >/dev/null || fail "lanes of whole steps"
expect_error 2 'option --chrome: .*nowhere/x.json: cannot be written' "$bin/hf-plan" simulate --plan 1 --users 2 --chrome "$tmp/nowhere/x.json"

# Two, four and eight machines over a network of the catalog: experts are where the plan placed them, and the load is delivered as the plan says.
last=0
for others in 1 3 7; do
  remote=$(printf 'paced-desk:100gbe,%.0s' $(seq $others))
  expect_exit 0 "$bin/hf-plan" plan --model examples/tiny-moe --machine paced-desk --remote "${remote%,}" --users 16 --context 256 --gpu none \
    --out "$tmp/machines.json" --no-store --json
  delivered=$(json .sustained.tok_per_s)
  expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/machines.json" --json
  expect_json --argjson d "$delivered" --argjson last $last '(.tok_per_s / $d - 1 | fabs) < 1e-6 and .tok_per_s > $last'
  last=$(json .tok_per_s)
done

expect_error 2 'one of them says how requests arrive' "$bin/hf-plan" simulate --plan 1 --rate 1 --users 2
expect_error 2 'option --plan: missing' "$bin/hf-plan" simulate --rate 1
expect_error 2 'none of auto, layers, steps' "$bin/hf-plan" simulate --plan 1 --resolution fine
expect_error 2 'needs columns' "$bin/hf-plan" simulate --plan 1 --trace <(printf 'a,b\n1,2\n')
expect_error 2 'empty: no requests; wanted are JSON Lines with arrival_s, .*columns for arrival' "$bin/hf-plan" simulate --plan 1 --trace /dev/null
expect_error 2 'no request follows the names' "$bin/hf-plan" simulate --plan 1 --trace <(printf 'arrival_s,prompt_tokens,output_tokens\n')
expect_error 2 'none of its 1 requests has a token of prompt' "$bin/hf-plan" simulate --plan 1 --trace <(printf 'arrival_s,prompt_tokens,output_tokens\n0,0,5\n')
expect_error 2 'No such file' "$bin/hf-plan" simulate --plan 1 --trace "$tmp/nowhere.csv"
expect_error 2 '.' "$bin/hf-plan" simulate --plan 99 --rate 1
expect_error 1 'too few' "$bin/hf-plan" simulate --plan 1 --prompt-tokens 4000

# ---- conversations: what is parked is read back, what is not is computed again ----
park() { expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/plan.json" --sessions 20 --slots 2 --prompt-tokens 20 --output-tokens 8 --requests-per-user 4 --json "$@"; }
park --standby none
expect_json '.question.sessions and .requests == 80 and (.parking | .restored_tokens == 0 and .mirror_pages == 0 and .computed_tokens > 3000 and .pages_lost == 0)'
cp "$out" "$tmp/none.json"
park --standby ram
expect_json '.parking | .mirror_pages == 20 * 8 + 2 and .restored_tokens > 2000 and .left_out_pages == 0 and .pages_lost == 0 and .slots_lost == 0 and .resume_s > 0'
expect_json --slurpfile n "$tmp/none.json" '.wall_s < $n[0].wall_s and .ttft_s.p50 < $n[0].ttft_s.p50 and .prompt_tokens == $n[0].prompt_tokens and .parking.computed_tokens < $n[0].parking.computed_tokens'
park --standby ram --parked 3 # less room than conversations
expect_json '.parking | .mirror_pages == 5 * 8 + 2 and .slots_lost == 0'
park --standby ram --shared-prompt 40 --turns 2
expect_json '.question.turns == 2 and .question.shared_prompt_tokens == 40 and .parking.shared_tokens > 32 * 19'
# the plan's own mirror, and a trace whose lines have a session
expect_exit 0 "$bin/hf-plan" plan --model examples/tiny-moe --machine paced-desk --users 2 --context 128 --prompt-tokens 40 --output-tokens 24 \
  --gpu paced:paced-desk:8M --standby ram --parked 18 --out "$tmp/mirror.json" --json --quiet
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/mirror.json" --sessions 20 --prompt-tokens 20 --output-tokens 8 --requests-per-user 4
expect_stdout_line 'prompts +[0-9]+ tokens: [0-9]+ shared, [0-9]+ read back from the KV mirror'
jq -nc 'range(3) as $t | range(20) as $s | {arrival_s: ($t * 30 + $s), session: "\($s)", prompt_tokens: (20 + 28 * $t), output_tokens: 8}' >"$tmp/talk.jsonl"
expect_exit 0 "$bin/hf-plan" simulate --plan "$tmp/mirror.json" --trace "$tmp/talk.jsonl" --json
expect_json '.requests == 60 and .parking.restored_tokens + .parking.shared_tokens == 20 * (27 + 55)'
for bad in "--turns 3" "--shared-prompt 9" "--sessions 4 --rate 1" "--sessions 4 --prefix-share 0.5" "--standby ram" "--sessions 4 --standby disk" "--sessions 4 --parked 5"; do
  # shellcheck disable=SC2086
  expect_error 2 '^hf-plan: ' "$bin/hf-plan" simulate --plan "$tmp/plan.json" $bad
done
# what lies on other machines is said so, and their price counts; roi counts one machine's only and says so
expect_exit 0 "$bin/hf-plan" plan --model examples/tiny-moe --machine epyc9654-1s-rtx4090 --remote epyc9654-1s-rtx4090:100gbe --users 16 --context 256 --out "$tmp/far.json"
expect_stdout_line 'experts on the device .*on the CPU of 1 other machine, the rest on the CPU'
expect_stdout_line 'hardware +about [0-9]+ USD for 2 machines without their network'
expect_exit 0 "$bin/hf-plan" plan --model examples/tiny-moe --machine epyc9654-1s-rtx4090 --users 16 --context 256 --json --no-store
one=$(json .hardware.price_usd.likely)
jq -e --argjson one "$one" '.hardware | .machines == 2 and .price_usd.likely == 2 * $one' "$tmp/far.json" >/dev/null || fail "the price of two machines"
expect_error 2 'far.json has experts on 1 other machine, whose price' "$bin/hf-plan" roi --plan "$tmp/far.json"
