# hf-run as something to talk to: conversations, stop texts, sampling, probabilities, and answers that survive an interruption.
. tests/cli/lib.sh
tiny=examples/tiny-moe

# A conversation: the history grows, /clear begins anew, every turn is a run. The same turns give the same answers.
printf '%s\n' 'To be, or not' '' 'and then' '/clear' 'To be, or not' '/quit' 'never read' >"$tmp/talk"
expect_exit 0 "$bin/hf-run" --model $tiny --chat --max-tokens 12 --quiet --json <"$tmp/talk"
expect_same "$(wc -l <"$out")" 3 "three answers"
jq -es '.[0].role == "assistant" and .[1].prompt_tokens > .[0].prompt_tokens + .[0].output_tokens and .[2].text == .[0].text
  and .[2].prompt_tokens == .[0].prompt_tokens and (.[2].run_id == .[0].run_id + 2)' "$out" >/dev/null || fail "conversation: $(cat "$out")"
expect_same "$(sqlite3 "$HETEROFLOW_DB" "select count(*) from run")" 3 "runs of the turns"
first=$(head -1 "$out" | jq -r .text)
expect_exit 0 "$bin/hf-run" --model $tiny --chat --max-tokens 12 --quiet <<<'To be, or not'
expect_same "$(cat "$out")" "$first" "answer for people"

# One message and its answer is the same as the first turn; as plain text it is not. A system message is part of it.
expect_exit 0 "$bin/hf-run" --model $tiny --chat --prompt 'To be, or not' --max-tokens 12 --quiet --out "$tmp/one" --json
expect_same "$(jq -r .text "$tmp/one")" "$first" "--chat --prompt"
plain=$("$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 12 --quiet --json | jq .prompt_tokens)
[ "$plain" -lt "$(jq .prompt_tokens "$tmp/one")" ] || fail "the form of a conversation adds no token"
expect_exit 0 "$bin/hf-run" --model $tiny --chat --system 'Speak.' --prompt 'To be, or not' --max-tokens 1 --quiet --json
[ "$(json .prompt_tokens)" -gt "$(jq .prompt_tokens "$tmp/one")" ] || fail "--system adds nothing"
echo '{"id":"m","messages":[{"role":"user","content":"To be, or not"}],"max_tokens":12}' >"$tmp/messages.jsonl"
expect_exit 0 "$bin/hf-run" --model $tiny --chat --prompts "$tmp/messages.jsonl" --quiet --out "$tmp/two" --json
expect_same "$(jq -r .text "$tmp/two")" "$first" "messages"
expect_exit 0 "$bin/hf-run" --model $tiny --chat --context 16 --max-tokens 12 --quiet --json <<<'A very long message, much longer than the context of sixteen tokens has room for'
expect_same "$(wc -c <"$out")" 0 "an answer without room"
expect_error 2 'no tokenizer' "$bin/hf-run" --model tests/golden/qwen3_moe --chat
expect_error 2 'needs --chat' "$bin/hf-run" --model $tiny --prompts "$tmp/messages.jsonl" --quiet
expect_error 2 '.-system: goes with --chat' "$bin/hf-run" --model $tiny --system x --prompt y

# Stop texts end an answer before them, whatever tokens they fall on.
whole=$("$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 40 --ignore-eos --quiet --json --out "$tmp/whole" >/dev/null && jq -r .text "$tmp/whole")
stop=${whole:11:3}
expect_exit 0 "$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 40 --ignore-eos --stop "$stop" --stop 'not in it' --quiet --json --out "$tmp/cut"
expect_same "$(jq -r '.text + "|" + .finish' "$tmp/cut")" "${whole%%"$stop"*}|stop" "stop text"
expect_exit 0 "$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 40 --ignore-eos --stop "$stop" --quiet
expect_same "$(head -1 "$out")" "$(jq -r .text "$tmp/cut" | head -1)" "streamed text with a stop text"
expect_error 2 '.-stop: an empty text' "$bin/hf-run" --model $tiny --prompt x --stop ''

# Probabilities: greedy tokens are the most likely ones, and all of them sum to at most one.
expect_exit 0 "$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 8 --logprobs 5 --quiet --json --out "$tmp/p"
jq -e '(.logprobs | length) == .output_tokens and ([.logprobs[].id] == .ids) and all(.logprobs[]; .top[0] == [.id, .logprob] and (.top | length) == 5
  and ([.top[][1]] | . == (sort | reverse)) and ([.top[][1] | exp] | add) <= 1.0001 and .logprob < 0)' "$tmp/p" >/dev/null || fail "logprobs: $(cat "$tmp/p")"
expect_error 2 '.-logprobs: are written to --out' "$bin/hf-run" --model $tiny --prompt x --logprobs 3

# A high penalty repeats no token; a min-p of 1 is greedy.
expect_exit 0 "$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 30 --ignore-eos --repetition-penalty 100 --quiet --json --out "$tmp/r"
jq -e '(.ids | length) == (.ids | unique | length)' "$tmp/r" >/dev/null || fail "a token is repeated"
expect_exit 0 "$bin/hf-run" --model $tiny --prompt 'To be, or not' --max-tokens 40 --ignore-eos --temperature 5 --min-p 1 --quiet --json --out "$tmp/g"
expect_same "$(jq -r .text "$tmp/g")" "$whole" "min-p 1"

# Interrupted by Ctrl-C, by a kill that nobody can catch, and resumed: every answer as if nothing had happened, none computed twice.
options=(--model $tiny --threads 1 --prompts $tiny/prompts.jsonl --limit 12 --users 2 --max-tokens 150 --ignore-eos --temperature 0.8 --seed 3 --quiet --json)
answers() { jq -c '[.id, .ids, .finish]' "$1"; }
expect_exit 0 "$bin/hf-run" "${options[@]}" --out "$tmp/all"
for signal in INT KILL; do
  file=$tmp/out-$signal
  "$bin/hf-run" "${options[@]}" --out "$file" >/dev/null 2>&1 &
  pid=$!
  for _ in $(seq 400); do
    if [ -e "$file.part" ] && [ "$(wc -l <"$file.part")" -ge 2 ]; then break; fi
    sleep 0.01
  done
  kill -$signal $pid 2>/dev/null || true
  wait $pid || true
  if [ $signal = INT ]; then
    expect_same "$(sqlite3 "$HETEROFLOW_DB" "select status, (select count(*) from request where run_id = run.id) from run order by id desc limit 1")" 'stopped|12' "the run that Ctrl-C ended"
  fi
  if [ $signal = KILL ] && [ -e "$file.part" ]; then expect_error 2 'out-KILL.part is left of an interrupted run' "$bin/hf-run" "${options[@]}" --out "$file"; fi
  expect_exit 0 "$bin/hf-run" "${options[@]}" --out "$file" --resume
  expect_json '.resumed + .requests == 12 and .resumed >= 2 and .requests > 0'
  expect_same "$(answers "$file")" "$(answers "$tmp/all")" "answers after $signal and --resume"
  [ ! -e "$file.part" ] || fail "$file.part is left"
done
expect_exit 0 "$bin/hf-run" "${options[@]}" --out "$tmp/all" --resume
expect_json '.resumed == 12 and .requests == 0'
expect_error 2 '.-resume: goes on with --out' "$bin/hf-run" "${options[@]}" --resume
# answers to what is not asked for now would be lost: nothing is written
cp "$tmp/all" "$tmp/before"
expect_error 2 'all: line 3: answers request .*, which is none of these prompts' "$bin/hf-run" "${options[@]}" --out "$tmp/all" --resume --limit 2
cmp -s "$tmp/all" "$tmp/before" || fail "answers were changed by a --resume that was refused"
