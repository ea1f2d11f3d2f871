# hf-plan plan --standby ram: room and link load of a KV mirror, and what does not fit beside it.
. tests/cli/lib.sh
r1=(plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --no-store --quiet)
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --json
expect_json '(has("standby") | not) and (.budget | map(select(.what == "KV mirror")) | length == 0)'
plain=$(json .inputs_hash)
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --standby ram --parked 45 --json
# latent rows of 512 + 64 numbers of 2 bytes in each of 61 layers
expect_json '.standby | .kind == "ram" and .parked_users == 45 and .bytes_per_token == 61 * 576 * 2 and (.bytes / (50 * 8192 * 61 * 576 * 2) - 1 | fabs) < 1e-5'
expect_json '.standby.bytes as $n | .budget | map(select(.what == "KV mirror" and .where == "ram" and .bytes == $n)) | length == 1'
expect_json '.standby as $s | ($s.decode_bytes_per_s / $s.link_bytes_per_s - $s.link_share | fabs) < 1e-9 and $s.link_share < 0.01 and ($s.resume_s - 8192 * $s.bytes_per_token / $s.link_bytes_per_s | fabs) < 1e-9'
expect_json ".inputs_hash != \"$plain\""
expect_exit 0 "$bin/hf-plan" "${r1[@]}" --standby ram --parked 45
expect_stdout_line 'KV mirror +26\.81 GiB of memory for 5 users at once and 45 parked; 70\.3 KB a token'
expect_exit 1 "$bin/hf-plan" "${r1[@]}" --standby ram --parked 100000 --json
expect_json '.budget | map(select(.what == "KV mirror")) | length == 1'
expect_error 2 '^hf-plan: option --standby: ' "$bin/hf-plan" "${r1[@]}" --standby file:x
expect_error 2 '^hf-plan: option --parked: ' "$bin/hf-plan" "${r1[@]}" --parked 5
echo ok
