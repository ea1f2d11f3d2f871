# The engine against known answers: families x device x share of experts on it x depth x batch, every ISA mask, both activation modes.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

for name in deepseek_v3 deepseek_v3_gguf deepseek_v2 deepseek_v2_lite qwen3_moe qwen3_moe_gguf; do check_family "$name"; done

# Latent attention in its plain form, which prompts of this length do not take by themselves.
for name in deepseek_v3 deepseek_v3_gguf deepseek_v2 deepseek_v2_lite; do
  model=tests/golden/$name
  if [ -e "$model/model.gguf" ]; then model=$model/model.gguf; fi
  for isa in $masks; do
    check "$model" "tests/golden/$name/reference.json" --mla plain --isa "$isa" --batch 5
    check "$model" "tests/golden/$name/reference.json" --mla plain --isa "$isa" --activations fast --batch 5 --gpu virtual:1G --experts-on-gpu 50
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
