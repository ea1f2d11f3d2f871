# hf-run under mpirun: experts on other ranks give the tokens of one process, by percentage and by plan, on the CPU and beside a device, checked against
# known answers; a plan that needs other machines is refused without them; a rank that dies or hangs costs no request; rank 0's errors are told once.
. tests/cli/lib.sh
command -v mpirun >/dev/null || skip "no mpirun"
ldd "$bin/hf-run" | grep libmpi >/dev/null || skip "hf-run was built without MPI"
if ldd "$bin/hf-run" | grep libtsan >/dev/null; then skip "MPI itself is not built for ThreadSanitizer"; fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"
mpi=(--oversubscribe --bind-to none --mca orte_tmpdir_base "$tmp" --mca plm_rsh_agent false --mca btl_vader_single_copy_mechanism none)
memory=(--mca btl vader,self)
loopback=(--mca btl tcp,self --mca btl_tcp_if_include lo)
tiny=examples/tiny-moe
ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 24 --ignore-eos --threads 1 --quiet --json)
answers() { jq -c '[.id, .ids]' "$1" | sort; }
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
    and .busy_s > 0 and .away_s >= .busy_s and .lost == false) and .ranks_waited_s >= 0'
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
expect_json '.measurements | length == 20 and all(.what == "rank_link_ns" and .value > 0 and .n >= 15 and .tag == "measured")'
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*), count(distinct bytes), min(dst) = max(dst), min(ns) > 0 from link_curve where src = 'host' and dst like '@%'")" \
  '20|10|1|1' "rows of the link"
expect_exit 0 "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:measured" --json
expect_json '[.figures[] | select(.name | startswith("link_")) | .tag] == ["measured", "measured"] and all(.figures[]; .low <= .likely and .likely <= .high)'

# Errors of any rank are told once, by rank 0, with its exit status.
expect_exit 2 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${ask[@]}" --gpu none
expect_stderr_line '^hf-run: mpirun started 2 ranks and nothing is placed on the others'
expect_exit 2 mpirun "${mpi[@]}" "${memory[@]}" -n 1 "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50 : \
  -n 1 "$bin/hf-run" "${ask[@]}" --model tests/golden/deepseek_v3 --gpu none
expect_same "$(grep -c '^hf-run: rank 1 (.*): .* is not the model that rank 0 has' "$err")" 1 "lines that name the wrong model"
expect_error 2 '^hf-run: --experts-on-ranks: there are no other ranks' "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks 50

# A rank that dies, and one that hangs, once the first answer is there: every request goes on, and the loss is told.
jq -c --slurp '.[0:25] | to_entries[] | {id: "\(.key)", prompt: .value.prompt, max_tokens: (if .key == 0 then 4 else 600 end)}' $tiny/prompts.jsonl >"$tmp/long.jsonl"
long=(--model $tiny --prompts "$tmp/long.jsonl" --ignore-eos --threads 1 --json --gpu none --activations exact) # sums in another order differ least so
expect_exit 0 "$bin/hf-run" "${long[@]}" --quiet --out "$tmp/one.jsonl"
of_rank() { # RANK MPIRUN: process of that rank
  local p
  for p in /proc/[0-9]*; do
    if grep -qs "^PPid:[[:space:]]$2\$" "$p/status" && tr '\0' '\n' <"$p/environ" | grep -x "OMPI_COMM_WORLD_RANK=$1" >/dev/null; then echo "${p#/proc/}"; fi
  done
}
lose() { # SIGNAL options...
  local signal=$1
  shift
  rm -f "$tmp"/many.jsonl*
  timeout -k 5 120 mpirun -n 2 --enable-recovery "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${long[@]}" --experts-on-ranks 50 --device-deadline 1 \
    --out "$tmp/many.jsonl" "$@" >"$out" 2>"$err" &
  job=$!
  for _ in $(seq 600); do
    if [ -s "$tmp/many.jsonl.part" ]; then break; fi
    sleep 0.05
  done
  [ -s "$tmp/many.jsonl.part" ] || fail "no answer has come"
  mpirun_pid=$(cat "/proc/$job/task/$job/children")
  kill -"$signal" "$(of_rank 1 ${mpirun_pid% })"
  wait $job || fail "$signal: exit status $?"
  expect_same "$(answers "$tmp/one.jsonl" | sha256sum)" "$(answers "$tmp/many.jsonl" | sha256sum)" "answers after $signal"
  expect_json '(.losses | length == 1) and (.losses[0].why | test("^rank 1 \\(.+\\): no answer for")) and .ranks[0].lost'
  expect_stderr_line "another machine was lost \\(rank 1 .*\\): its experts were read again, $going requests? go"
  expect_same "$(sqlite3 "$HETEROFLOW_DB" "select detail like 'rank lost: rank 1 %' from event where run_id = $(json .run_id)")" 1 "row of the event"
}
going=24
lose KILL
lose STOP
# the same beside a device, on nodes; no profile in this database, so no plan of hf-run's own, which would put all on the device
export HF_TOPOLOGY=$tmp/nodes.json HETEROFLOW_DB=$tmp/unprofiled.db
going='[0-9]+' # the first answer is told after a good check
lose KILL --gpu virtual:64M --experts-on-gpu 50 --depth 3 --check-every 0.5
echo ok
