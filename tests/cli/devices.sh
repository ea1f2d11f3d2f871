# Several devices: a plan of hf-plan for two unlike virtual devices is executed as it says, the same tokens as without a device and with one; a trace names
# both; what does not fit, or was made for other devices, is refused by its name; one that is lost costs no request.
. tests/cli/lib.sh
tiny=examples/tiny-moe
"$bin/hf-profile" --quick --model $tiny --quiet --json >/dev/null
ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 24 --ignore-eos --quiet --json)
answers() { jq -c '[.id, .ids]' "$1" | sort; }
pair=virtual:6M+virtual:4M
expect_exit 0 "$bin/hf-plan" plan --model $tiny --gpu $pair --users 5 --context 128 --prompt-tokens 40 --output-tokens 24 --depth 1 --kv-type f16 --out "$tmp/plan.json" --json --quiet
expect_json '.devices | length == 2 and .[0].spec == "virtual:6M" and .[1].spec == "virtual:4M"'
expect_json '[.layers[] | .home // 0] | unique == [0, 1] and . == sort'
expect_json '[.budget[] | select(.where == "gpu1" and (.what | test("KV")))] | length == 1'

# The loss of one moves everything to the CPU, as hf-run does: what whatif says of it.
lost=$(jq .fallback.decode_tok_per_s "$out")
expect_json '.fallback | .lost == "gpu0" and .placement == "everything on the CPU" and .feasible'
expect_exit 0 "$bin/hf-plan" whatif --model $tiny --gpu $pair --users 5 --context 128 --prompt-tokens 40 --output-tokens 24 --set lost=gpu0 --no-store --json
expect_json --argjson lost "$lost" '(.cases[0].decode_tok_per_s.likely / $lost - 1 | fabs) < 1e-9'

expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu none --out "$tmp/want.jsonl"
# One that is too small for a layer has experts at most; embedding and output are with the first and the last layer: what the plan says fits does.
for devices in virtual:6M+virtual:900K virtual:900K+virtual:6M; do
  expect_exit 0 "$bin/hf-plan" plan --model $tiny --gpu $devices --users 5 --context 128 --prompt-tokens 40 --output-tokens 24 --depth 1 --kv-type f16 --chunk-tokens 64 --out "$tmp/small.json" --json --quiet
  expect_json '[.layers[] | .home // 0] | unique | length == 1'
  expect_exit 0 "$bin/hf-run" "${ask[@]}" --plan "$tmp/small.json" --gpu $devices --out "$tmp/got.jsonl"
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers with $devices"
  rm "$tmp/got.jsonl"
done

for depth in 1 2 3; do # each micro-batch has buffers on both
  expect_exit 0 "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json" --gpu virtual:$((5 + depth))M+virtual:$((3 + depth))M --depth $depth --trace "$tmp/trace.json" --out "$tmp/got.jsonl"
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers of two devices at depth $depth"
  expect_json '[.trace.resources[].resource] | contains(["gpu0", "gpu1"])'
  expect_same "$(sqlite3 "$HETEROFLOW_DB" "select distinct resource from stage_time where run_id = $(json .run_id) and stage = 'attn' order by 1" | tr '\n' ' ')" 'gpu0 gpu1 ' "devices of stages"
done
# an attention of each layer on its home
homes=$(jq -c '[.layers[] | .home // 0]' "$tmp/plan.json")
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select distinct layer || ' ' || substr(resource, 4) from stage_time where run_id = $(json .run_id) and stage = 'attn' order by layer")" "$(jq -r 'to_entries[] | "\(.key) \(.value)"' <<<"$homes")" "home of each layer"

# Experts of every layer on both devices and the CPU, whatever its home.
jq '.placement |= map(if . == [] then . else [[8, 0], [8, 1], [16, -1]] end) | .budget = []' "$tmp/plan.json" >"$tmp/anywhere.json"
for depth in 1 3; do
  expect_exit 0 "$bin/hf-run" "${ask[@]}" --plan "$tmp/anywhere.json" --gpu virtual:8M+virtual:8M --depth $depth --out "$tmp/got.jsonl"
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers with experts anywhere at depth $depth"
done

# The times of a stage are the home's: experts on the other device add none, and where only guests are there is no row.
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from stage_time d join stage_time a using (run_id, source, layer, phase) where run_id = $(json .run_id) and d.stage = 'dexp' and a.stage = 'attn' and d.resource <> a.resource")" 0 "times of guests"
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(distinct layer) > 0 from stage_time where run_id = $(json .run_id) and stage = 'dexp'")" 1 "times of experts at home"

# Paced stages are those of the plan's own homes, whatever hf-plan would choose for the devices.
jq '.layers |= [to_entries[] | .value.home = (if .key == 0 then 0 else 1 end) | .value] | .placement |= map(if . == [] then . else [[32, -1]] end) | .budget = []' "$tmp/plan.json" >"$tmp/homes.json"
expect_exit 0 "$bin/hf-run" "${ask[@]}" --plan "$tmp/homes.json" --gpu paced:paced-pair:64M+paced:paced-pair:64M --limit 2 --out "$tmp/paced.jsonl"
expect_json '.requests == 2'

# Without a plan layers go by sizes; budgets name the device.
# Every pair of a depth, a batch and a share (a Latin square) with each family and each number of devices in turn.
batches=(1 5 16) shares=(0 50 100) i=0
for family in deepseek_v3 gpt_oss; do
  for depth in 1 2 3; do
    for b in 0 1 2; do
      devices=virtual:1G+virtual:500M
      ((i++ % 2)) && devices=virtual:300M+virtual:1G+virtual:500M
      expect_exit 0 "$bin/hf-run" --check-reference tests/golden/$family/reference.json --model tests/golden/$family --gpu $devices \
        --experts-on-gpu ${shares[(depth + b) % 3]} --depth $depth --batch ${batches[b]} --json
      expect_json '.verdict == "passed" and .prompts == .passed'
    done
  done
done
expect_exit 1 "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json" --gpu virtual:8M+virtual:400K
expect_stderr_line '^hf-run: does not fit: gpu1 needs .* and has 0\.4 MiB'
expect_error 2 'plan: placement\[1\]: expert 8 is on gpu1, but there is one device' "$bin/hf-run" "${ask[@]}" --plan "$tmp/anywhere.json" --gpu virtual:64M

for fault in error@900:gpu1 hang@700:gpu0 error@300:gpu1; do
  expect_exit 0 "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json" --fault "$fault" --device-deadline 0.3 --out "$tmp/got.jsonl"
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers with $fault"
  expect_json ".losses[0] | .requests == 5 and (.why | test(\"^${fault##*:}: \"))"
  expect_json '.losses[0].devices_left == 1 and .after_loss.decode_tok_per_s > 0'
  if [ "${fault##*:}" = gpu1 ]; then # as the plan for the other one says, which is in the database since before
    expect_json '.after_loss.plan_id > 0 and .after_loss.predicted_decode_tok_per_s > 0'
    expect_same "$(sqlite3 "$HETEROFLOW_DB" "select gpu from plan where id = $(json .after_loss.plan_id)")" virtual:6M "plan without gpu1"
  else # the small one has no room for all layers: what gpu0 had is the CPU's, and gpu1 keeps its own
    expect_json '.after_loss.plan_id == 0'
  fi
done

for bad in virtual:8M+paced:paced-pair virtual:8M+ virtual:8M+virtual: paced:paced-pair+paced:paced-desk; do
  expect_error 2 '^hf-run: (option )?--gpu' "$bin/hf-run" --model $tiny --prompt x --quiet --gpu "$bad"
  expect_error 2 'gpu' "$bin/hf-plan" plan --model $tiny --quiet --gpu "$bad"
done
for bad in error@5:gpu2 error@5:gpu9 error@5:gpux error@5:cpu; do
  expect_error 2 '^hf-run: --fault: ' "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json" --fault "$bad"
done
echo ok
