# hf-run model: what is written from a checkpoint computes what the checkpoint does, in every family; faults are found and named; nothing is left
# behind when reading, writing or the disk fails.
. tests/cli/lib.sh
run=$bin/hf-run
golden=tests/golden

# F32 keeps every number: the known answers of the folder hold for the file, exactly, and the file verifies.
for family in deepseek_v2_lite deepseek_v3 deepseek_v3_fp8 kimi_k2 kimi_k2_int4 qwen2_moe qwen3_moe mixtral olmoe gpt_oss gpt_oss_mxfp4 glm4_moe; do
  expect_exit 0 "$run" model quantise $golden/$family "$tmp/m.gguf" --format f32 --force --json
  expect_json '[.tensors[].rms_relative_error] | max == 0'
  expect_exit 0 "$run" model verify "$tmp/m.gguf" --json
  expect_json '.good and .faults == [] and .bytes_read > 0'
  expect_exit 0 "$run" --check-reference $golden/$family/reference.json --model "$tmp/m.gguf" --json
  expect_json '.verdict == "passed"'
done
# What GGUF cannot say is not written.
expect_error 2 'rope.mscale would be lost' "$run" model quantise $golden/deepseek_v2 "$tmp/lost.gguf" --format f32
[ ! -e "$tmp/lost.gguf" ] || fail "a file that says something else was written"

# Tensors that have the format already are copied, also those that cannot be written anew.
expect_exit 0 "$run" model quantise $golden/gpt_oss_mxfp4 "$tmp/m.gguf" --format bf16:experts=mxfp4 --force --json
expect_json '[.parts[] | select(.to == "mxfp4") | .copied] == [true, true]'
expect_error 2 'mxfp4 cannot be written' "$run" model quantise $golden/gpt_oss "$tmp/m.gguf" --format bf16:experts=mxfp4 --force

# The tokenizer goes along: text in, the same text out. Q8_0 is that of the file which ships with the model, and its answers hold.
tiny=examples/tiny-moe
expect_exit 0 "$run" model quantise $tiny "$tmp/bf16.gguf" --format bf16 --json
expect_json '.tokenizer'
for model in $tiny "$tmp/bf16.gguf"; do
  expect_exit 0 "$run" --model "$model" --prompt 'To be, or not to be: 12345' --max-tokens 24 --quiet --gpu none
  sed '/^run [0-9]/,$d' "$out" >"$tmp/said.$(basename "$model")"
done
cmp -s "$tmp/said.tiny-moe" "$tmp/said.bf16.gguf" || fail "another text from the GGUF file"
expect_exit 0 "$run" model quantise $tiny "$tmp/q8.gguf" --format q8_0 --json
expect_json '.importance_matrix == false and ([.parts[] | select(.to == "q8_0") | .rms_relative_error] | min > 0.003 and max < 0.007)'
expect_exit 0 "$run" --check-reference $tiny/reference-q8_0.json --model "$tmp/q8.gguf" --json
expect_json '.verdict == "passed"'
expect_exit 0 "$run" --check-reference $tiny/reference-q8_0.json --model "$tmp/q8.gguf" --activations fast --json
expect_json '.verdict == "passed"'

# From GGUF, by parts and layers; bits of the file do not depend on threads or instruction set.
recipe=q4_0:attn=q8_0,down=q5_1@2-3,output=q8_0
expect_exit 0 "$run" model quantise "$tmp/bf16.gguf" "$tmp/a.gguf" --format $recipe --threads 1 --json
expect_json --arg n blk.2.ffn_down_exps.weight '[.tensors[] | select(.name == $n) | .to] == ["q5_1"]'
expect_json --arg n blk.4.ffn_down_exps.weight '[.tensors[] | select(.name == $n) | .to] == ["q4_0"]'
expect_json '[.parts[] | select(.to == "q4_0") | .rms_relative_error] | min > 0.05 and max < 0.1'
HF_ISA=scalar expect_exit 0 "$run" model quantise "$tmp/bf16.gguf" "$tmp/b.gguf" --format $recipe --threads 2
cmp -s "$tmp/a.gguf" "$tmp/b.gguf" || fail "the file depends on threads or instruction set"
expect_exit 0 "$run" model quantise $tiny "$tmp/c.gguf" --format $recipe --json
expect_exit 0 "$run" --model "$tmp/a.gguf" --prompt 'To be' --max-tokens 8 --quiet --gpu none

# K-quants and a mixture of a shape whose rows they fit: known answers of the numbers in F32 hold within what 4 bits lose.
expect_exit 0 "$run" model generate "synth:tests/bench/moe-700m.json,layers=1,experts=8,format=bf16,seed=2" "$tmp/s.gguf" --json
expect_json '.files | length == 1'
expect_exit 0 "$run" model quantise "$tmp/s.gguf" "$tmp/s4.gguf" --format q4_k_m --json
expect_json '([.parts[] | select(.to == "q4_k") | .rms_relative_error] | max < 0.06) and ([.parts[] | select(.to == "q6_k") | .rms_relative_error] | max < 0.014)'
expect_json '.peak_rss_bytes < 64000000'
for format in q3_k_m q2_k; do
  expect_exit 0 "$run" model quantise "$tmp/s.gguf" "$tmp/s3.gguf" --format $format --force --json
  expect_json '([.parts[] | select(.to == "q3_k") | .rms_relative_error] | max < 0.13) and ([.parts[] | select(.to == "q2_k") | .rms_relative_error] | max < 0.24)'
  expect_json --arg f ${format%_m} 'any(.parts[]; .to == $f)'
  expect_exit 0 "$run" model verify "$tmp/s3.gguf"
done
rm "$tmp/s.gguf" "$tmp/s4.gguf" "$tmp/s3.gguf"

# inspect
expect_exit 0 "$run" model inspect $tiny --json --tensors
expect_json '.family == "deepseek_v3" and .executable and .tokenizer.present and .tokenizer.chat_template and (.tensors | length == 565)'
expect_json '([.parts[].bytes] | add) == .bytes and .kv_bytes_per_token_f16 == 6 * 80 * 2'
# all but the routed experts and the embedding once, one row of the embedding, 4 of 32 experts
expect_json '.decode_bytes_per_token == .bytes - (.parts[] | select(.tensor == "embed") | .bytes * 4095 / 4096) - ([.parts[] | select(.part == "experts") | .bytes] | add) * 28 / 32'
expect_exit 0 "$run" model inspect $golden/deepseek_v3_fp8 --json
expect_json '.executable == true and .refused_types == []'
expect_exit 0 "$run" model inspect deepseek-r1 --json
expect_json '.weights == false and .layers == 61 and .experts == 256'
expect_exit 0 "$run" model inspect $tiny
expect_stdout_line 'a token reads 3.3 MiB of weights'

# verify: each fault with file, tensor and remedy, status 1
cp -r $tiny "$tmp/bad"
chmod -R u+w "$tmp/bad"
second=$tmp/bad/model-00002-of-00002.safetensors
printf '\377\177' | dd of="$second" bs=1 seek=$(($(stat -c %s "$second") - 100)) conv=notrunc status=none
expect_exit 1 "$run" model verify "$tmp/bad" --json
expect_json '.good == false and (.faults | length == 1) and (.faults[0].what | test("is no finite number")) and (.faults[0].remedy | length > 0) and .faults[0].file == "'"$second"'"'
expect_exit 0 "$run" model verify "$tmp/bad" --fast --json
expect_json '.bytes_read == 0'
truncate -s -50000 "$second"
expect_exit 1 "$run" model verify "$tmp/bad" --fast
expect_stdout_line 'is the file truncated|cut short'
rm "$second"
expect_exit 1 "$run" model verify "$tmp/bad" --json
expect_json '[.faults[] | select(.what | test("model-00002-of-00002.safetensors: does not exist"))] | length == 1'
cp -r $tiny/. "$tmp/bad/"
sed -i 's/"moe_intermediate_size": 64/"moe_intermediate_size": 96/' "$tmp/bad/config.json"
expect_exit 1 "$run" model verify "$tmp/bad" --fast --json
expect_json '[.faults[] | select(.what | test("the config demands"))] | length == 495'
head -c 3000000 "$tmp/q8.gguf" >"$tmp/cut.gguf"
expect_exit 1 "$run" model verify "$tmp/cut.gguf" --json
expect_json '[.faults[] | select(.what | test("is it truncated"))] | length > 10'
expect_error 2 'no such file' "$run" model verify "$tmp/nothing"

# A value that is no number is not written as one.
cp $golden/qwen3_moe/* "$tmp/bad/" && rm -f "$tmp"/bad/model-* "$tmp"/bad/*.index.json
chmod -R u+w "$tmp/bad"
printf '\377\177' | dd of="$tmp/bad/model.safetensors" bs=1 seek=$(($(stat -c %s "$tmp/bad/model.safetensors") - 2)) conv=notrunc status=none
expect_error 2 'no number; hf-run model verify finds it' "$run" model quantise "$tmp/bad" "$tmp/x.gguf" --format q8_0 --no-tokenizer

# Nothing half: a write that fails, a full disk, a file that is there.
before=$(ls "$tmp")
for n in 1 2 7; do HF_FAIL_WRITE=$n expect_error 3 'No space left' "$run" model quantise $tiny "$tmp/x.gguf" --format q8_0; done
HF_FAIL_READ=40 expect_exit 3 "$run" model quantise $tiny "$tmp/x.gguf" --format q8_0
expect_same "$before" "$(ls "$tmp")" "files before and after failures"
expect_error 2 'is there already; --force' "$run" model quantise $tiny "$tmp/q8.gguf" --format q8_0
expect_error 2 'must end in .gguf' "$run" model quantise $tiny "$tmp/q8" --format q8_0
expect_error 2 'is unknown' "$run" model quantise $tiny "$tmp/x.gguf" --format q9
expect_error 2 'mxfp4 cannot be written' "$run" model quantise $tiny "$tmp/x.gguf" --format mxfp4
expect_error 2 'write it with generate' "$run" model quantise synth:tests/bench/moe-700m.json "$tmp/x.gguf" --format q8_0
expect_error 2 'is verify meant' "$run" model verfy x
for verb in '' inspect verify quantise generate; do
  expect_exit 0 "$run" model $verb --help
  expect_stdout_line 'EXAMPLES'
done
