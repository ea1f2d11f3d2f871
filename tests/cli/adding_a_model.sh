# docs/adding-a-model.md is true: its file and its line make a family that can be planned, written and run, and nothing else is touched.
. tests/cli/lib.sh
page=docs/adding-a-model.md
if ! command -v cmake >/dev/null || ! command -v ninja >/dev/null; then skip "cmake and ninja are needed"; fi

mkdir "$tmp/tree"
git ls-files --cached --others --exclude-standard 2>/dev/null | grep -vE '^(tests|docs)/' | tar -c --files-from=- | tar -x -C "$tmp/tree"
[ -e "$tmp/tree/model/families.h" ] || skip "not a git tree"
mkdir -p "$tmp/tree/tests" && : >"$tmp/tree/tests/CMakeLists.txt"
awk '/^```/ { inside = !inside && $0 == "```c"; n += inside; next } inside && n == 1' $page >"$tmp/tree/model/family_example.c"
line=$(awk '/^```/ { inside = !inside && $0 == "```c"; n += inside; next } inside && n == 2' $page)
[ -n "$line" ] || fail "$page: no line for families.h"
LINE=$line awk '/FAMILY\(LLAMA/ { print ENVIRON["LINE"] } { print }' model/families.h >"$tmp/tree/model/families.h"

launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
export CCACHE_BASEDIR=$tmp/tree CCACHE_NOHASHDIR=1
expect_exit 0 cmake -S "$tmp/tree" -B "$tmp/tree/build" -G Ninja -DCMAKE_BUILD_TYPE=Release "${launcher[@]}"
expect_exit 0 ninja -C "$tmp/tree/build" hf-run hf-plan
new=$tmp/tree/build/bin

cat >"$tmp/config.json" <<'JSON'
{"model_type": "example_moe", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
 "vocab_size": 320, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": true, "moe_intermediate_size": 32,
 "shared_intermediate_size": 48, "max_position_embeddings": 512, "rms_norm_eps": 1e-6}
JSON
expect_error 2 "'example_moe' is no family known here" "$bin/hf-run" --model "synth:$tmp/config.json" --prompts /dev/null --quiet
echo '{"ids":[1,2,3],"max_tokens":8}' >"$tmp/p.jsonl"
expect_exit 0 "$new/hf-plan" plan --model "$tmp/config.json" --machine 'cpu=ryzen-9950x,gpu=rtx3090' --users 1 --context 128 --quiet --json
expect_exit 0 "$new/hf-run" --model "synth:$tmp/config.json,seed=1,format=bf16" --write-model "$tmp/model" --quiet
expect_exit 0 "$new/hf-run" --model "$tmp/model" --prompts "$tmp/p.jsonl" --ignore-eos --quiet --json --out "$tmp/a"
expect_exit 0 "$new/hf-run" --model "$tmp/model" --prompts "$tmp/p.jsonl" --ignore-eos --quiet --json --out "$tmp/b" --gpu virtual:64M --experts-on-gpu 50
expect_same "$(jq -c .ids "$tmp/a")" "$(jq -c .ids "$tmp/b")" "tokens with half of the experts on the device"
expect_json '.output_tokens == 8'
