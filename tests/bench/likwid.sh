#!/bin/bash
# tests/bench/likwid.sh FOLDER [PAIRS [huge|small]]: the read bandwidth of hf-profile against Debian's likwid-bench (package likwid, kernel
# load, 20 passes over 1 GB, all cores), run by turns: likwid, hf-profile, likwid, ... Each of ours is held against the mean of the two likwid runs around it, so
# that drift of the machine cancels. Both with huge pages (likwid by glibc's hugetlb tunable) and both without. Prints every pair and the
# medians; nothing passes or fails. Beside other programs: chrt -r 10 bash tests/bench/likwid.sh build/bin 7, several times.
set -euo pipefail
bin=$1 pairs=${2:-15} which=${3:-both}
for tool in likwid-bench jq; do
  if ! command -v $tool >/dev/null; then
    echo "likwid: $tool is not there (apt-get install likwid jq)" >&2
    exit 0
  fi
done
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# likwid 0|1: GB/s of all cores, with huge pages where 1
likwid() {
  GLIBC_TUNABLES=glibc.malloc.hugetlb=$1 likwid-bench -t load -i 20 -w "N:1GB:$threads" 2>&1 | awk '/^MByte\/s/ { print $2 / 1000 }'
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
