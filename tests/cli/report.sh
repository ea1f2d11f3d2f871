# hf-report as a user meets it: profile, plan, run, re-plan, what-if, then every kind of report; refusals.
. tests/cli/lib.sh
tiny=examples/tiny-moe
for p in hf-profile hf-plan hf-run; do
  if [ ! -x "$bin/$p" ]; then skip "$p is not built: there is nothing to report on"; fi
done

# Before anything was measured.
expect_error 2 "$HETEROFLOW_DB" "$bin/hf-report" loop --html "$tmp/none.html"
expect_exit 0 "$bin/hf-profile" --quick --quiet --json
machine=$(json .machine_id)
expect_error 2 'no run in the database; hf-run makes one' "$bin/hf-report" run --html "$tmp/none.html"
expect_exit 0 "$bin/hf-report" machine --html "$tmp/machine.html" --json
expect_json --arg f "$tmp/machine.html" '.files == [$f] and .kind == "machine" and (.verdict | length) > 10'
expect_json '.tables["machine-figures"] | (.rows | length) > 3 and (.rows | all(length == 11)) and (.columns[7] == "tag")'

# The whole loop, with a model whose name is a script.
evil="$tmp/<script>alert(1)<!-- '\""
ln -s "$PWD/$tiny" "$evil"
plan() { expect_exit 0 "$bin/hf-plan" plan --users 5 --context 256 --quiet --json "$@"; }
run() { expect_exit 0 "$bin/hf-run" --model "$evil" --prompts $tiny/prompts.jsonl --where domain=italian --limit 5 --max-tokens 12 --quiet --json --plan "$1"; }
plan --model "$evil" --machine "$machine" --gpu virtual:10M
plan1=$(json .plan_id)
run "$plan1"
run1=$(json .run_id)
plan --model "$evil" --machine "$machine" --gpu virtual:10M --from-run "$run1"
plan2=$(json .plan_id)
run "$plan2"
run2=$(json .run_id)
plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090
whatif=$(json .plan_id)

expect_exit 0 "$bin/hf-report" loop --html "$tmp/loop.html" --csv "$tmp/loop.csv" --published 51 --published-source 'an article' --json
expect_json --arg h "$tmp/loop.html" --arg c "$tmp/loop.csv" '.files == [$h, $c]'
expect_json '[.tables | keys[] | select(test("^(machine-figures|plan-layers|plan-budget|run-errors|run-stages|replan-gain|run-2-errors|whatif-figures|sources)$"))] | length == 9'
expect_json '.tables["run-errors"].rows | length == 7 and (.[0][0] == "decode_tok_per_s") and all(.[3] != null and (((.[1] - .[2]) / .[2] - .[3]) | fabs) < 1e-6)'
expect_json '.tables["whatif-layers"].rows | length == 61'
loop=$tmp/loop.html

# One file, three scripts and nothing from the data among them, no address of another place outside the licence of Chart.js.
expect_same "$(grep -o '<script' "$loop" | wc -l)" 3 "scripts in the page"
grep -q '&lt;script&gt;alert(1)' "$loop" || fail "the model's name is not in the page"
if grep -Eq '<(img|link|iframe|object|embed|base|form)[ >]|@import|url\(' "$loop"; then fail "the page loads something"; fi
grep -q "Content-Security-Policy.*default-src 'none'" "$loop" || fail "no content policy"
grep -q 'Chart.js v.*' "$loop" && grep -q 'Released under the MIT License' "$loop" || fail "Chart.js or its licence is missing"
for section in machine plan run replan run-2 whatif definitions sources-section; do
  grep -q "<section id=\"$section\"" "$loop" || fail "section $section is missing"
done
grep -q 'the published 51.0 tokens/s lie' "$loop" || fail "the published figure is missing"
grep -q 'an article' "$loop" || fail "the source of the published figure is missing"

# Every table of the CSV has as many fields as its heading; the rows are those of the JSON.
grep -c '^table,' "$tmp/loop.csv" | { read -r n; expect_same "$n" "$(json '.tables | length')" "tables in CSV and JSON"; }
grep -q '^decode_tok_per_s,[0-9.]*,[0-9.]*,-\?[0-9.]*,tokens/s$' "$tmp/loop.csv" || fail "no error of decode_tok_per_s in the CSV"

# Rows by name; text output; each kind.
expect_exit 0 "$bin/hf-report" plan "$plan1" --html "$tmp/plan.html" --quiet
expect_stdout_line "plan.html$"
expect_stdout_line "^Plan $plan1 "
expect_exit 0 "$bin/hf-report" run "$run2" --csv "$tmp/run.csv" --json
expect_json --arg c "$tmp/run.csv" '.files == [$c] and (.verdict | test("^Run '"$run2"' decoded"))'
expect_exit 0 "$bin/hf-report" whatif "$whatif" --html "$tmp/whatif.html" --json
expect_json '.verdict | test("published") | not'
expect_exit 0 "$bin/hf-report" loop --plan "$plan1,$plan2" --run "$run1,$run2" --machine "$machine" --whatif "$whatif" --html "$tmp/named.html" --json
expect_json '.tables | has("run-2-errors")'
expect_exit 0 "$bin/hf-report" loop --plan "$plan1" --run "$run1" --html "$tmp/half.html" --json
expect_json '.tables | has("run-2-errors") | not'

# Refusals: one line, nothing written.
rm -f "$tmp/none.html"
expect_error 2 'which report\? One of machine, plan, run, whatif, .*loop' "$bin/hf-report" --html "$tmp/none.html"
expect_error 2 "unknown kind of report 'poem'; known are machine, plan, run, whatif, .*loop" "$bin/hf-report" poem --html "$tmp/none.html"
expect_error 2 'nothing to write' "$bin/hf-report" run
expect_error 2 "'x' is no id" "$bin/hf-report" plan x --html "$tmp/none.html"
expect_error 2 'no plan 999' "$bin/hf-report" plan 999 --html "$tmp/none.html"
expect_error 2 'no run 999' "$bin/hf-report" run 999 --html "$tmp/none.html"
expect_error 2 "no machine 'nowhere'" "$bin/hf-report" loop --machine nowhere --html "$tmp/none.html"
expect_error 2 'at most two' "$bin/hf-report" loop --run 1,2,3 --html "$tmp/none.html"
expect_error 2 'same file' "$bin/hf-report" run --html "$tmp/none.html" --csv "$tmp/none.html"
expect_error 2 'whatif: 9999 is the number of neither an answer of hf-plan whatif nor a plan' "$bin/hf-report" whatif 9999 --html "$tmp/none.html"
expect_error 2 "unknown kind of report 'simulate'; known are machine" "$bin/hf-report" simulate --html "$tmp/none.html"
expect_error 2 '--published' "$bin/hf-report" whatif --published-source x --html "$tmp/none.html"
expect_error 2 'no-such-folder' "$bin/hf-report" run --html "$tmp/no-such-folder/x.html"
if [ -e "$tmp/none.html" ]; then fail "a refused report wrote a file"; fi
expect_exit 3 "$bin/hf-report" run --html /dev/full
