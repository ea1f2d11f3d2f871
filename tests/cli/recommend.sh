#!/bin/bash
# hf-plan recommend from outside: the cheapest, counts, budget, refusals. A small space of a small model; the whole catalog is a benchmark.
. tests/cli/lib.sh
plan=$bin/hf-plan
load=(--model qwen3-30b-a3b --users 3 --context 1K --prompt-tokens 256 --output-tokens 64)
space=(--gpus rtx4090,rtx3090,none --gpu-counts 1 --cpus epyc-9354,ryzen-9950x --dimm-sizes 16G,32G)
sum='def sum_of_rules: del(.considered, .planned, .planned_over_budget, .imagined) | add;'

expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 60 --json
expect_json '.kind == "recommend" and .answer_id > 0 and (.verdict | test("^Buy ")) and (.question.budget == null)'
expect_json "$sum"'.counts | .considered == sum_of_rules and .planned == .slow + .slo + .met and .met >= 1'
expect_json '.answer.rank == 1 and .answer.tok_per_s_wall >= 60 and .answer.name == .ranking[0].name and .answer.meets.likely'
expect_json '[.ranking[].price.likely] as $p | all(range(1; $p | length); $p[.] >= $p[. - 1])'
expect_json 'all(.ranking[]; .tok_per_s_wall >= 60 and .regret.worst >= 0 and (.parts_text | test("cpu=")))'
expect_json '(.ranking | [.[].rank_by_regret] | unique | length) == (.ranking | length)'
expect_json '.by_regret as $b | .ranking | map(select(.name == $b)) | length == 1 and .[0].rank_by_regret == 1'
expect_json '.runner_up == .ranking[1].name and (.measure_first | (.group | length > 0) and .share >= 0 and .share <= 1)'
expect_json '.rejected | length > 0 and all((.name | length > 0) and (.text | length > 5) and (.reason | IN("memory", "budget", "roofline", "slow", "slo")))'
expect_json 'all(.flips[]; (.text | length > 20) and .at_share_of_interval >= 0 and .at_share_of_interval <= 1)'
price=$(json .answer.price.likely)
line=$(json .answer.plan_command)
expect_json '.answer.full_name | test("NVIDIA GeForce|no GPU") and test("GiB") and test("weights")'
expect_json 'all(.ranking[]; .runs_today | test("llama.cpp|SGLang"))'
expect_json '.question.space | (.gpus == ["rtx4090", "rtx3090", "none"])' # named, though no longer sold
name=$(json .answer.name)
parts=$(json .answer.parts_text)

# ---- the line to paste plans that machine
case $line in "hf-plan plan "*) ;; *) fail "no line to paste: $line" ;; esac
eval "expect_exit 0 $plan ${line#hf-plan } --no-store --json"
expect_json --argjson p "$price" '((.extra.hardware.price_usd.likely // .hardware.price_usd.likely) - $p) | fabs < 1'

# ---- the answer is a machine the other verbs take, and it does what was said
expect_exit 0 "$plan" sweep "${load[@]::2}" --machine "$parts" --axis users=3 --axis context=1K --prompt-tokens 256 --output-tokens 64 --no-store --json
expect_json '.cells[0].tok_per_s_wall >= 60 * 0.97'
expect_json --argjson p "$price" '(.cells[0].price.likely - $p) | fabs < 1'

# ---- a harder demand is never cheaper; a budget below the answer is refused with how much is missing
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 90 --no-store --json
expect_json --argjson p "$price" '.answer.price.likely >= $p'
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 60 --budget "$price" --no-store --json
expect_json --arg n "$name" '.answer.name == $n'
less=$(jq -n --argjson p "$price" '$p - 100')
expect_exit 1 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 60 --budget "$less" --no-store --json
expect_json --argjson p "$price" '.answer == null and .ranking == [] and .counts.met == 0 and .counts.budget > 0 and ((.nearest.needs - 100) | fabs < 1) and (.nearest.text | test("It takes USD"))'
expect_stderr_line '^hf-plan: No machine for USD .* It takes USD 100 more'

# the nearest within the budget comes first, then what more money does; what was planned beyond the budget is counted apart
r1=(--model deepseek-r1 --users 5 --context 8192 --budget 15000 --gpus rtx5070ti --cpus "xeon-6338,epyc-9115" --no-store --json)
expect_exit 1 "$plan" recommend "${r1[@]}" --slo-tpot 500ms
expect_json '.nearest.text | test("^The nearest within it takes limits [0-9]+ % easier: .*[.] It takes USD [0-9,]+ more: the cheapest that meets it costs")'
expect_json "$sum"'.counts | .considered == sum_of_rules and .planned == .slow + .slo + .met and .planned_over_budget >= 1'
expect_json '(.nearest.text | capture("It takes USD (?<n>[0-9,]+) more").n) as $n | any(.rejected[]; .reason == "budget" and .text == "USD \($n) over the budget")'
expect_exit 1 "$plan" recommend "${load[@]}" "${space[@]}" --slo-tpot 1us --budget 7000 --no-store --json
expect_json '(.nearest.text | test("^Nearest: .*[.] With more money: ")) and any(.rejected[]; .reason == "roofline" and .price <= 7000)'
# The trial's own case: what is named as nearest is nothing that another line of the answer beats.
expect_exit 1 "$plan" recommend "${r1[@]}" --slo-tpot 300ms
expect_json '(.nearest.text | capture("limits (?<n>[0-9]+) % easier").n | tonumber) as $n | [.rejected[].text | capture("is (?<x>[0-9]+) % over").x | tonumber] | min >= $n'
expect_json '[.rejected[].text | select(test("% over"))] | length >= 2'

# ---- amounts of money
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 60 --budget 15k --no-store --json
expect_json '.question.budget == 15000'
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 60 --budget 15,000 --no-store --json
expect_json '.question.budget == 15000'
for bad in 15x 1,5 15,00 1500,000 0 -5 0x10 1e400 ,5; do
  expect_error 2 "option --budget: '$bad' is no amount of USD above 0; say 15000, 15,000 or 15k" "$plan" recommend "${load[@]}" --budget "$bad"
done

# ---- what is not sold is not proposed: modules of sizes that no dealer has, GPU modules without their board
expect_exit 0 "$plan" recommend "${load[@]}" --gpus none --cpus xeon-6338 --dimm-sizes 16G,48G,96G --no-store --json
expect_json 'all(.ranking[]; .parts_text | test("dimm=16G")) and .counts.contradictory == .counts.considered * 2 / 3'
expect_exit 0 "$plan" recommend "${load[@]}" --gpus b200,none --cpus xeon-6338,xeon-6787p --dimm-sizes 32G --no-store --json
expect_json 'any(.ranking[]; .parts_text | test("gpu=b200[*]8")) and all(.ranking[].parts_text | select(test("b200")); test("xeon-6787p") and test("b200[*]8"))'
expect_json '.question.space.gpus == ["b200", "none"]'
expect_error 2 'option --gpu-counts: b200 is sold on boards of 8' "$plan" recommend "${load[@]}" --gpus b200 --gpu-counts 2 --cpus xeon-6787p
expect_error 2 'option --gpu-counts: h200 is sold on boards of 4 or 8' "$plan" recommend "${load[@]}" --gpus h200 --gpu-counts 1,2 --cpus xeon-6787p

# ---- impossible at any price: the limits that would do
expect_exit 1 "$plan" recommend "${load[@]}" "${space[@]}" --slo-ttft 0.001 --no-store --json
expect_json '.answer == null and .counts.met == 0 and (.nearest.text | test("limits [0-9]+ % easier"))'
expect_exit 1 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 1e6 --no-store --json
expect_json '.counts.roofline == .counts.considered - .counts.contradictory - .counts.unpriced - .counts.memory'

# ---- weight formats are part of the space; a space file
cat >"$tmp/space.json" <<'JSON'
{"gpus": ["rtx4090"], "gpu_counts": [1], "cpus": ["epyc-9354"], "sockets": [1], "memory": ["ddr5-4800"], "dimm_bytes": [17179869184], "formats": ["q4_k_m", "q8_0"]}
JSON
expect_exit 0 "$plan" recommend "${load[@]}" --space "$tmp/space.json" --min-tok-per-s 1 --no-store --json
# One machine is one choice: the faster format leads, the other stands beside it.
expect_json '.counts.considered == 2 and .counts.met == 2 and (.ranking | length) == 1 and .runner_up == null and .answer.format == "q4_k_m"'
expect_json '.answer | (.variants | length) == 1 and .variants[0].format == "q8_0" and .variants[0].tok_per_s_wall < .tok_per_s_wall and (.variants[0].text | test("^The same machine with q8_0.*; q4_k_m gives"))'

# Without --formats: the lightest three usual ones within 2 % of perplexity, those that lose more named.
expect_exit 0 "$plan" recommend "${load[@]}" --gpus rtx4090 --gpu-counts 1 --cpus epyc-9354 --sockets 1 --dimm-sizes 16G --min-tok-per-s 30 --no-store --json
expect_json '.question | (.perplexity_increase_limit - 0.02) | fabs < 1e-9'
expect_json '.question as $q | ($q.formats | length) >= 1 and ($q.formats | length) <= 3 and ([$q.format_losses[] | select(.searched) | .format] == $q.formats)'
expect_json '.question.format_losses | all(.[] | select(.searched); .perplexity_increase <= 0.02) and any(.perplexity_increase > 0.02)'
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --formats q8_0 --no-store --json
expect_json '.question.formats == ["q8_0"] and .question.perplexity_increase_limit == null and all(.ranking[]; .format == "q8_0")'
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --format q6_k --no-store --json
expect_json '.question.formats == ["q6_k"] and all(.ranking[]; .format == "q6_k")'

# ---- text, CSV
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 60 --csv "$tmp/r.csv" --no-store
expect_stdout_line '^Buy .*USD [0-9,]+'
expect_stdout_line '^Measure first'
expect_stdout_line '^Weight formats searched, perplexity at most 2 % above'
expect_stdout_line 'sustained load: each sends the next request at once'
expect_stdout_line '^[0-9]+ combinations considered, [0-9]+ planned'
head -1 "$tmp/r.csv" | grep -q '^rank,rank_by_regret,worst_regret' || fail "header of the CSV"

# ---- refusals: one line, nothing written
rm -f "$HETEROFLOW_DB"*
expect_error 2 "did you mean" "$plan" recommend "${load[@]}" --gpus rtx40900
expect_error 2 'option --cpus' "$plan" recommend "${load[@]}" --cpus zilog-z80
expect_error 2 'option --sockets' "$plan" recommend "${load[@]}" --sockets 3
expect_error 2 'option --gpu-counts' "$plan" recommend "${load[@]}" --gpu-counts 0
expect_error 2 'option --budget' "$plan" recommend "${load[@]}" --budget nan
expect_error 2 'option --min-tok-per-s' "$plan" recommend "${load[@]}" --min-tok-per-s inf
expect_error 2 'option --formats' "$plan" recommend "${load[@]}" --formats q9
expect_error 2 'option --space' "$plan" recommend "${load[@]}" --space "$tmp/none.json"
echo '{"gpu": []}' >"$tmp/bad.json"
expect_error 2 'field gpu: unknown' "$plan" recommend "${load[@]}" --space "$tmp/bad.json"
expect_error 2 'option --model' "$plan" recommend --users 2
expect_error 2 'option --context' "$plan" recommend --model qwen3-30b-a3b --context 16M
[ -e "$HETEROFLOW_DB" ] && fail "a refused question made a database"
expect_exit 0 "$plan" recommend --help
expect_stdout_line 'regretted least'
# ---- a refusal leaves nothing behind
expect_exit 1 "$plan" recommend "${load[@]}" "${space[@]}" --slo-ttft 0.001 --db "$tmp/refused.db"
[ ! -e "$tmp/refused.db" ] || fail "a refused recommendation wrote a database"

# ---- without a limit: the cheapest that runs, the knee, which leads, and the fastest, from one search
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --no-store --json
expect_json '.verdict | test("^Buy .*No limit was asked for, so this is the knee.*Cheapest that runs it at all: .*Fastest at any price: ")'
expect_json '.choices | .knee.tok_per_s_per_1000_usd >= .cheapest.tok_per_s_per_1000_usd and .knee.tok_per_s_per_1000_usd >= .fastest.tok_per_s_per_1000_usd'
expect_json '.choices as $c | .answer.name == $c.knee.name and .answer.rank == $c.knee.rank and .ranking[0].name == $c.cheapest.name and
  $c.fastest.tok_per_s_wall == ([.ranking[].tok_per_s_wall] | max) and $c.cheapest.price == ([.ranking[].price.likely] | min)'
expect_json '.choices.knee as $k | ($k.tok_per_s_per_1000_usd - 1000 * $k.tok_per_s_wall / $k.price) | fabs < 1e-9'
expect_json "$sum"'.counts | .considered == sum_of_rules and .planned == .slow + .slo + .met'
fastest=$(json .choices.fastest.price)
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --budget "$(jq -n --argjson p "$fastest" '$p - 1')" --json
expect_json --argjson p "$fastest" '(.verdict | test("Fastest within the budget")) and all(.ranking[]; .price.likely < $p) and (.title | test("for at most USD [0-9,]+$"))'
expect_exit 0 "$bin/hf-report" recommend --html "$tmp/choices.html" --json
expect_json '(.tables.choices.rows | length == 3) and .tables.ranking.columns[:4] == ["rank", "name", "tok_per_s_wall", "price"] and (.tables.ranking.columns | index("regret_worst") < index("decode_tok_per_s"))'
grep -q '<pre class="line" tabindex="0"><code>hf-plan plan ' "$tmp/choices.html" || fail "the command is not shown as code"
grep -q 'at most USD' "$tmp/choices.html" || fail "the page does not say the budget"
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --budget 9000 --no-store
expect_stdout_line '\((cheapest, )?knee(, fastest)?\)$'
expect_stdout_line '^  USD/M: USD per million tokens, input and output together'
expect_same "$(grep -c 'llama.cpp, ik_llama.cpp' "$out")" 2 "lines of engines" # hf-run stands in the one without a GPU
# whose figures they are; what is slow for people is called so
expect_stdout_line "own engine, whose GPU .CUDA. part is not written yet; the engines of today place whole layers"
expect_exit 0 "$plan" recommend --model deepseek-r1 --users 5 --context 8192 --gpus none --cpus xeon-6338 --dimm-sizes 64G --formats q4_k_m --no-store --json
expect_json '(.verdict | test(" Slow: 0[.][0-9] tokens/s for each user is under reading speed .about 5., and the first token takes over a minute[.]")) and .engine_note == null'
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --budget 9000 --no-store --json
expect_json '(.engine_note | test("not written yet")) and (.verdict | test("Slow:") | not)'
grep -q 'own engine, whose GPU' "$tmp/choices.html" || fail "the page does not say whose figures they are"
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --budget 9000 --no-store
grep -q 'run hf-profile on a machine with this GPU' "$out" && fail "hf-profile measures no GPU"

expect_exit 1 "$plan" recommend "${load[@]}" "${space[@]}" --budget 1000 --no-store --json
expect_json '.answer == null and .choices == null and (.verdict | test("^No machine for USD 1,000 runs it. It takes USD [0-9,]+ more: the cheapest that runs it costs"))'

# ---- the model's own format is searched, and named where one is asked for
expect_exit 0 "$plan" recommend --model gpt-oss-20b --users 2 --context 1K --gpus rtx5090 --gpu-counts 1 --cpus ryzen-9950x --no-store --json
expect_json '(.question.formats | index("mxfp4")) != null and ([.question.format_losses[] | select(.own)] | length == 1 and .[0].format == "mxfp4" and .[0].perplexity_increase == 0)'
expect_exit 0 "$plan" recommend --model gpt-oss-20b --users 2 --context 1K --gpus rtx5090 --gpu-counts 1 --cpus ryzen-9950x --formats mxfp4 --no-store
expect_stdout_line '^Buy .*, mxfp4: about USD'
expect_exit 0 "$plan" recommend --model deepseek-r1 --users 2 --context 1K --gpus rtx4090 --gpu-counts 1 --cpus xeon-6787p --dimm-sizes 96G --min-tok-per-s 1 --no-store --json
expect_json '.question.formats | index("fp8") != null and length == 4'

# ---- what the model's own format gives on the proposed machine, where another one leads
expect_exit 0 "$plan" recommend --model gpt-oss-20b --users 2 --context 1K --gpus rtx5060ti-16g --gpu-counts 1 --cpus ryzen-9950x --min-tok-per-s 5 --no-store --json
expect_json '.answer as $a | if $a.format == "mxfp4" then true else any($a.variants[]; .format == "mxfp4" and .own and .perplexity_increase == 0 and (.text | test("the model.s own"))) end'
expect_json '[.ranking[].parts_text] | length == (unique | length)'

# ---- modules that are no longer sold are proposed by name only
mkdir -p "$tmp/old/memory"
for kind in ddr5-5600-udimm; do "$plan" catalog show memory $kind | jq '.sale = "ended: a test"' >"$tmp/old/memory/$kind.json"; done
own=(--gpus rtx5090 --gpu-counts 1 --cpus ryzen-9950x --dimm-sizes 32G --min-tok-per-s 5)
expect_exit 0 "$plan" recommend "${load[@]}" "${own[@]}" --no-store --json
expect_json 'any(.ranking[]; .parts.memory == "ddr5-5600-udimm")'
HF_CATALOG=$tmp/old expect_exit 0 "$plan" recommend "${load[@]}" "${own[@]}" --no-store --json
expect_json '(.ranking | length > 0) and all(.ranking[]; .parts.memory != "ddr5-5600-udimm")'
HF_CATALOG=$tmp/old expect_exit 0 "$plan" recommend "${load[@]}" "${own[@]}" --memory ddr5-5600-udimm --no-store --json
expect_json 'all(.ranking[]; .parts.memory == "ddr5-5600-udimm")'
# What an old CPU takes may have ended altogether: then that is what it gets.
for kind in $("$plan" catalog list memory | grep -o '^  ddr4-[0-9]*\b'); do "$plan" catalog show memory "$kind" | jq '.sale = "ended: a test"' >"$tmp/old/memory/$kind.json"; done
HF_CATALOG=$tmp/old expect_exit 0 "$plan" recommend "${load[@]}" --gpus rtx4090 --gpu-counts 1 --cpus epyc-7742 --dimm-sizes 64G --no-store --json
expect_json '(.ranking | length > 0) and all(.ranking[]; .parts.memory | startswith("ddr4-"))'
expect_exit 1 "$plan" recommend --model deepseek-r1 --context 1K --gpus rtx4090 --gpu-counts 1 --cpus ryzen-9950x --dimm-sizes 16G --no-store --json
expect_json '.verdict | test("^No machine of the space runs it[.]")'

# ---- units
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --slo-tpot 40ms --slo-ttft 1min --no-store --json
expect_json '.question.slo | .tpot_s == 0.04 and .ttft_s == 60'
expect_error 2 'option --slo-tpot: 150 without a unit is seconds.*150ms or 150s' "$plan" recommend "${load[@]}" "${space[@]}" --slo-tpot 150
expect_error 2 'option --slo-ttft: 4000 without a unit' "$plan" recommend "${load[@]}" "${space[@]}" --slo-ttft 4000
expect_error 2 "option --context: '8x' is no number of tokens between" "$plan" recommend "${load[@]}" --context 8x

# ---- a verb that is none is told before its options
expect_error 2 "'recomend' is no verb; is recommend meant" "$plan" recomend --model x
expect_error 2 "'xyzzy' is none of the verbs" "$plan" xyzzy --model x
expect_error 2 "unknown kind of report 'recomend'; is recommend meant" "$bin/hf-report" recomend --html "$tmp/x.html" --db "$tmp/none.db"
# ---- without a machine or database a buyer reads where machines are
expect_error 2 'option --machine: missing.*hf-plan catalog list machines.*hf-profile' "$plan" plan --model deepseek-r1 --db "$tmp/none.db"
expect_error 2 'option --machine: missing.*hf-plan catalog list machines.*hf-profile' "$plan" sweep --model deepseek-r1 --db "$tmp/none.db"
expect_error 2 'no such database.*hf-plan plan --machine NAME .hf-plan catalog list machines.' "$bin/hf-report" loop --html "$tmp/x.html" --db "$tmp/none.db"
expect_exit 0 "$plan" recommend "${load[@]}" "${space[@]}" --min-tok-per-s 5 --no-store --json
expect_json '.verdict | test("No limit was asked for") | not'

echo "recommend: all as promised"
