# hf-run under mpirun: experts on other ranks give the tokens of one process, by percentage and by plan, on the CPU and beside a device, checked against
# known answers; a plan that needs other machines is refused without them; errors of any rank are told once. Losses: ranks_lost.sh.
. tests/cli/lib.sh
. tests/cli/ranks_common.sh
expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu none --out "$tmp/one.jsonl"
expect_json 'has("ranks") | not'

# two and three ranks, memory and loopback, CPU and device, all of the experts or half
try() {
  local n=$1
  shift
  rm -f "$tmp/many.jsonl"
  expect_exit 0 mpirun -n "$n" "${mpi[@]}" "$@" --out "$tmp/many.jsonl"
  expect_same "$(answers "$tmp/one.jsonl")" "$(answers "$tmp/many.jsonl")" "answers of $*"
  expect_json --argjson n "$n" '(.ranks | length == $n - 1) and all(.ranks[]; .experts > 0 and .layers > 0 and .rows > 0 and .bytes > 0
    and .busy_s > 0 and .away_s >= .busy_s and .lost == false) and .ranks_waited_s >= 0 and .ranks_away_s > 0
    and .ranks_away_s <= ([.ranks[].away_s] | add) + 1e-6 and .ranks_away_s >= ([.ranks[].away_s] | max) - 1e-6'
}
try 2 "${memory[@]}" "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50
expect_json '.ranks[0].experts == 80'
try 3 "${loopback[@]}" "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 100
try 2 "${memory[@]}" "$bin/hf-run" "${ask[@]}" --gpu virtual:64M --experts-on-gpu 50 --depth 2 --experts-on-ranks 50
expect_json '.ranks[0].experts == 40' # of those that are not on the device

# ranks of two NUMA nodes each; and prompts that were to be uploaded, where experts are away
echo '{"nodes": [{"cpus": 1, "dram_bytes_per_s": 3e10}, {"cpus": 1, "dram_bytes_per_s": 1e10}]}' >"$tmp/nodes.json"
export HF_TOPOLOGY=$tmp/nodes.json
for share in 50 100; do try 2 "${memory[@]}" "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks $share --threads 2; done
try 3 "${loopback[@]}" "$bin/hf-run" "${ask[@]}" --gpu virtual:64M --experts-on-gpu 50 --depth 2 --experts-on-ranks 70
unset HF_TOPOLOGY
expect_exit 0 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" --check-reference tests/golden/deepseek_v3/reference.json \
  --model tests/golden/deepseek_v3 --experts-on-ranks 50 --threads 1 --batch 5 --gpu virtual:512M --depth 3 --upload-tokens 1 --json
expect_json '.verdict == "passed" and .greedy_match == .greedy_total'
expect_stderr_line 'prompts are not uploaded in [0-9]+ layers: other ranks have experts of theirs'
expect_exit 0 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" --check-reference tests/golden/deepseek_v3/reference.json \
  --model tests/golden/deepseek_v3 --experts-on-ranks 50 --threads 1 --batch 3 --json
expect_json '.verdict == "passed" and .greedy_match == .greedy_total'

# A plan that names another machine is what is run, and is refused where there is none.
expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --remote paced-desk:100gbe --users 5 --context 256 --gpu none \
  --out "$tmp/plan.json" --json
away=$(jq '[.placement[][] | select(.[1] == 0) | .[0]] | add' "$tmp/plan.json")
if [ "$away" -le 0 ]; then fail "the plan places nothing on the other machine"; fi
expect_error 2 '^hf-run: plan: places experts on 1 other machine: .*mpirun' "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json"
try 2 "${memory[@]}" "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json"
expect_json --argjson n "$away" '.ranks[0].experts == $n'

# Layers whose experts are all here or on the device upload, those with experts on the other machine do not; both in one plan.
for u in 1 2 3; do
  jq -nc --argjson u "$u" '{id: "u\($u)", ids: [range(128) | (. * 37 + $u * 211) % 4000], max_tokens: 12}'
done >"$tmp/u.jsonl"
send=(--model $tiny --prompts "$tmp/u.jsonl" --ignore-eos --json --quiet)
expect_exit 0 "$bin/hf-run" "${send[@]}" --gpu none --out "$tmp/cpu.jsonl"
expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --remote paced-desk:100gbe --users 3 --context 192 --prompt-tokens 128 \
  --output-tokens 12 --gpu paced:paced-desk:7M --depth 2 --out "$tmp/both.json" --json
# The plan itself sends none where it places experts on the other machine, and so what it predicts is what hf-run does.
expect_same "$(jq -c '[range(.layers | length) as $l | select(any(.placement[$l][]; .[1] == 1)) | .layers[$l].prefill] | unique' "$tmp/both.json")" '["cpu"]' \
  "prompts of layers with experts on the other machine"
jq '.layers |= map(.prefill = "upload") | .upload_tokens = 2 | .upload_slots = 4
  | .placement |= [to_entries[] | if .key >= 3 then .value | map(if .[1] == 1 then [.[0], -1] else . end) else .value end]' "$tmp/both.json" >"$tmp/mixed.json"
for depth in 1 3; do
  rm -f "$tmp/many.jsonl"
  expect_exit 0 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${send[@]}" --plan "$tmp/mixed.json" --depth $depth --gpu paced:paced-desk:16M \
    --out "$tmp/many.jsonl" --trace "$tmp/trace.json"
  expect_stderr_line 'prompts are not uploaded in 2 layers'
  expect_same "$(answers "$tmp/cpu.jsonl")" "$(answers "$tmp/many.jsonl")" "answers with uploads beside ranks at depth $depth"
  expect_same "$(jq -c '[.traceEvents[] | select(.cat == "upload") | .args.layer] | unique' "$tmp/trace.json")" '[3,4,5]' "layers that upload"
done

# More users than one machine has memory for, as planned: both programs say no without the other machine and yes with it. (A smaller chunk than the plan's:
# what attention and experts need as scratch is no row of hf-plan's budget, and much of a memory of 14 MiB.)
jq '.name = "small-desk" | .devices[0].mem_bytes.value = 14680064' db/catalog/machines/paced-desk.json >"$tmp/small.json"
echo '{"nodes": [{"cpus": 1, "mem_bytes": 14680064, "dram_bytes_per_s": 1e10}]}' >"$tmp/topology.json"
jq -nc 'range(24) | {id: "\(.)", prompt: "It was \(.)", max_tokens: 24}' >"$tmp/many-users.jsonl"
load=(--model $tiny --machine "$tmp/small.json" --users 24 --context 128 --gpu none)
crowd=(--model $tiny --prompts "$tmp/many-users.jsonl" --ignore-eos --threads 1 --quiet --json)
expect_exit 0 "$bin/hf-run" "${crowd[@]}" --gpu none --out "$tmp/crowd.jsonl"
expect_exit 1 "$bin/hf-plan" plan "${load[@]}"
expect_exit 1 env HF_TOPOLOGY="$tmp/topology.json" "$bin/hf-run" "${crowd[@]}" --gpu none --users 24 --context 128 --chunk 64
expect_exit 0 "$bin/hf-plan" plan "${load[@]}" --remote paced-desk:100gbe --out "$tmp/crowd-plan.json"
expect_exit 0 env HF_TOPOLOGY="$tmp/topology.json" mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${crowd[@]}" --plan "$tmp/crowd-plan.json" \
  --chunk 64 --out "$tmp/many.jsonl"
expect_same "$(answers "$tmp/crowd.jsonl")" "$(answers "$tmp/many.jsonl")" "answers of many users"

# hf-profile measures the way between ranks, hf-plan takes it where it is named.
expect_exit 0 "$bin/hf-profile" --quick --only dram --quiet --json
host=$(json .machine)
expect_error 2 '^hf-profile: --ranks: .*mpirun' "$bin/hf-profile" --ranks
expect_error 2 '^hf-plan: option --remote: .*was not measured' "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:measured" --json
expect_exit 0 mpirun -n 3 "${mpi[@]}" "${loopback[@]}" "$bin/hf-profile" --ranks --json
expect_json '.measurements | length == 28 and all(.what == "rank_link_ns" and .value > 0 and .n >= 6 and .tag == "measured")'
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*), count(distinct bytes), min(dst) = max(dst), min(ns) > 0 from link_curve where src = 'host' and dst like '@%' and load = ''")" \
  '20|10|1|1' "rows of the link"
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*), count(distinct measurement), min(measurement) > 1e18 from link_curve where dst like '@%'")" \
  '28|1|1' "measurements of the link"
# Those newly measured count alone, also where they stop at shorter messages (as on a link that became slow).
sqlite3 "$HETEROFLOW_DB" "insert into link_curve select machine_id, src, dst, pinned, load, bytes, 2e7 + 1e3 * bytes, 2e7 + 1e3 * bytes, 2e7 + 1e3 * bytes, n, tag, measurement + 1
  from link_curve where dst like '@%' and bytes <= 4096"
expect_exit 0 "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:measured" --json
expect_json '[.figures[] | select(.name == "link_latency_ns") | .likely][0] | . > 2e7 and . < 2.1e7'
sqlite3 "$HETEROFLOW_DB" "delete from link_curve where measurement = (select max(measurement) from link_curve)"
expect_exit 0 "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:measured" --json
# A rank over a link that was measured to this machine is on it and shares its memory; over a link of the catalog it is on another like it.
expect_json '[.figures[] | select(.name == "ranks_contend")] | length == 1 and .[0].likely > 0'
expect_exit 0 "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:100gbe" --json
expect_json '[.figures[] | select(.name == "ranks_contend")] == []'
expect_exit 0 "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:measured" --json
expect_json '[.figures[] | select(.name | startswith("link_")) | .tag] == ["measured", "measured"] and all(.figures[]; .low <= .likely and .likely <= .high)'

# Errors of any rank are told once, by rank 0, with its exit status.
expect_exit 2 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${ask[@]}" --gpu none
expect_stderr_line '^hf-run: mpirun started 2 ranks and nothing is placed on the others'
expect_exit 2 mpirun "${mpi[@]}" "${memory[@]}" -n 1 "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50 : \
  -n 1 "$bin/hf-run" "${ask[@]}" --model tests/golden/deepseek_v3 --gpu none
expect_same "$(grep -c '^hf-run: rank 1 (.*): .* is not the model that rank 0 has' "$err")" 1 "lines that name the wrong model"
expect_error 2 '^hf-run: --experts-on-ranks: there are no other ranks' "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50
# What a rank has to say before rank 0 knows it, too; also where rank 0 has a complaint of its own.
expect_exit 2 mpirun "${mpi[@]}" "${memory[@]}" -n 1 "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50 : \
  -n 1 "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50 --isa none-such
expect_same "$(grep '^hf-run: ' "$err" | sed 's/(.*)//')" "$(HF_ISA='' "$bin/hf-run" "${ask[@]}" --isa none-such 2>&1 | sed 's/^hf-run:/hf-run: rank 1 :/;s/(.*)//')" "what rank 1 says at once"
expect_exit 2 mpirun "${mpi[@]}" "${memory[@]}" -n 1 "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50 : \
  -n 1 "$bin/hf-run" "${ask[@]}" --model "$tmp/not-on-this-machine" --gpu none
expect_same "$(grep -c '^hf-run: rank 1 (.*): .*not-on-this-machine' "$err")" 1 "lines that name a missing model"
SECONDS=0
expect_exit 0 mpirun -n 2 --enable-recovery "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${ask[@]}" --isa none-such # mpirun's status is 0 then
expect_same "$(grep -c '^hf-run: ' "$err")" 1 "lines of an error that all ranks have"
[ $SECONDS -lt 60 ] || fail "ranks wait for a rank 0 that has nothing for them"

# Memory for rows that travel is in both programs' budgets: 5 users and chunks of 64 tokens that choose 2 of their experts, 64 wide.
echo '{"nodes": [{"cpus": 1, "mem_bytes": 1048576, "dram_bytes_per_s": 1e10}]}' >"$tmp/topology.json"
config=$(jq -c '[.num_experts_per_tok, .hidden_size]' $tiny/config.json)
row_bytes=$(jq -n --argjson c "$config" '69 * (8 * $c[0] + 8 * $c[1] + 4)')
expect_exit 1 env HF_TOPOLOGY="$tmp/topology.json" mpirun -n 3 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50 --chunk 64 --users 5 --context 256
expect_json --argjson b "$row_bytes" '[.budget[] | select(.what == "rows for other ranks").bytes] == [2 * $b]'
expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --remote paced-desk:100gbe,paced-desk:100gbe --users 5 --context 256 --chunk-tokens 64 --gpu none --json
expect_json --argjson b "$row_bytes" '[.budget[] | select(.what == "rows for other machines") | [.where, .bytes]] | sort == [["ram", 2 * $b], ["remote0", $b], ["remote1", $b]]'

# The plan's kernels are those of every rank: both say that they lack this one.
jq '.kernels = [{op: "expert_ffn", format: "bf16", candidate: "bf16.none-such", tokens_lo: 1, tokens_hi: 64}]' "$tmp/plan.json" >"$tmp/kernels.json"
expect_exit 0 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" --model $tiny --prompt "It was" --max-tokens 2 --plan "$tmp/kernels.json" --verbose
expect_same "$(grep -c "the plan's kernels: .*bf16.none-such.*using the default" "$err")" 2 "ranks that were told the plan's kernels"

# One rank writes a file, and says so.
expect_exit 0 mpirun -n 3 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" model generate synth:$tiny,format=q8_0,seed=1 "$tmp/m.gguf" --json
expect_same "$(jq -s length "$out")" 1 "documents of model generate"
expect_exit 0 mpirun -n 3 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" --model synth:$tiny,format=q8_0,seed=1 --write-model "$tmp/w.gguf" --json
expect_same "$(jq -s length "$out")" 1 "documents of --write-model"
cmp "$tmp/m.gguf" "$tmp/w.gguf" || fail "the files differ"
echo ok
