# hf-profile: what a quick profile stores and prints, and what it refuses.
. tests/cli/lib.sh
prof=$bin/hf-profile

# Usage errors: one line, status 2, nothing measured or written.
expect_error 2 'option --threads' "$prof" --threads 0
expect_error 2 'unrecognized|unknown|no option' "$prof" --no-such-option
expect_error 2 "'frobnicate' is no verb" "$prof" frobnicate
expect_error 2 'instruction set "mmx"' "$prof" --isa mmx
expect_error 2 "'gpus' is no group.*dram" "$prof" --only gpus --db "$tmp/unused.db"
expect_error 2 'no/such/model' "$prof" --model no/such/model --db "$tmp/unused.db"
expect_error 2 'hf-profile' "$prof" show --db "$tmp/unused.db"
expect_exit 0 "$prof" --help
expect_stdout_line '--quick'
expect_exit 0 "$prof" show --help
expect_stdout_line 'hf-profile show'

# A quick profile: everything the planner reads is there.
db=$tmp/machine.db
expect_exit 0 "$prof" --quick --name box --db "$db" --json
cp "$out" "$tmp/quick.json"
expect_json '.machine_id == 1 and .machine == "box"'
expect_json '.facts.gpu == "no device" and .facts.cores >= 1'
expect_json '(.facts.isa | type) == "array" and (.facts.amx | type) == "string"'
expect_json '.facts.dimms == "unknown" or (.facts.dimms | type) == "array"'
expect_json '.measurements | all(has("what") and has("params") and has("unit") and .value >= 0 and .spread >= 0 and .n >= 1
             and .low <= .value and .value <= .high and .tag == "measured")'
for what in dram_read_bytes_per_s cpu_flops_int8 cpu_flops_bf16 cpu_flops_f32 layer_fixed_ns thread_layer_fixed_ns handover_ns \
  launch_ns step_fixed_ns pool_wake_ns; do
  expect_json --arg w $what '.measurements | any(.what == $w and .device == "cpu" and .value > 0)'
done
expect_json '.measurements | any(.what == "dram_read_bytes_per_s" and .device == "cpu0" and .unit == "B/s")'
for kernel in matmul expert_ffn attn_mla attn_gqa rmsnorm; do
  expect_json --arg w $kernel '.measurements | any(.what == $w and .unit == "ns" and .value > 0)'
done
for format in f32 f16 bf16 q8_0; do
  expect_json --arg f "format=$format," '.measurements | any(.what == "expert_ffn" and (.params | contains($f)))'
  expect_json --arg f "format=$format," '.measurements | any(.what == "matmul" and (.params | contains($f)))'
done
expect_json '.measurements | any(.what == "expert_ffn" and (.params | contains("n_out=64,n_in=128,tokens=1,")))'

# The same from the database, as JSON and as tables; by name, by id and the newest.
expect_exit 0 "$prof" show --db "$db" --json
cmp -s "$out" "$tmp/quick.json" || fail 'show gives another JSON than the profile did'
expect_exit 0 "$prof" show box --db "$db"
expect_stdout_line '^machine 1 +box'
expect_stdout_line '^dram_read_bytes_per_s +cpu '
expect_stdout_line 'gpu +no device'
expect_error 2 "no machine 'other'" "$prof" show other --db "$db"

# One group, scalar kernels, the shapes of a model.
expect_exit 0 "$prof" --quick --only experts --isa scalar --threads 1 --model examples/tiny-moe --db "$db" --json
expect_json '.machine_id == 2 and .facts.isa_used == "scalar"'
expect_json '.measurements | length > 0 and all(.what == "expert_ffn" and (.params | contains("candidate=bf16.ref,")
             and contains("threads=1")))'

# The database: no database file, not writable, disk full.
printf 'this is no database, but long enough to be looked at as one' >"$tmp/text.db"
expect_error 2 'text.db' "$prof" --quick --only norm --db "$tmp/text.db"
expect_same "$(head -c 4 "$tmp/text.db")" this 'a file that is no database was changed'
mkdir "$tmp/folder"
expect_exit_any() { # a machine error or an input error, one line
  local got=0
  "$@" >"$out" 2>"$err" || got=$?
  if [ $got != 2 ] && [ $got != 3 ]; then fail "exit status $got where 2 or 3 is expected: $*"; fi
  if [ "$(wc -l <"$err")" != 1 ]; then fail "one line on standard error is expected: $*"; fi
}
expect_exit_any "$prof" --quick --quiet --only norm --db "$tmp/folder"
expect_exit_any "$prof" --quick --quiet --only norm --db "$tmp/none/such.db"
full() { # no file this process writes may grow beyond 4 KiB
  (
    trap '' XFSZ
    ulimit -f 4
    "$@"
  )
}
before=$("$prof" show 1 --db "$db" --json | cksum)
expect_error 3 'hf-profile: .*machine.db' full "$prof" --quick --only norm --db "$db"
expect_same "$("$prof" show 1 --db "$db" --json | cksum)" "$before" 'the first machine after a full disk'
expect_error 2 "no machine '3'" "$prof" show 3 --db "$db"

# Beside other programs every rate of all threads is still possible beside that of one, or it is stored as doubtful.
if [ "$(nproc)" -gt 1 ]; then
  for _ in $(seq $((3 * $(nproc)))); do
    (exec timeout 100 bash -c 'while :; do :; done') &
    busy="${busy:-} $!"
  done
  trap 'kill $busy 2>/dev/null || true; finish_test' EXIT
  for _ in 1 2 3; do
    expect_exit 0 "$prof" --quick --only matmul --db "$tmp/busy.db" --json
    expect_json '[.measurements[] | select(.what | test("flops"))] as $m | ($m | length) > 2
      and all($m[]; (.params | ltrimstr("threads=") | tonumber) as $n | .what as $w
        | ($m[] | select(.what == $w and .params == "threads=1").value) as $one | .value <= 1.15 * $n * $one or .low <= $n * $one * 1.001)'
  done
  # shellcheck disable=SC2086
  kill $busy
fi

# A plan for a machine with such a figure says so in one line, and in its document; a sound machine has no such line.
sql() { sqlite3 "$db" "$1"; }
plan() { expect_exit 0 "$bin/hf-plan" plan --model examples/tiny-moe --machine 1 --users 2 --context 128 --gpu none --no-store --db "$db" "$@"; }
if [ -x "$bin/hf-plan" ]; then
  sql "insert into figure(machine_id, device, what, params, unit, low, likely, high, spread, n, tag, source)
    select machine_id, device, 'cpu_flops_made', 'threads=' || n.n, 'FLOP/s', 1, n.v, n.v, 0.1, 5, tag, 'test'
    from figure, (select 1 n, 82e9 v union select 2, 1.59e12) n where machine_id = 1 and what = 'layer_fixed_ns' limit 2"
  plan
  expect_stdout_line '^  doubtful     cpu_flops_made of cpu with 2 threads was measured as 19\.4 times that of one thread, which cannot be'
  plan --json
  expect_json '.doubts | length == 1 and (.[0] | test("cpu_flops_made"))'
  sql "delete from figure where what = 'cpu_flops_made'"
  plan
  if grep -q 'cpu_flops_made' "$out"; then fail 'a sound machine is doubted'; fi
fi
