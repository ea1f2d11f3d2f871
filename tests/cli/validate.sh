#!/bin/bash
# hf-plan validate: predictions against published rows, the contract of its JSON, its exit status, and that no row's own figure is used.
. tests/cli/lib.sh
plan=$bin/hf-plan
cases=tests/validation/published-cases.csv

expect_exit 0 "$plan" validate "$cases" --json --baseline tests/validation/expected.json
cp "$out" "$tmp/a.json"
jq -e '.rows == .used + .declined and .used >= 60 and (.cases | length) == .used and .answer_id > 0' "$tmp/a.json" >/dev/null || fail "rows do not add up"
jq -e '.median_abs_error <= 0.15 and .p90_abs_error <= 0.35' "$tmp/a.json" >/dev/null || fail "the bars of decode"
jq -e 'all(.cases[]; .low <= .predicted and .predicted <= .high and
  ((.signed_error - (.predicted - .published) / .published) | fabs) < 1e-9)' "$tmp/a.json" >/dev/null || fail "signed errors or intervals"
# top level: nearest-rank median over the rows with experts on a CPU, each left out of the fit; beside it that with them in
jq -e 'def median: sort | .[((length + 1) / 2 | floor) - 1]; . as $a | [.cases[] | select(.metric == "decode" and .experts_on_cpu)] |
  (map(.row_left_out_error | fabs) | median - $a.median_abs_error | fabs) < 1e-9 and
  (map(.signed_error | fabs) | median - $a.fit_median_abs_error | fabs) < 1e-9 and $a.fit_median_abs_error < $a.median_abs_error' \
  "$tmp/a.json" >/dev/null || fail "median of the top level"
jq -e '[.groups[] | select(.metric == "prefill")] | length > 0' "$tmp/a.json" >/dev/null || fail "no prefill groups"
jq -e 'all(.groups[]; .machine_left_out_p90_abs_error > 0)' "$tmp/a.json" >/dev/null || fail "machines left out"
jq -e '[.scenarios[] | select(.machine == "2 x xeon-6787p, mrdimm-8000, rtx4090" and .format == "q4_k_m")] | length == 1 and .[0].high / .[0].low < 2.5' \
  "$tmp/a.json" >/dev/null || fail "the scenario of the catalog machine"
jq -e '(.scenarios | length) == 8 and (.declined_rows | map(.id) | index("INT-007")) != null' "$tmp/a.json" >/dev/null || fail "scenarios"
jq -e 'all(.scenarios[]; .depth >= 1 and .low > 0)' "$tmp/a.json" >/dev/null || fail "a scenario without figures"

# What nobody published is not known: all rows are of one user, and every form of the answer says so.
jq -e '.used as $n | all(.cases[]; .users == 1) and (.users_text | startswith("All \($n) are of one user at a time"))' "$tmp/a.json" >/dev/null || fail "rows of several users"
expect_exit 0 "$bin/hf-report" validate --html "$tmp/v.html" --quiet
grep -q 'are of one user at a time: how far off predictions for 5 to 20 users are is not known' "$tmp/v.html" || fail "the page does not say of how many users the rows are"
sed 's/,1,500,,54\.21,/,4,500,,54.21,/' "$cases" >"$tmp/users.csv"
expect_exit 0 "$plan" validate "$tmp/users.csv" --quick --no-store
expect_stdout_line '^1 of the [0-9]+ are of several users, at most 4 at a time\.$'

# A published figure doubled: its error changes, no prediction does.
sed 's/,12\.208,/,24.416,/' "$cases" >"$tmp/doubled.csv"
expect_exit 0 "$plan" validate "$tmp/doubled.csv" --quick --json --no-store
jq -e --slurpfile a "$tmp/a.json" '[.cases[].predicted] == [$a[0].cases[].predicted]' "$out" >/dev/null || fail "a row's own figure changes its prediction"
jq -e '.cases[] | select(.id == "KT-001") | .published == 24.416 and .signed_error < -0.4' "$out" >/dev/null || fail "the doubled figure"

expect_exit 1 "$plan" validate "$cases" --quick --no-store --max-median 0.001
expect_stdout_line '^Decode with experts on the CPU: .error. median [0-9.]+ %, p90 [0-9.]+ %, the rows themselves in the fit [(]without --quick they are left out'
expect_stdout_line '^Errors by group'
expect_stdout_line '^All [0-9]+ are of one user at a time: '
expect_stderr_line 'missed: decode: median'
expect_exit 0 "$plan" validate "$cases" --quick --no-store --markdown "$tmp/t.md"
grep -q '^| decode | all experts on the CPU |' "$tmp/t.md" || fail "no Markdown table"

jq '.groups |= map(.fit_median_abs_error = 0)' tests/validation/expected.json >"$tmp/better.json"
expect_exit 1 "$plan" validate "$cases" --quick --no-store --baseline "$tmp/better.json"
expect_stderr_line 'worse than'

head -n 1 "$cases" >"$tmp/none.csv"
expect_error 2 'none.csv: line 2, column id' "$plan" validate "$tmp/none.csv"
expect_error 2 'line 1, column a' "$plan" validate <(echo a,b)
expect_error 2 'no/such.csv' "$plan" validate no/such.csv
expect_error 2 'CSV file' "$plan" validate
{ head -n 1 "$cases"; echo 'x,,who,,,,,,,,1,,,,5,'; } >"$tmp/unknown.csv"
expect_exit 1 "$plan" validate "$tmp/unknown.csv" --no-store --json
jq -e '.declined == 1 and .median_abs_error == null' "$out" >/dev/null || fail "a table of nothing"
