#!/bin/bash
# Advice of a plan in tokens per second and in money: what is worth how much, on what assumptions, and what the part costs.
. tests/cli/lib.sh
plan=$bin/hf-plan
load="--users 5 --context 8192 --no-store"
line() { printf '(.advice.values[] | select(.what == "%s" and .method == "solved again"))' "$1"; }

expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,sockets=2,memory=ddr5-6400,gpu=rtx4090 $load --json
for what in "device memory" context "DRAM bandwidth" PCIe users; do
  expect_json "[$(line "$what")] | length == 1 and (.[0] | has(\"worth\") and has(\"cost\"))"
done
# Worth by hand, from the members beside it: additional output tokens a month, each with its 15 input tokens, at the model's list
# prices: 0.7 a million input tokens (none of them cheaper for being cached), 2.5 output.
expect_json "[$(line "DRAM bandwidth")][0] | .tok_per_s_delta > .noise_tok_per_s and .prompt_time_ratio <= 1"
expect_json '(.simulation.tok_per_s_wall) as $w | (.prompt_tokens / .output_tokens) as $mix
  | ($w * $mix / .simulation.prefill_tok_per_s) as $share
  | [.advice.values[] | select(.worth != null)] | length >= 3 and all(
      (.decode_tok_per_s / (.decode_tok_per_s - .tok_per_s_delta)) as $r
      | (1 / ((1 - $share) / $w / $r + $share / $w * .prompt_time_ratio) - $w) as $more
      | if .what == "PCIe" then .worth.output_tok_per_s > 0
        else (.worth.output_tok_per_s / $more - 1 | fabs) < 1e-6 end
      and ((.worth.output_tokens_per_month / (.worth.output_tok_per_s * 0.3 * 8760 * 300) - 1 | fabs) < 1e-6)
      and ((.worth.per_month.likely / (.worth.output_tokens_per_month * (2.5 + $mix * 0.7) / 1e6) - 1 | fabs) < 1e-6)
      and .worth.per_month.low < .worth.per_month.likely and .worth.per_month.likely < .worth.per_month.high
      and .worth.over_depreciation.likely < 48 * .worth.per_month.likely
      and .worth.years == 4 and .worth.currency == "USD")'
# The machine's price over tokens/s that are delivered, and over those while all decode.
expect_json '.simulation.tok_per_s_wall as $w | .predicted.decode_tok_per_s.likely as $d | (.advice.values[] | select(.what == "hardware"))
  | (.price_per_delivered_tok_per_s * $w / .price - 1 | fabs) < 1e-9 and (.price_per_tok_per_s * $d / .price - 1 | fabs) < 1e-9'
# The sum of 48 months, falling by a fifth a year, discounted at 8 % a year.
expect_json "[$(line "DRAM bandwidth")][0].worth | (.over_depreciation.likely / .per_month.likely) as \$months
  | ([range(48)] | map(pow(0.8; . / 12) / pow(1.08; (. + 1) / 12)) | add) as \$sum | (\$months / \$sum - 1 | fabs) < 1e-9"
expect_json '.advice.assumptions | map(.name) | contains(["utilisation", "api_price_out_per_million", "depreciation_years", "discount_rate"])'
expect_json '.advice.assumptions | all((.tag | length > 0) and (.source | length > 0))'
expect_json '.advice.assumptions[] | select(.name == "api_price_out_per_million") | .tag == "spec" and .likely == 2.5'
# The next parts and their prices, as the catalog has them.
cp "$out" "$tmp/default.json"
price() { "$plan" catalog show gpus "$1" --json | jq -r "$2"; }
likely=$(($(price rtx5090 .price_usd.value) - $(price rtx4090 .price_usd.value)))
gib=$(jq -n "($(price rtx5090 .mem_bytes.value) - $(price rtx4090 .mem_bytes.value)) / 1073741824")
cp "$tmp/default.json" "$out"
expect_json --argjson p "$likely" --argjson g "$gib" "[$(line "device memory")][0].cost | .part == \"rtx5090\" and .instead_of == \"rtx4090\"
  and .amount == \$g * 1073741824 and .price.likely == \$p and (.per_change - \$p / \$g | fabs) < 1e-6 and .price.low <= \$p and .price.high >= \$p"
expect_json "[$(line "DRAM bandwidth")][0].cost | .part == \"mrdimm-8000\" and .instead_of == \"ddr5-6400\" and .unit == \"B/s\" and .price.likely > 0 and .price.low >= 0
  and (.per_change / (.price.likely * 10e9 / .amount) - 1 | fabs) < 1e-9"
expect_json "[$(line PCIe)][0] | .cost == null"
# Modules that are no longer sold are passed over: the next ones that the CPU drives faster.
mkdir -p "$tmp/ended/memory"
"$plan" catalog show memory mrdimm-8000 | jq '.sale = "ended: a test"' >"$tmp/ended/memory/mrdimm-8000.json"
HF_CATALOG=$tmp/ended expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,sockets=2,memory=ddr5-6400,gpu=rtx4090 $load --json
expect_json "[$(line "DRAM bandwidth")][0].cost | .part == \"mrdimm-8800\""

# A scenario named by the asker is the price of this model, with its own tags and currency; one without API prices leaves money out.
expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,sockets=2,memory=ddr5-6400,gpu=rtx4090 $load --scenario eu --json
expect_json '.advice.assumptions[] | select(.name == "api_price_out_per_million") | .tag == "spec"'
expect_json "[$(line "device memory")][0].worth.currency == \"EUR\" and [$(line "device memory")][0].cost.price.likely < $likely"
echo '{"api_price_in_per_million": null, "api_price_out_per_million": null}' >"$tmp/none.json"
expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,gpu=rtx4090 $load --scenario "$tmp/none.json" --json
expect_json 'all(.advice.values[]; .worth == null) and .advice.assumptions == [] and (.advice | has("worth_note") | not)'
expect_error 2 'option --scenario' "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 $load --scenario no-such-scenario

# Somebody's own weights have no price that is known, a machine of stated rows no parts; PCIe is there for a paced card too, not for a virtual device.
tiny=(--model examples/tiny-moe --users 5 --context 192 --no-store --json)
expect_exit 0 "$plan" plan "${tiny[@]}" --machine paced-desk --gpu paced:paced-desk
expect_json "[$(line PCIe)] | length == 1"
expect_json 'all(.advice.values[] | select(has("worth")); .worth == null and .cost == null)'
expect_exit 0 "$plan" plan "${tiny[@]}" --machine paced-desk
expect_json "[$(line PCIe)] | length == 1"
expect_exit 0 "$plan" plan "${tiny[@]}" --machine paced-desk --gpu virtual:7M
expect_json "[$(line PCIe)] | length == 0"
expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p $load --json
expect_json "[$(line PCIe), $(line "device memory")] | length == 0"
# Every card of the machine has its own line.
expect_exit 0 "$plan" plan --model deepseek-r1 --machine 'cpu=epyc-9655,gpu=rtx4090+rtx5090' $load --json
expect_json "[$(line "device memory") | .cost.instead_of] == [\"rtx4090\", \"rtx5090\"]"
expect_json "[$(line PCIe)] | length == 1"
expect_json "[$(line "DRAM bandwidth")][0].cost == null" # the fastest this CPU takes

# ---- text
expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,sockets=2,memory=ddr5-6400,gpu=rtx4090 $load
expect_stdout_line '^    DRAM bandwidth, 10 GB/s more \(now [0-9]+ GB/s\): \+[0-9.]+ tokens/s'
expect_stdout_line '^      worth up to [0-9.,]+ USD \([0-9.,]+ to [0-9.,]+\) a month, [0-9.,]+ USD \([0-9.,]+ to [0-9.,]+\) over 4 years$'
expect_stdout_line '^      rtx5090 instead of rtx4090 brings [0-9.]+ GiB more for [0-9.,]+ USD.*, (spec|assumed): [0-9.,]+ USD for this much$'
expect_stdout_line '^      from: API, per million output tokens 2.5 \(spec\), .*share of all hours at work 0.3 \(assumed\)'
expect_stdout_line '^    hardware per token/s: [0-9]+ USD delivered, [0-9]+ USD while all decode$'
expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,gpu=rtx4090 $load --scenario "$tmp/none.json"
if grep -q "worth" "$out"; then grep -q "search is worth" "$out" && [ "$(grep -c worth "$out")" = 1 ] || fail "money without a price"; fi

# ---- what each class of layers waits for
expect_exit 0 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 $load --depth 1 --json
expect_json '.layer_classes | map([.first, .count, .class, .waits_for]) == [[0, 3, "dense", "device"], [3, 58, "MoE", "DRAM bandwidth"]]'
expect_json '.binding == "DRAM bandwidth"'
expect_exit 0 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 $load --depth 1
expect_stdout_line '^  layers       3-60: 58 MoE, DRAM bandwidth; 0-2: 3 dense, device$'
# Classes cover every layer once, in order.
jq -e '.n_layers as $n | [.layer_classes[] | .count] | add == $n' "$tmp/default.json" >/dev/null || fail "classes do not cover the layers"
jq -e '[.layer_classes[] | .first] == ([.layer_classes[] | .count] as $c | [range($c | length)] | map($c[:.] | add // 0))' "$tmp/default.json" >/dev/null ||
  fail "classes are not in order"

# ---- the page: what the search is worth, the loss of the GPU, advice in tokens/s and in money, and whose figure is whose
expect_exit 0 "$plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,sockets=2,memory=ddr5-6400,gpu=rtx4090 --users 5 --context 8192 --out "$tmp/p.json" --json
expect_exit 0 "$bin/hf-report" plan --html "$tmp/plan.html" --json
sed 's/<[^>]*>/ /g' "$tmp/plan.html" >"$tmp/page.txt"
for words in "What the search is worth here: simpler placements, by the decode step" "Tokens/s by the step alone" "all experts on the CPU" \
  "Three figures of one plan: [0-9.]* tokens/s by the step alone" "that is not what is left when the device is lost" \
  "With gpu0 lost, [0-9.]* tokens/s are delivered instead of [0-9.]*, the first token within" "The same in money" "What that worth rests on"; do
  grep -q "$words" "$tmp/page.txt" || fail "the page does not say: $words"
done
# The money on the page is that of the plan.
expect_json '.tables["plan-worth-inputs"].rows | length >= 5'
expect_json '.tables["plan-baselines"].rows | map(.[0]) | index("all-cpu") != null' # names in data stay
expect_json --slurpfile p "$tmp/p.json" '.tables["plan-worth"] as $t | ($t.columns | index("per_month")) as $m | ($t.columns | index("part_price")) as $c
  | [$p[0].advice.values[] | select(.worth != null or .cost != null)] as $v | ($t.rows | length) == ($v | length) and ($v | length) >= 4
  and all(range($v | length); $t.rows[.][$m] == $v[.].worth.per_month.likely and $t.rows[.][$c] == ($v[.].cost.price.likely // null))'
expect_json '.tables["plan-hardware"].rows | all(.[2] != null)'

# More of something never costs speed: the plan's own placement still fits.
expect_exit 0 "$plan" plan --model gpt-oss-120b --machine 'cpu=epyc-9655,gpu=rtx5090*2' --users 10 --context 8192 --no-store --json
expect_json '[.advice.values[] | select(.what != "users") | .tok_per_s_delta // empty] | length >= 4 and all(. >= 0)'
