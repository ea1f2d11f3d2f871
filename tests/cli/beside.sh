# A run measured beside other programs is stored as such, said so, and doubted by whoever learns from it.
. tests/cli/lib.sh
for p in hf-run hf-plan hf-report; do
  if [ ! -x "$bin/$p" ]; then skip "$p is not built"; fi
done
if [ ! -r /proc/stat ]; then skip "no /proc/stat here"; fi
tiny=examples/tiny-moe
run() { expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --limit 60 --max-tokens 120 --quiet --threads 1 --plan "$tmp/plan.json" "$@"; }
expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine paced-desk --gpu none --users 4 --context 384 --prompt-tokens 128 --output-tokens 120 --threads 1 --out "$tmp/plan.json" --quiet --json

# As many as there are CPUs: whoever else is here, they have a good part of them. The run is long enough for the kernel's ticks to tell.
for _ in $(seq "$(nproc)"); do
  (while :; do :; done) &
  busy="${busy:-} $!"
done
trap 'kill $busy 2>/dev/null || true; finish_test' EXIT
run --json
# shellcheck disable=SC2086
kill $busy
expect_json '.other_cpu_share > 0.2 and .other_cpu_share <= 1'
share=$(json .other_cpu_share)
id=$(json .run_id)
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select abs(other_cpu_share - $share) < 1e-9 from run where id = $id")" 1 "the share in the database"
expect_exit 0 "$bin/hf-plan" plan --from-run "$id" --gpu none
expect_stdout_line '^    doubtful: measured beside other programs, which had [0-9]+ % of the CPU time; run it again'
expect_exit 0 "$bin/hf-plan" plan --from-run "$id" --gpu none --no-store --json
expect_json --argjson s "$share" '.changes.other_cpu_share == $s'
expect_exit 0 "$bin/hf-report" run "$id" --html "$tmp/run.html" --quiet
# The doubt is one of the page's first sentences, before any section.
sed '/<section/,$d' "$tmp/run.html" | grep -q 'Doubtful: measured beside other programs, which had ' || fail "the page's head does not doubt the run"

# A quiet run, and one of which it is not known, are not doubted.
for quiet in 0.01 -1; do
  sqlite3 "$HETEROFLOW_DB" "update run set other_cpu_share = $quiet where id = $id"
  expect_exit 0 "$bin/hf-plan" plan --from-run "$id" --gpu none --no-store
  if grep -q doubtful "$out"; then fail "a run with $quiet is doubted"; fi
done
