#!/bin/bash
# beside_peers.sh FOLDER_OF_PROGRAMS MODEL.gguf [ROUNDS]: hf-run beside other engines on the same file, same threads, one after the other in every
# round, so that each round gives ratios of neighbours in time. PEERS names the others, one a line: NAME|COMMAND, where COMMAND is a
# llama-batched-bench of theirs with its options, that writes the usual table (S_PP, S_TG) for -npp, -ntg and -npl. A batched-bench that feeds
# every sequence the same tokens must be made to feed random ones first: sequences that choose the same experts read them once.
#
#   PEERS=$'llama.cpp|/x/llama-batched-bench\nik_llama.cpp -rtr|/y/llama-batched-bench -rtr' tests/bench/beside_peers.sh build/bin MODEL.gguf 15
#
# Decode of 1, 5 and 16 sequences after 64 tokens of prompt, prefill of 512 tokens of one; or, with CONTEXT=16384, decode of one sequence behind
# so many tokens and the prefill of these alone. Prints median rates and the median of the ratios
# ours / theirs with the lowest and the highest. Nothing here passes or fails.
set -euo pipefail
bin=$1 model=$2 rounds=${3:-15} threads=${THREADS:-2} answer=${ANSWER:-32}
[ -n "${PEERS:-}" ] || { echo "beside_peers.sh: PEERS names no other engine (NAME|COMMAND, one a line)" >&2; exit 2; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
sizes=(decode-1 decode-5 decode-16 prefill-512)
context=${CONTEXT:-0}
[ "$context" = 0 ] || sizes=("decode-at-$context" "prefill-$context")

ours_long() { # ROUND
  "$bin/hf-run" --bench --model "$model" --users 1 --prompt-tokens "$context" --output-tokens "$answer" --threads "$threads" --db "$tmp/db" --json --quiet >"$tmp/long.json"
  jq -r --arg r "$1" --arg c "$context" '.results[0] | "ours \($r) decode-at-\($c) \(.decode_tok_per_s)\nours \($r) prefill-\($c) \(.prefill_tok_per_s)"' "$tmp/long.json"
}

theirs_long() { # ROUND NUMBER COMMAND
  $3 -m "$model" -c $((context + answer + 64)) -t "$threads" -npp "$context" -ntg "$answer" -npl 1 2>&1 |
    awk -F'|' -v r="$1" -v p="$2" -v c="$context" '$2 + 0 > 0 {printf "peer%s %s prefill-%s %s\npeer%s %s decode-at-%s %s\n", p, r, c, $7, p, r, c, $9}'
}

ours() { # ROUND
  if [ "$context" != 0 ]; then ours_long "$1"; return; fi
  "$bin/hf-run" --bench --model "$model" --users 1,5,16 --prompt-tokens 64 --output-tokens "$answer" --threads "$threads" --db "$tmp/db" --json --quiet \
    >"$tmp/decode.json"
  "$bin/hf-run" --bench --model "$model" --users 1 --prompt-tokens 512 --output-tokens 2 --threads "$threads" --db "$tmp/db" --json --quiet >"$tmp/prefill.json"
  jq -r --arg r "$1" '.results[] | "ours \($r) decode-\(.users) \(.decode_tok_per_s)"' "$tmp/decode.json"
  jq -r --arg r "$1" '.results[0] | "ours \($r) prefill-512 \(.prefill_tok_per_s)"' "$tmp/prefill.json"
}

theirs() { # ROUND NUMBER COMMAND
  if [ "$context" != 0 ]; then theirs_long "$@"; return; fi
  $3 -m "$model" -c 4096 -t "$threads" -npp 64 -ntg "$answer" -npl 1,5,16 2>&1 |
    awk -F'|' -v r="$1" -v p="$2" '$2 + 0 > 0 {printf "peer%s %s decode-%d %s\n", p, r, $4, $9}'
  $3 -m "$model" -c 4096 -t "$threads" -npp 512 -ntg 2 -npl 1 2>&1 |
    awk -F'|' -v r="$1" -v p="$2" '$2 + 0 > 0 {printf "peer%s %s prefill-512 %s\n", p, r, $7}'
}

mapfile -t peers <<<"$PEERS"
for ((r = 0; r < rounds; r++)); do
  ours $r >>"$tmp/rates"
  for i in "${!peers[@]}"; do theirs $r "$i" "${peers[$i]#*|}" >>"$tmp/rates"; done
done

column() { # WHO SIZE -> rates, in the order of rounds
  awk -v w="$1" -v s="$2" '$1 == w && $3 == s {print $4}' "$tmp/rates"
}
middle() { sort -n | awk '{v[NR] = $1} END {printf "%.4g", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

printf '| tokens/s, median of %d | ours |' "$rounds"
for p in "${peers[@]}"; do printf ' %s | ours / it (lowest to highest) |' "${p%%|*}"; done
printf '\n|---|---|'
for p in "${peers[@]}"; do printf -- '---|---|'; done
echo
for s in "${sizes[@]}"; do
  printf '| %s | %s |' "$s" "$(column ours "$s" | middle)"
  for i in "${!peers[@]}"; do
    paste <(column ours "$s") <(column "peer$i" "$s") | awk 'NF == 2 && $2 > 0 {print $1 / $2}' | sort -n >"$tmp/ratio"
    printf ' %s | %s (%.3g to %.3g) |' "$(column "peer$i" "$s" | middle)" "$(middle <"$tmp/ratio")" "$(head -1 "$tmp/ratio")" "$(tail -1 "$tmp/ratio")"
  done
  echo
done
