# A plan whose prompts upload, on a paced device: hf-plan chooses it, hf-run runs it (whatever it uploads, answers are those of the CPU's experts at
# the same placement), its copy queue is a resource of the trace, its stages are rows of the run, and the plan's budget has its slots.
. tests/cli/lib.sh
tiny=examples/tiny-moe
answers() { jq -c '[.id, .ids]' "$1" | sort; }

expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --users 3 --context 192 --prompt-tokens 128 --output-tokens 12 \
  --gpu paced:paced-desk:7M --depth 1 --out "$tmp/plan.json" --json --quiet
expect_json '[.layers[] | select(.prefill == "upload")] | length > 0'
expect_json '.upload_tokens >= 1 and .upload_slots >= 2'
expect_json '[.budget[] | select(.where == "gpu0" and (.what | test("slots"))) | .bytes] | length == 1 and .[0] > 0'
layers=$(jq -c '[.layers | to_entries[] | select(.value.prefill == "upload") | .key]' "$out")
for u in 1 2 3; do
  jq -nc --argjson u "$u" '{id: "u\($u)", ids: [range(128) | (. * 37 + $u * 211) % 4000], max_tokens: 12}'
done >"$tmp/p.jsonl"

run=("$bin/hf-run" --plan "$tmp/plan.json" --model $tiny --prompts "$tmp/p.jsonl" --ignore-eos --json --quiet)
expect_exit 0 "${run[@]}" --out "$tmp/up.jsonl" --trace "$tmp/trace.json"
expect_json '.unfinished == 0 and .signed_error.ttft_s != null and .predicted.ttft_s.p50 > 0'
id=$(json .run_id)
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select json_group_array(distinct layer) from stage_time where run_id = $id and stage = 'upload' and phase = 'prefill' and resource = 'link' and ns_sum > 0")" \
  "$layers" "layers with rows of uploads"
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from stage_time where run_id = $id and stage = 'upload' and phase = 'decode'")" 0 "uploads of steps of decode alone"
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*) > 0 and min(bytes) > 0 from trace where run_id = $id and resource = 'link' and stage = 'upload'")" 1 "rows of the trace"
jq -e --argjson layers "$layers" '
  (.traceEvents | map(select(.ph == "M" and .args.name == "link") | .tid)) as $lane
  | [.traceEvents[] | select(.cat == "upload")] as $up
  | ($up | length) > 0 and all($up[]; [.tid] == $lane and .args.bytes > 0) and ([$up[].args.layer] | unique) == $layers
  # the link is at the next layer while the device computes the one before it
  and any(range(1; $layers | length); . as $k | any($up[]; . as $u | $u.args.layer == $layers[$k]
      and any($t[]; .cat == "dexp" and .args.layer == $layers[$k - 1] and .args.step == $u.args.step and .ts + .dur > $u.ts)))' \
  --argjson t "$(jq -c '[.traceEvents[] | select(.cat == "dexp")]' "$tmp/trace.json")" "$tmp/trace.json" >/dev/null || fail "the trace's link"

expect_exit 0 "${run[@]}" --out "$tmp/cpu.jsonl" --upload-tokens 0
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from stage_time where run_id = $(json .run_id) and stage = 'upload'")" 0 "uploads where none are wanted"
expect_same "$(answers "$tmp/cpu.jsonl")" "$(answers "$tmp/up.jsonl")" "answers"
for depth in 2 3; do
  expect_exit 0 "${run[@]}" --out "$tmp/up$depth.jsonl" --depth $depth --gpu paced:paced-desk:16M
  expect_same "$(answers "$tmp/cpu.jsonl")" "$(answers "$tmp/up$depth.jsonl")" "answers at depth $depth"
done
for fault in error@900 hang@1500 memory@320; do
  expect_exit 0 "${run[@]}" --out "$tmp/lost.jsonl" --fault "$fault" --device-deadline 0.5 --depth 2 --gpu paced:paced-desk:16M
  expect_same "$(answers "$tmp/cpu.jsonl")" "$(answers "$tmp/lost.jsonl")" "answers with $fault"
done

# Known answers with every expert sent.
for depth in 1 3; do
  expect_exit 0 "$bin/hf-run" --check-reference tests/golden/deepseek_v3/reference.json --model tests/golden/deepseek_v3 --gpu virtual:512M \
    --depth $depth --batch 5 --upload-tokens 1 --json --quiet
  expect_json '.verdict == "passed"'
done

# What a plan says of it is checked.
for bad in '.upload_slots = 1' '.upload_slots = 100' '.upload_slots = "x"' '.upload_tokens = -3' '.upload_tokens = 1e300'; do
  jq "$bad" "$tmp/plan.json" >"$tmp/bad.json"
  expect_error 2 '^hf-run: .*upload_(slots|tokens): not a number between' "$bin/hf-run" --plan "$tmp/bad.json" --model $tiny --prompts "$tmp/p.jsonl" --quiet
done
echo ok
