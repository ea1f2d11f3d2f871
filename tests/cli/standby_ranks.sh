# hf-run --standby beside other ranks: the rank is lost and KV comes back from the mirror; the rank and then the device, where memory has room for the mirror
# and where it has none.
. tests/cli/lib.sh
. tests/cli/ranks_common.sh
# without a profile no plan is made, so that the percentages say what lies where
base=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 40 --ignore-eos --threads 1 --json --activations exact)
expect_exit 0 "$bin/hf-run" "${base[@]}" --gpu none --out "$tmp/want.jsonl"
# many FAULT_OF_RANK options...
many() {
  rm -f "$tmp/got.jsonl"
  expect_exit 0 env HF_STANDBY_SETTLES=1 HF_FAIL_RANK="$1" timeout -k 5 120 mpirun -n 2 --enable-recovery "${mpi[@]}" "${memory[@]}" "$bin/hf-run" "${base[@]}" \
    --gpu virtual:64M --experts-on-gpu 50 --depth 1 --check-every 0 --experts-on-ranks 50 --device-deadline 1 --standby ram --out "$tmp/got.jsonl" "${@:2}"
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers with $*"
  expect_json '.standby.pages_lost == 0 and .unfinished == 0'
}
many 1:die@120
expect_json '(.losses | length == 1) and .ranks[0].lost and .losses[0].tokens_restored > 100 and (.standby | has("failed") | not)'
many 1:die@120 --fault error@9000
expect_json '(.losses | length == 2) and .losses[1].tokens_restored > 100 and (.standby | has("failed") | not)'
# memory that has room for the model on this CPU and half of the mirror: it goes with the second loss
expect_exit 0 "$bin/hf-run" "${base[@]}" --gpu none --verbose --out "$tmp/got.jsonl"
need=$(awk '$1 == "ram" && $2 == "together" { printf "%d", $3 * 1048576 }' "$err")
[ "$need" -gt 1000000 ] || fail "the budget is not told"
echo "{\"nodes\": [{\"cpus\": 2, \"mem_bytes\": $((need + 1048576 * 3 / 2))}]}" >"$tmp/small.json"
HF_TOPOLOGY=$tmp/small.json many 1:die@120 --fault error@9000 --standby-size 3M
expect_json '(.losses | length == 2) and .losses[0].tokens_restored > 100 and .losses[1].tokens_restored == 0 and (.standby.failed | test("memory has no room"))'
echo ok
