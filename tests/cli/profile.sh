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
             and .low <= .value and .value <= .high and (.tag == "measured" or (.what == "dram_theoretical_bytes_per_s" and .tag == "spec")))'
for what in dram_read_bytes_per_s cpu_flops_int8 cpu_flops_bf16 cpu_flops_f32 layer_fixed_ns thread_layer_fixed_ns handover_ns \
  launch_ns step_fixed_ns pool_wake_ns dram_copy_bytes_per_s dram_triad_bytes_per_s dram_read_small_pages_bytes_per_s cpu_clock_hz; do
  expect_json --arg w $what '.measurements | any(.what == $w and .device == "cpu" and .value > 0)'
done
expect_json '.measurements | any(.what == "dram_read_bytes_per_s" and .device == "cpu0" and .unit == "B/s")'
expect_json '.measurements | all(.what != "cpu_clock_hz" or (.value > 3e8 and .value < 1e10 and .unit == "Hz"))'
# Memory far from the core answers in tens to thousands of ns; and small pages are no quicker.
expect_json '.measurements | any(.what == "mem_latency_ns" and .device == "cpu0" and .params == "memory=cpu0" and .value > 20 and .value < 1e5)'
expect_json '.measurements | any(.what == "mem_latency_small_pages_ns" and .value > 20)'
# Arithmetic on registers alone: what kernels reach is below it.
if [ "$(uname -m)" = x86_64 ] && grep -qw fma /proc/cpuinfo; then
  expect_json '([.measurements[] | select(.what == "cpu_peak_ops_per_s" and (.params | endswith("_f32,threads=1"))).value] | max) as $peak
    | any(.measurements[]; .what == "cpu_flops_f32" and .params == "threads=1" and .value < 1.2 * $peak)'
fi
# Reading and experts beside a stand-in for uploads, where there is a core for it.
if [ "$(nproc)" -gt 1 ]; then
  expect_json '[.measurements[] | select(.what == "dram_read_beside_dma_bytes_per_s").params] | any(endswith(",dma=0")) and any(endswith(",dma=most"))'
  expect_json '.measurements | any(.what == "dma_load_bytes_per_s" and .value > 1e7)'
  expect_json '.measurements | any(.what == "expert_ffn" and (.params | endswith(",load=dma")))'
  # the planner compares a point beside uploads with the same point alone
  expect_json '[.measurements[] | select(.what == "expert_ffn").params] as $all
    | $all | map(select(endswith(",load=dma")) | sub(",load=dma$"; "")) | length > 0 and all(. as $p | $all | index([$p]))'
fi
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

# Handed to a colleague and back: the same rows under another name, planned with by name, never taken for this machine.
expect_exit 0 "$prof" export box --db "$db" --out "$tmp/box.json" --json
expect_json --arg f "$tmp/box.json" '.machine == "box" and .file == $f and .figures > 10 and .kernels > 100'
expect_error 2 "has a machine 'box' \(number 1\); say another name" "$prof" import "$tmp/box.json" --db "$db"
expect_exit 0 "$prof" import "$tmp/box.json" --db "$db" --name lab --json
expect_json '.machine_id == 2 and .machine == "lab" and .devices >= 1 and .kernels > 100'
rows() { "$prof" show "$1" --db "$db" --json | jq -c .measurements | cksum; }
expect_same "$(rows lab)" "$(rows box)" 'rows after export and import'
expect_exit 0 "$prof" show --db "$db"
expect_stdout_line '^machine 1 +box'
expect_exit 0 "$prof" show lab --db "$db"
expect_stdout_line '^  imported        from box\.json'
plan_with() { "$bin/hf-plan" plan --model examples/tiny-moe "$@" --users 2 --context 128 --gpu none --no-store --db "$db" --json; }
if [ -x "$bin/hf-plan" ]; then
  expect_same "$(plan_with --machine lab | jq .predicted)" "$(plan_with --machine box | jq .predicted)" 'a plan for the imported machine'
  expect_same "$(plan_with | jq -r .machine)" box 'the machine that is planned for when none is named'
fi
expect_exit 0 "$prof" import "$tmp/box.json" --db "$tmp/colleague.db"
if [ -x "$bin/hf-plan" ]; then
  expect_error 2 'no machine was measured here yet' "$bin/hf-plan" plan --model examples/tiny-moe --users 1 --context 128 --db "$tmp/colleague.db"
fi

# A document that is wrong in any place: one line that names the place, and nothing is written.
before=$(sqlite3 "$db" .dump | cksum)
wrong() { # REGEX JQ-EDIT
  jq "$2" "$tmp/box.json" >"$tmp/wrong.json"
  expect_error 2 "$1" "$prof" import "$tmp/wrong.json" --db "$db" --name wrong
  expect_error 2 "$1" "$prof" import "$tmp/wrong.json" --db "$tmp/never.db"
}
wrong 'wrong.json: no profile: field heteroflow_profile is missing' 'del(.heteroflow_profile)'
wrong 'field heteroflow_profile' '.heteroflow_profile = 2'
wrong 'figures\[3\]: low, likely and high must rise' '.figures[3].low = .figures[3].high * 2'
wrong 'figures\[0\]: field likely' '.figures[0].likely = -1'
wrong 'figures\[1\]: field tag' '.figures[1].tag = "guessed"'
wrong 'kernels\[2\]: field kernel' '.kernels[2].kernel = "a name that is far too long for its column"'
wrong 'kernels\[0\]: field tokens' 'del(.kernels[0].tokens)'
wrong 'field source: control characters' '.figures[0].source = "\u001b[2J"'
wrong 'field facts: control characters' '.facts.cpu = "\u009b31m"'
wrong "devices\[1\]: 'cpu0' is there twice" '.devices += [.devices[0]]'
wrong 'a device of kind cpu is needed' '.devices = []'
wrong 'more than 64 rows' '.devices = [range(65) as $i | .devices[0]]'
wrong 'field facts: an object is needed' '.facts = []'
wrong 'field facts' '.facts.long = ("x" * 5000)'
head -c 2000 "$tmp/box.json" >"$tmp/cut.json"
expect_error 2 'cut.json' "$prof" import "$tmp/cut.json" --db "$db" --name cut
expect_error 2 'reads as the number of one' "$prof" import "$tmp/box.json" --db "$db" --name 7
expect_same "$(sqlite3 "$db" .dump | cksum)" "$before" 'the database after bad imports'
if [ -e "$tmp/never.db" ]; then fail 'a bad import left a database behind'; fi

# Two machines side by side: all the same where nothing changed, faster where it did, in the right direction for times and rates.
expect_exit 0 "$prof" compare box lab --db "$db" --json
expect_json '.a.machine == "box" and .b.machine == "lab" and .only_a == 0 and .only_b == 0
  and all(.figures[]; .verdict == "same" or .verdict == "" or .a.low == .a.high) and all(.figures[] | select(.a.likely > 0); .ratio.likely == 1)
  and (.kernels | length > 10 and all(.ratio.likely > 0.999 and .ratio.likely < 1.001))'
jq '(.figures[] | select(.what == "dram_read_bytes_per_s" or .what == "barrier_ns") | .low, .likely, .high) *= 4
  | (.kernels[] | select(.kernel == "rmsnorm") | .ns_low, .ns, .ns_high) /= 4
  | (.figures[].params |= sub("threads=\($n)$"; "threads=64")) | (.kernels[] | select(.threads == $n).threads) = 64' \
  --argjson n "$(jq '[.kernels[].threads] | max' "$tmp/box.json")" "$tmp/box.json" >"$tmp/fast.json"
expect_exit 0 "$prof" compare box "$tmp/fast.json" --db "$db" --json
expect_json 'all(.figures[] | select(.what == "dram_read_bytes_per_s"); .ratio.likely > 3.99 and .ratio.likely < 4.01 and .ratio.low <= .ratio.likely)
  and all(.figures[] | select(.what == "barrier_ns"); .ratio.likely > 0.249 and .ratio.likely < 0.251)
  and all(.kernels[] | select(.kernel == "rmsnorm"); .ratio.likely > 3.99 and .ratio.likely < 4.01)
  and any(.figures[]; .what == "dram_read_bytes_per_s" and .b.params == "threads=64")'
expect_exit 0 "$prof" compare "$tmp/fast.json" --db "$db"
expect_stdout_line '^dram_read_bytes_per_s +cpu +.* 0\.25 \('
expect_error 2 'one or two machines' "$prof" compare --db "$db"
expect_error 2 "no machine 'nobody'" "$prof" compare box nobody --db "$db"

# One group, scalar kernels, the shapes of a model.
expect_exit 0 "$prof" --quick --only experts --isa scalar --threads 1 --model examples/tiny-moe --db "$db" --json
expect_json '.machine_id == 3 and .facts.isa_used == "scalar"'
expect_json '.measurements | map(select(.what | test("cpu_clock_hz|cpu_throttle") | not)) | length > 0 and all(.what == "expert_ffn" and (.params | contains("candidate=bf16.ref,")
             and contains("threads=1")))'

# Pretended nodes: each gives what its file says at most, tagged as assumed, and the planner splits experts by it.
cat >"$tmp/nodes.json" <<'END'
{"nodes": [{"cpus": 1, "mem_bytes": 4e9, "dram_bytes_per_s": 3e8}, {"cpus": 1, "mem_bytes": 4e9, "dram_bytes_per_s": 1e8}]}
END
sed -i 's/4e9/4000000000/g' "$tmp/nodes.json"
HF_TOPOLOGY=$tmp/nodes.json expect_exit 0 "$prof" --quick --only dram --name nodes --db "$tmp/nodes.db" --json
expect_json '[.measurements[] | select(.what == "dram_read_bytes_per_s" and .device == "cpu" and .params == "threads=2")]
  | length == 1 and (.[0] | .tag == "assumed" and .value > 1.94e8 and .value < 2.0001e8)' # halves: the slower node's takes the time
HF_TOPOLOGY=$tmp/nodes.json expect_exit 0 "$prof" --quick --only memory --name nodes --db "$tmp/nodes.db" --json
expect_json '.facts.numa_nodes == 2 and .facts.fake_topology'
rate() { # DEVICE WHAT PARAMS EXPECTED
  expect_json --arg d "$1" --arg w "$2" --arg p "$3" --argjson v "$4" '[.measurements[] | select(.device == $d and .what == $w and .params == $p)]
    | length == 1 and (.[0] | .tag == "assumed" and .value > 0.97 * $v and .value < 1.0001 * $v)'
}
for what in dram_read_bytes_per_s dram_copy_bytes_per_s dram_triad_bytes_per_s; do
  rate cpu0 $what threads=1 3e8
  rate cpu1 $what threads=1 1e8
done
rate cpu0 dram_node_read_bytes_per_s threads=1,memory=cpu1 1e8
rate cpu1 dram_node_read_bytes_per_s threads=1,memory=cpu0 3e8
expect_json '[.measurements[] | select(.what == "dram_remote_fraction" and .device == "cpu")] | length == 1 and .[0].value > 0.97 and .[0].value < 1.03'
expect_json '[.measurements[] | select(.what == "mem_latency_ns")] | length == 4'

# A full profile that is killed goes on where it was, with the rows it had; other options begin anew; nothing is left behind at the end.
full=("$prof" --only experts --threads 1 --model examples/tiny-moe --name killed --db "$tmp/killed.db")
"${full[@]}" >"$tmp/killed.out" 2>&1 &
pid=$!
for _ in $(seq 4000); do # long beside other programs
  if [ "$(grep -c '"unit"' "$tmp/killed.db.profile" 2>/dev/null || true)" -ge 1 ] 2>/dev/null; then break; fi
  sleep 0.05
done
kill -9 $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
if [ ! -e "$tmp/killed.db.profile" ]; then fail 'no journal is left after a kill'; fi
expect_error 2 'no measured machine' "$prof" show --db "$tmp/killed.db"
sed -n 2p "$tmp/killed.db.profile" >"$tmp/unit.json"
expect_exit 0 "${full[@]}" --json
expect_stderr_line 'going on with an interrupted profile: [1-9]'
jq -e --slurpfile u "$tmp/unit.json" '[.measurements[].value] as $v | ($u[0].kernels | length) > 0 and all($u[0].kernels[].ns; . as $x | $v | index($x))' \
  "$out" >/dev/null || fail 'rows of the finished part were measured again'
if [ -e "$tmp/killed.db.profile" ]; then fail 'the journal is left behind'; fi
jq -c -n --arg k 'another key' '{heteroflow_journal: 1, created_s: (now | floor), key: $k}, {unit: "norm", figures: [], kernels: []}' >"$tmp/killed.db.profile"
expect_exit 0 "$prof" --only norm --threads 1 --name killed --db "$tmp/killed.db"
if grep -q 'going on' "$err"; then fail 'a journal of other options was taken'; fi

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
expect_error 2 "no machine '4'" "$prof" show 4 --db "$db"

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
    from figure, (select 1 n, 82e9 v union select 2, 1.59e12) n where machine_id = 1 and what = 'layer_fixed_ns' and params = 'threads=1'"
  plan
  expect_stdout_line '^  doubtful     cpu_flops_made of cpu with 2 threads was measured as 19\.4 times that of one thread, which cannot be'
  plan --json
  expect_json '.doubts | length == 1 and (.[0] | test("cpu_flops_made"))'
  sql "delete from figure where what = 'cpu_flops_made'"
  plan
  if grep -q 'cpu_flops_made' "$out"; then fail 'a sound machine is doubted'; fi
fi
