#!/bin/bash
# hf-plan sweep from outside: cells, physics, knees, threads, CSV, refusals.
. tests/cli/lib.sh
plan=$bin/hf-plan
r1=(--model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --output-tokens 32)

# ---- users by context
expect_exit 0 "$plan" sweep "${r1[@]}" --axis users=1:8:x2 --axis context=512,2K --json
expect_json '.kind == "sweep" and .answer_id > 0 and (.verdict | test("Knee at")) and (.title | length > 10)'
expect_json '.question.axes == [{key: "users", values: ["1", "2", "4", "8"]}, {key: "context", values: ["512", "2K"]}]'
expect_json '.cells | length == 8 and ([.[].at] == [["1","512"],["2","512"],["4","512"],["8","512"],["1","2K"],["2","2K"],["4","2K"],["8","2K"]])'
expect_json '[.cells[] | [.users, .context]] == [[1,512],[2,512],[4,512],[8,512],[1,2048],[2,2048],[4,2048],[8,2048]]'
expect_json 'all(.cells[]; .feasible and .gap >= 0 and .gap <= 0.005 and (.binding | length > 0) and .depth >= 1 and .tpot_s.p95 > 0 and .ttft_s.p95 > 0)'
expect_json 'all(.cells[]; .decode_tok_per_s | .low < .likely and .likely < .high)'
expect_json 'all(.cells[]; .cost_per_million_tokens.likely > 0)'
# Physics: more users, no fewer tokens (3 % for depths that change) and a slower one each; a longer context is no faster.
expect_json '[.cells[:4], .cells[4:]] | all([.[].decode_tok_per_s.likely] as $r | all(range(1; 4); $r[.] >= 0.97 * $r[. - 1]))'
expect_json '[.cells[:4], .cells[4:]] | all([.[] | .decode_tok_per_s.likely / .users] as $r | all(range(1; 4); $r[.] <= 1.001 * $r[. - 1]))'
expect_json '. as $d | all(range(0; 4); $d.cells[. + 4].decode_tok_per_s.likely <= 1.02 * $d.cells[.].decode_tok_per_s.likely and $d.cells[. + 4].ttft_s.p95 > $d.cells[.].ttft_s.p95)'
# The knee is what its definition says, recomputed.
expect_json '.knee_gain as $g | .cells as $c | [range(0; 2)] | all(. as $j | [$c[$j * 4:$j * 4 + 4][] | [.users, .tok_per_s_wall]] as $p
  | ([range(1; 4) | select(($p[.][1] - $p[. - 1][1]) / ($p[.][0] - $p[. - 1][0]) < $g * $p[0][1] / $p[0][0])] | .[0] // 4) as $k | $p[$k - 1][0] == $u[0].knees[$j].users)' \
  --slurpfile u "$out"
expect_json '.seconds > 0 and .threads >= 1'
jq -S 'del(.seconds, .threads, .answer_id)' "$out" >"$tmp/any"

# ---- the same bits with another number of threads
expect_exit 0 "$plan" sweep "${r1[@]}" --axis users=1:8:x2 --axis context=512,2K --json --jobs 1 --no-store
cmp -s "$tmp/any" <(jq -S 'del(.seconds, .threads, .answer_id)' "$out") || fail "the answer depends on the number of threads"

# ---- other axes: hardware; what does not fit is a cell, too
expect_exit 0 "$plan" sweep "${r1[@]}" --machine cpu=xeon-6787p,sockets=2,memory=ddr5-6400 --users 4 --context 1K --axis gpu=none,rtx4090,h100-pcie --axis dimm-size=16G,64G --json --no-store
expect_json '(.cells | length == 6) and .knees == [] and .question.users == 4 and .question.context == 1024'
expect_json '.cells[0].feasible == false and .cells[1].feasible == false and .cells[3].feasible and .cells[4].feasible'
expect_json '.cells[3].decode_tok_per_s.likely < .cells[4].decode_tok_per_s.likely and .cells[4].decode_tok_per_s.likely <= .cells[5].decode_tok_per_s.likely'
expect_json '.cells[3].parts.gpus == "none" and .cells[5].parts.gpus == "h100-pcie"'
expect_exit 1 "$plan" sweep "${r1[@]}" --machine cpu=xeon-6787p,memory=ddr5-6400,dimm=16G --axis users=1,2 --axis context=512,1K --json --no-store
expect_stderr_line 'no cell fits'

# ---- lengths that a cell's context changes are told, once
expect_exit 0 "$plan" sweep "${r1[@]}" --axis users=1,2 --axis context=512,4K --prompt-tokens 1024 --output-tokens 600 --no-store --json
expect_json '(.notes | length == 1) and (.notes[0] | test("In 4 of 4 cells the lengths are not those asked for.*here 384 to 3496 tokens.*shorter")) and .cells[0].prompt_tokens == 384'
expect_exit 0 "$plan" sweep "${r1[@]}" --axis users=1,2 --axis context=512,4K --prompt-tokens 1024 --output-tokens 600
expect_same "$(grep -c 'lengths are not those asked for' "$out")" 1 "notes"
legend='D DRAM bandwidth, C arithmetic of the CPU'
expect_stdout_line "what binds: $legend"
expect_exit 0 "$bin/hf-report" sweep --html "$tmp/s.html" --quiet
grep -q 'lengths are not those asked for' "$tmp/s.html" || fail "the page does not tell"
grep -q "$legend" "$tmp/s.html" || fail "two sets of letters"
grep -q '<span class="bind">D</span>' "$tmp/s.html" || fail "no letter on the page"
expect_exit 0 "$plan" sweep --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --axis users=1,2 --axis format=q4_k_m,q8_0 --context 1K --no-store --json
expect_json '.notes == []'

# ---- every letter is in the legend: a dense model has no layer with experts
expect_exit 0 "$plan" sweep --model llama-3.1-8b --machine xeon6-mrdimm-rtx4090 --gpu none --axis users=1,2 --axis context=1K,2K --no-store
expect_stdout_line '^  1K .*[0-9]P .*[0-9]P'
expect_stdout_line 'P the CPU in layers without routed experts'

# ---- an SLO ends a row
expect_exit 0 "$plan" sweep "${r1[@]}" --axis users=1:8:x2 --axis context=512 --slo-tpot 0.08 --knee 1 --json --no-store
expect_json '.knees[0].rule == "slo" and (.knees[0].users as $u | all(.cells[]; .meets_slo == (.tpot_s.p95 <= 0.08)) and ([.cells[] | select(.meets_slo) | .users] | max) == $u)'

# ---- text and CSV
expect_exit 0 "$plan" sweep "${r1[@]}" --axis users=1,4 --axis context=512,1K --csv "$tmp/s.csv"
expect_stdout_line '^  512 .*[0-9]D .*[0-9]D'
expect_stdout_line 'what binds: D DRAM bandwidth'
expect_stdout_line '^  context 1K: [0-9]+ user'
expect_stdout_line '^4 cells in [0-9.]+ s'
grep -q $'\033' "$out" && fail "colours where there is no terminal"
expect_same "$(wc -l <"$tmp/s.csv")" 5 "lines of the CSV"
expect_same "$(cut -d, -f1,2 "$tmp/s.csv" | sed -n 3p)" 4,512 "place of the second cell"

# ---- refusals: one line, nothing written
rm -f "$HETEROFLOW_DB"*
for bad in users users=0 users=1,1 users=8:1 users=1:8:x1 foo=1 context=1,2 gpu=rtx4009 users=1:9999999:+1 users=1e3; do
  expect_error 2 . "$plan" sweep "${r1[@]}" --axis "$bad"
done
expect_error 2 'both axes' "$plan" sweep "${r1[@]}" --axis users=1 --axis users=2
expect_error 2 'two axes' "$plan" sweep "${r1[@]}" --axis users=1 --axis context=1K --axis gpu=none
expect_error 2 'knee' "$plan" sweep "${r1[@]}" --axis users=1 --knee 200
[ -e "$HETEROFLOW_DB" ] && fail "a refused question made a database"
expect_exit 0 "$plan" sweep --help
expect_stdout_line 'knee of a row'
# ---- a machine of parts is called by the words of its parts; one cell is no chart, two columns are
parts='cpu=xeon-6338,sockets=2,gpu=rtx5070ti*2'
small=(--model qwen3-30b-a3b --machine "$parts" --context 1K)
expect_exit 0 "$plan" sweep "${small[@]}" --axis users=2 --axis context=1K --json
expect_json '.title | test("^qwen3-30b-a3b on 2 x Intel Xeon .*6338.*, 2 x NVIDIA GeForce RTX 5070 Ti over users and context$")'
if [ -x "$bin/hf-report" ]; then
  expect_exit 0 "$bin/hf-report" sweep --html "$tmp/one.html" --quiet
  if grep -q '<canvas' "$tmp/one.html"; then fail "a chart of one dot"; fi
  grep -q '<h1>Sweep: qwen3-30b-a3b on 2 x Intel Xeon' "$tmp/one.html" || fail "the page's title has raw keys"
  expect_exit 0 "$plan" sweep "${small[@]}" --axis users=1,2 --axis context=1K --json
  expect_exit 0 "$bin/hf-report" sweep --html "$tmp/two.html" --quiet
  expect_same "$(grep -o '<canvas' "$tmp/two.html" | wc -l)" 3 "charts of two columns"
  # the same for whatif; two cases of one cost have no bars of it
  expect_exit 0 "$plan" whatif "${small[@]}" --users 2 --case same:users=2 --alone --json
  expect_json '(.title | test("^What if: qwen3-30b-a3b on 2 x Intel Xeon")) and .cases[0].tok_per_s_wall == .base.tok_per_s_wall'
  expect_exit 0 "$bin/hf-report" whatif --html "$tmp/same.html" --quiet
  if grep -q '<canvas' "$tmp/same.html"; then fail "bars of one height"; fi
fi

echo "sweep: all as promised"
