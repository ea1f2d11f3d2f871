# plan with limits: rows of the program, judged under sustained load; what cannot be kept is proven.
. tests/cli/lib.sh
plan=$bin/hf-plan
r1=(--model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --no-store)

# ---- far away: met, nothing binds, the same plan as without
expect_exit 0 "$plan" plan "${r1[@]}" --json
base=$(json .ilp.objective_ns)
expect_json 'has("slo") | not'
expect_exit 0 "$plan" plan "${r1[@]}" --slo-ttft 1000 --slo-tpot 5 --json
expect_json '.slo.met and (.slo.rows | length == 2 and all(.met and (.binds | not) and .multiplier == 0 and .value_s < .row_limit_s and .value_s <= .p95_s))'
expect_json --argjson base "$base" '(.ilp.objective_ns / $base - 1 | fabs) < 0.002'

# ---- just below what the fastest plan gives under sustained load: another placement keeps it
# (over a link that is too slow for prompts to be sent: those lean on the experts that the device holds)
jq '.name = "slow-link" | .figures |= map(if .what == "pcie_h2d_bytes_per_s" then .value /= 300 else . end)' db/catalog/machines/paced-desk.json >"$tmp/slow.json"
tiny=(--model examples/tiny-moe --machine "$tmp/slow.json" --gpu "paced:$tmp/slow.json:8M" --users 5 --context 224 --prompt-tokens 128 --output-tokens 48
  --census examples/tiny-moe/census.json --depth 2 --chunk-tokens 64 --no-store)
expect_exit 0 "$plan" plan "${tiny[@]}" --json
limit=$(json '0.98 * .sustained.ttft_s.p95')
expect_exit 0 "$plan" plan "${tiny[@]}" --slo-ttft "$limit" --json
expect_json --argjson l "$limit" '.slo.met and .sustained.ttft_s.p95 <= $l and (.slo.rows | length == 1) and (.slo.rows[0] | .row == "ttft" and .limit_s == $l and .row_limit_s < $l and .binds and .tok_per_s_per_percent > 0)'
expect_exit 0 "$plan" plan "${tiny[@]}" --slo-ttft "$limit"
expect_stdout_line '^  limit +TTFT p95 .* binds: 1 % more is worth'
expect_stdout_line '^  decode step .*, no placement that keeps the rows of its limits below '

# ---- impossible: status 1, and what no placement goes below
expect_exit 1 "$plan" plan "${r1[@]}" --slo-tpot 0.02 --json
expect_json '(.feasible | not) and .slo.proven and .slo.step_least_s > 0.02 and (.slo | has("ttft_least_s") | not) and (.possible | length >= 1) and (.reason | test("no placement reaches"))'
expect_exit 1 "$plan" plan "${r1[@]}" --slo-ttft 5 --optimise request --json
expect_json '.slo.proven and .slo.ttft_least_s > 5 and (.reason | test("chunks of a prompt take at least"))'
expect_exit 1 "$plan" plan "${r1[@]}" --slo-ttft 5
expect_stderr_line 'no placement reaches'
expect_stdout_line '^  possible: '

# ---- absurd: no limit at all
for absurd in 1e-300 1e-310 1e-7; do expect_error 2 'option --slo-tpot: 1e-[0-9]+ seconds is less than a microsecond' "$plan" plan "${r1[@]}" --slo-tpot $absurd; done

# ---- missed by waiting alone: no proof, remedies
expect_exit 1 "$plan" plan "${r1[@]}" --slo-tpot 0.15 --json
expect_json '(has("slo") | not) and (.possible | any(test("users? at once \\(TPOT p95 0[.]1[0-9]* s\\)")))'
# That waiting is the reason, what a request takes alone, and cures found by solving again: each does what it says, and its neighbour does not.
expect_exit 1 "$plan" plan "${r1[@]}" --slo-ttft 12 --json
expect_json '.reason | test("TTFT p95 1[2-6][.0-9]* s under sustained load, asked for 12 s: the chunks of a prompt alone take [0-9.]+ s, the rest is waiting")'
tokens=$(json '.possible[] | select(test("prompts of at most")) | capture("at most (?<n>[0-9]+) tokens \\(TTFT p95 (?<s>[0-9.]+) s").n')
expect_exit 0 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --no-store --slo-ttft 12 --prompt-tokens "$tokens" --output-tokens 512 --json
expect_exit 1 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --no-store --slo-ttft 12 --prompt-tokens $((tokens + 480)) --output-tokens 512 --json
expect_exit 1 "$plan" plan "${r1[@]}" --slo-tpot 0.2 --slo-ttft 12
expect_stderr_line 'TPOT p95 .* asked for 0.2 s: a step in which all decode takes .* waiting for prompts of others; and TTFT p95'
expect_stderr_line '; or limits of [0-9.]+ s for TPOT and [0-9.]+ s for TTFT$'
# The limit that is named is one that is met, and no figure over a limit is printed as the limit.
expect_exit 1 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 8 --context 4096 --no-store --slo-tpot 100ms --json
wider=$(json '.possible[] | capture("^a limit of (?<s>[0-9.]+) s for TPOT").s')
expect_exit 0 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 8 --context 4096 --no-store --slo-tpot "$wider" --json
expect_json --argjson l "$wider" '.sustained.tpot_s.p95 <= $l and .sustained.tpot_s.p95 > $l - 0.001'
expect_exit 1 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 8 --context 4096 --no-store --slo-tpot "$(json '.sustained.tpot_s.p95 * 0.9999')" --json
expect_json '.reason | capture("p95 (?<a>[0-9.]+) s under.* asked for (?<b>[0-9.]+) s") | (.a | tonumber) > (.b | tonumber)'
# Chunks that are too short read the experts for few tokens at a time.
expect_exit 1 "$plan" plan "${r1[@]}" --slo-ttft 30 --chunk-tokens 256 --json
chunk=$(json '.possible[] | select(test("--chunk-tokens")) | capture("chunks of (?<n>[0-9]+) tokens instead of 256").n')
expect_exit 0 "$plan" plan "${r1[@]}" --slo-ttft 30 --chunk-tokens "$chunk"

# ---- what does not fit names every way out that suffices (shorter chunks do not here), in one line
expect_exit 1 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 64 --context 160K --no-store
expect_stderr_line 'possible: a device of at least .*; or at most 1 user at context 163840; or a context of at most [0-9]+ for 64 users$'

expect_error 2 '^hf-plan: .*--slo-ttft' "$plan" plan "${r1[@]}" --slo-ttft -1

# ---- a depth that does not fit names one that does
expect_exit 1 "$plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 16 --context 8192 --depth 3 --chunk-tokens 2048 --no-store --json
expect_json '.possible == ["a depth of at most 2"]'

# ---- energy of a simulation is of the plan's machine
expect_exit 0 "$plan" plan "${r1[@]}" --depth 1 --out "$tmp/r1.json" --json
expect_json '[.hardware.resources[].name] == ["gpu0", "cpu"] and all(.hardware.resources[]; .active_w > .idle_w)'
expect_exit 0 "$plan" simulate --plan "$tmp/r1.json" --requests-per-user 1 --json
expect_json '.resources | map(select(.name == "gpu0" or .name == "cpu")) | length == 2 and all(.energy_j > 0)'
