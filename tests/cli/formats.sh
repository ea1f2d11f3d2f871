#!/bin/bash
# hf-plan formats: the frontier of speed against quality, the limit on quality, recipes by name, the user's own table, and plan --formats auto.
. tests/cli/lib.sh
plan=$bin/hf-plan
base="--model qwen3-30b-a3b --machine epyc9654-1s-rtx4090 --users 4 --context 4096"

expect_exit 0 "$plan" formats $base --json
cp "$out" "$tmp/a.json"
jq -e '.kind == "formats" and .answer_id > 0 and .considered > 100 and .planned == (.candidates | length)' "$tmp/a.json" >/dev/null || fail "members"
# by falling rate; the frontier's losses fall, and nothing faster loses less than one of them
jq -e '[.candidates[] | select(.feasible) | .case.decode_tok_per_s.likely] | . == (sort | reverse)' "$tmp/a.json" >/dev/null || fail "order"
jq -e '[.candidates[] | select(.frontier) | .perplexity_increase] | . == (sort | reverse) and length > 3' "$tmp/a.json" >/dev/null || fail "frontier"
# the choice is the fastest that meets the limit
jq -e '.chosen as $c | [.candidates[] | select(.feasible and .meets_floor)][0] | .recipe == $c and .chosen and .perplexity_increase <= 0.02' \
  "$tmp/a.json" >/dev/null || fail "choice"
jq -e 'all(.candidates[]; .meets_floor == (.perplexity_increase <= 0.02 + 1e-12)) and ([.candidates[] | select(.usual)] | length) == 1' \
  "$tmp/a.json" >/dev/null || fail "flags"
jq -e 'any(.candidates[]; .quality_tag == "measured" and (.quality_source | length) > 0)' "$tmp/a.json" >/dev/null || fail "no published row"
expect_exit 0 "$plan" formats $base --json --no-store
jq -e --slurpfile a "$tmp/a.json" '[.candidates[] | [.recipe, .case.decode_tok_per_s]] == [$a[0].candidates[] | [.recipe, .case.decode_tok_per_s]]' \
  "$out" >/dev/null || fail "not the same twice"

# a stricter limit is never faster
rate='[.candidates[] | select(.chosen)][0].case.decode_tok_per_s.likely'
loose=$(jq "$rate" "$tmp/a.json")
expect_exit 0 "$plan" formats $base --json --no-store --quality-floor 0.5%
jq -e "$rate <= $loose and ([.candidates[] | select(.chosen)][0].perplexity_increase <= 0.005)" "$out" >/dev/null || fail "a stricter limit"
expect_exit 0 "$plan" formats $base --json --no-store --program llama.cpp
jq -e '[.candidates[] | select(.program == "ik_llama.cpp" or .program == "sglang")] | length == 0' "$out" >/dev/null || fail "types of other programs"
# what another program alone runs stands beside the answer, and keeps nothing out of it
large="--model deepseek-r1 --machine cpu=xeon-6980p,sockets=2,dimm=128G --format fp8 --json --no-store --quality-floor 0"
expect_exit 0 "$plan" formats $large
jq -e '.chosen == "fp8"' "$out" >/dev/null || fail "the original itself loses nothing"
expect_exit 0 "$plan" formats $large --program hf-run
jq -e '.chosen == "fp8" and ([.candidates[] | select(.frontier and .program != "hf-run")] | length) == 0 and .question.program == "hf-run"' "$out" >/dev/null ||
  fail "hf-run runs the original itself"
expect_exit 0 "$plan" formats $large --program llama.cpp
jq -e '.chosen == "bf16" and .usual == "fp8"' "$out" >/dev/null || fail "what llama.cpp runs without loss"
# what the model was published in stands among the rows, whatever it loses or takes
expect_exit 0 "$plan" formats --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 2 --context 1K
expect_stdout_line ' fp8 \(the model.s own\)$'
expect_exit 0 "$bin/hf-report" formats --html "$tmp/f.html" --json
expect_json '.tables.recipes.columns[2:4] == ["tok_per_s_wall", "perplexity_increase"]'
jq -e '.tables.recipes.rows | any(.[]; .[0] == "fp8" and (.[1] | test("own")))' "$out" >/dev/null || fail "own format on the page"
[ "$(grep -o 'formats-delivered\|formats-frontier' "$tmp/f.html" | head -1)" = formats-delivered ] || fail "delivered tokens/s do not come first"
expect_exit 0 "$plan" formats $base --no-store --csv "$tmp/f.csv"
expect_stdout_line '^Speed against quality'
head -n 1 "$tmp/f.csv" | grep -q '^recipe,program,bits_per_weight' || fail "no CSV"

# the chosen recipe is what --format takes, and prices the same
recipe=$(jq -r .chosen "$tmp/a.json")
expect_exit 0 "$plan" plan $base --format "$recipe" --json --no-store
expect_exit 0 "$plan" plan $base --formats auto --json --no-store
jq -e --arg r "$recipe" '[.formats.frontier[] | select(.chosen)][0].recipe == $r' "$out" >/dev/null || fail "plan --formats auto chose something else"
expect_error 2 'only auto is known' "$plan" plan $base --formats q4_k_m
expect_error 2 'has no figure for the type|no table has a figure' "$plan" formats $base --format q8_0:experts=nvfp4

# the user's own table counts before the catalog's
echo '{"title":"own","types":[{"type":"q8_0","experts":0.5,"rest":0.5}],"published":[{"recipe":"q4_k_m","baseline":10,"value":10.001}]}' >"$tmp/q.json"
expect_exit 0 "$plan" formats $base --json --no-store --quality "$tmp/q.json"
jq -e '.candidates[] | select(.recipe == "q4_k_m") | .quality_tag == "measured" and .perplexity_increase < 0.0002' "$out" >/dev/null || fail "own table"

# what llama.cpp computes without any loss is too large: the answer is no, with what would be possible
expect_exit 1 "$plan" formats --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --no-store --program llama.cpp --quality-floor 0
expect_stderr_line 'possible: --quality-floor'
expect_error 2 'quality-floor' "$plan" formats $base --quality-floor much
expect_error 2 'quality-floor' "$plan" formats $base --quality-floor -1
expect_error 2 'quality-floor' "$plan" formats $base --quality-floor nan
expect_error 2 'option --program' "$plan" formats $base --program vllm
expect_error 2 'option --format.*q4_k' "$plan" plan $base --format q4km
expect_error 2 'parts are' "$plan" plan $base --format q4_k_m:heads=q8_0
echo '{"types":[{"type":"q4_k","experts":1e999,"rest":0}]}' >"$tmp/bad.json"
expect_error 2 'bad.json' "$plan" formats $base --quality "$tmp/bad.json"
expect_exit 0 "$plan" formats --list --json
jq -e '[.formats[].name] | index("iq4_k") != null and index("q4_k_m") != null' "$out" >/dev/null || fail "list"
jq -e '[.formats[] | select(.name == "fp8" or .name == "q4_k").program] == ["hf-run", "hf-run"] and
  [.formats[] | select(.name == "iq3_s" or .name == "iq1_m").program] == ["llama.cpp", "llama.cpp"]' "$out" >/dev/null || fail "programs"
