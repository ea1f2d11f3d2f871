# Weight formats from file to token: in every format that runs, the same model as a file (repacked from the mapping) and made in memory (repacked
# from rows read), with other threads, users and placements, writes the same tokens. What cannot run is refused by name.
. tests/cli/lib.sh
. tests/cli/wide_common.sh
wide_model 256
for format in q8_0 q6_k q5_k q4_k q3_k q2_k q5_0 q5_1 q4_0 q4_1 iq4_nl iq4_xs mxfp4 nvfp4 tq1_0 tq2_0 q4_k_m \
  iq3_s iq3_xxs iq2_s iq2_xs iq2_xxs iq1_m iq1_s; do
  synth=synth:$tmp/wide.json,format=$format,seed=3
  expect_exit 0 "$bin/hf-run" --model "$synth" --write-model "$tmp/m.gguf" --quiet
  want=$(tokens "$tmp/m.gguf" --users 1 --threads 1)
  expect_same "$want" "$(tokens "$synth" --users 3 --threads 2)" "$format in memory, three users"
  expect_same "$want" "$(tokens "$tmp/m.gguf" --users 2 --depth 2 --gpu virtual:64M --experts-on-gpu 50)" "$format, half of the experts on a device"
  # another instruction set rounds otherwise, which seldom changes a token
  for isa in scalar avx2; do
    same=$(comm -12 <(echo "$want") <(HF_ISA=$isa tokens "$tmp/m.gguf" --users 1) | wc -l)
    [ "$same" -ge 2 ] || fail "$format: HF_ISA=$isa changes $((3 - same)) of 3 answers"
  done
  rm "$tmp/m.gguf"
done
expect_error 2 'weights in iq2_k cannot be executed yet' "$bin/hf-run" --model "synth:$tmp/wide.json,format=iq2_k" --prompts "$tmp/prompts.jsonl" --quiet
