# hf-run --standby: after a loss KV comes from the mirror, 50 named users with 5 at once go on where they were, a full disk costs the mirror alone; options and
# prompts that make no sense are refused.
. tests/cli/lib.sh
tiny=examples/tiny-moe
"$bin/hf-profile" --quick --model $tiny --quiet --json >/dev/null
answers() { jq -c '[.id, .ids]' "$1" | sort; }

# ---- a lost device ----
# 40 tokens: as in lost_device.sh, no tie is near.
base=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 40 --ignore-eos --gpu virtual:7M --depth 1)
ask=("${base[@]}" --json --check-every 0)
expect_exit 0 "$bin/hf-run" "${ask[@]}" --quiet --out "$tmp/want.jsonl"
expect_json 'has("standby") | not'
# Every step is copied before the next begins, so that the same is lost each time: what is computed again is what a copy cannot end with, less than a page of each.
export HF_STANDBY_SETTLES=1
page=16
for fault in error@5000 hang@7000; do
  lost=
  for home in ram "file:$tmp/kv"; do
    expect_exit 0 "$bin/hf-run" "${ask[@]}" --standby "$home" --fault $fault --device-deadline 0.3 --out "$tmp/got.jsonl"
    expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers with $fault, $home"
    expect_json --argjson page $page '.losses | length == 1 and (.[0] | .tokens_restored > 100 and .requests > 0 and .tokens_again < $page * .requests)'
    [ "$home" != ram ] || lost=$(json '.losses[0] | [.requests, .tokens_again, .tokens_restored]')
    expect_same "$lost" "$(json '.losses[0] | [.requests, .tokens_again, .tokens_restored]')" "what was lost with $fault, in memory and in a file"
    expect_json '.standby | .pages > 0 and .mirrored_tokens > 100 and .mirrored_bytes > 0 and .restored_tokens > 100 and .pages_lost == 0 and .left_out_pages == 0'
    [ ! -e "$tmp/kv" ] || fail "the mirror's file is left"
  done
done
expect_exit 0 "$bin/hf-run" "${ask[@]}" --fault error@3000 --out "$tmp/got.jsonl"
expect_json '.losses[0] | .tokens_restored == 0 and .tokens_again > 100'
expect_exit 0 "$bin/hf-run" "${base[@]}" --check-every 0 --standby ram --fault error@5000 --quiet
expect_stdout_line 'KV mirror: [0-9]+ tokens .* copied beside the steps, [0-9]+ parked, [0-9]+ restored'
expect_stdout_line 'KV of [0-9]+ tokens computed again, that of [0-9]+ came from the mirror'
unset HF_STANDBY_SETTLES

# ---- a device that computes wrongly has nothing to restore but what a check has found good ----
expect_exit 0 "$bin/hf-run" "${base[@]}" --json --check-every 0.001 --standby ram --fault wrong@300 --out "$tmp/got.jsonl"
expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers of a device that computes wrongly"

# ---- 50 named users, 5 at once ----
for t in 0 1 2; do
  for i in $(seq 50); do
    jq -nc --arg s "user $i" --arg id "$i-$t" --arg p "$(printf 'So the %s of them, number %d, ' "first second third" "$i")" '{session: $s, id: $id, prompt: $p, max_tokens: 12}'
  done
done >"$tmp/sessions.jsonl"
talk=(--model $tiny --prompts "$tmp/sessions.jsonl" --users 5 --ignore-eos --quiet --json)
expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu none --out "$tmp/whole.jsonl"
whole=$(json .prompt_tokens)
for home in ram "file:$tmp/kv"; do
  expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu none --standby "$home" --out "$tmp/parked.jsonl"
  expect_same "$(answers "$tmp/whole.jsonl")" "$(answers "$tmp/parked.jsonl")" "answers of parked sessions, $home"
  expect_json ".requests == 150 and .unfinished == 0 and .prompt_tokens + .standby.restored_tokens + .shared_tokens == $whole"
  expect_json '.standby | .parked_tokens > 2000 and .restored_tokens > 2000 and .pages_lost == 0'
done
# an interrupted batch goes on with the conversations so far: from what had been written when it was killed, and from a third of the answers
lines() { [ -e "$1" ] && wc -l <"$1" || echo 0; }
"$bin/hf-run" "${talk[@]}" --gpu none --out "$tmp/new.jsonl" >/dev/null 2>&1 &
pid=$!
while [ "$(lines "$tmp/new.jsonl.part")" -lt 60 ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -9 $pid 2>/dev/null || true
wait $pid || true
for home in none ram; do
  [ $home = none ] || head -n 70 "$tmp/whole.jsonl" >"$tmp/new.jsonl.part"
  [ $home = none ] || rm -f "$tmp/new.jsonl"
  expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu none --standby $home --out "$tmp/new.jsonl" --resume
  expect_same "$(answers "$tmp/whole.jsonl")" "$(answers "$tmp/new.jsonl")" "answers of a batch that went on, $home"
  expect_json '.unfinished == 0 and .resumed >= 60 and .requests + .resumed == 150'
done
sed -n '60s/"prompt_tokens":[0-9]*/"prompt_tokens":9/;1,70p' "$tmp/whole.jsonl" >"$tmp/odd.jsonl.part"
expect_error 2 '^hf-run: --resume: the answer to request 10-1 is of another prompt' "$bin/hf-run" "${talk[@]}" --gpu none --out "$tmp/odd.jsonl" --resume
head -n 70 "$tmp/whole.jsonl" | jq -c 'if .id == "3-0" then .ids[0] = 1000000 else . end' >"$tmp/odd.jsonl.part"
expect_error 2 '^hf-run: --resume: the answer to request 3-0 has a token' "$bin/hf-run" "${talk[@]}" --gpu none --out "$tmp/odd.jsonl" --resume
# the order of arrivals does not matter, nor a device that is lost in between
expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu virtual:7M --check-every 0 --standby ram --out "$tmp/device.jsonl"
expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu virtual:7M --check-every 0 --standby ram --fault error@20000 --out "$tmp/lost.jsonl"
expect_json '.losses | length == 1 and .[0].tokens_restored > 0'
expect_json '.unfinished == 0 and .standby.pages_lost == 0'
expect_same "$(answers "$tmp/device.jsonl")" "$(answers "$tmp/lost.jsonl")" "answers of sessions after a loss"
# with --chat the turns are messages of one conversation
expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu none --chat --standby ram --limit 102 --out "$tmp/chat.jsonl"
expect_json '.requests == 102 and .unfinished == 0 and .standby.restored_tokens > 500'
cp "$tmp/chat.jsonl" "$tmp/chat-ram.jsonl"
expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu none --chat --limit 102 --out "$tmp/chat.jsonl"
expect_same "$(answers "$tmp/chat.jsonl")" "$(answers "$tmp/chat-ram.jsonl")" "answers of parked conversations"
jq -se 'map({id, n: .prompt_tokens}) | (map(select(.id == "1-2"))[0].n) > (map(select(.id == "1-0"))[0].n) * 2' "$tmp/chat.jsonl" >/dev/null || fail "a later turn has no earlier ones"

# stopped in the middle: answers that came are there, and --resume goes on from them
rm -f "$tmp"/new.jsonl*
"$bin/hf-run" "${talk[@]}" --gpu virtual:7M --check-every 0 --standby ram --out "$tmp/new.jsonl" >"$out" 2>"$err" &
pid=$!
while [ "$(lines "$tmp/new.jsonl.part")" -lt 60 ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -INT $pid 2>/dev/null || true
status=0
wait $pid || status=$?
[ $status = 0 ] || expect_json '.unfinished > 0 and .standby.pages_lost == 0'
expect_exit 0 "$bin/hf-run" "${talk[@]}" --gpu virtual:7M --check-every 0 --standby ram --out "$tmp/new.jsonl" --resume
expect_same "$(answers "$tmp/device.jsonl")" "$(answers "$tmp/new.jsonl")" "answers of sessions that were stopped"

# ---- a conversation ----
expect_exit 0 "$bin/hf-run" --model $tiny --chat --max-tokens 20 --ignore-eos --context 256 --gpu virtual:7M --standby ram --json <<<$'one\ntwo\nthree'
expect_same 'true' "$(jq -s '.[2].standby | .restored_tokens > 0 and .pages_lost == 0' "$out")" "a conversation's last page comes from the mirror"

# ---- a full disk ----
small() ( # files of at most 2 MB: enough for the database
  ulimit -f 2000
  "$@"
)
many=(--model $tiny --prompts $tiny/prompts.jsonl --limit 40 --users 5 --max-tokens 48 --ignore-eos --gpu virtual:7M --depth 1 --json --check-every 0)
expect_exit 0 "$bin/hf-run" "${many[@]}" --quiet --out "$tmp/want.jsonl"
expect_exit 0 small "$bin/hf-run" "${many[@]}" --standby "file:$tmp/kv" --standby-size 16M --fault error@60000 --out "$tmp/got.jsonl"
expect_same "$(answers "$tmp/want.jsonl")" "$(answers "$tmp/got.jsonl")" "answers beside a full disk"
expect_stderr_line 'warning: KV mirror: its file cannot be written: .*; requests go on without it'
expect_json '(.losses | length == 1) and (.standby.failed | test("cannot be written"))'

# ---- refused ----
for bad in yes file: ram:5 disk; do expect_error 2 '^hf-run: --standby: ' "$bin/hf-run" "${ask[@]}" --quiet --standby "$bad"; done
expect_error 2 '^hf-run: --standby: .*no device .*session' "$bin/hf-run" --model $tiny --prompt x --gpu none --quiet --standby ram
expect_error 2 '^hf-run: --standby: .*no-shared-prefixes' "$bin/hf-run" "${ask[@]}" --quiet --standby ram --no-shared-prefixes
expect_error 2 '^hf-run: --standby-size: ' "$bin/hf-run" "${ask[@]}" --quiet --standby-size 1M
expect_error 2 '^hf-run: --standby-size: ' "$bin/hf-run" "${ask[@]}" --quiet --standby ram --standby-size 1K
expect_error 2 '^hf-run: --standby: goes with' "$bin/hf-run" --model $tiny --bench --quiet --standby ram
touch "$tmp/there"
expect_error 2 "^hf-run: --standby: KV mirror: $tmp/there cannot be made: File exists" "$bin/hf-run" "${ask[@]}" --quiet --standby "file:$tmp/there"
expect_exit 1 "$bin/hf-run" "${ask[@]}" --standby ram --standby-size 100000G
expect_stderr_line 'does not fit: memory needs'
expect_stderr_line ' ram +KV mirror'
echo ok
