# The engine against known answers: families x device x share of experts on it x depth x batch, every ISA mask, both activation modes.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

for name in deepseek_v3 deepseek_v3_gguf deepseek_v2 deepseek_v2_lite qwen3_moe qwen3_moe_gguf; do
  model=tests/golden/$name
  ref=$model/reference.json
  if [ -e "$model/model.gguf" ]; then model=$model/model.gguf; fi
  for depth in 1 2 3; do
    for batch in 1 5 16; do
      check "$model" "$ref" --gpu none --depth $depth --batch $batch
      for share in 0 50 100; do check "$model" "$ref" --gpu virtual:1G --experts-on-gpu $share --depth $depth --batch $batch; done
    done
  done
  for isa in $masks; do
    check "$model" "$ref" --isa "$isa" --batch 5
    check "$model" "$ref" --isa "$isa" --activations fast --batch 5 --experts-on-gpu 50 --depth 2
  done
done

# A wrong answer must fail: another model's reference of the same shape, and one altered logit.
jq '.prompts[0].last_logits[7] += 0.01' tests/golden/qwen3_moe/reference.json >"$tmp/altered.json"
expect_exit 1 "$bin/hf-run" --check-reference "$tmp/altered.json" --model tests/golden/qwen3_moe --json
expect_json '.verdict == "failed" and .passed == .prompts - 1'
jq '.prompts[1].routing["0"][3] = [0,1,2,3]' tests/golden/qwen3_moe/reference.json >"$tmp/altered.json"
expect_exit 1 "$bin/hf-run" --check-reference "$tmp/altered.json" --model tests/golden/qwen3_moe --json
jq '.prompts[2].greedy[5] = 1' tests/golden/qwen3_moe/reference.json >"$tmp/altered.json"
expect_exit 1 "$bin/hf-run" --check-reference "$tmp/altered.json" --model tests/golden/qwen3_moe --json
expect_json '.greedy_match < .greedy_total'

echo "$n comparisons with known answers"
