#!/bin/bash
# hf-plan catalog from outside: lists, entries, machines of parts, the check, and entries of one's own.
. tests/cli/lib.sh
plan=$bin/hf-plan

# ---- list: every kind has its figures, and enough entries to choose from
expect_exit 0 "$plan" catalog list --json
expect_json '(.models | length >= 40) and (.gpus | length >= 40) and (.cpus | length >= 40) and (.memory | length >= 15)'
expect_json '(.platforms | length >= 5) and (.links | length >= 5) and (.machines | length >= 9)'
expect_json '.gpus | all(.mem_bytes > 1e9 and .mem_bytes_per_s > 1e10 and .power_active_w > 0 and .price_usd > 0 and (.title | length > 0))'
expect_json '.cpus | all(.cores >= 1 and .memory_channels >= 2 and .price_usd > 0 and (.class | IN("desktop", "workstation", "server")))'
expect_json '.models | all(.params_total >= .params_active and (.family | length > 0))'
expect_json '.machines | all(.price_usd > 0 and .dram_theoretical_bytes_per_s > 0)'
expect_exit 0 "$plan" catalog list gpus
grep -Eq '^  NAME +GiB +GB/s .* USD$' "$out" || fail "no heading"
grep -Eq '^  rtx4090 +24 +1008 .* 1599$' "$out" || fail "no row of the rtx4090"
[ "$(grep -c '^  ' "$out")" -ge 42 ] || fail "too few rows"
expect_error 2 'kinds are cpus, gpus' "$plan" catalog list hats

# ---- show: entries with every fact written out, machines of parts
expect_exit 0 "$plan" catalog show cpus xeon-6454s
expect_json '.cores | .value == 32 and .unit == "1" and (.source | length > 8) and (.date | test("^[0-9]{4}-"))'
expect_exit 0 "$plan" catalog show 'gpu=4090*2,cpu=6787p'
expect_json '.parts == "cpu=xeon-6787p,memory=mrdimm-8000,dimm=64G,gpu=rtx4090*2" and (.devices | length == 3)'
expect_json '[.figures[] | select(.device == "" and .what == "price_usd")] | length == 1 and .[0].low < .[0].likely'
expect_error 2 "did you mean 'rtx4090'" "$plan" catalog show gpus rtx409
expect_error 2 "did you mean 'rtx4090'" "$plan" catalog show rtx409O
expect_error 2 "did you mean 'gpu'" "$plan" catalog show 'cpu=xeon-6787p,gpux=rtx4090'
expect_error 2 'does not take it at 1 per channel; it takes ddr5-5600-udimm' "$plan" catalog show 'cpu=ryzen-9950x,memory=ddr5-5600'
expect_error 2 'platform desktop.*at most 2' "$plan" catalog show 'cpu=ryzen-9950x,gpu=rtx4090*3'

# ---- a text of parts is a machine wherever one is asked for
expect_exit 0 "$plan" plan --model olmoe-1b-7b --machine 'cpu=ryzen-9950x,gpu=rtx3090' --users 1 --context 1024 --json
expect_json '.machine == "cpu=ryzen-9950x,memory=ddr5-5600-udimm,dimm=64G,gpu=rtx3090" and .predicted.decode_tok_per_s.likely > 0'
expect_error 2 'sockets=2: ryzen-9950x works in at most 1' "$plan" plan --model olmoe-1b-7b --machine 'cpu=ryzen-9950x,sockets=2' \
  --users 1 --context 1024

# ---- templates are entries: accepted by the check, and found where they belong
for kind in gpu:gpus:my-card cpu:cpus:my-cpu memory:memory:my-memory machine:machines:my-machine model:models:my-model; do
  IFS=: read -r what folder name <<<"$kind"
  mkdir -p "$tmp/own/$folder"
  expect_exit 0 "$plan" catalog template "$what"
  cp "$out" "$tmp/own/$folder/$name.json"
  expect_exit 0 "$plan" catalog check "$tmp/own/$folder/$name.json"
  HF_CATALOG=$tmp/own expect_exit 0 "$plan" catalog show "$folder" "$name"
done
HF_CATALOG=$tmp/own expect_exit 0 "$plan" plan --model my-model --machine cpu=my-cpu,gpu=my-card --users 2 --context 2048 --no-store --json
expect_error 2 'none of gpu, cpu' "$plan" catalog template toaster

# ---- check: the whole catalog, a good file, bad ones
expect_exit 0 "$plan" catalog check
expect_exit 0 "$plan" catalog check --json
expect_json '.problems == [] and .checked > 200'
cat >"$tmp/card.json" <<'END'
{"name": "card", "title": "A card of one's own", "form": "PCIe card", "source": "data sheet", "date": "2026-01-02", "mem_bytes": 34359738368,
 "mem_bytes_per_s": 1e12, "flops_bf16": 2e14, "pcie_gen": 5, "pcie_lanes": 16, "power_idle_w": 20, "power_active_w": 300, "price_usd": 500}
END
expect_exit 0 "$plan" catalog check "$tmp/card.json"
sed 's/"mem_bytes_per_s": 1e12/"mem_bytes_per_s": {"value": 1e12, "unit": "GB\/s"}/; s/price_usd/prise_usd/' "$tmp/card.json" >"$tmp/bad.json"
expect_exit 1 "$plan" catalog check "$tmp/bad.json"
[ "$(wc -l <"$out")" = 2 ] || fail "two problems are two lines"
grep -q "'GB/s' where 'B/s' belongs" "$out" || fail "the unit is not named"
grep -q 'did you mean price_usd' "$out" || fail "the member is not named"
expect_exit 1 "$plan" catalog check --json "$tmp/bad.json"
expect_json '.problems | length == 2'
expect_error 2 'nowhere.json' "$plan" catalog check "$tmp/nowhere.json"

# ---- a bandwidth of nothing is refused by the check and wherever the entry is used, with file, field and remedy
mkdir -p "$tmp/dies/cpus"
"$plan" catalog show cpus epyc-9115 | jq '.die_read_bytes_per_s.value = 0 | .die_read_bytes_per_s |= del(.low, .high)' >"$tmp/dies/cpus/epyc-9115.json"
expect_exit 1 "$plan" catalog check "$tmp/dies/cpus/epyc-9115.json"
expect_stdout_line 'cpus/epyc-9115.json: field die_read_bytes_per_s: 0 is no bandwidth; leave it out'
HF_CATALOG=$tmp/dies expect_error 2 'dies/cpus/epyc-9115.json: field die_read_bytes_per_s: .*leave it out' "$plan" plan --model olmoe-1b-7b --machine cpu=epyc-9115 --users 1 --context 1024 --no-store
# ---- the memory that is filled in is one that is sold
mkdir -p "$tmp/ended/memory"
"$plan" catalog show memory ddr5-5600-udimm | jq '.sale = "ended: a test"' >"$tmp/ended/memory/ddr5-5600-udimm.json"
expect_exit 0 "$plan" catalog show cpu=ryzen-9950x
expect_json '.parts | test("memory=ddr5-5600-udimm")'
HF_CATALOG=$tmp/ended expect_exit 0 "$plan" catalog show cpu=ryzen-9950x
expect_json '.parts | test("memory=ddr5-5600-udimm") | not'

# ---- entries of one's own add and replace, everywhere
mkdir -p "$tmp/mine/gpus" "$tmp/mine/models"
cp "$tmp/card.json" "$tmp/mine/gpus/card.json"
"$plan" catalog show gpus rtx4090 | jq '.title = "Second hand" | .price_usd.value = 799' >"$tmp/mine/gpus/rtx4090.json"
export HF_CATALOG=$tmp/mine
expect_exit 0 "$plan" catalog list gpus --json
expect_json '.gpus | (map(select(.name == "card")) | length == 1) and (map(select(.name == "rtx4090"))[0].price_usd == 799)'
expect_exit 0 "$plan" catalog show 'cpu=epyc-9354,gpu=card'
expect_exit 0 "$plan" catalog check
"$plan" catalog show models olmoe-1b-7b | jq '.name = "twice" | .aliases = [] | .config.num_hidden_layers = 32' >"$tmp/mine/models/twice.json"
expect_exit 1 "$plan" catalog check
grep -q 'models/twice.*params_total' "$out" || fail "a config of twice the size passes"
expect_error 2 'HF_CATALOG=/no/such/folder' env HF_CATALOG=/no/such/folder "$plan" catalog list gpus
