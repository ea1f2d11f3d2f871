# The type of the KV cache: answers within the tolerance of known ones and independent of neighbours, its room in budgets, plans that say it.
. tests/cli/lib.sh
. tests/cli/reference_common.sh
tiny=examples/tiny-moe
gqa=tests/golden/qwen3_moe

# Known answers, at the tolerance of products with Q8_0: grouped heads, latent attention in both forms, sinks and a window, more than 8 heads to a KV head.
for name in qwen3_moe deepseek_v3 gpt_oss glm4_moe; do
  for isa in $masks; do
    check tests/golden/$name tests/golden/$name/reference.json --activations fast --kv-type q8_0 --isa "$isa" --batch 5 --gpu virtual:1G --experts-on-gpu 50 --depth 2
  done
done
check tests/golden/deepseek_v3 tests/golden/deepseek_v3/reference.json --activations fast --kv-type q8_0 --mla plain

# Tokens of a sequence do not depend on its neighbours, threads, depth or placement.
answers() { jq -c '[.id, .ids]' "$1" | sort; }
jq -n -c 'range(8) as $i | {id: "\($i)", ids: [range(5 + 7 * $i) | (. * 31 + $i * 17) % 250]}' >"$tmp/p.jsonl"
for model in $tiny $gqa; do
  expect_exit 0 "$bin/hf-run" --model $model --prompts "$tmp/p.jsonl" --kv-type q8_0 --users 1 --max-tokens 24 --threads 1 --ignore-eos --quiet --out "$tmp/alone.jsonl" --json
  for options in "--users 8 --threads 2" "--users 5 --depth 3" "--users 8 --depth 2 --gpu virtual:64M --experts-on-gpu 50 --chunk 7"; do
    # shellcheck disable=SC2086
    expect_exit 0 "$bin/hf-run" --model $model --prompts "$tmp/p.jsonl" --kv-type q8_0 --max-tokens 24 --ignore-eos --quiet --out "$tmp/other.jsonl" --json $options
    expect_same "$(answers "$tmp/alone.jsonl")" "$(answers "$tmp/other.jsonl")" "$model: answers with $options"
  done
done

# Room: heads of 32 dimensions and more take 34 bytes for 32 numbers, both programs say the same.
bytes() { json '[.budget[] | select(.what == "KV cache").bytes] | add'; }
layers=$(jq .num_hidden_layers $gqa/config.json)
for type in f16 q8_0; do
  expect_exit 1 "$bin/hf-run" --model $gqa --prompts "$tmp/p.jsonl" --kv-type $type --users 1 --context 256 --gpu virtual:4K --check-every 0 --json --quiet
  run=$(bytes)
  expect_exit 0 "$bin/hf-plan" plan --model $gqa --machine epyc9654-1s-rtx4090 --gpu virtual:1G --users 1 --context 256 --kv-type $type --json --no-store
  expect_same "$run" "$(($(bytes) - 64 * layers))" "$type: bytes of hf-run and of hf-plan, less what hf-plan allows a layer for alignment"
  expect_json --arg t $type '.kv.type == $t'
  echo "$run" >"$tmp/$type"
done
head_dim=$(jq .head_dim $gqa/config.json)
[ $((head_dim % 32)) -ne 0 ] || expect_same "$(($(cat "$tmp/q8_0") * 64))" "$(($(cat "$tmp/f16") * 34))" "bytes in q8_0 and f16"

# Where f16 has no room q8_0 has, the refusal says so, and the run keeps to the plan.
plan() { "$bin/hf-plan" plan --model $tiny --machine epyc9654-1s-rtx4090 --users 16 --context 512 --chunk-tokens 16 --depth 1 --quiet "$@"; }
size=10M
expect_exit 1 plan --gpu virtual:$size --json --no-store
expect_json '.feasible == false and (.possible | any(test("--kv-type q8_0")))'
expect_exit 0 plan --gpu virtual:$size --kv-type q8_0 --out "$tmp/plan.json" --json
expect_exit 1 "$bin/hf-run" --model $tiny --prompts "$tmp/p.jsonl" --gpu virtual:$size --users 16 --context 512 --chunk 16 --kv-type f16 --check-every 0 --quiet --json
expect_exit 0 "$bin/hf-run" --model $tiny --prompts "$tmp/p.jsonl" --plan "$tmp/plan.json" --max-tokens 4 --check-every 0 --quiet --out "$tmp/planned.jsonl" --json
expect_json '.kv_type == "q8_0"'
# a re-plan keeps the type of the plan that was run
expect_exit 0 "$bin/hf-plan" plan --from-run latest --json --no-store --quiet
expect_json '.kv.type == "q8_0"'
# another type than the plan's is another run
expect_exit 0 "$bin/hf-run" --model $tiny --prompts "$tmp/p.jsonl" --plan "$tmp/plan.json" --batch 16 --kv-type f16 --gpu virtual:1G --max-tokens 4 --quiet --json
expect_json '.kv_type == "f16" and (.unlike_plan | length > 0)'

# The cost model knows it: on a card, more bytes of cache are more time at long context.
tokens_per_s() { # TYPE
  expect_exit 0 "$bin/hf-plan" plan --model qwen3-30b-a3b --machine epyc9654-1s-rtx4090 --users 4 --context 32K --prompt-tokens 30K --depth 1 --kv-type "$1" --json --no-store --quiet
  json .predicted.decode_tok_per_s.likely
}
f16=$(tokens_per_s f16)
q8=$(tokens_per_s q8_0)
jq -en --argjson a "$f16" --argjson b "$q8" '$b > 1.02 * $a' >/dev/null || fail "decode at 32K: $f16 tokens/s in f16, $q8 in q8_0"

# What cannot be.
expect_error 2 "'q4' is none of f16, q8_0" "$bin/hf-run" --model $tiny --prompts "$tmp/p.jsonl" --kv-type q4 --quiet
expect_error 2 "'q4' is none of f16, q8_0" "$bin/hf-plan" plan --model $tiny --machine epyc9654-1s-rtx4090 --kv-type q4
expect_error 2 'exact activations' "$bin/hf-run" --model $tiny --prompts "$tmp/p.jsonl" --kv-type q8_0 --activations exact --quiet
jq '.kv.page_tokens = 8' "$tmp/plan.json" >"$tmp/small.json"
expect_error 2 'page_tokens: 8' "$bin/hf-run" --model $tiny --prompts "$tmp/p.jsonl" --plan "$tmp/small.json" --quiet
echo "$n comparisons with known answers"
