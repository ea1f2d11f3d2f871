# hf-plan plan --standby ram: room and link load of a KV mirror, and what does not fit beside it.
. tests/cli/lib.sh
r1=(plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --no-store --quiet)
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --json
expect_json '(has("standby") | not) and (.budget | map(select(.what == "KV mirror")) | length == 0)'
plain=$(json .inputs_hash)
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --standby ram --parked 45 --json
# latent rows of 512 + 64 numbers of 2 bytes in each of 61 layers; 512 pages of a context for 50, and one more for each of 5 at once
expect_json '.standby | .kind == "ram" and .parked_users == 45 and .bytes_per_token == 61 * 576 * 2 and .pages == 50 * 512 + 5 and .bytes == .pages * 16 * 61 * 576 * 2'
expect_json '.standby.bytes as $n | .budget | map(select(.what == "KV mirror" and .where == "ram" and .bytes == $n)) | length == 1'
expect_json '.standby as $s | ($s.decode_bytes_per_s / $s.link_bytes_per_s - $s.link_share | fabs) < 1e-9 and $s.link_share < 0.01 and ($s.resume_s - 8192 * $s.bytes_per_token / $s.link_bytes_per_s | fabs) < 1e-9'
expect_json ".inputs_hash != \"$plain\""
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --standby ram --parked 45
expect_stdout_line 'KV mirror +26\.81 GiB of memory for 5 users at once and 45 parked; 70\.3 KB a token'
expect_exit 1 "$bin/hf-plan" "${r1[@]}" --standby ram --parked 100000 --json
expect_json '.budget | map(select(.what == "KV mirror")) | length == 1'
# in a file it takes two pages of memory, and its name is in the plan
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --standby file:/var/kv --parked 45 --json
expect_json '.standby | .kind == "file" and .path == "/var/kv" and .pages == 50 * 512 + 5'
expect_json '.budget | map(select(.what == "KV mirror" and .bytes == 2 * 16 * 61 * 576 * 2)) | length == 1'
for bad in file: disk ram:5; do expect_error 2 '^hf-plan: option --standby: ' "$bin/hf-plan" "${r1[@]}" --standby $bad; done
expect_error 2 '^hf-plan: option --parked: ' "$bin/hf-plan" "${r1[@]}" --parked 5

# ---- hf-run keeps the mirror that the plan says, as large as the plan says ----
tiny=examples/tiny-moe
"$bin/hf-profile" --quick --model $tiny --quiet --json >/dev/null
jq -nc '("a", "b", "a", "b") as $s | {session: $s, prompt: "So the \($s) of them", max_tokens: 6}' >"$tmp/sessions.jsonl"
make() { expect_exit 0 "$bin/hf-plan" plan --model $tiny --users 2 --context 128 --gpu virtual:7M --out "$tmp/$1.json" --quiet --json "${@:2}"; }
run=("$bin/hf-run" --model $tiny --prompts "$tmp/sessions.jsonl" --ignore-eos --json)
make ram --standby ram --parked 3
expect_exit 0 "${run[@]}" --plan "$tmp/ram.json"
expect_stderr_line 'KV mirror, as the plan says: 42 pages \(.* MB\) in memory'
expect_json '.standby | .pages == 42 and .restored_tokens > 0 and .pages_lost == 0'
jq -e '.standby.pages == 42 and ([.budget[] | select(.what == "KV mirror").bytes] == [.standby.bytes])' "$tmp/ram.json" >/dev/null || fail "the plan's mirror"
# without a size both count alike: two at once, as many sessions, no one parked
make two --standby ram
expect_exit 0 "${run[@]}" --plan "$tmp/two.json" --standby ram
expect_json --argjson n "$(jq .standby.pages "$tmp/two.json")" '.standby.pages == $n and $n == 18'
expect_exit 0 "${run[@]}" --plan "$tmp/ram.json" --standby-size 400K
expect_json '.standby.pages < 42'
expect_exit 0 "${run[@]}" --plan "$tmp/ram.json" --standby none
expect_json 'has("standby") | not'
expect_exit 0 "${run[@]}" --plan "$tmp/ram.json" --no-shared-prefixes
expect_stderr_line "the plan's KV mirror is left out: .*--no-shared-prefixes"
make file --standby "file:$tmp/kv"
expect_exit 0 "${run[@]}" --plan "$tmp/file.json"
expect_stderr_line "KV mirror, as the plan says: 18 pages .* in $tmp/kv"
expect_exit 0 "$bin/hf-plan" plan --model $tiny --users 1 --context 128 --gpu none --out "$tmp/none.json" --quiet --json --standby ram
expect_exit 0 "$bin/hf-run" --model $tiny --prompt x --max-tokens 2 --plan "$tmp/none.json" --json
expect_stderr_line "the plan's KV mirror is left out: there is no device"
for bad in '.standby.kind = "disk"' '.standby.bytes = -1' '.standby = 5' 'del(.standby.bytes)' '.standby.kind = "file"'; do
  jq "$bad" "$tmp/ram.json" >"$tmp/bad.json"
  expect_error 2 '^hf-run: plan: standby' "${run[@]}" --plan "$tmp/bad.json" --quiet
done
echo ok
