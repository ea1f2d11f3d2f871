#!/usr/bin/env bash
# The closed loop on a small real model, then a what-if for a machine nobody here owns. `make demo` builds first and runs this.
# Everything it makes lies in build/demo; it starts from an empty database each time.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=build/bin
dir=build/demo
model=examples/tiny-moe
rm -rf "$dir"
mkdir -p "$dir"
export HETEROFLOW_DB=$dir/heteroflow.db

# Five users write Italian on a device that holds about a quarter of the routed experts.
device=virtual:7.4M
users=5
prompt=52 # tokens of these prompts on average; the longest has 96
answer=160
context=256
kind=italian

step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
[ -t 1 ] || step() { printf '\n== %s\n' "$1"; }
# Prints a command so that it can be copied, then runs it.
show() {
  printf '$'
  local word
  for word in "$@"; do
    case $word in *[!A-Za-z0-9_./:=,+-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '\n'
  "$@"
}

step "1. Profile this machine (quick)"
printf '$ %s\n' "$bin/hf-profile --quick"
$bin/hf-profile --quick >$dir/profile.txt
sed '/^expert_ffn/,$d' $dir/profile.txt
printf '(curves of every kernel: %s show, and %s)\n' "$bin/hf-profile" "$dir/profile.txt"

# One micro-batch: on two cores the virtual device is no faster than the CPU beside it, and a deeper pipeline would rather keep it free
# of experts than show what a placement does.
depth=1
step "2. Plan: $users users of $model, a device of ${device#virtual:} for about a quarter of the experts"
printf '(one micro-batch: on two cores a deeper pipeline would rather keep the virtual device free of experts)\n'
show $bin/hf-plan plan --model $model --users $users --context $context --prompt-tokens $prompt --output-tokens $answer \
  --gpu $device --depth $depth --out $dir/plan1.json

run() { # PLAN
  show $bin/hf-run --plan "$1" --model $model --prompts $model/prompts.jsonl --where domain=$kind --limit $users --users $users \
    --max-tokens $answer --ignore-eos "${@:2}"
}
step "3. Run it: $users users at once, the text as it comes"
run $dir/plan1.json --stream --trace $dir/trace.json
run1=$(sqlite3 "$HETEROFLOW_DB" "select max(id) from run")

step "4. Plan again from what that run measured: expert choices and times"
show $bin/hf-plan plan --from-run "$run1" --depth $depth --out $dir/plan2.json

step "5. Run the new plan"
run $dir/plan2.json

step "6. What if: DeepSeek-R1 671B for 5 users on one 24 GB GPU and two Xeon 6 with MRDIMM (no weights, no GPU here)"
show $bin/hf-plan plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 2048 --out $dir/plan-r1.json
jq -r '.predicted.decode_tok_per_s as $p | "published for HeteroFlow on such a machine: 51 tokens/s (row INT-007 of tests/validation/published-cases.csv: SKU, sockets, lengths and format not stated)\n" +
  "our prediction: \($p.likely * 10 | round / 10) tokens/s, from \($p.low * 100 | round / 100) to \($p.high * 100 | round / 100) (high/low \($p.high / $p.low * 100 | round / 100)): 51 lies " +
  (if $p.low <= 51 and 51 <= $p.high then "inside" else "OUTSIDE" end)' $dir/plan-r1.json

step "7. What a buyer asks next: other parts, a lost GPU, more users, what a token costs, and how far off such predictions are"
buy=(--model deepseek-r1 --machine xeon6-mrdimm-rtx4090)
show $bin/hf-plan whatif "${buy[@]}" --users 5 --context 2048 --set gpu=rtx5090 --set users=10 --set lost=gpu0
show $bin/hf-plan sweep "${buy[@]}" --axis users=1,2,5,10 --axis context=2K,4K
show $bin/hf-plan roi "${buy[@]}" --users 5 --context 2048
printf '$ %s\n' "$bin/hf-plan validate tests/validation/published-cases.csv"
$bin/hf-plan validate tests/validation/published-cases.csv >$dir/validate.txt
sed -n '1p;/^  decode   all/p;/^  prefill  all/p' $dir/validate.txt
printf '(every row: %s)\n' "$dir/validate.txt"

step "8. The pages"
r1=$(jq -r .plan_id $dir/plan-r1.json)
show $bin/hf-report loop --whatif "$r1" --published 51 --published-source "Intel HeteroFlow, 5 users (published-cases.csv, INT-007)" --html $dir/report.html >/dev/null
for kind in whatif sweep roi validate; do $bin/hf-report $kind --html $dir/$kind.html >/dev/null; done
printf '\nthe loop: %s\n' "$PWD/$dir/report.html"
for kind in whatif sweep roi validate; do printf '%s: %s\n' $kind "$PWD/$dir/$kind.html"; done
