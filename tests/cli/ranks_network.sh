# Ranks on two machines that this one pretends (network namespaces, a link of a stated rate between them): the tokens of one process, a link measured as slow
# as it is, and a plan with it that is run.
if [ -z "${HF_ALONE:-}" ]; then
  if ! unshare -n true 2>/dev/null; then
    echo "skipped: no network namespaces here (unshare -n)"
    exit 77
  fi
  HF_ALONE=1 exec unshare -n bash "$0" "$@"
fi
. tests/cli/lib.sh
. tests/cli/ranks_common.sh
. tests/cli/network_common.sh
network 400mbit
across() { mpirun -n 2 "${mpi[@]}" "${over_net[@]}" "$rank_on_net" "$@"; }

expect_exit 0 "$bin/hf-run" "${ask[@]}" --gpu none --out "$tmp/one.jsonl"
for share in 50 100; do
  rm -f "$tmp/many.jsonl"
  expect_exit 0 across "$bin/hf-run" "${ask[@]}" --gpu none --experts-on-ranks $share --out "$tmp/many.jsonl"
  expect_same "$(answers "$tmp/one.jsonl")" "$(answers "$tmp/many.jsonl")" "answers over a network, $share % of the experts"
  expect_json '.ranks[0].rows > 0 and .ranks[0].lost == false'
done

# A message takes at least what the rate leaves it (less what a bucket holds), and the plan's figure of the link says so.
expect_exit 0 "$bin/hf-profile" --quick --only dram --quiet --json
host=$(json .machine)
expect_exit 0 across "$bin/hf-profile" --ranks --json
if [ -n "$shaped" ]; then
  expect_json '[.measurements[] | select(.params | test("bytes=1048576")) | .value] | length == 1 and .[0] > (1048576 - 65536) * 8 / 400e6 * 1e9 * 0.9'
  expect_exit 0 "$bin/hf-plan" stages --model $tiny --gpu none --remote "$host:measured" --json
  expect_json '[.figures[] | select(.name == "link_bytes_per_s") | .likely] | .[0] < 400e6 / 8 * 1.3'
fi
expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --remote paced-desk:100gbe --users 5 --context 256 --gpu none --out "$tmp/plan.json" --json
rm -f "$tmp/many.jsonl"
expect_exit 0 across "$bin/hf-run" "${ask[@]}" --plan "$tmp/plan.json" --out "$tmp/many.jsonl"
expect_same "$(answers "$tmp/one.jsonl")" "$(answers "$tmp/many.jsonl")" "answers over a network, by a plan"

# A link so slow that its longest messages would take minutes is measured by the shorter ones.
for side in a b; do
  if ! ip netns exec "hf$$$side" tc qdisc replace dev "v$side" root tbf rate 8mbit burst 32kb latency 4s 2>/dev/null; then
    echo "ok, but no rate can be set here (tc)"
    exit 0
  fi
done
SECONDS=0
expect_exit 0 across "$bin/hf-profile" --ranks --json
[ $SECONDS -lt 100 ] || fail "a slow link took $SECONDS s"
expect_json '[.measurements[] | select(.params | test("load=") | not)] | length > 5 and length < 10 and .[-1].value > 2e8'
echo "ok, link with: ${shaped:-nothing set}"
