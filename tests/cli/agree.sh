# One question, one figure: plan, whatif, simulate and formats say the same of the same machine and load.
. tests/cli/lib.sh
plan=$bin/hf-plan
same() { jq -ne "($1) as \$a | ($2) as \$b | (\$a / \$b - 1 | fabs) < $3" >/dev/null || fail "$4: $1 and $2"; }

# ---- a lost GPU: delivered under sustained load, p95 beside it, as whatif --set lost=gpu0 has them; with one GPU, with another left, and with a recipe
for question in "--model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192" \
  "--model gpt-oss-120b --machine cpu=epyc-9655,gpu=rtx4090+rtx5090 --users 4 --context 4096" \
  "--model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 2 --context 2048 --format q4_k_m:attn=q8_0"; do
  # shellcheck disable=SC2086
  expect_exit 0 "$plan" plan $question --no-store --json
  expect_json '.fallback | .lost == "gpu0" and .feasible and .sustained.tok_per_s < .decode_tok_per_s'
  cp "$out" "$tmp/plan.json"
  # shellcheck disable=SC2086
  expect_exit 0 "$plan" whatif $question --set lost=gpu0 --no-store --json
  for key in "fallback.sustained.tok_per_s tok_per_s_wall" "fallback.sustained.ttft_s.p95 ttft_s.p95" "fallback.sustained.tpot_s.p95 tpot_s.p95" \
    "fallback.decode_tok_per_s decode_tok_per_s.likely"; do
    same "$(jq ".${key% *}" "$tmp/plan.json")" "$(jq ".cases[0].${key#* }" "$out")" 1e-9 "$question lost: ${key% *}"
  done
done
expect_exit 0 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --no-store
expect_stdout_line '^    with gpu0 lost: [0-9.]+ tokens/s delivered, TTFT p95 [0-9.]+ m?s, TPOT p95 [0-9.]+ m?s; [0-9.]+ tokens/s decode; everything on the CPU$'
expect_stdout_line '^    experts all-cpu .*the device keeps attention'
# What is left does not fit the memory: said so, as whatif says it.
small="--model deepseek-r1 --machine cpu=xeon-6787p,sockets=1,dimm=48G,gpu=rtx4090 --users 2 --context 4096 --format q4_k_m:attn=q8_0"
# shellcheck disable=SC2086
expect_exit 0 "$plan" plan $small --no-store --json
expect_json '.fallback | (.feasible | not) and (.why_not | test("ram needs")) and (has("sustained") | not)'
# shellcheck disable=SC2086
expect_exit 0 "$plan" whatif $small --set lost=gpu0 --no-store --json
expect_json '.cases[0].feasible | not'
# shellcheck disable=SC2086
expect_exit 0 "$plan" plan $small --no-store
expect_stdout_line '^    with gpu0 lost: no plan fits: ram needs'

# ---- simulate without a load is the load that plan's delivered figure is of, from the file and from the database, with each percentile
for depth in 1 2; do
  expect_exit 0 "$plan" plan --model gpt-oss-120b --machine xeon6-mrdimm-rtx4090 --users 5 --context 4096 --depth $depth --out "$tmp/p.json" --json
  for from in "$tmp/p.json" latest; do
    expect_exit 0 "$plan" simulate --plan "$from" --json
    expect_json '.question.sustained and (.question.load | test("what plan calls delivered"))'
    expect_json --slurpfile p "$tmp/p.json" '($p[0].sustained) as $s | .tok_per_s == $s.tok_per_s and .ttft_s.p95 == $s.ttft_s.p95 and .ttft_s.p50 == $s.ttft_s.p50
      and .tpot_s.p95 == $s.tpot_s.p95 and .e2e_s.p99 == $s.e2e_s.p99 and .requests == $s.requests and (.output_tokens / .wall_s / .tok_per_s - 1 | fabs) < 1e-9'
  done
done
expect_exit 0 "$plan" simulate --plan latest
expect_stdout_line '^  load: what plan calls delivered: every user sends the next request at once, prompts of 3584 and answers of 512 tokens in the mean, each within a quarter; the first 10 requests do not count, the next 100 do$'
# Seeds, files and limits leave the load as it is; anything said about the load is another one, and says which.
expect_exit 0 "$plan" simulate --plan latest --seed 7 --slo-ttft 100 --requests-out "$tmp/requests.jsonl" --json
expect_json '.question.sustained and .goodput == 1 and .requests == 100'
[ "$(wc -l <"$tmp/requests.jsonl")" -ge 110 ] || fail "requests-out has fewer requests than were simulated"
expect_exit 0 "$plan" simulate --plan latest --users 5 --json
expect_json '(.question.sustained | not) and (.question.load | test("^20 requests of each user.*all alike, all counted"))'
expect_exit 0 "$plan" simulate --plan latest --requests-per-user 1 --chrome "$tmp/c.json" --json
expect_json '(.question.sustained | not) and .requests == 5'

# ---- a full plan is not slower than the placement that whatif, sweep and formats stop at: the simulation chooses between the two
for load in "--users 5 --context 2048" "--users 2 --context 8192"; do
  question="--model gpt-oss-120b --machine xeon6-mrdimm-rtx4090 $load"
  # shellcheck disable=SC2086
  expect_exit 0 "$plan" plan $question --no-store --json
  mine=$(json '.sustained.tok_per_s')
  expect_json '.placement_chosen_by == "simulation" and .placement_gain > 0.02 and .ilp.gap >= 0 and .ilp.gap < 0.05'
  # shellcheck disable=SC2086
  expect_exit 0 "$plan" whatif $question --set users=4 --no-store --json
  jq -e --argjson mine "$mine" '$mine >= .base.tok_per_s_wall / 1.02' "$out" >/dev/null || fail "plan: $mine tokens/s, whatif: $(json .base.tok_per_s_wall)"
done
expect_exit 0 "$plan" plan --model gpt-oss-120b --machine xeon6-mrdimm-rtx4090 --users 2 --context 8192 --no-store
expect_stdout_line 'not the least step within the gap, but it delivers [0-9.]+ % more'

# ---- two like GPUs that hold nearly everything: at depth 2 micro-batches wait in turn, and every question then plans depth 1; the search at
# depth 2 is near its bound, and no simple placement beats it
parts='cpu=threadripper-7960x,memory=ddr5-5200,dimm=16G,gpu=rtx-pro-6000*2'
question="--model qwen3-235b-a22b --machine $parts --format q4_k_m --users 20 --context 8192"
# shellcheck disable=SC2086
expect_exit 0 "$plan" plan $question --no-store --json
expect_json '.depth == 1'
mine=$(json '.sustained.tok_per_s')
expect_exit 0 "$plan" recommend --model qwen3-235b-a22b --users 20 --context 8192 --gpus rtx-pro-6000 --gpu-counts 2 --cpus threadripper-7960x --formats q4_k_m --no-store --json
expect_json --argjson mine "$mine" '.answer.depth == 1 and (.answer.tok_per_s_wall / $mine - 1 | fabs) < 0.02'
# shellcheck disable=SC2086
expect_exit 0 "$plan" plan $question --depth 2 --no-store --json
expect_json '(.ilp.gap < 0.005 or (.placement_chosen_by == "simulation" and .placement_gain > 0.02 and .ilp.gap < 0.05)) and all(.baselines[]; .slower_by >= 0)'

# ---- four like GPUs with limits that bind nothing: no simple placement is better, and a wide gap is not called proven
expect_exit 0 "$plan" plan --model qwen3-235b-a22b --machine 'cpu=epyc-9655,gpu=h200-nvl*4' --slo-tpot 100ms --slo-ttft 20 --format q4_k_m --users 10 --context 16384 --depth 4 --no-store --json
expect_json 'all(.baselines[]; .slower_by > -1e-9) and .ilp.status == (if .ilp.gap <= 1e-6 then "optimal" elif .ilp.gap <= 0.01 then "proven" else "bounded" end)'
expect_exit 0 "$plan" plan --model qwen3-235b-a22b --machine 'cpu=epyc-9655,gpu=h200-nvl*4' --format q4_k_m --users 10 --context 16384 --depth 4 --no-store
grep -q ', bounded, found' "$out" && grep -q 'a better placement is not excluded' "$out" || grep -q ', \(proven\|optimal\), found' "$out" || fail "a wide gap is not told"
