#!/bin/bash
# tests/bench/likwid.sh FOLDER [PAIRS [huge|small [KERNEL]]]: the read bandwidth of hf-profile against Debian's likwid-bench (package likwid, 1 GB,
# all cores; kernel load: 8 bytes an instruction; load_sse: 16, as the compiler makes of our loop), run by turns: likwid, hf-profile, likwid, ... Each of ours is held against the mean of the two likwid runs around it, so
# that drift of the machine cancels. Both with huge pages (likwid by glibc's hugetlb tunable) and both without. Prints every pair and the
# medians; nothing passes or fails. Beside other programs: chrt -r 10 bash tests/bench/likwid.sh build/bin 7, several times.
set -euo pipefail
bin=$1 pairs=${2:-15} which=${3:-both} kernel=${4:-load}
for tool in likwid-bench jq; do
  if ! command -v $tool >/dev/null; then
    echo "likwid: $tool is not there (apt-get install likwid jq)" >&2
    exit 0
  fi
done
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# likwid 0|1: GB/s of all cores, with huge pages where 1. The median of three short runs, as ours is a median of passes: one long run is a
# mean, from which every time slice that a virtual machine loses takes something.
likwid() {
  for _ in 1 2 3; do
    GLIBC_TUNABLES=glibc.malloc.hugetlb=$1 likwid-bench -t "$kernel" -i 6 -w "N:1GB:$threads" 2>&1 | awk '/^MByte\/s/ { print $2 / 1000 }'
  done | sort -g | sed -n 2p
}
# ours GROUP FIGURE: GB/s of all threads
ours() {
  "$bin/hf-profile" --quick --quiet --only "$1" --db "$tmp/likwid.db" --json |
    jq -r --arg w "$2" --arg p "threads=$threads" '.measurements[] | select(.device == "cpu" and .params == $p and .what == $w) | .value / 1e9'
}
threads=$(lscpu -p=core | grep -v '^#' | sort -u | wc -l)

# compare TITLE HUGE GROUP FIGURE
compare() {
  local before after mine i
  printf '%-12s %10s %10s %8s\n' "$1" likwid ours ratio
  : >"$tmp/pairs"
  before=$(likwid "$2")
  for i in $(seq "$pairs"); do
    mine=$(ours "$3" "$4")
    after=$(likwid "$2")
    awk -v i="$i" -v a="$before" -v b="$after" -v x="$mine" \
      'BEGIN { printf "%-12d %10.2f %10.2f %8.3f\n", i, (a + b) / 2, x, 2 * x / (a + b) }' | tee -a "$tmp/pairs"
    before=$after
  done
  awk '{ print $4 }' "$tmp/pairs" | sort -g |
    awk '{ v[NR] = $1 } END { printf "median ratio of %d pairs: %.3f\n", NR, NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
[ "$which" = small ] || compare 'huge pages' 1 dram dram_read_bytes_per_s
[ "$which" = huge ] || compare 'small pages' 0 memory dram_read_small_pages_bytes_per_s
