# Experts cut over NUMA nodes that are not there: known answers, equal tokens whatever the threads and neighbours, slices as rates, cores or a plan say.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

nodes() { # FILE CPUS:RATE...
  local file=$tmp/$1.json
  shift
  printf '%s\n' "$@" | jq -R 'split(":") | {cpus: (.[0] | tonumber), mem_bytes: 4294967296, dram_bytes_per_s: (.[1] | tonumber)}' | jq -s '{nodes: .}' >"$file"
}
nodes one 2:1e10
nodes two 1:1e10 1:1e10
nodes four 1:1e10 1:1e10 1:1e10 1:1e10
nodes uneven 1:3e10 2:1e10 1:0
jq 'del(.nodes[2].dram_bytes_per_s)' "$tmp/uneven.json" >"$tmp/cores.json" # a node without a rate: cores count

# Families with whole experts to a node, slices of blocks of 32 and of 128 x 128, biases, shared experts.
for topology in two four uneven; do
  export HF_TOPOLOGY=$tmp/$topology.json
  for name in qwen3_moe mixtral_gguf gpt_oss gpt_oss_mxfp4 deepseek_v3 deepseek_v3_fp8 kimi_k2_int4; do
    model=tests/golden/$name
    if [ -e "$model/model.gguf" ]; then model=$model/model.gguf; fi
    check "$model" "tests/golden/$name/reference.json" --batch 5
    check "$model" "tests/golden/$name/reference.json" --depth 2 --gpu virtual:1G --experts-on-gpu 50 --threads 1
  done
  check examples/tiny-moe/tiny-moe-q8_0.gguf examples/tiny-moe/reference-q8_0.json --activations fast --batch 16
done
export HF_TOPOLOGY=$tmp/two.json
for isa in $masks; do
  for name in gpt_oss_mxfp4 deepseek_v3_fp8 qwen3_moe; do
    check tests/golden/$name tests/golden/$name/reference.json --isa "$isa" --batch 5
    check tests/golden/$name tests/golden/$name/reference.json --isa "$isa" --batch 5 --activations fast
  done
done
echo "$n comparisons with known answers"

# Three blocks of 256, which two nodes cannot halve; and every family of blocks. Equal tokens for any threads, users and way to load.
. tests/cli/wide_common.sh
wide_model 768
for format in f32 bf16 f16 fp8 q8_0 q4_0 mxfp4 nvfp4 q4_k q6_k q4_k_m iq4_xs iq2_xs; do
  synth=synth:$tmp/wide.json,format=$format,seed=3
  export HF_TOPOLOGY=$tmp/one.json
  uncut=$(tokens "$synth" --users 1)
  file=$tmp/m.gguf
  if [ $format = fp8 ]; then file=$synth; else expect_exit 0 "$bin/hf-run" --model "$synth" --write-model "$file" --quiet; fi
  for topology in two uneven; do
    export HF_TOPOLOGY=$tmp/$topology.json
    want=$(tokens "$synth" --users 1 --threads 1)
    same=$(comm -12 <(echo "$want") <(echo "$uncut") | wc -l) # sums in another order seldom change a token
    [ "$same" -ge 2 ] || fail "$format: $topology changes $((3 - same)) of 3 answers"
    expect_same "$want" "$(tokens "$synth" --users 3 --threads 3)" "$format on $topology, three users and threads"
    expect_same "$want" "$(tokens "$file" --users 2 --threads 4 --chunk 16)" "$format on $topology, from a file"
  done
done

# The log says who holds what: equal nodes take turns with the odd block, rates of 3 : 1 share in these parts, a node that states none goes by cores.
said() { # TOPOLOGY MODEL OPTIONS...
  local topology=$1 model=$2
  shift 2
  HF_TOPOLOGY=$tmp/$topology.json expect_exit 0 "$bin/hf-run" --model "$model" --prompts "$tmp/prompts.jsonl" --max-tokens 1 --out "$tmp/o" --verbose "$@"
  grep -o 'experts over .*' "$err" || true
}
wide=synth:$tmp/wide.json,format=q4_k,seed=3
each=$(jq -n '2 * 3 * 768 * 256 / 256 * 144 * 3 / 1048576 * 10 | round / 10 | tostring | if test("\\.") then . else . + ".0" end' -r)
expect_same "$(said two "$wide" --threads 2)" "experts over 2 NUMA nodes by their rates: 512 + 256 of 768 rows of layer 0's first, $each + $each MiB in all, 1 + 1 workers" "two nodes"
expect_same "$(said one "$wide")" "" "one node cuts nothing"
# every second expert on a device: of 3 x 3 blocks a layer 5 and 4; all blocks, even again, once it is lost
away="--gpu virtual:64M --experts-on-gpu 50 --users 3"
# shellcheck disable=SC2086
expect_same "$(said two "$wide" $away | grep -o '[0-9.]* + [0-9.]* MiB')" "1.1 + 0.8 MiB" "slices beside a device"
# shellcheck disable=SC2086
expect_same "$(said two "$wide" $away --fault error@60 --max-tokens 6 | tail -n 1 | grep -o '[0-9.]* + [0-9.]* MiB')" "$each + $each MiB" "slices after a loss"
# a node that reads nothing has no rate: here it is as good as none stated
expect_same "$(said uneven "${wide/q4_k/q8_0}" --threads 4)" "$(said cores "${wide/q4_k/q8_0}" --threads 4)" "a rate of nothing"
nodes rates 1:3e10 1:1e10
expect_same "$(said rates "${wide/q4_k/q8_0}" --threads 2 | cut -d, -f1)" "experts over 2 NUMA nodes by their rates: 576 + 192 of 768 rows of layer 0's first" "rates of 3 : 1"

# A plan for two nodes is followed on two nodes, and says the same in its rows.
"$bin/hf-plan" plan --model "$wide" --machine xeon6776p-2s-h100 --gpu none --users 3 --context 64 --out "$tmp/plan.json" --json >"$out" 2>"$err"
expect_same "$(jq -c '.layers[0].split' "$tmp/plan.json")" "[[1,[512,256]],[1,[256,512]],[1,[512,256]],[1,[256,512]],[1,[512,256]],[1,[256,512]]]" "slices of the plan"
rows=$(sqlite3 "$HETEROFLOW_DB" "SELECT first_expert, count, tier, device, round(split_begin * 768), round(split_end * 768) FROM plan_expert WHERE layer = 1 AND first_expert < 2 ORDER BY 1, 4")
expect_same "$(echo "$rows" | tr '\n' ' ')" "0|1|node|0|0.0|512.0 0|1|node|1|512.0|768.0 1|1|node|0|0.0|256.0 1|1|node|1|256.0|768.0 " "rows of the plan"
jq '(.layers[] | select(.split) | .split) = [[6, [256, 512]]]' "$tmp/plan.json" >"$tmp/other.json"
expect_same "$(said two "$wide" --plan "$tmp/other.json" --threads 2 | cut -d, -f1)" "experts over 2 NUMA nodes by their plan: 256 + 512 of 768 rows of layer 0's first" "as the plan says"
expect_same "$(said four "$wide" --plan "$tmp/other.json" --threads 4 | cut -d: -f1)" "experts over 4 NUMA nodes by their rates" "a plan for other nodes"
expect_same "$(said one "$wide" --plan "$tmp/other.json")" "" "a plan for nodes on one"
for bad in '[[6,[256,511]],[1,[1,2]]]' '[[5,[256,512]]]' '[[6,[256,512,0]],[0,[1]]]' '[[3,[256,512]],[3,[256,500]]]' '[[6,[256,-1]]]' '[[6,[0,0]]]' '[]' '3' '[[6,3]]' '[6]'; do
  jq --argjson s "$bad" '.layers[0].split = $s' "$tmp/plan.json" >"$tmp/bad.json"
  HF_TOPOLOGY=$tmp/two.json expect_error 2 'bad.json: layers\[0\].*split' "$bin/hf-run" --model "$wide" --plan "$tmp/bad.json" --prompts "$tmp/prompts.jsonl" --quiet
done

# A plan sends no prompts' experts on a machine whose nodes they are cut over, and does on half of it.
plan_of() { "$bin/hf-plan" plan --model qwen3-235b-a22b --format q8_0 --machine "$1" --users 4 --context 16384 --prompt-tokens 8192 --json 2>"$err" | jq -c '[.layers[].prefill] | unique'; }
expect_same "$(plan_of xeon6776p-2s-h100)" '["cpu"]' "uploads on two nodes"
expect_same "$(plan_of epyc9654-1s-rtx4090)" '["upload"]' "uploads on one node"

# Slices are not sent to a device: the CPU computes prompts, too, and says so; where experts are whole they are sent.
export HF_TOPOLOGY=$tmp/two.json
want=$(tokens "$wide" --gpu virtual:64M --users 3)
expect_same "$want" "$(tokens "$wide" --gpu virtual:64M --users 3 --upload-tokens 1)" "uploads on two nodes"
expect_exit 0 "$bin/hf-run" --model "$wide" --prompts "$tmp/prompts.jsonl" --max-tokens 1 --gpu virtual:64M --upload-tokens 1 --trace "$tmp/t.json"
expect_stderr_line 'experts are cut over 2 NUMA nodes and cannot be sent to the device'
jq -e '[.traceEvents[] | select(.cat == "upload")] == []' "$tmp/t.json" >/dev/null || fail "slices were sent"
HF_TOPOLOGY=$tmp/one.json expect_exit 0 "$bin/hf-run" --model "$wide" --prompts "$tmp/prompts.jsonl" --max-tokens 1 --gpu virtual:64M --upload-tokens 1 --trace "$tmp/t.json"
jq -e '[.traceEvents[] | select(.cat == "upload")] | length > 0' "$tmp/t.json" >/dev/null || fail "whole experts were not sent"
expect_error 2 '^hf-run: --upload-tokens: .*there is none' "$bin/hf-run" --model "$wide" --prompts "$tmp/prompts.jsonl" --max-tokens 1 --gpu none --upload-tokens 4 --quiet
