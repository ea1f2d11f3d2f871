# How fast weights become ready from the page cache, and how much memory that takes: bash tests/bench/load.sh MODEL [TRIES [THREADS]].
# MODEL: a folder or GGUF. One line a try; the last is the fastest. GB/s per core counts the seconds of the CPU, which other programs do not
# lengthen; the bar is 1.5, and 1.05 x weights for the most memory. Run it from the repository root.
set -euo pipefail
model=$1 tries=${2:-5} threads=${3:-$(nproc)}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
echo '{"ids":[1,2,3],"max_tokens":1}' >"$tmp/p.jsonl"
if [ -d "$model" ]; then cat "$model"/*.safetensors >/dev/null; else cat "$model" >/dev/null; fi
for _ in $(seq "$tries"); do
  HETEROFLOW_DB=$tmp/db build/bin/hf-run --model "$model" --prompts "$tmp/p.jsonl" --gpu none --threads "$threads" --verbose --out "$tmp/o" 2>&1 |
    sed -n 's/.*loaded: //p' | tr ' ' '\n' | awk -F= '{ v[$1] = $2 }
      END { printf "%.2f GB in %.2f s with %d threads: %.2f GB/s, %.2f GB/s per core; most memory %.3f x weights\n", v["bytes"] / 1e9, v["seconds"],
            v["threads"], v["bytes"] / v["seconds"] / 1e9, v["bytes"] / v["cpu_seconds"] / 1e9, v["peak_rss_bytes"] / v["bytes"] }'
done | tee "$tmp/lines"
echo "fastest: $(sort -t: -k2 -g -r "$tmp/lines" | head -n 1)"
