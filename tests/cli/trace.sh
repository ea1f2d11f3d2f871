# hf-run --trace: every resource's time is accounted for, each idle gap names what it waits for, and the report shows it.
. tests/cli/lib.sh
tiny=examples/tiny-moe
"$bin/hf-profile" --quick --model $tiny --quiet --json >/dev/null
ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 4 --users 4 --max-tokens 16 --ignore-eos --quiet)

expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu virtual:7M --depth 2 --trace "$tmp/t.json" --json
run=$(json .run_id)
expect_json '[.trace.resources[].resource] | sort == ["cpu", "gpu0"]'
expect_json '.trace as $t | [.trace.resources[] | (.busy_s + ([.waits_for[].idle_s] | add)) / $t.span_s] | all(. > 0.999 and . < 1.001)'
expect_json '.trace.overlap >= 0 and .trace.overlap <= 1'
expect_json '[.trace.resources[] | select(.resource == "cpu").waits_for[].what] | index("attention") != null'
expect_json '[.trace.resources[] | select(.resource == "gpu0").waits_for[].what] | index("the next step") != null'

# the file for chrome://tracing: a lane for each resource, nothing in a lane at the same time but where the clock's digits end
jq -e '[.traceEvents[] | select(.ph == "M").args.name] | sort == ["cpu", "gpu0"]' "$tmp/t.json" >/dev/null || fail "lanes"
jq -e '[.traceEvents[] | select(.ph == "X" and .tid == 0)] | sort_by(.ts) | . as $e | [range(1; length) | $e[.].ts - $e[. - 1].ts - $e[. - 1].dur] | all(. > -0.01)' \
  "$tmp/t.json" >/dev/null || fail "events of a lane lie over each other"
jq -e '[.traceEvents[] | select(.cat == "idle").args.waits_for] | length > 50 and all(test("^(the next step of micro-batch|the hand-over to layer|nothing: the run ends|attention of layer|experts on the CPU of layer|shared expert, dense layers of layer|output head of layer)"))' \
  "$tmp/t.json" >/dev/null || fail "a gap that is not named"

# the same in the report, from the rows in the database
expect_exit 0 "$bin/hf-report" run "$run" --html "$tmp/r.html" --csv "$tmp/r.csv"
grep -q '<figure class="map timeline">' "$tmp/r.html" || fail "no drawing"
grep -q 'idle for .*: waits for attention of layer' "$tmp/r.html" || fail "no gap that is named"
grep -q '^cpu,"idle, waits for attention",' "$tmp/r.csv" || fail "no row of what the CPU waited for"

# without a device everything is the CPU's; without --trace nothing is told
expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu none --trace "$tmp/t.json"
expect_stdout_line '^  cpu was busy for [0-9]+ % of .* and waited for '
expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu none --json
expect_json 'has("trace") | not'
