# hf-run as a user meets it: prompts, plans made on the fly, the census of expert choices, independence from neighbours, refusals.
. tests/cli/lib.sh
tiny=examples/tiny-moe

# Expert choices of the prompt tokens equal the census of each kind of text (exact activations, BF16 weights). A tie of rounding may move
# a choice: at most 2 of about 31,000 may differ.
for kind in $(jq -r 'keys[]' $tiny/census.json); do
  expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --where "domain=$kind" --activations exact --max-tokens 1 --quiet --json
  run=$(json .run_id)
  sqlite3 -json "$HETEROFLOW_DB" "select layer, expert, count from routing_count where run_id = $run and phase = 'prefill'" >"$tmp/counts.json"
  moved=$(jq -n --slurpfile got "$tmp/counts.json" --slurpfile census $tiny/census.json --arg kind "$kind" '
    ($got[0] | map({key: "\(.layer)/\(.expert)", value: .count}) | from_entries) as $g
    | [$census[0][$kind].counts | to_entries[] | .key as $l | .value | to_entries[] | ((.value - ($g["\($l)/\(.key)"] // 0)) | fabs)] | add / 2')
  jq -en --argjson moved "$moved" '$moved <= 2' >/dev/null || fail "$kind: $moved expert choices differ from the census"
  expect_same "$(json .prompt_tokens)" "$(jq ".[\"$kind\"].tokens" $tiny/census.json)" "$kind: prompt tokens"
done

# Tokens of a sequence do not depend on its neighbours, threads, depth or placement.
answers() { jq -c '[.id, .ids]' "$1" | sort; }
alone=$tmp/alone.jsonl
expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --where domain=french --limit 16 --users 1 --max-tokens 24 --threads 1 --quiet --out "$alone" --json
expect_json '.requests == 16 and .decode_tok_per_s > 0 and .ttft_s.p50 > 0 and .tpot_s.p99 >= .tpot_s.p50'
for options in "--users 16" "--users 5 --depth 3 --threads 2" "--users 16 --depth 2 --gpu virtual:64M --experts-on-gpu 50" \
  "--users 7 --gpu virtual:64M --experts-on-gpu 100" "--users 16 --chunk 7"; do
  # shellcheck disable=SC2086
  expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --where domain=french --limit 16 --max-tokens 24 --quiet --out "$tmp/other.jsonl" --json $options
  expect_same "$(answers "$alone")" "$(answers "$tmp/other.jsonl")" "answers with $options"
done

# Nodes that are not there: the same answers.
for nodes in 2 4; do
  jq -n --argjson n $nodes '{nodes: [range($n) | {cpus: 1, mem_bytes: 4294967296, dram_bytes_per_s: 1e10}]}' >"$tmp/topology.json"
  HF_TOPOLOGY=$tmp/topology.json expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --where domain=french --limit 16 --users 5 --max-tokens 24 --quiet --out "$tmp/other.jsonl" --json
  expect_json --argjson n $nodes '.threads == $n'
  expect_same "$(answers "$alone")" "$(answers "$tmp/other.jsonl")" "answers with $nodes nodes"
done
echo '{"nodes": [{"cpus": -1}]}' >"$tmp/topology.json"
HF_TOPOLOGY=$tmp/topology.json expect_error 2 'topology.json.*cpus' "$bin/hf-run" --model $tiny --prompt x --quiet

# Sampling is seeded; another seed gives another text.
sample() { "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --limit 2 --max-tokens 16 --temperature 1 --seed "$1" --users "$2" --quiet --out "$3" --json >/dev/null; }
sample 5 1 "$tmp/a" && sample 5 2 "$tmp/b" && sample 6 1 "$tmp/c"
expect_same "$(answers "$tmp/a")" "$(answers "$tmp/b")" "same seed, other batch"
[ "$(answers "$tmp/a")" != "$(answers "$tmp/c")" ] || fail "another seed gives the same text"

# Arrivals are replayed in time.
printf '%s\n' '{"id":"x","ids":[0,5,6],"max_tokens":4}' '{"id":"y","ids":[0,7],"max_tokens":4,"arrival_s":0.6}' >"$tmp/late.jsonl"
expect_exit 0 "$bin/hf-run" --model $tiny --prompts "$tmp/late.jsonl" --ignore-eos --quiet --out "$tmp/late.out" --json
jq -es '.[1].id == "y" and .[1].end_s - .[1].ttft_s >= 0.6 and (.[1].ids | length) == 4' "$tmp/late.out" >/dev/null || fail "arrival was not replayed"

# A trace that a viewer accepts: each event has a name, a time and a length; both resources work.
expect_exit 0 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --limit 4 --depth 2 --gpu virtual:64M --experts-on-gpu 25 --max-tokens 4 --quiet --trace "$tmp/trace.json" --json
jq -e '[.traceEvents[] | select(.ph == "X")] | length > 50 and all(.dur >= 0 and .ts >= 0) and (map(.tid) | unique == [0, 1])' "$tmp/trace.json" >/dev/null || fail "trace"
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from trace where run_id = $(json .run_id)")" \
  "$(jq '[.traceEvents[] | select(.ph == "X" and .cat != "idle")] | length' "$tmp/trace.json")" "trace rows and trace events"

# Refusals: one line, the right status, nothing written.
expect_exit 1 "$bin/hf-run" --model $tiny --prompts $tiny/prompts.jsonl --limit 2 --gpu virtual:2M --experts-on-gpu 50 --quiet --json
expect_stderr_line 'does not fit: the device needs .* MiB'
expect_stderr_line 'gpu0 +resident experts'
expect_error 2 'holds no such file|no such|not exist|cannot' "$bin/hf-run" --model "$tmp/none" --prompt x
expect_error 2 'neither exact nor fast' "$bin/hf-run" --model $tiny --prompt x --activations slow
expect_error 2 'say one of' "$bin/hf-run" --model $tiny
expect_error 2 'no CUDA device' "$bin/hf-run" --model $tiny --prompt x --gpu cuda:0
expect_error 2 "needs none, virtual:SIZE" "$bin/hf-run" --model $tiny --prompt x --gpu gpu
echo '{"prompt": 5}' >"$tmp/bad.jsonl"
expect_error 2 'bad.jsonl: line 1.*prompt' "$bin/hf-run" --model $tiny --prompts "$tmp/bad.jsonl" --quiet
echo '{"ids": [0, 4096]}' >"$tmp/bad.jsonl"
expect_error 2 'bad.jsonl: line 1: field ids\[1\]' "$bin/hf-run" --model $tiny --prompts "$tmp/bad.jsonl" --quiet
