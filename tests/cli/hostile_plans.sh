#!/bin/bash
# Hostile plans, prompts, references and databases.
. tests/cli/hostile_common.sh

# ---- plan.json
bad_plan=$in/bad.json
plan_file() {
  refuse "$1" "$bin/hf-run" --db "$db" --model $golden/deepseek_v3 --plan "$bad_plan" --prompts "$prompts" --out "$work/out.jsonl" --json
  refuse "$1" "$bin/hf-plan" evaluate --db "$db" --plan "$bad_plan" --json
}
plan_edit() { jq -c "$2" "$in/plan.json" >"$bad_plan" && plan_file "$1"; }
run_plan_edit() {
  jq -c "$2" "$in/plan.json" >"$bad_plan"
  refuse "$1" "$bin/hf-run" --db "$db" --model $golden/deepseek_v3 --plan "$bad_plan" --prompts "$prompts" --out "$work/out.jsonl" --json
}
: >"$bad_plan" && plan_file 'bad\.json'
head -c 2000 "$in/plan.json" >"$bad_plan" && plan_file 'bad\.json: line'
plan_edit 'bad\.json.*' '[]'
plan_edit 'bad\.json.*schema_version' '.schema_version = 1000'
plan_edit 'bad\.json.*depth' '.depth = 9'
plan_edit 'bad\.json.*depth' '.depth = 0'
plan_edit 'bad\.json.*users' '.users = -1'
plan_edit 'bad\.json.*context' '.context = 1e300'
plan_edit 'bad\.json.*placement' '.placement[1] = [[17, 0]]'
plan_edit 'bad\.json.*placement' '.placement[1] = [[16, 1]]'
plan_edit 'bad\.json.*placement' '.placement[1] = [[16, -2]]'
plan_edit 'bad\.json.*placement' '.placement[1] = [[1000000000, 0]]'
plan_edit 'bad\.json.*placement' 'del(.placement)'
plan_edit 'bad\.json.*placement' '.placement |= .[1:]'
plan_edit 'bad\.json.*layers' '.layers = []'
plan_edit 'bad\.json.*n_layers' '.n_layers = 1000000'
plan_edit 'bad\.json.*kv' '.kv = 5'
plan_edit 'bad\.json.*bytes' '.budget[0].bytes = -1'
plan_edit 'bad\.json.*limit_bytes|bad\.json.*budget' '.budget[0].bytes = 9007199254740992'
run_plan_edit 'page_tokens' '.kv.page_tokens = 3'
run_plan_edit 'page_tokens' '.kv.page_tokens = 2147483647'
run_plan_edit 'chunk_tokens' '.chunk_tokens = 2147483647'
run_plan_edit 'kv\.type' '.kv.type = "q4"'
run_plan_edit '--gpu|no CUDA' '.gpu = "cuda:0"'
run_plan_edit 'layer' '.n_layers = 2 | .layers |= .[:2] | .placement |= .[:2]'
run_plan_edit 'context' '.context = 1000000000'

# ---- prompts and references
bad_prompts() { refuse "$1" "$bin/hf-run" --db "$db" --model $golden/deepseek_v3 --prompts "$in/bad.jsonl" --out "$work/out.jsonl" --json; }
while IFS='|' read -r regex line; do
  printf '%s\n' "$line" >"$in/bad.jsonl"
  bad_prompts "bad\.jsonl: $regex"
done <<'END'
line 1: field ids\[0\]|{"ids":[288]}
line 1: field ids\[1\]|{"ids":[0,-1]}
line 1: field max_tokens|{"ids":[1],"max_tokens":0}
line 1: field arrival_s|{"ids":[1],"arrival_s":-1}
line 1|{"ids":[1]
line 1|{"ids":[1],"ids":[2]}
line 1|null
line 1.*no tokenizer|{"prompt":"text"}
END
head -c 100000 /dev/urandom >"$in/bad.jsonl" && bad_prompts 'bad\.jsonl: line 1'
printf '{"ids":[1],"max_tokens":1000000}\n' >"$in/bad.jsonl" && bad_prompts 'context'

reference=$in/reference.json
ref_edit() {
  jq -c "$2" $golden/deepseek_v3/reference.json >"$reference"
  refuse "$1" "$bin/hf-run" --db "$db" --check-reference "$reference" --model $golden/deepseek_v3 --json
}
ref_edit 'reference\.json.*prompts' '[]'
ref_edit 'reference\.json.*prompts' '.prompts = []'
ref_edit 'prompts\[0\]: field ids' '.prompts[0].ids = []'
ref_edit 'prompts\[0\]: field ids\[0\]' '.prompts[0].ids = [288]'
ref_edit 'prompts\[1\]: field greedy' '.prompts[1].greedy = "x"'
ref_edit 'prompts\[1\]: field greedy_margins' '.prompts[1].greedy_margins |= .[1:]'
ref_edit 'prompts\[1\]: field last_logits' '.prompts[1].last_logits[5] = null'
ref_edit 'prompts\[1\]: field last_logits' '.prompts[1].last_logits |= .[1:]'
ref_edit 'prompts\[1\]: field routing' 'del(.prompts[1].routing)'
ref_edit 'prompts\[1\]: field routing.1\[3\]' '.prompts[1].routing["1"][3] = [1,1,1,1]'
ref_edit 'prompts\[1\]: field routing.1\[3\]' '.prompts[1].routing["1"][3] = [1,2,3,16]'
ref_edit 'prompts\[1\]: field routing.1\[3\]' '.prompts[1].routing["1"][3] = [1,2,3]'
ref_edit 'prompts\[1\]: field routing' '.prompts[1].routing["0"] = .prompts[1].routing["1"]'

# ---- databases
bad_db=$work/bad.db
with_db() {
  refuse "$1" "$bin/hf-run" --db "$bad_db" --model $golden/deepseek_v3 --prompts "$prompts" --out "$work/out.jsonl"
  refuse "$1" "$bin/hf-plan" plan --db "$bad_db" --model $golden/deepseek_v3 --machine xeon6-mrdimm-rtx4090 --users 1 --context 64 --out "$work/plan.json"
  refuse "$1" "$bin/hf-report" run --db "$bad_db" --html "$work/page.html" --csv "$work/page.csv"
  rm -f "$bad_db"
}
yes 'not a database' | head -c 50000 >"$bad_db" && with_db 'bad\.db'
printf x >"$bad_db" && with_db 'bad\.db'
head -c 30000 "$db" >"$bad_db" && with_db 'bad\.db'
head -c 90 "$db" >"$bad_db" && with_db 'bad\.db'
cp "$db" "$bad_db" && head -c 60000 /dev/zero | patch_at "$bad_db" 4096 && with_db 'bad\.db'
sqlite3 "$bad_db" 'create table t (a)' && with_db 'bad\.db'
cp "$db" "$bad_db" && sqlite3 "$bad_db" 'pragma application_id = 77' >/dev/null && with_db 'bad\.db.*not a HeteroFlow'
cp "$db" "$bad_db" && sqlite3 "$bad_db" 'pragma user_version = 999' >/dev/null && with_db 'bad\.db.*999.*newer'
cp "$db" "$bad_db" && sqlite3 "$bad_db" 'drop view run_error' && with_db 'bad\.db'
cp "$db" "$bad_db" && sqlite3 "$bad_db" 'create trigger t after insert on run begin delete from run; end' && with_db 'bad\.db'

# ---- memory or a read that fails in the middle: status 3, one line, and whatever happened the database is sound
for fault in HF_FAIL_ALLOC=1 HF_FAIL_ALLOC=40 HF_FAIL_ALLOC=300 HF_FAIL_ALLOC=700 HF_FAIL_ALLOC=1100 HF_FAIL_ALLOC=1500 \
  HF_FAIL_READ=1 HF_FAIL_READ=3 HF_FAIL_READ=7 HF_FAIL_READ=12 HF_FAIL_READ=30 HF_FAIL_READ=60; do
  expect_error 3 '^hf-run: .*(out of memory|Input/output error|cannot)' env "$fault" "$bin/hf-run" --db "$db" --model $golden/deepseek_v3 \
    --plan "$in/plan.json" --prompts "$prompts" --quiet --json
done

# ---- and the good database is still good
good_database_is_as_it_was
