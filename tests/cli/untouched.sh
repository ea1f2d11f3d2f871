#!/bin/bash
# Bad input, and questions that only read, leave nothing behind: no database, no folder for it, no row in one that is there.
. tests/cli/lib.sh

new=$tmp/new/none.db # in a folder of its own, so that files beside it show too
mkdir "$tmp/new"
export XDG_DATA_HOME=$tmp/data
mkdir "$tmp/data"

# nothing_left WHAT
nothing_left() {
  local left
  left=$(find "$tmp/new" "$tmp/data" -mindepth 1 | head -n 3)
  if [ -n "$left" ]; then fail "$1 left $left behind"; fi
}

# bad STATUS PROGRAM ARGUMENTS...: with a database that is not there, by --db and in the user's data folder.
bad() {
  local status=$1 program=$2
  shift 2
  expect_error "$status" . "$bin/$program" "$@" --db "$new"
  nothing_left "$program $*"
  expect_error "$status" . env -u HETEROFLOW_DB "$bin/$program" "$@"
  nothing_left "$program $* (data folder)"
}

machine="--machine xeon6-mrdimm-rtx4090"
for verb in plan whatif sweep recommend formats roi stages; do
  extra=$machine
  case $verb in
    whatif) extra="$machine --set users=2" ;;
    sweep) extra="$machine --axis users=1,2 --axis context=2K,4K" ;;
    recommend) extra="--users 5 --context 4096 --slo-tpot 0.15 --budget 60000" ;;
  esac
  bad 2 hf-plan $verb --model deepsek-r1 $extra
  bad 2 hf-plan $verb --model examples/no-such-folder $extra
done
bad 2 hf-plan plan --model deepseek-r1 --machine no-such-machine
bad 2 hf-plan plan --model deepseek-r1 # no machine was measured here
bad 2 hf-plan plan --model deepseek-r1 $machine --format q4_zzz
bad 2 hf-plan plan --model deepseek-r1 $machine --gpu cuda:7
bad 2 hf-plan plan --model deepseek-r1 $machine --skew zipf:nan
bad 2 hf-plan plan --model deepseek-r1 $machine --scale-from no-such-machine
bad 2 hf-plan plan --model deepseek-r1 $machine --remote "xeon6-mrdimm-rtx4090:no-such-link"
bad 2 hf-plan plan --model deepseek-r1 $machine --depth 4 --users 1
bad 2 hf-plan plan --from-run latest
bad 2 hf-plan plan --from-run 7
bad 2 hf-plan stages --model deepseek-r1 --machine no-such-machine
bad 2 hf-plan evaluate --plan latest
bad 2 hf-plan evaluate --plan 1
bad 2 hf-plan simulate --plan latest
bad 2 hf-plan roi --plan latest
bad 2 hf-plan validate no-such-file.csv
bad 2 hf-run --bench --model examples/no-such-folder
bad 2 hf-run --bench --model examples/tiny-moe --plan "$tmp/no-such-plan.json"
bad 2 hf-run --bench --model examples/tiny-moe --plan 3
bad 2 hf-run --model examples/tiny-moe --plan 3 --prompts examples/tiny-moe/prompts.jsonl
bad 2 hf-run --model examples/tiny-moe --prompts "$tmp/no-such-file.jsonl"
bad 2 hf-run --check-reference "$tmp/no-such-file.json" --model examples/tiny-moe
bad 2 hf-profile --only nothing
bad 2 hf-profile --model examples/no-such-folder
bad 2 hf-profile show
bad 2 hf-profile compare 1 2
bad 2 hf-profile export --out "$tmp/box.json"
bad 2 hf-profile import "$tmp/no-such-file.json"
bad 2 hf-profile import README.md
bad 2 hf-report loop --html "$tmp/page.html"
bad 2 hf-report machine --json

# What does not fit or cannot be met is an answer, and nothing to keep either.
expect_exit 1 "$bin/hf-plan" plan --model deepseek-r1 --machine cpu=ryzen-9950x --db "$new"
nothing_left "a plan that does not fit"
expect_exit 1 "$bin/hf-plan" plan --model deepseek-r1 $machine --slo-tpot 0.001 --db "$new"
nothing_left "a plan that is too slow"

# A query answers from the catalog; so does a plan that is not to be kept.
expect_exit 0 "$bin/hf-plan" stages --model deepseek-r1 $machine --db "$new"
nothing_left stages
expect_exit 0 "$bin/hf-plan" plan --model deepseek-r1 $machine --no-store --json --db "$new"
expect_json '.machine == "xeon6-mrdimm-rtx4090" and .predicted.decode_tok_per_s.likely > 0'
nothing_left "plan --no-store"

# In a database that is there, a bad question adds no machine and no plan.
expect_exit 0 "$bin/hf-plan" plan --model deepseek-r1 $machine --db "$tmp/there.db"
before=$(sha256sum <"$tmp/there.db")
expect_error 2 . "$bin/hf-plan" plan --model deepsek-r1 --machine cpu=xeon-6787p,gpu=rtx5090 --db "$tmp/there.db"
expect_exit 1 "$bin/hf-plan" plan --model deepseek-r1 --machine cpu=xeon-6787p,gpu=rtx5090 --slo-tpot 0.001 --db "$tmp/there.db"
expect_exit 0 "$bin/hf-plan" stages --model deepseek-r1 --machine cpu=xeon-6787p,gpu=rtx5090 --db "$tmp/there.db"
expect_same "$before" "$(sha256sum <"$tmp/there.db")" "the database before and after bad questions"

# What is good makes file and folder.
expect_exit 0 env -u HETEROFLOW_DB "$bin/hf-plan" plan --model deepseek-r1 $machine
test -s "$tmp/data/heteroflow/heteroflow.db" || fail "no database in the user's data folder"
expect_exit 0 "$bin/hf-plan" plan --model deepseek-r1 $machine --db "$new" --json
expect_json '.plan_id == 1'
test -s "$new" || fail "no database where --db names one"
