# hf-plan roi and its page: a stored plan, a machine to be planned, limits, scenarios, refusals.
. tests/cli/lib.sh
plan=$bin/hf-plan
if [ ! -x "$plan" ]; then skip "hf-plan is not built"; fi
r1=(--model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --context 2048)

# A plan of the database: the tokens per second are the simulated ones of the plan.
expect_exit 0 "$plan" plan "${r1[@]}" --users 3 --json --quiet
id=$(json .plan_id)
wall=$(json .simulation.tok_per_s_wall)
expect_exit 0 "$plan" roi --plan "$id" --json --csv "$tmp/roi.csv"
expect_json --argjson wall "$wall" '.kind == "roi" and .answer_id > 0 and .currency == "USD" and .case.tok_per_s_wall == $wall'
expect_json '(.inputs | map({key: .name, value: .}) | from_entries) as $i | .cost as $c
  | $i.tok_per_s.likely == .case.tok_per_s_wall and $i.hardware_price.likely > 10000
  and (($c.breakdown | map(.per_year) | add) / $c.per_year - 1 | fabs) < 1e-9
  and ($c.per_month * 12 / $c.per_year - 1 | fabs) < 1e-9
  and (($c.per_million_output + $i.input_per_output.likely * $c.per_million_input) / (1 + $i.input_per_output.likely) / $c.per_million_tokens - 1 | fabs) < 1e-9'
expect_json '.options | map(.way) == ["own", "api", "rent"]'
expect_json '.cash | length == 61 and .[0].api == 0 and .[0].own > 10000 and .[60].own > .[59].own'
expect_json '.sample.per_million_tokens | .p10 < .p50 and .p50 < .p90'
expect_json '(.levers | length) > 8 and all(.levers[]; .words != "" and (.flips == false or .flips_at != null))'
expect_json '.assumptions | length > 20 and all(.[]; (.tag | test("^(measured|scaled|spec|assumed)$")) and (.source | length) > 3)'
grep -q '^input,pue,1,1.2,1.54,1.8,spec,' "$tmp/roi.csv" || fail "PUE is not in the CSV"
first=$(json '.cost.per_million_tokens')

# The same by a plan file, and by planning again: the same cost (another plan of the same question).
expect_exit 0 "$plan" plan "${r1[@]}" --users 3 --json --quiet --out "$tmp/p.json" --no-store
expect_exit 0 "$plan" roi --plan "$tmp/p.json" --json --no-store
expect_json --argjson first "$first" '.cost.per_million_tokens == $first and (has("answer_id") | not)'
expect_exit 0 "$plan" roi "${r1[@]}" --users 3 --json
expect_json '.engine_note | test("own engine, whose GPU .CUDA. part is not written yet")'
expect_json --argjson first "$first" '(.cost.per_million_tokens / $first - 1 | fabs) < 0.02 and (.by_users | length) > 3'
expect_json 'all(.by_users[]; .feasible | not) or ([.by_users[] | select(.feasible) | .per_million_tokens] | length > 2)'

# A stored plan and the same question planned here rent as many GPUs: of weights and KV cache (144 GB here: 2 of 80 GB with a tenth to spare), not of buffers or
# the operating system, which would make 3 of them.
qwen=(--model qwen3-235b-a22b --machine xeon6-mrdimm-rtx4090 --users 2 --context 4096)
expect_exit 0 "$plan" plan "${qwen[@]}" --quiet --json --no-store --out "$tmp/q.json"
expect_exit 0 "$plan" roi --plan "$tmp/q.json" --json --no-store
rented='(.inputs[] | select(.name == "rented_gpus") | .likely)'
expect_json "$rented == 2"
rent=$(json '.options[] | select(.way == "rent") | .per_million_tokens')
expect_exit 0 "$plan" roi "${qwen[@]}" --json --no-store
expect_json --argjson rent "$rent" "$rented == 2 and ((.options[] | select(.way == \"rent\") | .per_million_tokens) / \$rent - 1 | fabs) < 0.02"

# What stands behind the price of renting: which GPUs, how many, how fast at least, and how little of that is asked for.
expect_json '(.inputs | map({key: .name, value: .likely}) | from_entries) as $i | .rented | .gpus == 2 and .price_per_hour == $i.rented_gpu_price_per_hour
  and (.gpu | test("H100.* of 80 GB")) and ((.demand_tok_per_s / ($i.tok_per_s * $i.utilisation) - 1) | fabs) < 1e-9
  and .decode_tok_per_s_least > 3 * .demand_tok_per_s and ((.use * .decode_tok_per_s_least * .up_share / .demand_tok_per_s - 1) | fabs) < 1e-9
  and (.text | test("2 GPUs taken as .*an hour each .*charged for this machine.s demand alone, .*catalog.*at least .*: paid around the clock for [0-9.]+ % use$"))'
words=$(json .rented.text)
expect_exit 0 "$plan" roi "${qwen[@]}"
grep -qF "  rented         $words" "$out" || fail "the text does not say what is rented"
if [ -x "$bin/hf-report" ]; then
  expect_exit 0 "$bin/hf-report" roi --html "$tmp/rented.html" --quiet
  grep -q 'Rented: 2 GPUs taken as ' "$tmp/rented.html" || fail "the page does not say what is rented"
fi
expect_exit 0 "$plan" roi "${qwen[@]}" --depth 2 --json --no-store
expect_json '.case.depth == 2'
expect_exit 0 "$plan" roi "${qwen[@]}" --json --no-store

# The API's price is the model's own: Novita's list, 0.20 in and 0.80 out. What a scenario states wins; a model nobody lists has an assumed one.
expect_json '.api_price | .from == "catalog" and .model == "qwen3-235b-a22b" and .per_million_input == 0.2 and .per_million_output == 0.8'
expect_json 'any(.inputs[]; .name == "api_price_out_per_million" and .tag == "spec" and (.source | test("Novita.*2026-07-02")))'
expect_json '.assumptions | any(.source | test("Novita"))'
echo '{"api_price_in_per_million": 1, "api_price_out_per_million": 3}' >"$tmp/api.json"
expect_exit 0 "$plan" roi --plan "$tmp/q.json" --scenario "$tmp/api.json" --json --no-store
expect_json '.api_price | .from == "scenario" and .per_million_output == 3'
expect_exit 0 "$plan" roi --model olmoe-1b-7b --machine xeon6-mrdimm-rtx4090 --users 2 --context 2048 --json
expect_json '.api_price.from == "assumed" and (.verdict | test("That API price is an assumption: nobody.s list price of olmoe-1b-7b is known here"))'
# This one is open: as assumed the API wins, in most draws something else; the verdict says so and on what it turns.
expect_json '.ruling | .way == "undecided" and .first != .second and .first_share >= .second_share and .share_needed == 0.6 and (.turns_on.words | length) > 3'
expect_json '.verdict | test("^Undecided: .* % of the draws.*What decides is .*the cheapest way is ")'

if [ -x "$bin/hf-report" ]; then
  expect_exit 0 "$bin/hf-report" roi --html "$tmp/open.html" --quiet
  for words in '>undecided<' 'cheapest in draws over all doubts: ' 'an assumption: this model has no known list price' '(cheapest as assumed)' \
    'Each of these alone, within its own doubt, makes another way the cheapest'; do
    grep -q "$words" "$tmp/open.html" || fail "the page does not say: $words"
  done
fi

# Half a list price is none: there is no API to compare with, and no price of it is claimed.
mkdir -p "$tmp/half/models"
"$plan" catalog show models qwen3-30b-a3b | jq 'del(.api_prices.output_per_million)' >"$tmp/half/models/qwen3-30b-a3b.json"
HF_CATALOG=$tmp/half expect_exit 0 "$plan" roi --model qwen3-30b-a3b --machine xeon6-mrdimm-rtx4090 --users 2 --context 2048 --no-store --json
expect_json '.api_price.from == "none" and all(.options[]; .way != "api")'

# Today's price stands beside the levelised one, in the document and in the text; both say of which tokens.
expect_exit 0 "$plan" roi --plan "$tmp/q.json" --no-store --csv "$tmp/q.csv"
expect_stdout_line '^  per million    .* USD, input and output together; .* of input alone, .* of output alone$'
expect_stdout_line '^  API today      a million tokens: 0.200 USD of input, 0.800 of output; list prices of this model$'
expect_stdout_line '^  way  a million, in and out .* a month  in 3 years  in 5 years'
expect_stdout_line '^            today  levelised       today  levelised'
expect_stdout_line '^  levelised:     the average over 4 years with prices falling 20 % a year, what is paid later discounted by 8 % a year$'
expect_stdout_line '^  own, a month:  its price spread over 4 years of use at 8 % interest, so 36 such months are not the sum of 3 years$'
expect_stdout_line 'Against the API at 0.[0-9]* USD for a million tokens in and out today, 0.[0-9]* levelised \(the average over 4 years'
grep -q '^api,levelised_per_million_tokens,money/M input and output,' "$tmp/q.csv" || fail "the CSV does not say of which tokens"
grep -q '^cost,per_million_input,money/M input,' "$tmp/q.csv" || fail "the CSV does not say of which tokens"

# A card nobody says the price of is not left out of the sum.
mkdir -p "$tmp/catalog/gpus"
jq '.name = "unpriced-card" | .aliases = [] | del(.price_usd)' db/catalog/gpus/rtx4090.json >"$tmp/catalog/gpus/unpriced-card.json"
bare=(roi --model qwen3-30b-a3b --machine cpu=xeon-6980p,gpu=unpriced-card --users 2 --no-store)
HF_CATALOG=$tmp/catalog expect_error 2 'price of its GPUs is not known; state part_prices.gpu' "$plan" "${bare[@]}"
echo '{"part_prices": {"gpu": 2000}}' >"$tmp/card.json"
HF_CATALOG=$tmp/catalog expect_exit 0 "$plan" "${bare[@]}" --scenario "$tmp/card.json" --json
expect_json 'any(.parts[]; .name == "gpu" and .likely == 2000)'

# A scenario of one's own overrides; nothing to compare with.
cat >"$tmp/mine.json" <<'END'
{"title": "ours", "currency": "EUR", "currency_per_usd": 0.9, "hardware_price": {"low": 20000, "likely": 25000, "high": 30000, "tag": "measured", "source": "an offer", "date": "2026-11-01"},
 "energy_price_per_kwh": 0.3, "api_price_in_per_million": null, "api_price_out_per_million": null, "rented_gpu_price_per_hour": null}
END
expect_exit 0 "$plan" roi --plan "$id" --scenario "$tmp/mine.json" --json
expect_json '.currency == "EUR" and (.options | length) == 1 and .cheapest == "own" and (.inputs[] | select(.name == "hardware_price") | .source == "an offer (2026-11-01)" and .tag == "measured")'
expect_exit 0 "$plan" roi --plan "$id" --scenario eu
expect_stdout_line '^  scenario       eu: .* in EUR$'
expect_stdout_line 'EUR \(8 of 10 draws'

# A tariff by the hour: cheap at night, when the default's office hours draw little, dear by day: more than its plain mean of 0.2.
jq -n '{energy_price_per_kwh: [range(24) | if . >= 8 and . < 20 then 0.3 else 0.1 end]}' >"$tmp/tariff.json"
expect_exit 0 "$plan" roi --plan "$id" --scenario "$tmp/tariff.json" --json --no-store
expect_json '(.energy_price_by_hour | length) == 24 and (.inputs[] | select(.name == "energy_price_per_kwh") | .likely > 0.2 and .likely < 0.3 and (.source | test("tariff")))'
echo '{"energy_price_per_kwh": [0.1]}' >"$tmp/tariff.json"
expect_error 2 'tariff.json: energy_price_per_kwh: an array of 24 prices' "$plan" roi --plan "$id" --scenario "$tmp/tariff.json"

# Limits: the most users that meet them; more than that; nobody.
expect_exit 0 "$plan" roi "${r1[@]}" --slo-tpot 0.2 --json
most=$(json .case.users)
expect_json '.case.users == .case.users_at_slo and .case.tpot_s.p95 <= 0.2 and .case.users >= 1'
expect_exit 0 "$plan" roi "${r1[@]}" --slo-tpot 0.2 --users $((most + 1)) --json
expect_json --argjson most "$most" '.case.users == $most and (.verdict | test("are not served as asked for"))'
printf '{"energy_price_per_kwh": 60, "co2_kg_per_kwh": 35}' >"$tmp/cents.json"
expect_exit 0 "$plan" roi --plan "$id" --scenario "$tmp/cents.json" --json
expect_json '.warnings | length == 2 and (.[0] | test("^energy_price_per_kwh is 60; usual is .*cents"))'
expect_exit 0 "$plan" roi --plan "$id" --scenario eu --json
expect_json '.warnings == []'
printf '{"depreciation_years": 0}' >"$tmp/zero.json"
expect_error 2 'depreciation_years: 0 is outside 0.25 to 30: years of use' "$plan" roi --plan "$id" --scenario "$tmp/zero.json"
expect_error 1 'not even one user' "$plan" roi "${r1[@]}" --slo-tpot 0.001
expect_error 1 'misses what was asked for' "$plan" roi --plan "$id" --slo-tpot 0.001

# Refusals: one line, nothing stored.
answers() { sqlite3 "$HETEROFLOW_DB" 'select count(*) from answer'; }
before=$(answers)
expect_error 2 'say what is to be priced' "$plan" roi
expect_error 2 'option --model: not together with --plan' "$plan" roi --plan "$id" --model deepseek-r1
expect_error 2 'option --depth: not together with --plan' "$plan" roi --plan 999 --depth 1
expect_error 2 'no plan 999' "$plan" roi --plan 999
expect_error 2 'nowhere.json' "$plan" roi --plan "$id" --scenario nowhere.json
expect_error 2 "did you mean 'eu'" "$plan" roi --plan "$id" --scenario euu
echo '{"tok_per_s": 500}' >"$tmp/cheat.json"
expect_error 2 'cheat.json: member tok_per_s: comes from the simulation' "$plan" roi --plan "$id" --scenario "$tmp/cheat.json"
echo '{"pue": -1}' >"$tmp/bad.json"
expect_error 2 'bad.json: pue' "$plan" roi --plan "$id" --scenario "$tmp/bad.json"
echo '{"pue": 1.2' >"$tmp/broken.json"
expect_error 2 'broken.json: line' "$plan" roi --plan "$id" --scenario "$tmp/broken.json"
expect_error 2 'no-such-folder' "$plan" roi --plan "$id" --csv "$tmp/no-such-folder/x.csv"
expect_error 2 'slo-tpot' "$plan" roi --plan "$id" --slo-tpot nan
expect_same "$(answers)" "$before" "answers after refusals"
