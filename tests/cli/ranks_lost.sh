# Other ranks that are lost: one that dies or hangs costs no request, wherever it happens; one that has nothing to do stays; one that rank 0 forgets ends.
. tests/cli/lib.sh
. tests/cli/ranks_common.sh

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
# the same beside a device, on nodes
echo '{"nodes": [{"cpus": 1, "dram_bytes_per_s": 3e10}, {"cpus": 1, "dram_bytes_per_s": 1e10}]}' >"$tmp/nodes.json"
export HF_TOPOLOGY=$tmp/nodes.json
going='[0-9]+' # the first answer is told after a good check
lose KILL --gpu virtual:64M --experts-on-gpu 50 --depth 3 --check-every 0.5
unset HF_TOPOLOGY

ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 24 --ignore-eos --threads 1 --json)
# Lost by the step that the device's check is learned from: the device stays, and is checked again.
expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu none --activations exact --out "$tmp/few.jsonl"
for fault in hang die; do
  rm -f "$tmp/many.jsonl"
  expect_exit 0 env HF_FAIL_RANK=1:$fault@1 timeout -k 5 120 mpirun -n 2 --enable-recovery "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${ask[@]}" --activations exact \
    --gpu virtual:64M --experts-on-gpu 50 --depth 2 --experts-on-ranks 50 --device-deadline 1 --check-every 0.1 --out "$tmp/many.jsonl"
  expect_stderr_line 'another machine was lost before the first request \(rank 1 .*\): its experts are read here'
  expect_same "$(answers "$tmp/few.jsonl")" "$(answers "$tmp/many.jsonl")" "answers after a loss in the check"
  expect_json '.depth == 2 and .ranks[0].lost and (has("losses") | not)'
done
# By the one that is learned anew after another was lost, or soon after: the second rank goes with an order that follows the first one's last.
rm -f "$tmp/many.jsonl"
expect_exit 0 env HF_FAIL_RANK=1:die@40,2:die@42 timeout -k 5 120 mpirun -n 3 --enable-recovery "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${ask[@]}" --activations exact \
  --gpu virtual:64M --experts-on-gpu 50 --depth 2 --experts-on-ranks 50 --device-deadline 1 --out "$tmp/many.jsonl"
expect_same "$(answers "$tmp/few.jsonl")" "$(answers "$tmp/many.jsonl")" "answers after the loss of both"
expect_json '(.losses | length >= 1) and (.ranks | map(.lost) == [true, true]) and .depth == 2'

# Nothing to do for three times as long as a rank has patience: it hears from rank 0 meanwhile. A rank 0 that is stopped says nothing.
jq -c --slurp '.[0:2] | to_entries[] | {id: "\(.key)", prompt: .value.prompt, arrival_s: (9 * .key)}' $tiny/prompts.jsonl >"$tmp/late.jsonl"
late=(--model $tiny --prompts "$tmp/late.jsonl" --ignore-eos --threads 1 --json --gpu none --activations exact --quiet)
expect_exit 0 "$bin/hf-run" "${late[@]}" --out "$tmp/one.jsonl"
expect_exit 0 env HF_RANKS_SILENCE_S=3 mpirun -n 2 "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${late[@]}" --experts-on-ranks 50 --out "$tmp/idle.jsonl"
expect_same "$(answers "$tmp/one.jsonl")" "$(answers "$tmp/idle.jsonl")" "answers with a rank that was idle"
expect_json '.ranks[0].lost == false'
HF_RANKS_SILENCE_S=3 timeout -k 5 120 mpirun -n 2 --enable-recovery "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${late[@]}" --experts-on-ranks 50 --device-deadline 1 \
  --out "$tmp/silent.jsonl" >"$out" 2>"$err" &
job=$!
for _ in $(seq 600); do
  if [ -s "$tmp/silent.jsonl.part" ]; then break; fi
  sleep 0.05
done
mpirun_pid=$(cat "/proc/$job/task/$job/children")
first=$(of_rank 0 ${mpirun_pid% })
kill -STOP "$first"
for _ in $(seq 600); do
  if grep -q 'rank 0 is silent' "$err"; then break; fi
  sleep 0.05
done
kill -CONT "$first"
wait $job || fail "rank 0 stopped: exit status $?"
expect_stderr_line 'rank 1: rank 0 is silent: no message between ranks for 3'
expect_same "$(answers "$tmp/one.jsonl")" "$(answers "$tmp/silent.jsonl")" "answers after rank 0 was silent"
expect_json '.ranks[0].lost and (.losses | length == 1)'
echo ok
