#!/bin/bash
# overlap.sh FOLDER_OF_PROGRAMS [ROUNDS]: the pipeline on paced devices of five machines, whose device (without experts, as it has no room) takes 0.6 to 1.6 times as long as their CPU. Layers
# shaped as DeepSeek-R1's, a fourteenth as wide, 16 of them (r1-shape.json), Q8_0, eight users. For each machine: depth chosen by the plan, overlap at depth 2
# ((device busy + CPU busy - step) / the lesser, bar 0.9), tokens/s measured at depths 1, 2, 3 and 4 (the chosen one is the fastest or within 3 %),
# predicted against measured (bar 5 % in the median). Paced stages last milliseconds and no core is ever full, but whoever is woken late spoils them:
# wants a quiet machine, or chrt -r 10.
set -euo pipefail
bin=$(readlink -m "$1") rounds=${2:-3}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export HETEROFLOW_DB=$tmp/db
model=$tmp/r1-shape.gguf
"$bin/hf-run" model generate synth:tests/bench/r1-shape.json,format=q8_0,seed=1 "$model" --quiet
users=8 prompt=2 answer=${ANSWER:-40} # hardly a prompt: the pipeline of decode is what is looked at
for ((i = 0; i < users; i++)); do
  jq -nc --argjson i "$i" --argjson n "$prompt" '{id: "r\($i)", ids: [range($n) | (. * 977 + $i * 3571) % 1000 + 2]}'
done >"$tmp/prompts.jsonl"

machine() { # NAME SCALE: the grid's paced machine, its CPU a sixteenth as fast, its device that many times
  jq --arg n "$1" --argjson f "$2" '.name = $n | .title = "Made-up computer that paces the pipeline" |
    .figures |= map(if .device == "gpu0" and (.what | test("^gpu_(mem|flops)")) then .value *= $f
                    elif (.device | test("^cpu")) and (.what | test("^(dram|cpu_flops)")) then .value /= 16 else . end)' tests/bench/grid-paced.json >"$tmp/$1.json"
}

plan() { # NAME OUT [OPTIONS]
  "$bin/hf-plan" plan --model "$model" --machine "$tmp/$1.json" --gpu "paced:$tmp/$1.json:100M" --users $users --context 64 --prompt-tokens $prompt \
    --output-tokens "$answer" --quiet --json --out "$2" "${@:3}" >/dev/null
}

run() { # PLAN
  "$bin/hf-run" --plan "$1" --model "$model" --prompts "$tmp/prompts.jsonl" --max-tokens "$answer" --ignore-eos --trace "$tmp/trace.json" --quiet --json \
    >"$tmp/run.json"
}
middle() { sort -n | awk '{v[NR] = $1} END {printf "%.4g", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

printf '| machine | device : CPU | depth chosen | overlap at 2 | tokens/s at 1 | 2 | 3 | 4 | chosen / fastest | error of prediction |\n|---|---|---|---|---|---|---|---|---|---|\n'
for scale in ${SCALES:-0.015 0.02 0.0275 0.036 0.055}; do
  name=paced-$scale
  machine "$name" "$scale"
  plan "$name" "$tmp/chosen.json"
  chosen=$(jq .depth "$tmp/chosen.json")
  for d in 1 2 3 4; do plan "$name" "$tmp/plan$d.json" --depth $d; done
  for ((r = 0; r < rounds; r++)); do
    for d in 1 2 3 4; do
      run "$tmp/plan$d.json"
      jq .decode_tok_per_s "$tmp/run.json" >>"$tmp/$name-rate$d"
      jq '.signed_error.decode_tok_per_s // "none"' "$tmp/run.json" >>"$tmp/$name-error$d"
      [ $d != 2 ] || jq .trace.overlap "$tmp/run.json" >>"$tmp/$name-overlap"
      [ $d != 2 ] || jq '[.trace.resources[] | {(.resource): .busy_s}] | add | .gpu0 / .cpu' "$tmp/run.json" >>"$tmp/$name-work"
    done
  done
  best=$(for d in 1 2 3 4; do middle <"$tmp/$name-rate$d"; echo; done | sort -n | tail -1)
  printf '| %s | %s | %s | %s |' "$name" "$(middle <"$tmp/$name-work")" "$chosen" "$(middle <"$tmp/$name-overlap")"
  for d in 1 2 3 4; do printf ' %s |' "$(middle <"$tmp/$name-rate$d")"; done
  printf ' %s | %s |\n' "$(jq -n "$(middle <"$tmp/$name-rate$chosen") / $best * 1000 | round / 1000")" "$(middle <"$tmp/$name-error$chosen")"
done
