#!/bin/bash
# upload.sh FOLDER_OF_PROGRAMS: prompts by upload on a paced device, predicted against measured. The example model on paced-desk with links of 4, 0.2 and
# 0.1 GB/s, depths 1 and 2, four requests of 400 tokens each; then the same plan with nothing uploaded, whose answers must be the same. Routing is assumed
# uniform, nothing of a run goes into its prediction. About a minute and a half; wants a quiet machine.
. tests/cli/lib.sh
tiny=examples/tiny-moe
export HF_CATALOG=$tmp/catalog
mkdir -p "$HF_CATALOG/machines"
for u in 1 2 3 4; do
  jq -nc --argjson u "$u" '{id: "u\($u)", ids: [range(400) | (. * . * 37 + . * $u * 211 + $u) % 4000], max_tokens: 40}'
done >"$tmp/p.jsonl"

run() { # NAME MORE...
  local name=$1
  shift
  expect_exit 0 "$bin/hf-run" --plan "$tmp/plan.json" --model $tiny --prompts "$tmp/p.jsonl" --ignore-eos --no-shared-prefixes --quiet --json \
    --out "$tmp/$name.jsonl" "$@"
  cp "$out" "$tmp/$name.json"
}

# Busy time of a stage of prompts' steps over what the table says for the experts and tokens that there were, all layers.
link_share() {
  sqlite3 "$HETEROFLOW_DB" "select round(sum(ns_sum) / (sum(distinct_experts) * 49152e9 / $1), 3) from stage_time where run_id = $2 and stage = 'upload' and phase = 'prefill'"
}

echo "| link | depth, chunk, slots | layers | TTFT p50: predicted, measured, error | p99: error | link busy, of modelled | the CPU's experts instead: p50 |"
echo "|---|---|---|---|---|---|---|"
for rate in 4000000000 200000000 100000000; do
  machine=paced-link-$rate
  jq --argjson r "$rate" --arg n "$machine" '.name = $n | (.figures[] | select(.what == "pcie_h2d_bytes_per_s") | .value) = $r' \
    db/catalog/machines/paced-desk.json >"$HF_CATALOG/machines/$machine.json"
  for depth in 1 2; do
    expect_exit 0 "$bin/hf-plan" plan --model $tiny --machine "$machine" --users 4 --context 512 --prompt-tokens 400 --output-tokens 40 \
      --gpu "paced:$machine:7M" --depth $depth --out "$tmp/plan.json" --json --quiet
    layers=$(jq '[.layers[] | select(.prefill == "upload")] | length' "$tmp/plan.json")
    [ "$layers" = 0 ] && continue # the CPU is as fast
    run up
    busy=$(link_share "$rate" "$(jq .run_id "$tmp/up.json")")
    run cpu --upload-tokens 0
    expect_same "$(jq -c '[.id, .ids]' "$tmp/up.jsonl" | sort)" "$(jq -c '[.id, .ids]' "$tmp/cpu.jsonl" | sort)" "answers"
    jq -rn --slurpfile p "$tmp/plan.json" --slurpfile u "$tmp/up.json" --slurpfile c "$tmp/cpu.json" --arg busy "$busy" --argjson rate "$rate" --arg layers "$layers" '
      def off($p; $m): (($p / $m - 1) * 1000 | round / 10) as $e | "\(if $e >= 0 then "+" else "" end)\($e) %";
      def s($x): $x * 1000 | round / 1000;
      $p[0] as $q | $u[0] as $r
      | "| \($rate / 1e9) GB/s | \($q.depth), \($q.chunk_tokens), \($q.upload_slots) | \($layers) | \(s($r.predicted.ttft_s.p50)) s, \(s($r.ttft_s.p50)) s, \(off($r.predicted.ttft_s.p50; $r.ttft_s.p50)) | \(off($r.predicted.ttft_s.p99; $r.ttft_s.p99)) | \($busy) | \(s($c[0].ttft_s.p50)) s |"'
  done
done
