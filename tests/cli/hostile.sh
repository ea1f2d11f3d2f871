#!/bin/bash
# Hostile models: GGUF, safetensors and their index, config.json, tokenizer.json.
. tests/cli/hostile_common.sh

# ---- GGUF
gguf=$in/model.gguf
good=$golden/deepseek_v3_gguf/model.gguf
size=$(stat -c %s $good)
: >"$gguf" && both 'model\.gguf' "$gguf"
printf 'GGU' >"$gguf" && both 'model\.gguf' "$gguf"
printf 'GGUF\xff\xff\xff\xff\xff\xff\xff\xff' >"$gguf" && both 'model\.gguf' "$gguf"
{ printf GGUF && le32 3 && seq 1 5000 | sha512sum | cut -c1-128 && seq 1 9000; } >"$gguf" && both 'model\.gguf' "$gguf"
for n in 8 24 100 5000 $((size / 2)) $((size - 1)); do
  head -c "$n" $good >"$gguf" && both 'model\.gguf.*' "$gguf"
done
for at in 8 16; do # counts of tensors and of metadata
  cp $good "$gguf" && le64 -1 | patch_at "$gguf" $at && both 'model\.gguf' "$gguf"
  cp $good "$gguf" && le64 100000000 | patch_at "$gguf" $at && both 'model\.gguf' "$gguf"
done
cp $good "$gguf" && le32 99 | patch_at "$gguf" 4 && both 'model\.gguf.*99' "$gguf"
# value_of KEY: where the value of an integer in the metadata begins (behind the key and its type).
value_of() { local at; at=$(grep -obUaF "$1" $good | head -n 1 | cut -d: -f1) && echo $((at + ${#1} + 4)); }
contradict() { cp $good "$gguf" && le32 "$2" | patch_at "$gguf" "$(value_of "$1")" && both "model\.gguf: .*" "$gguf"; }
contradict deepseek2.block_count 99
contradict deepseek2.block_count 0
contradict deepseek2.block_count -1
contradict deepseek2.embedding_length 65
contradict deepseek2.embedding_length 2147483647
contradict deepseek2.expert_count 17
contradict deepseek2.expert_used_count 17
contradict deepseek2.expert_used_count 0
contradict deepseek2.attention.head_count 3
contradict deepseek2.attention.kv_lora_rank 31
cp $good "$gguf" && le64 $((1 << 62)) | patch_at "$gguf" 24 && both 'model\.gguf' "$gguf" # length of the first key

# ---- safetensors
folder=$in/folder
st_good=$golden/qwen3_moe/model.safetensors
new_folder() { rm -rf "$folder" && mkdir "$folder" && cp "$golden/$1"/*.json "$golden/$1"/*.safetensors "$folder" && rm "$folder/reference.json"; }
header_bytes=$(od -An -t u8 -N8 $st_good | tr -d ' ')
head -c $((8 + header_bytes)) $st_good | tail -c "$header_bytes" >"$in/header.json"
first=$(jq -r 'del(.__metadata__) | keys[0]' "$in/header.json")
# st_with TEXT: the header is this text, the data as before.
st_with() { { le64 ${#1} && printf %s "$1" && tail -c +$((9 + header_bytes)) $st_good; } >"$folder/model.safetensors"; }
st_edit() { st_with "$(jq -c --arg t "$first" "$1" "$in/header.json")" && both 'model\.safetensors.*|config\.json.*' "$folder"; }
new_folder qwen3_moe
st=$folder/model.safetensors
: >"$st" && both 'model\.safetensors' "$folder"
printf 1234567 >"$st" && both 'model\.safetensors' "$folder"
for n in 0 1 $((1 << 40)) -1 $((header_bytes - 1)); do cp $st_good "$st" && le64 "$n" | patch_at "$st" 0 && both 'model\.safetensors' "$folder"; done
for n in 8 100 $((8 + header_bytes)) $(($(stat -c %s $st_good) - 1)); do head -c "$n" $st_good >"$st" && both 'model\.safetensors' "$folder"; done
st_with 'this is no JSON' && both 'model\.safetensors' "$folder"
st_with '[]' && both 'model\.safetensors' "$folder"
st_with "$(printf '[%.0s' $(seq 500))" && both 'model\.safetensors' "$folder"
st_edit '.[$t].data_offsets[1] += 1000000000'
st_edit '.[$t].data_offsets = [0, 18446744073709551615]'
st_edit '.[$t].data_offsets |= reverse'
st_edit '.[$t].data_offsets = [-8, 8]'
st_edit '.[$t].data_offsets = "0"'
st_edit 'del(.[$t].data_offsets)'
st_edit '.[$t].dtype = "F99"'
st_edit '.[$t].dtype = 7'
st_edit '.[$t].shape[0] += 1'
st_edit '.[$t].shape = [4294967296, 4294967296]'
st_edit '.[$t].shape = [-1, -1]'
st_edit '.[$t] = null'
st_edit 'del(.[$t])'

# ---- index of several files
new_folder deepseek_v3
index=$folder/model.safetensors.index.json
index_edit() { jq -c "$1" "$golden/deepseek_v3/model.safetensors.index.json" >"$index" && both 'model\.safetensors\.index\.json|model-0000' "$folder"; }
printf '{"weight_map"' >"$index" && both 'index\.json' "$folder"
index_edit '.weight_map = 5'
index_edit '.weight_map = {}'
index_edit 'del(.weight_map)'
index_edit '.weight_map[(.weight_map | keys[0])] = "../../../etc/passwd"'
index_edit '.weight_map[(.weight_map | keys[0])] = "/etc/passwd"'
index_edit '.weight_map[(.weight_map | keys[0])] = 7'
index_edit '.weight_map |= with_entries(.value = "model-00001-of-00002.safetensors")'
rm "$index" && cp $golden/deepseek_v3/model.safetensors.index.json "$folder" && head -c 1000 $golden/deepseek_v3/model-00002-of-00002.safetensors >"$folder/model-00002-of-00002.safetensors" && both 'model-00002' "$folder"

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
