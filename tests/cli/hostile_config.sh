#!/bin/bash
# Hostile config.json and tokenizer.json.
. tests/cli/hostile_common.sh

# ---- config.json
new_folder deepseek_v3
config=$folder/config.json
# Both programs read a config by the same code: every third case goes through both.
cases=0
config_edit() {
  jq -c "$2" $golden/deepseek_v3/config.json >"$config"
  run "$1" "$folder"
  cases=$((cases + 1))
  if [ $((cases % 3)) = 0 ]; then plan "$1" "$folder"; fi
}
: >"$config" && both 'config\.json' "$folder"
head -c 700 $golden/deepseek_v3/config.json >"$config" && both 'config\.json: line' "$folder"
{ printf '{"a":"' && head -c 6000000 /dev/zero | tr '\0' x && printf '"}'; } >"$config" && both 'config\.json.*' "$folder"
printf '{"a":%s1%s}' "$(printf '[%.0s' $(seq 300))" "$(printf ']%.0s' $(seq 300))" >"$config" && both 'config\.json' "$folder"
printf '{"model_type":"\xff\xfe"}' >"$config" && both 'config\.json' "$folder"
config_edit 'config\.json.*' '[]'
config_edit 'config\.json.*(model_type|architectures)' 'del(.model_type, .architectures)'
config_edit 'config\.json.*no_such_family|config\.json.*(model_type|architectures)' '.model_type = "no_such_family" | .architectures = ["NoSuch"]'
for field in num_hidden_layers hidden_size vocab_size num_attention_heads moe_intermediate_size kv_lora_rank num_experts_per_tok; do
  config_edit "config\.json.*$field" "del(.$field)"
  config_edit "config\.json.*$field" ".$field = -1"
  config_edit "config\.json.*|model-0000.*" ".$field = 1000000007"
done
for value in 0 1.5 1e300 '"64"' null '[]'; do config_edit 'config\.json.*hidden_size' ".hidden_size = $value"; done
config_edit 'config\.json.*num_experts_per_tok' '.num_experts_per_tok = 17'
config_edit 'config\.json.*(n_group|topk_group)' '.n_group = 3'
config_edit 'config\.json.*topk_group' '.topk_group = 5'
config_edit 'config\.json.*first_k_dense_replace|model-0000' '.first_k_dense_replace = 4'
config_edit 'config\.json.*factor' '.rope_scaling.factor = -1'
config_edit 'config\.json.*(rope_scaling|type)' '.rope_scaling.type = "no_such"'
config_edit 'config\.json.*rms_norm_eps' '.rms_norm_eps = -1'

# ---- tokenizer.json: a prompt of text needs it
tiny=$in/tiny
mkdir "$tiny"
for f in examples/tiny-moe/*.safetensors examples/tiny-moe/model.safetensors.index.json examples/tiny-moe/config.json; do ln -s "$PWD/$f" "$tiny/"; done
tok_run() { refuse "$1" "$bin/hf-run" --quiet --db "$db" --model "$tiny" --prompt 'To be' --max-tokens 2 --out "$work/out.jsonl"; }
tok_edit() { jq -c "$2" examples/tiny-moe/tokenizer.json >"$tiny/tokenizer.json" && tok_run "$1"; }
: >"$tiny/tokenizer.json" && tok_run 'tokenizer\.json'
head -c 5000 examples/tiny-moe/tokenizer.json >"$tiny/tokenizer.json" && tok_run 'tokenizer\.json: line'
tok_edit 'tokenizer\.json.*type' '.model.type = 5'
tok_edit 'tokenizer\.json.*model' 'del(.model)'
tok_edit 'tokenizer\.json.*vocab' '.model.vocab = []'
tok_edit 'tokenizer\.json.*vocab' '.model.vocab["a"] = -1'
tok_edit 'tokenizer\.json.*vocab' '.model.vocab["a"] = 4000000000'
tok_edit 'tokenizer\.json.*' '.model.vocab["a"] = .model.vocab["b"]'
tok_edit 'tokenizer\.json.*merges' '.model.merges = {}'
tok_edit 'tokenizer\.json.*merge' '.model.merges[3] = "one two three"'
tok_edit 'tokenizer\.json.*merge' '.model.merges[3] = 5'
tok_edit 'tokenizer\.json.*regex' '.pre_tokenizer.pretokenizers[0].pattern.Regex = "(((["'
tok_edit 'tokenizer\.json.*field id' '.added_tokens[0].id = -7'
rm "$tiny/tokenizer.json" && tok_run 'no tokenizer'

# ---- and the good database is still good
good_database_is_as_it_was
