#!/bin/bash
# hf-plan from outside: what the JSON promises, that evaluate is the judge of it, what is refused and how.
. tests/cli/lib.sh
plan=$bin/hf-plan
tiny=(--model examples/tiny-moe --machine paced-desk --users 5 --context 192 --prompt-tokens 64 --output-tokens 32)

# ---- a small plan: members, placement, budget, files
expect_exit 0 "$plan" plan "${tiny[@]}" --out "$tmp/p.json" --write-lp "$tmp/p.lp" --write-bound-lp "$tmp/b.lp" --json
expect_json '[.plan_id, .users, .context, .depth] | all(type == "number")'
expect_json '.model == "examples/tiny-moe" and .machine == "paced-desk" and (.binding | type) == "string"'
expect_json '.placement | length == 6 and .[0] == [] and all(.[1:][]; map(.[0]) | add == 32)'
expect_json '.ilp | .objective_ns >= .bound_ns and .gap <= 0.001 and .seconds > 0 and (.status | length > 0)'
expect_json '.predicted.decode_tok_per_s | .low < .likely and .likely < .high'
expect_json '.predicted | [.ttft_s, .tpot_s] | all(.p50 <= .p90 and .p90 <= .p99 and .p50 > 0)'
expect_json '.budget | length >= 5 and all(has("where") and has("what") and .bytes > 0 and has("limit_bytes"))'
expect_json '[.budget[] | select(.where == "gpu0")] | (map(.bytes) | add) <= .[0].limit_bytes'
expect_json '.predicted.tag == "assumed" and (.baselines | length == 5) and (.advice.values | length >= 4)'
objective=$(json .ilp.objective_ns)
id=$(json .plan_id)
for f in p.json p.lp b.lp; do [ -s "$tmp/$f" ] || fail "$f was not written"; done
expect_same "$(jq .ilp.objective_ns "$tmp/p.json")" "$objective" "objective in the file and on standard output"

# ---- CBC, where it is there, finds objective and bound in the two files
if command -v cbc >/dev/null; then
  for pair in "p.lp objective_ns" "b.lp bound_ns"; do
    set -- $pair
    want=$(jq ".ilp.$2" "$tmp/p.json")
    cbc "$tmp/$1" ratioGap 0 allowableGap 0 solve solution "$tmp/cbc.txt" >/dev/null
    got=$(sed -n '1s/.*objective value *//p' "$tmp/cbc.txt")
    jq -ne --argjson a "$want" --argjson b "$got" '($a - $b) / $a | fabs < 1e-6' >/dev/null || fail "CBC finds $got for $1, not $want"
  done
fi

# ---- evaluate: the same bits from file and database; an edited placement is judged
expect_exit 0 "$plan" evaluate --plan "$tmp/p.json" --json
expect_json --argjson o "$objective" '.objective_ns == $o and .feasible and .violations == []'
expect_exit 0 "$plan" evaluate --plan "$id" --json
expect_json --argjson o "$objective" '.objective_ns == $o'
jq '.placement |= map(if length > 0 then [[32, -1]] else . end)' "$tmp/p.json" >"$tmp/cpu.json"
expect_exit 0 "$plan" evaluate --plan "$tmp/cpu.json" --json
expect_json --argjson o "$objective" '.objective_ns > $o and .feasible'
jq '.placement |= map(if length > 0 then [[32, 0]] else . end)' "$tmp/p.json" >"$tmp/full.json"
expect_exit 1 "$plan" evaluate --plan "$tmp/full.json" --json
expect_json '(.feasible | not) and (.violations | length == 1)'
# No placement of the same number of experts per layer is better than what the plan says is best.
jq '.placement |= map(if length > 0 then ([.[] | select(.[1] == 0) | .[0]] | add // 0) as $n | [[32 - $n, -1]] + (if $n > 0 then [[$n, 0]] else [] end) else . end)' \
  "$tmp/p.json" >"$tmp/last.json"
expect_exit 0 "$plan" evaluate --plan "$tmp/last.json" --json
expect_json --argjson o "$objective" '.objective_ns >= $o * (1 - 1e-12)'

# More users than can run at once are no plan, whoever wrote the file.
jq '.users = 1000000000' "$tmp/p.json" >"$tmp/many.json"
expect_error 2 'users: 1000000000.*at most 64' "$plan" evaluate --plan "$tmp/many.json"

# ---- text for people
expect_exit 0 "$plan" plan "${tiny[@]}"
expect_stdout_line '^Plan [0-9]+: examples/tiny-moe \(bf16\) on paced-desk'
expect_stdout_line '^  decode step .*gap 0\.0[0-9]+ %'
expect_stdout_line '^  delivered +[0-9.]+ tokens/s under sustained load'
expect_stdout_line '^ +greedy '
expect_stdout_line '^  budget$'

# ---- depth, device and popularity are obeyed
expect_exit 0 "$plan" plan "${tiny[@]}" --depth 3 --json
expect_json '.depth == 3'
expect_exit 0 "$plan" plan "${tiny[@]}" --gpu none --json
expect_json '.gpu == "none" and .devices == [] and .depth == 1 and all(.placement[1:][]; . == [[32, -1]])'
expect_exit 0 "$plan" plan "${tiny[@]}" --gpu virtual:7M --json
expect_json '.devices[0].mem_bytes == 7 * 1048576'
expect_exit 0 "$plan" plan "${tiny[@]}" --gpu paced:paced-desk:7M --machine xeon6-mrdimm-rtx4090 --json
expect_json '.devices[0].mem_bytes == 7 * 1048576 and .machine == "xeon6-mrdimm-rtx4090"'
expect_exit 0 "$plan" plan "${tiny[@]}" --census examples/tiny-moe/census.json --census-kind italian --depth 1 --json
expect_json '.popularity == "census:italian"'
italian=$(json .ilp.objective_ns)
expect_exit 0 "$plan" plan "${tiny[@]}" --depth 1 --json
expect_json --argjson i "$italian" '.ilp.objective_ns > $i' # knowing the text is worth something
expect_exit 0 "$plan" plan --model examples/tiny-moe/tiny-moe-q8_0.gguf --machine paced-desk --users 2 --json
expect_json '.format == "q8_0"'

# ---- a machine from a file
expect_exit 0 "$plan" plan "${tiny[@]}" --machine db/catalog/machines/paced-desk.json --json
expect_json --argjson o "$objective" '.ilp.objective_ns == $o'

# ---- the published case: no weights, no GPU, proven within 0.1 %, quickly
expect_cpu_seconds 3 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 2048 --prompt-tokens 256 --output-tokens 128 --json
expect_json '.ilp.gap <= 0.001 and .ilp.seconds > 0 and .n_layers == 61 and .format == "q4_k_m"'
expect_json '.predicted.decode_tok_per_s | .high / .low < 2.5'

# ---- stages
expect_exit 0 "$plan" stages --model examples/tiny-moe --machine paced-desk --json
expect_json '.n_layers == 6 and .one_resource == false and ([.layers[].count] | add) == 6 and .tag == "assumed"'
expect_exit 0 "$plan" stages --model examples/tiny-moe --machine paced-desk --gpu paced:paced-desk:7M --json
expect_json '.layers | length >= 2'
expect_exit 0 "$plan" stages --model examples/tiny-moe --machine paced-desk

# ---- catalog
expect_exit 0 "$plan" catalog list --json
expect_json '[(.models, .machines, .gpus)[].name] | contains(["deepseek-r1", "xeon6-mrdimm-rtx4090", "rtx4090"])'
expect_exit 0 "$plan" catalog show rtx4090
expect_json '.name == "rtx4090"'
expect_exit 0 "$plan" catalog show models kimi-k2
expect_error 2 'nonsuch' "$plan" catalog show nonsuch
expect_error 2 'catalog' "$plan" catalog

# ---- what the weight format loses stands beside it where published rows say so, and nowhere else
kimi=(--model kimi-k2 --machine xeon6-mrdimm-rtx4090 --users 1 --context 1K --depth 1 --no-store --quiet)
expect_exit 0 "$bin/hf-plan" plan "${kimi[@]}" --json
expect_json '.format == "q4_k_m" and .quality.tag == "scaled" and (.quality.perplexity_increase * 1000 | round) == 32'
expect_exit 0 "$bin/hf-plan" plan "${kimi[@]}"
expect_stdout_line '^Plan [0-9]+: kimi-k2 \(q4_k_m, \+3\.2 % perplexity, from published rows of its family\) on '
expect_exit 0 "$bin/hf-plan" whatif "${kimi[@]}" --set users=2
expect_stdout_line '^kimi-k2 \(q4_k_m, \+3\.2 % perplexity, from published rows of its family\) on '
expect_exit 0 "$bin/hf-plan" roi "${kimi[@]}"
expect_stdout_line '^  weights        q4_k_m, \+3\.2 % perplexity, from published rows of its family$'
expect_exit 0 "$bin/hf-plan" roi "${kimi[@]}" --json
expect_json '(.question.quality.perplexity_increase * 1000 | round) == 32'
expect_exit 0 "$bin/hf-plan" plan "${kimi[@]}" --format iq4_ks
expect_stdout_line '\(iq4_ks, \+3\.2 % perplexity, published\) on '
expect_exit 0 "$bin/hf-plan" plan --model olmoe-1b-7b --machine xeon6-mrdimm-rtx4090 --users 1 --context 1K --depth 1 --format q4_k_m --no-store --json --quiet
expect_json 'has("quality") | not'

# ---- no plan fits: status 1, the table, and what would help
expect_exit 1 "$plan" plan "${tiny[@]}" --gpu virtual:1M --json
expect_json '(.feasible | not) and (.budget | length >= 4) and (.possible | length >= 1) and (.reason | contains("gpu0"))'
expect_exit 1 "$plan" plan "${tiny[@]}" --gpu virtual:1M
expect_stdout_line 'DOES NOT FIT'
expect_stdout_line '^ +possible: a device of at least'
expect_exit 1 "$plan" plan --model kimi-k2 --machine xeon6-1s-mrdimm-rtx4090 --gpu none --users 1 --context 1024
expect_stdout_line '^ +possible: at least .*of memory'

# ---- bad input: status 2, one line
expect_error 2 '^hf-plan: .*--users' "$plan" plan --model examples/tiny-moe --machine paced-desk --users 0
expect_error 2 '^hf-plan: .*--users' "$plan" plan --model examples/tiny-moe --machine paced-desk --users x
expect_error 2 '^hf-plan: .*--context' "$plan" plan --model examples/tiny-moe --machine paced-desk --context 100000
expect_error 2 '^hf-plan: .*--model' "$plan" plan --machine paced-desk
expect_error 2 '^hf-plan: .*--model.*deepseek-r9' "$plan" plan --model deepseek-r9 --machine paced-desk
expect_error 2 '^hf-plan: .*no-such-machine' "$plan" plan --model examples/tiny-moe --machine no-such-machine
expect_error 2 '^hf-plan: .*hf-profile' "$plan" plan --model examples/tiny-moe
expect_error 2 '^hf-plan: .*gpu3' "$plan" plan "${tiny[@]}" --gpu cuda:3
expect_error 2 '^hf-plan: .*--gpu' "$plan" plan "${tiny[@]}" --gpu warp:9
expect_error 2 '^hf-plan: .*--skew' "$plan" plan "${tiny[@]}" --skew steep
expect_error 2 '^hf-plan: .*--format' "$plan" plan "${tiny[@]}" --format q99
expect_error 2 '^hf-plan: .*klingon' "$plan" plan "${tiny[@]}" --census examples/tiny-moe/census.json --census-kind klingon
expect_error 2 '^hf-plan: .*run 99' "$plan" plan "${tiny[@]}" --from-run 99
expect_error 2 '^hf-plan: .*--from-run' "$plan" plan "${tiny[@]}" --from-run soon
expect_error 2 '^hf-plan: .*no/such/plan.json' "$plan" evaluate --plan no/such/plan.json
echo '{"plan_id": 1}' >"$tmp/bad.json"
expect_error 2 '^hf-plan: .*bad.json' "$plan" evaluate --plan "$tmp/bad.json"
head -c 3000 "$tmp/p.json" >"$tmp/cut.json"
expect_error 2 '^hf-plan: .*cut.json' "$plan" evaluate --plan "$tmp/cut.json"
expect_error 2 '^hf-plan: .*inputs' "$plan" evaluate --plan <(jq 'del(.inputs)' "$tmp/p.json")
expect_error 2 'evaluate' "$plan" guess
expect_error 2 '^hf-plan: .*--out' "$plan" plan "${tiny[@]}" --out /no/such/folder/p.json
