#!/bin/bash
# Hostile models: GGUF, safetensors and their index.
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
st_good=$golden/qwen3_moe/model.safetensors
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

# ---- and the good database is still good
good_database_is_as_it_was
