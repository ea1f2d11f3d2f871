# hf-run when its host fails: a worker that dies ends it with one line and loses no answer; a full disk under the database costs the row of the run alone.
. tests/cli/lib.sh
tiny=examples/tiny-moe
"$bin/hf-profile" --quick --model $tiny --quiet --json >/dev/null
ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 12 --users 2 --max-tokens 24 --ignore-eos --gpu none --threads 2 --json --quiet)
answers() { jq -c '[.id, .ids]' "$1" | sort; }
expect_exit 0 "$bin/hf-run" "${ask[@]}" --out "$tmp/want.jsonl"

# ---- a worker that dies, early and late ----
kept=0
for at in 2 60 120; do
  HF_FAIL_WORKER=$at expect_error 3 '^hf-run: CPU workers: thread 1 of 2 has died, .*start again$' timeout 60 "$bin/hf-run" "${ask[@]}" --out "$tmp/died.jsonl"
  [ ! -e "$tmp/died.jsonl" ] || fail "answers that look whole after a death at $at"
  if [ -e "$tmp/died.jsonl.part" ]; then
    jq -e .ids "$tmp/died.jsonl.part" >/dev/null || fail "an answer that is not whole after a death at $at"
    kept=$((kept + $(wc -l <"$tmp/died.jsonl.part")))
  fi
  expect_exit 0 "$bin/hf-run" "${ask[@]}" --out "$tmp/died.jsonl" --resume
  expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/died.jsonl")" "answers after a death at $at"
  rm "$tmp/died.jsonl"
done
[ "$kept" -gt 0 ] || fail "no worker died late enough for an answer to be kept"

# ---- no room for the row of a run: answers, table and JSON are there, the last line tells ----
runs() { sqlite3 "$HETEROFLOW_DB" 'select count(*) from run'; }
before=$(runs)
small() ( # files of at most 40 KB: enough for answers and for what lies beside an open database, not for a run's rows
  trap '' XFSZ
  ulimit -f 40
  "$@"
)
expect_exit 3 small "$bin/hf-run" "${ask[@]}" --out "$tmp/full.jsonl"
expect_stderr_line '^hf-run: .*test.db: .*; the run is not recorded, the run.s answers and figures are whole$'
expect_json '.run_id == 0 and .requests == 12 and .output_tokens == 288 and .decode_tok_per_s > 0'
expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/full.jsonl")" "answers beside a full database"
expect_exit 3 small "$bin/hf-run" --model $tiny --bench --users 1,2 --output-tokens 8 --gpu none --quiet
expect_stderr_line '^hf-run: .*; runs are not recorded from then on$'
expect_same 3 "$(wc -l <"$out")" "lines of the table"
expect_exit 3 small "$bin/hf-run" --model $tiny --chat --max-tokens 8 --context 256 --gpu none --json <<<$'one\ntwo'
expect_stderr_line 'turns are not recorded from now on'
expect_same "$before" "$(runs)" "runs of a full database"
expect_same ok "$(sqlite3 "$HETEROFLOW_DB" 'pragma integrity_check')" "the database"
expect_exit 0 "$bin/hf-run" "${ask[@]}" --out "$tmp/after.jsonl"
[ "$(runs)" -gt "$before" ] || fail "no run is recorded once there is room"

# ---- the same on a disk that is really full, where a name space of one's own is allowed ----
if unshare -rm true 2>/dev/null; then
  cat >"$tmp/full.sh" <<'SCRIPT'
mkdir -p "$1/disk"
mount -t tmpfs -o size=4M none "$1/disk"
cp "$HETEROFLOW_DB" "$1/disk/full.db"
dd if=/dev/zero of="$1/disk/fill" bs=1k 2>/dev/null
export HETEROFLOW_DB=$1/disk/full.db
shift
exec "$@"
SCRIPT
  expect_error 3 '^hf-run: .*full.db: .*: the disk is full; free some space and try again$' unshare -rm bash "$tmp/full.sh" "$tmp" "$bin/hf-run" "${ask[@]}"
  expect_error 3 '^hf-plan: .*full.db: .*: the disk is full; ' unshare -rm bash "$tmp/full.sh" "$tmp" "$bin/hf-plan" plan --quiet --model $tiny --users 2
fi

# ---- memory that the system refuses: one line, or it is enough (sanitizers need address space of their own) ----
if ! ldd "$bin/hf-run" | grep -Eq 'lib[at]san'; then
  refused=0
  for kib in 20000 40000 60000 80000 400000; do
    status=0
    (ulimit -v $kib && exec "$bin/hf-run" "${ask[@]}" --out "$tmp/memory.jsonl") >"$out" 2>"$err" || status=$?
    rm -f "$tmp"/memory.jsonl*
    [ $status = 0 ] && continue
    refused=$((refused + 1))
    [ $status = 3 ] || [ $status = 127 ] || fail "exit status $status with $kib KiB"
    [ "$(wc -l <"$err")" = 1 ] || fail "more than a line with $kib KiB"
    expect_stderr_line 'out of memory|out of threads or memory|cannot (allocate|enable)|failed to map|Cannot allocate memory'
  done
  [ $refused -gt 0 ] || fail "no size was refused"
  [ $status = 0 ] || fail "400 MB are refused"
fi
