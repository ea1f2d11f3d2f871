# hf-run when its device is lost: the same answers, one line that says so, the loss in --json, in the database and predicted against measured;
# faults that cannot be rehearsed are refused.
. tests/cli/lib.sh
tiny=examples/tiny-moe
"$bin/hf-profile" --quick --model $tiny --quiet --json >/dev/null
# 40 tokens: the 45th of shakespeare-04 has a margin of 0.002, which the order of sums on the CPU and on a device decides.
ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 40 --ignore-eos --gpu virtual:7M --depth 1 --json)
answers() { jq -c '[.id, .ids]' "$1" | sort; }
expect_exit 0 "$bin/hf-run" "${ask[@]}" --quiet --out "$tmp/want.jsonl"
expect_json 'has("losses") | not'

for fault in error@300 hang@700 signal@200 'slow*2@100' memory@20; do
  expect_exit 0 "$bin/hf-run" "${ask[@]}" --fault "$fault" --device-deadline 0.3 --out "$tmp/${fault%%[*@]*}.jsonl"
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/${fault%%[*@]*}.jsonl")" "answers with $fault"
  case $fault in
  slow*) expect_json 'has("losses") | not' ;;
  memory*) expect_json '(has("losses") | not) and .signed_error == null and .depth == 1 and (.unlike_plan | test("device none"))' ;;
  *)
    expect_json '.losses | length == 1 and (.[0] | .requests == 5 and .tokens_again >= 0 and .recovery_s > 0 and .at_s >= 0 and .why != "")'
    expect_json '.after_loss | .plan_id > 0 and .predicted_decode_tok_per_s > 0 and .decode_tok_per_s > 0 and has("signed_error")'
    expect_json '.signed_error == null and (.unlike_plan | test("lost"))'
    expect_stderr_line 'the device was lost \(.+\).* 5 requests go on on the CPU'
    expect_same "$(sqlite3 "$HETEROFLOW_DB" "select kind, recovery_ns > 0, detail like 'device lost: %' from event where run_id = $(json .run_id)")" 'fault|1|1' "$fault: row of the event"
    expect_same "$(sqlite3 "$HETEROFLOW_DB" "select gpu from plan where id = $(json .after_loss.plan_id)")" none "plan without the device"
    ;;
  esac
done
expect_stderr_line 'the device cannot be used \(.*upload failed|the device cannot be used \(.*allocation failed'

# For people, too: the rate after the loss beside what the plan without the device said, which is what hf-plan whatif foretells of the loss.
expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 40 --ignore-eos --gpu virtual:7M --depth 1 --fault error@300 --out "$tmp/people.jsonl"
said=$(sed -n 's/^ *decode after the loss *\([0-9.]*\) *[0-9.]* tokens.s *[+-][0-9.]* %$/\1/p' "$out")
[ -n "$said" ] || fail "no line of the rate after the loss"
load=$(sqlite3 "$HETEROFLOW_DB" "select '--users ' || users || ' --context ' || context from plan where gpu = 'none' order by id desc limit 1")
# shellcheck disable=SC2086
expect_exit 0 "$bin/hf-plan" whatif --model $tiny --gpu virtual:7M $load --prompt-tokens 52 --output-tokens 48 --set lost=gpu0 --json
expect_json --argjson said "$said" '.cases[0] | .name == "lost=gpu0" and ((.decode_tok_per_s.likely / $said - 1) | fabs < 0.01)'
# shellcheck disable=SC2086
expect_error 2 '^hf-plan: .*lost=gpu0: .* has 0 GPUs' "$bin/hf-plan" whatif --model $tiny --gpu none $load --set lost=gpu0

# A device that computes wrongly: found by its check, and what was written since is written again; marked where somebody has read it.
expect_exit 0 "$bin/hf-run" "${ask[@]}" --fault wrong@300 --check-every 0.001 --out "$tmp/wrong.jsonl"
expect_json '.losses[0] | (.why | test("check")) and .suspect_requests == 0 and .retracted_tokens >= 0'
expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/wrong.jsonl")" "answers of a device that computes wrongly"
expect_exit 0 "$bin/hf-run" "${ask[@]}" --fault wrong@300 --stream --out "$tmp/wrong.jsonl"
expect_json '.losses[0].suspect_requests == 5'
expect_stderr_line 'computed wrongly .*5 answers are marked suspect'
expect_same "$(jq -s 'map(.suspect) | unique == [true]' "$tmp/wrong.jsonl")" true "answers marked"
expect_exit 0 "$bin/hf-run" "${ask[@]}" --quiet --resume --out "$tmp/wrong.jsonl" # suspect answers are not kept
expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/wrong.jsonl")" "answers of the second run"

# One that answers again is filled beside the requests and taken back: the same answers, told in lines, in --json, in the database and on the page.
more=(--model $tiny --prompts $tiny/prompts.jsonl --batch 60 --users 5 --max-tokens 40 --ignore-eos --gpu virtual:7M --depth 2)
expect_exit 0 "$bin/hf-run" "${more[@]}" --json --quiet --out "$tmp/want60.jsonl"
for standby in none ram; do
  expect_exit 0 "$bin/hf-run" "${more[@]}" --json --standby $standby --fault error@900,back@2 --probe-every 0.005 --check-every 0.05 --out "$tmp/back-$standby.jsonl"
  expect_same "$(answers "$tmp/want60.jsonl")" "$(answers "$tmp/back-$standby.jsonl")" "answers of a device that came back, mirror $standby"
  expect_json '.losses | length == 1 and (.[0].back | .device == 0 and .probes == 4 and .at_s > 0 and .standstill_s > 0 and .loaded_bytes > 0)'
  expect_json '.after_return | .decode_tok_per_s > 0 and .predicted_decode_tok_per_s > 0 and has("signed_error")'
  expect_stderr_line 'gpu0 answers again \(asked 4 times\)'
  expect_same "$(sqlite3 "$HETEROFLOW_DB" "select kind, recovery_ns > 0, detail like '%gpu0 taken back: asked 4 times%predicted)' from event where run_id = $(json .run_id) and kind = 'recovery'")" 'recovery|1|1' "row of the return"
done
run=$(json .run_id)
expect_exit 0 "$bin/hf-report" run "$run" --html "$tmp/back.html" --quiet
grep -q 'gpu0 taken back' "$tmp/back.html" || fail "the page does not say that the device is back"

for bad in error error@0 error@5,back error@5,back@0 error@5,back@x error@5:gpu0,back@2 boom@5 hang@x slow@5 'slow*0.5@5' 'error*2@5' @5; do
  expect_error 2 '^hf-run: --fault: ' "$bin/hf-run" "${ask[@]}" --quiet --fault "$bad"
done
expect_error 2 '^hf-run: --fault: .*there is none' "$bin/hf-run" --model $tiny --prompt x --gpu none --quiet --fault error@5
echo ok
