# hf-run --adapt on a paced device (tests/cli/paced_loop.sh says what that is): a load whose language changes is faster than with the plan for the first
# one, one that stays as it is moves nothing once it has settled, a plan that lies is found out and taken back. What was done is told, and in the
# database; no rows of asking stay there.
. tests/cli/lib.sh
tiny=examples/tiny-moe
every=1.5
machine=(--machine paced-desk --users 5 --context 256 --prompt-tokens 70 --output-tokens 64 --gpu paced:paced-desk:7.5M --depth 1)

of() { jq -c --arg d "$1" 'select(.domain == $d)' $tiny/prompts.jsonl; }
texts() { # FILE DOMAIN HOW_MANY [DOMAIN HOW_MANY ...]
  local file=$1
  shift
  : >"$file"
  while [ $# -gt 0 ]; do
    (of "$1" && of "$1" && of "$1") | sed -n "1,$2p" >>"$file"
    shift 2
  done
}
run() { # PLAN PROMPTS [OPTIONS]
  expect_exit 0 "$bin_of_run/hf-run" --plan "$1" --model $tiny --prompts "$2" --max-tokens 64 --ignore-eos --quiet --json "${@:3}"
  note_others
}

# ---- what cannot be ----
texts "$tmp/few.jsonl" code 2
expect_error 2 'adapt-every: goes with --adapt' "$bin/hf-run" --model $tiny --prompts "$tmp/few.jsonl" --adapt-every 5
expect_error 2 'adapt-rate: goes with --adapt' "$bin/hf-run" --model $tiny --prompts "$tmp/few.jsonl" --adapt-rate 5M
expect_error 2 'adapt: goes with --prompts' "$bin/hf-run" --model $tiny --bench --adapt
expect_error 2 'there is none \(--gpu\)' "$bin/hf-run" --model $tiny --prompts "$tmp/few.jsonl" --adapt --gpu none --quiet
expect_error 2 'no plan that could change' "$bin/hf-run" --model $tiny --prompts "$tmp/few.jsonl" --adapt --gpu virtual:16M --quiet
expect_error 2 'exact activations' "$bin/hf-run" --model $tiny --machine paced-desk --prompts "$tmp/few.jsonl" --adapt --gpu paced:paced-desk:7.5M --activations exact --quiet

for kind in swedish code; do
  expect_exit 0 "$bin/hf-plan" plan --model $tiny "${machine[@]}" --census $tiny/census.json --census-kind $kind --out "$tmp/$kind.json" --json --quiet
done
bin_of_run=$bin

# ---- the language changes ----
texts "$tmp/shift.jsonl" swedish 5 code 30
shift_load() {
  local static
  run "$tmp/swedish.json" "$tmp/shift.jsonl"
  static=$(json .decode_tok_per_s)
  expect_json '.adapt == null and .unlike_plan == null'
  run "$tmp/swedish.json" "$tmp/shift.jsonl" --adapt --adapt-every $every --out "$tmp/answers.jsonl"
  expect_json '.unfinished == 0 and .requests == 35'
  gain=$(jq -n "$(json .decode_tok_per_s) / $static - 1")
  wrong="changes $(json '.adapt.changes | map([.gain_expected, .gain_measured, .outcome]) | tojson'), $gain faster than the static plan"
  expect_same 35 "$(jq -s 'map(select(.output_tokens == 64)) | length' "$tmp/answers.jsonl")" "whole answers"
  jq -e '.adapt.failed == 0' "$out" >/dev/null && jq -e '.adapt.changes | length >= 1 and .[0].pairs > 0 and .[0].bytes > 0 and .[0].gain_expected >= 0.05 and (map(select(.outcome == "kept" and .gain_measured > 0)) | length) >= 1' "$out" >/dev/null &&
    jq -en "$gain > 0.05" >/dev/null
}
settle shift_load
expect_json '.unlike_plan == "experts changed places on the way" and .signed_error == null'
echo "a load that changes: $(jq -n "$gain * 1000 | round / 10") % faster than its first plan; $(json '.adapt.changes | map([.gain_expected, .gain_measured, .outcome]) | tojson')"

# ---- in the database ----
changes=$(json '.adapt.changes | length')
expect_same "$changes|1" "$(sqlite3 "$HETEROFLOW_DB" "select count(*), min(detail like '% pairs of experts changed places%expected%') from event where kind = 'replan' and run_id = $(json .run_id)")" "rows of events"
expect_same 0 "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from run where status = 'running'")" "rows of runs that go on"
id=$(json .run_id)
sqlite3 "$HETEROFLOW_DB" "update run set status = 'running' where id = $id"
expect_exit 0 "$bin/hf-plan" plan --from-run latest --json --quiet --no-store # is not one that was killed while it asked
expect_json ".changes.from_run < $id"
sqlite3 "$HETEROFLOW_DB" "update run set created_ns = created_ns - 7200000000000 where id = $id" # the next one that asks clears it away
killed=$id

# ---- nothing changes ----
texts "$tmp/same.jsonl" code 30
same_load() {
  run "$tmp/code.json" "$tmp/same.jsonl" --adapt --adapt-every $every
  expect_json '.unfinished == 0'
  wrong="a load that stays the same: asked $(json .adapt.asked) times, changes $(json '.adapt.changes | tojson')"
  jq -e '.adapt.failed == 0 and .adapt.asked > 2 and (.adapt.changes | length <= 1)' "$out" >/dev/null
}
settle same_load
expect_same 0 "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from run where id = $killed")" "rows of a run that was killed while it asked"
echo "a load that stays: asked $(json .adapt.asked) times, $(json '.adapt.changes | length') changes"

# ---- a plan that lies ----
# Each layer's experts in reverse, and half as fast again: what was chosen for nothing.
mkdir "$tmp/bin"
cp "$bin/hf-run" "$tmp/bin/"
cat >"$tmp/bin/hf-plan" <<LIE
#!/bin/bash
if [[ " \$* " != *" --from-run "* ]]; then exec "$bin/hf-plan" "\$@"; fi
set -o pipefail
exec < <("$bin/hf-plan" "\$@")
jq -c '.placement |= map(reverse) | .changes.gain_expected = 0.5'
LIE
chmod +x "$tmp/bin/hf-plan"
bin_of_run=$tmp/bin
liar() {
  run "$tmp/code.json" "$tmp/same.jsonl" --adapt --adapt-every $every
  expect_json '.unfinished == 0'
  wrong="a plan that lies: $(json '.adapt.changes | tojson')"
  jq -e '.adapt.failed == 0 and (.adapt.changes | length >= 1 and all(.[]; .outcome != "kept" and .gain_expected == 0.5) and .[0].outcome == "taken back" and .[0].gain_measured < -0.05)' "$out" >/dev/null
}
settle liar
echo "a plan that lies: $(json '.adapt.changes[0].gain_measured * 100 | round') % measured, taken back"

# ---- no plan to be had ----
printf '#!/bin/bash\nif [[ " $* " != *" --from-run "* ]]; then exec "%s/hf-plan" "$@"; fi\necho "hf-plan: does not want to" >&2\nexit 1\n' "$bin" >"$tmp/bin/hf-plan"
texts "$tmp/some.jsonl" code 12
expect_exit 0 "$tmp/bin/hf-run" --plan "$tmp/code.json" --model $tiny --prompts "$tmp/some.jsonl" --max-tokens 64 --ignore-eos --adapt --adapt-every 0.5 --json
expect_json '.unfinished == 0 and .adapt.failed > 0 and .adapt.asked - .adapt.failed <= 1 and (.adapt.changes | length) == 0'
expect_stderr_line 'adapting: no other plan: .*does not want to'
# one that never answers is not waited for at the end
printf '#!/bin/bash\nif [[ " $* " != *" --from-run "* ]]; then exec "%s/hf-plan" "$@"; fi\nexec sleep 600\n' "$bin" >"$tmp/bin/hf-plan"
expect_exit 0 timeout 300 "$tmp/bin/hf-run" --plan "$tmp/code.json" --model $tiny --prompts "$tmp/some.jsonl" --max-tokens 64 --ignore-eos --adapt --adapt-every 0.5 --json --quiet
expect_json '.unfinished == 0 and .adapt.asked == 1 and (.adapt.changes | length) == 0'
