#!/bin/bash
# hf-plan whatif from outside: columns, physics, causes, storing, CSV, refusals.
. tests/cli/lib.sh
plan=$bin/hf-plan
r1=(--model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 4 --context 2K --prompt-tokens 256 --output-tokens 64)
like='def rate(n): .cases[] | select(.name == n) | .decode_tok_per_s.likely;'

# ---- the example of the help: base, four changes, all together, and those without the GPU
expect_exit 0 "$plan" whatif "${r1[@]}" --set gpu=rtx5090 --set dimm=ddr5-6400 --set users=8 --set lost=gpu0 --json
expect_json '.kind == "whatif" and (.answer_id > 0) and (.verdict | length > 40) and (.title | length > 10)'
expect_json '.base.feasible and .base.name == "base" and (.base.set == null)'
expect_json '[.cases[].name] == ["gpu=rtx5090", "dimm=ddr5-6400", "users=8", "lost=gpu0", "gpu=rtx5090,dimm=ddr5-6400,users=8", "gpu=rtx5090,dimm=ddr5-6400,users=8,lost=gpu0"]'
expect_json '[.cases[].together] == [false, false, false, false, true, true]'
expect_json '.cases[4].set == {gpu: "rtx5090", dimm: "ddr5-6400", users: "8"}'
expect_json 'all(.base, .cases[]; .decode_tok_per_s | .low < .likely and .likely < .high)'
expect_json 'all(.base, .cases[]; [.ttft_s, .tpot_s, .e2e_s] | all(.p50 <= .p90 and .p90 <= .p95 and .p95 <= .p99 and .p50 > 0))'
expect_json 'all(.base, .cases[]; .cost_per_million_tokens | .low <= .likely and .likely <= .high and .low > 0)'
expect_json 'all(.base, .cases[]; .joule_per_token > 0 and .price.likely > 1000 and .power_w.idle < .power_w.active)'
# Physics: slower memory is slower, a lost GPU is slower, more users give no fewer tokens, the better GPU is no slower.
expect_json "$like"' .base.decode_tok_per_s.likely as $b | rate("dimm=ddr5-6400") < 0.95 * $b and rate("lost=gpu0") < 0.9 * $b and rate("users=8") > $b and rate("gpu=rtx5090") >= 0.999 * $b'
expect_json '.cases[0].parts.gpus == "rtx5090" and .cases[3].parts.gpus == "none" and .cases[2].users == 8 and .base.users == 4'
expect_json '.base as $b | all(.cases[]; (.change.decode_tok_per_s - (.decode_tok_per_s.likely / $b.decode_tok_per_s.likely - 1)) | fabs < 1e-9)'
expect_json 'all(.base, .cases[]; .tok_per_s_wall > 0 and .tok_per_s_wall < .decode_tok_per_s.likely)'
expect_json '.assumptions | any(.text | test("sustained load"))'
expect_json '.cases[3].change.price == 0 and .cases[1].change.price < 0'
# Causes: each change names what moved.
expect_json '.cases[1].causes[0] | .what == "dram_bandwidth" and .from > .to and (.text | test("GB/s.*CPU time"))'
expect_json '.cases[3].causes[0].what == "device_time"'
expect_json '.cases[2].causes | any(.what == "users" and .from == 4 and .to == 8)'
expect_json 'all(.cases[]; .causes | length > 0)'
# The loss is measured by what the base gives its own users.
expect_json '.question.slo.from == "base" and .question.slo.tpot_s == .base.tpot_s.p95'
expect_json '.base.users_at_slo >= 4 and (.cases[3].users_at_slo < .base.users_at_slo)'
expect_json '.assumptions | length > 0 and all((.tag | IN("measured", "scaled", "spec", "assumed")) and (.text | length > 0) and (.source | length > 0))'
id=$(json .answer_id)
expect_exit 0 "$plan" whatif "${r1[@]}" --set gpu=rtx5090 --json
expect_json --argjson i "$id" '.answer_id == $i + 1 and (.cases | length == 1) and .question.slo == null'

# ---- the same bits whatever the number of threads
expect_exit 0 "$plan" whatif "${r1[@]}" --set users=2 --set users=6 --set context=4K --jobs 1 --no-store --json
jq -S . "$out" >"$tmp/one"
expect_exit 0 "$plan" whatif "${r1[@]}" --set users=2 --set users=6 --set context=4K --jobs 4 --no-store --json
cmp -s "$tmp/one" <(jq -S . "$out") || fail "the answer depends on the number of threads"
expect_json '(.answer_id == null) and ([.cases[].name] == ["users=2", "users=6", "context=4K"])' # contradicting keys: no column of all together
expect_json '.cases[1].decode_tok_per_s.likely > .cases[0].decode_tok_per_s.likely'

# ---- names of one's own, --alone, --together, an SLO
expect_exit 0 "$plan" whatif "${r1[@]}" --case 'one socket:sockets=1' --set pcie=5 --set dram=x1.2 --alone --slo-tpot 1 --json
expect_json '[.cases[].name] == ["pcie=5", "dram=x1.2", "one socket"] and .cases[2].parts.sockets == 1 and .cases[1].tag != "measured"'
expect_json '.cases[1].decode_tok_per_s.likely > .base.decode_tok_per_s.likely and .cases[2].decode_tok_per_s.likely < .base.decode_tok_per_s.likely'
expect_json '.cases[2].price.likely < .base.price.likely and .question.slo == {ttft_s: null, tpot_s: 1, tok_per_s: null, from: "asked"} and .base.users_at_slo >= 4'
expect_exit 0 "$plan" whatif "${r1[@]}" --set gpu=rtx5090 --set sockets=1 --together --json
expect_json '[.cases[].name] == ["gpu=rtx5090,sockets=1"]'

# ---- a change that does not fit is an answer with what would help; a base that does not fit too
expect_exit 0 "$plan" whatif "${r1[@]}" --set dimm=ddr5-6400,dimm-size=16G --json
expect_json '.cases[0] | (.feasible | not) and (.why_not | test("GiB")) and (.possible | length > 0) and (has("decode_tok_per_s") | not) and .causes[0].what == "fit"'
expect_exit 1 "$plan" whatif "${r1[@]}" --machine 'cpu=xeon-6787p,memory=ddr5-6400,dimm=16G,gpu=rtx4090' --set gpu=rtx5090 --json
expect_json '(.base.feasible | not) and (.cases[0].feasible | not)'
expect_stderr_line 'neither the base nor any change fits'

# ---- modules that are not sold are refused with those that are
expect_error 2 'modules of mrdimm-8000 come with 32, 48, 64, 96, 128 or 256 GiB' "$plan" whatif "${r1[@]}" --set dimm-size=16G

# ---- whose figures those of a GPU are
expect_exit 0 "$plan" whatif "${r1[@]}" --set users=2 --no-store
expect_stdout_line "^The figures are of this project's own engine, whose GPU .CUDA. part is not written yet"
expect_exit 0 "$plan" whatif --model qwen3-30b-a3b --machine cpu=epyc-9115 --users 2 --context 1K --set users=3 --no-store --json
expect_json '.engine_note == null'

# ---- changes that do not help are not called the most; modules the CPU cannot use say why
expect_exit 0 "$plan" whatif "${r1[@]}" --set sockets=1 --set gpu=rtx3090 --alone --no-store --json
expect_json '.verdict | test("No single change of the machine helps; the least is lost with gpu=rtx3090: .*-[0-9.]+ %") and (test("the most is") | not)'
expect_exit 0 "$plan" whatif "${r1[@]}" --set dimm=mrdimm-8800 --no-store --json
expect_json '(.verdict | test("That change of the machine does not help")) and (.cases[0].causes[0] | .what == "dram_bandwidth" and .from == .to and (.text | test("xeon-6787p drives these modules at 8000 MT/s, not at their 8800")))'
expect_exit 0 "$plan" whatif --model qwen3-30b-a3b --machine 'cpu=epyc-9115,gpu=rtx4090' --users 2 --context 1K --set dimm=ddr5-5600 --no-store --json
expect_json '.cases[0].causes[0].text | test("the dies of epyc-9115 read at most 256 GB/s")'
expect_exit 0 "$plan" whatif "${r1[@]}" --set gpu=rtx5090 --no-store --json
expect_json '.verdict | test("the most is gpu=rtx5090")'
expect_error 2 "did you mean 'rtx5090'" "$plan" whatif "${r1[@]}" --set gpu=rtx5900
expect_error 2 'nearest names are q4_k_m' "$plan" whatif "${r1[@]}" --set format=q4km

# ---- text and CSV
expect_exit 0 "$plan" whatif "${r1[@]}" --set gpu=rtx5090 --set lost=gpu0 --csv "$tmp/w.csv"
expect_stdout_line '^Base: [0-9.]+ tokens/s delivered, first token within [0-9.]+ m?s, '
expect_stdout_line '^ +users +delivered +change +TTFT p95 +TPOT p95 +decode'
expect_stdout_line 'sustained load: each sends the next request at once'
expect_stdout_line '^  base .*DRAM bandwidth'
expect_stdout_line '^Why$'
expect_stdout_line '^Delivered tokens/s, TTFT and TPOT are of 4 users under sustained load'
expect_stdout_line '  served: most users at once whose p95 stays within'
expect_same "$(wc -l <"$tmp/w.csv")" 5 "lines of the CSV"
expect_same "$(head -1 "$tmp/w.csv" | tr ',' '\n' | wc -l)" "$(sed -n 2p "$tmp/w.csv" | tr ',' '\n' | wc -l)" "fields of the CSV"

# Each row stands for its own users and lengths, and the footer says so.
expect_exit 0 "$plan" whatif "${r1[@]}" --set users=8 --no-store
expect_stdout_line '^  base +4 +[0-9.]+ '
expect_stdout_line '^  users=8 +8 +[0-9.]+ '
expect_stdout_line "are of each row's own users under sustained load: .*; prompts of 256 and answers of 64 tokens,"
expect_exit 0 "$plan" whatif "${r1[@]}" --set context=4K --no-store
expect_stdout_line "are of 4 users under sustained load: .*prompts and answers of each row's own lengths"
# A depth is kept to in every column.
expect_exit 0 "$plan" whatif "${r1[@]}" --depth 1 --set gpu=rtx5090 --no-store --json
expect_json '.base.depth == 1 and .cases[0].depth == 1'

# ---- refusals: one line, nothing written
rm -f "$HETEROFLOW_DB"*
for bad in gpu=rtx4009 gup=rtx4090 users=0 users=-2 users=1e9 context=nan lost=gpu5 lost=cpu4 sockets=9 dimm=mrdimm-9999 format=q9 kv=q3_0 \
  dram=x0 pcie=9 'users=2,users=3' '' gpu context=999999999 machine=nothing 'gpu=12xrtx4090'; do
  expect_error 2 . "$plan" whatif "${r1[@]}" --set "$bad"
done
expect_error 2 "did you mean 'rtx4090'" "$plan" whatif "${r1[@]}" --set gpu=rtx40900
expect_error 2 'is dimm meant' "$plan" whatif "${r1[@]}" --set ram=64G
expect_error 2 '64G is a size, not a bandwidth: dram=64GB/s, or dimm-size=64G' "$plan" whatif "${r1[@]}" --set dram=64G
expect_error 2 'is gpu meant' "$plan" whatif "${r1[@]}" --set gup=rtx4090
expect_error 2 'what is to change' "$plan" whatif "${r1[@]}"
expect_error 2 'exclude each other' "$plan" whatif "${r1[@]}" --set users=2 --alone --together
expect_error 2 'option --machine' "$plan" whatif --model deepseek-r1 --machine xeon6-mrdimm-rtx4091 --set users=2
expect_error 2 'option --machine: missing' "$plan" whatif --model deepseek-r1 --set users=2
expect_error 2 'option --model' "$plan" whatif --machine paced-desk --set users=2
expect_error 2 'nothing can be written' "$plan" whatif "${r1[@]}" --set users=2 --csv "$tmp/no/w.csv"
[ -e "$HETEROFLOW_DB" ] && fail "a refused question made a database"

# ---- machines of rows: what has a rule is scaled and said so, the rest is refused
tiny=(--model examples/tiny-moe --machine paced-desk --users 2 --context 192 --prompt-tokens 64 --output-tokens 32)
expect_exit 0 "$plan" whatif "${tiny[@]}" --set dram=x2 --set lost=gpu0 --no-store --json
expect_json '.cases[0].decode_tok_per_s.likely >= .base.decode_tok_per_s.likely and (.cases[0].notes | any(test("bandwidth")))'
expect_json '.cases[1].decode_tok_per_s.likely < .base.decode_tok_per_s.likely'
for bad in cpu=xeon-6787p sockets=2 dimm=ddr5-6400 prior=llama-cpp; do expect_error 2 'no rule|unknown' "$plan" whatif "${tiny[@]}" --set "$bad"; done

expect_exit 0 "$plan" whatif --help
expect_stdout_line 'lost=gpu0'
echo "whatif: all as promised"
