# hostile_common.sh: for the tests with truncated, oversized, contradictory and hostile files: one line that names file and field, exit
# status 2, nothing written, and no crash. Each bad file is made from a good one.
. tests/cli/lib.sh

golden=tests/golden
in=$tmp/in work=$tmp/work # bad files; where programs may write
mkdir "$in" "$work"
db=$work/hf.db
prompts=$in/prompts.jsonl
printf '%s\n' '{"ids":[1,2,3],"max_tokens":3}' >"$prompts"
export HF_LOG=error

# What lies in $work, with contents.
state() { (cd "$work" && find . -type f -print0 | sort -z | xargs -0r sha256sum); }

# refuse REGEX COMMAND...: exit status 2, one line that matches, $work as it was.
refuse() {
  local regex=$1 before
  shift
  before=$(state)
  expect_error 2 "$regex" "$@"
  if [ "$(wc -c <"$err")" -gt 1100 ]; then fail "an error line of $(wc -c <"$err") bytes: $*"; fi
  if [ "$(state)" != "$before" ]; then fail "a refused command wrote: $*"; fi
}

run() { refuse "$1" "$bin/hf-run" --db "$db" --model "$2" --prompts "$prompts" --out "$work/out.jsonl" --trace "$work/trace.json" "${@:3}"; }
plan() { refuse "$1" "$bin/hf-plan" plan --db "$db" --model "$2" --machine xeon6-mrdimm-rtx4090 --users 1 --context 64 --out "$work/plan.json" --write-lp "$work/plan.lp"; }
both() { run "$1" "$2" && plan "$1" "$2"; }

# new_folder NAME: $folder becomes a copy of this golden model.
folder=$in/folder
new_folder() { rm -rf "$folder" && mkdir "$folder" && cp "$golden/$1"/*.json "$golden/$1"/*.safetensors "$folder" && rm "$folder/reference.json"; }

# le64 NUMBER, le32 NUMBER: its bytes, little-endian.
le() { local n=$1 i; for ((i = 0; i < $2; i++)); do printf '%b' "\\x$(printf %02x $(((n >> (8 * i)) & 255)))"; done; }
le64() { le "$1" 8; }
le32() { le "$1" 4; }
# patch FILE OFFSET: standard input over the bytes there.
patch_at() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# ---- a good database, for what follows it must stay as it is
expect_exit 0 "$bin/hf-plan" plan --db "$db" --model $golden/deepseek_v3 --machine xeon6-mrdimm-rtx4090 --users 1 --context 64 --gpu virtual:64M --out "$in/plan.json" --json
expect_exit 0 "$bin/hf-run" --db "$db" --model $golden/deepseek_v3 --plan "$in/plan.json" --prompts "$prompts" --json

good_database_is_as_it_was() {
  expect_same "$(sqlite3 "$db" 'pragma integrity_check')" ok "integrity"
  expect_same "$(sqlite3 "$db" 'select count(*) from run')" 1 "runs"
}
