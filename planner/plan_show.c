#include "planner/plan_show.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/money/roi.h"
#include "planner/plan_notes.h"
#include "planner/plan_standby.h"

enum { SHOWN_CLASSES = 6 };

static void time_text(double s, char out[24]) {
  if (s < 1e-3) snprintf(out, 24, "%.1f us", 1e6 * s);
  else if (s < 1) snprintf(out, 24, "%.2f ms", 1e3 * s);
  else snprintf(out, 24, "%.2f s", s);
}

hf_status plan_show_budget(const plan_budget *rows, int n, hf_buf *b) {
  char need[24], limit[24];
  for (int i = 0; i < n; i++) {
    const char *where = rows[i].where;
    bool first = true;
    for (int k = 0; k < i; k++) first = first && strcmp(rows[k].where, where) != 0;
    if (!first) continue;
    int64_t sum = 0;
    for (int k = i; k < n; k++) {
      if (strcmp(rows[k].where, where) != 0) continue;
      plan_bytes_text(rows[k].bytes, need);
      HF_TRY(hf_buf_printf(b, "    %-6s %-50s %14s\n", where, rows[k].what, need));
      sum += rows[k].bytes;
    }
    plan_bytes_text(sum, need);
    plan_bytes_text(rows[i].limit_bytes, limit);
    HF_TRY(hf_buf_printf(b, "    %-6s %-50s %14s of %s%s\n", where, "together", need, rows[i].limit_bytes > 0 ? limit : "unknown",
                         rows[i].limit_bytes > 0 && sum > rows[i].limit_bytes ? "   DOES NOT FIT" : ""));
  }
  return HF_OK;
}

/* Experts in each place, and how evenly the first one's are spread: a row per layer would be long for 58 of them. */
static hf_status show_placement(const plan *p, hf_buf *b) {
  int64_t all[PLAN_MAX_DEVICES + 1] = {0}, here = 0, away = 0;
  int layers = 0, least = INT32_MAX, most = 0;
  for (int l = 0; l < p->n_layers; l++) {
    if (!p->layer[l].moe) continue;
    int n = 0;
    for (int e = 0; e < p->layer[l].n_experts; e++) {
      const int d = p->layer[l].device[e];
      all[1 + d]++;
      n += d >= 0 && plan_rank(p, d) == 0;
      away += plan_rank(p, d) > 0;
    }
    layers++;
    here += n;
    least = n < least ? n : least;
    most = n > most ? n : most;
  }
  if (layers == 0) return HF_OK;
  const int machines = plan_ranks(p), gpus = p->n_devices - machines;
  char elsewhere[96] = "";
  if (machines > 0)
    snprintf(elsewhere, sizeof elsewhere, ", %lld on the CPU%s of %d other machine%s", (long long)away, machines > 1 ? "s" : "",
             machines, machines > 1 ? "s" : "");
  HF_TRY(hf_buf_printf(
      b,
      "  placement    %lld of %lld experts on the device%s (%d to %d per layer of %d)%s, the rest on the CPU; popularity: %s\n",
      (long long)here, (long long)layers * p->n_experts, gpus > 1 ? "s" : "", least, most, p->n_experts, elsewhere,
      p->popularity));
  for (int d = 0; d < p->n_devices && p->n_devices > 1; d++)
    HF_TRY(hf_buf_printf(b, "               %d. %-28s %lld experts\n", d + 1, p->device[d].name, (long long)all[1 + d]));
  return HF_OK;
}

static hf_status show_money(const char *before, const json *range, const char *currency, hf_buf *b) {
  char likely[MONEY_TEXT], low[MONEY_TEXT], high[MONEY_TEXT];
  money_text(json_number(json_get(range, "likely"), 0), likely);
  money_text(json_number(json_get(range, "low"), 0), low);
  money_text(json_number(json_get(range, "high"), 0), high);
  if (strcmp(low, high) == 0) return hf_buf_printf(b, "%s%s %s", before, likely, currency);
  return hf_buf_printf(b, "%s%s %s (%s to %s)", before, likely, currency, low, high);
}

/* What a line of the advice is worth, and what the part asks; nothing where no price is known. */
static hf_status show_worth(const json *o, hf_buf *b) {
  const json *worth = json_get(o, "worth"), *cost = json_get(o, "cost");
  double prompts = json_number(json_get(o, "prompt_time_ratio"), 1);
  if (fabs(prompts - 1) > 0.0005) HF_TRY(hf_buf_printf(b, ", prompts in %.1f %% of the time", 100 * prompts));
  if (json_type(worth) == JSON_OBJECT && json_number(json_get(json_get(worth, "per_month"), "likely"), 0) > 0) {
    const char *currency = json_string(json_get(worth, "currency"));
    HF_TRY(show_money("\n      worth up to ", json_get(worth, "per_month"), currency, b));
    HF_TRY(show_money(" a month, ", json_get(worth, "over_depreciation"), currency, b));
    HF_TRY(hf_buf_printf(b, " over %g years", json_number(json_get(worth, "years"), 0)));
  }
  if (json_type(cost) != JSON_OBJECT) return HF_OK;
  char per[MONEY_TEXT], size[24];
  bool bytes = strcmp(json_string(json_get(cost, "unit")), "B") == 0;
  double amount = json_number(json_get(cost, "amount"), 0);
  money_text(json_number(json_get(cost, "per_change"), 0), per);
  if (bytes) plan_bytes_text((int64_t)amount, size);
  else snprintf(size, sizeof size, "%.0f GB/s", 1e-9 * amount);
  const char *currency = json_string(json_get(cost, "currency"));
  HF_TRY(hf_buf_printf(b, "\n      %s instead of %s brings %s more for", json_string(json_get(cost, "part")),
                       json_string(json_get(cost, "instead_of")), size));
  HF_TRY(show_money(" ", json_get(cost, "price"), currency, b));
  return hf_buf_printf(b, ", %s: %s %s for this much", json_string(json_get(cost, "tag")), per, currency);
}

/* What the worth rests on, in one line. */
static hf_status show_assumptions(const json *advice, hf_buf *b) {
  const json *list = json_get(advice, "assumptions");
  if (json_len(list) == 0) return HF_OK;
  HF_TRY(hf_buf_printf(b, "    worth: %s\n      from: ", json_string(json_get(advice, "worth_note"))));
  for (const json *o = json_first(list); o != NULL; o = json_next(o))
    HF_TRY(hf_buf_printf(b, "%s%s %.4g (%s)", o == json_first(list) ? "" : ", ", json_string(json_get(o, "words")),
                         json_number(json_get(o, "likely"), 0), json_string(json_get(o, "tag"))));
  return hf_buf_printf(b, "\n");
}

/* One line for each thing there could be more of, with its money below; the multiplier stands beside the solution it foretells. */
static hf_status show_advice(const plan *p, hf_buf *b) {
  const json *advice = json_get(p->extra, "advice");
  double foretold = NAN;
  for (const json *o = json_first(json_get(advice, "values")); o != NULL; o = json_next(o)) {
    const char *what = json_string(json_get(o, "what")), *change = json_string(json_get(o, "change")),
               *method = json_string(json_get(o, "method"));
    double delta = json_number(json_get(o, "tok_per_s_delta"), NAN), noise = json_number(json_get(o, "noise_tok_per_s"), 0);
    if (strcmp(method, "multiplier") == 0) {
      foretold = delta;
      continue;
    }
    double price = json_number(json_get(o, "price_per_tok_per_s"), NAN);
    if (!isnan(price)) {
      double delivered = json_number(json_get(o, "price_per_delivered_tok_per_s"), NAN);
      HF_TRY(hf_buf_printf(b, "    hardware per token/s: "));
      if (!isnan(delivered)) HF_TRY(hf_buf_printf(b, "%.0f USD delivered, ", delivered));
      HF_TRY(hf_buf_printf(b, "%.0f USD while all decode\n", price));
    } else if (isnan(delta)) {
      HF_TRY(hf_buf_printf(b, "    %s, %s: %s\n", what, change, method));
    } else {
      HF_TRY(hf_buf_printf(b, "    %s, %s: %+.3g tokens/s%s", what, change, delta,
                           fabs(delta) <= noise ? " (within the gaps)" : ""));
      if (!isnan(foretold)) HF_TRY(hf_buf_printf(b, " (multiplier: %+.3g)", foretold));
      HF_TRY(show_worth(o, b));
      HF_TRY(hf_buf_printf(b, "\n"));
    }
    foretold = NAN;
  }
  return show_assumptions(advice, b);
}

static plan_percentiles percentiles_of(const json *o) {
  return (plan_percentiles){.p50 = json_number(json_get(o, "p50"), 0),
                            .p90 = json_number(json_get(o, "p90"), 0),
                            .p95 = json_number(json_get(o, "p95"), 0),
                            .p99 = json_number(json_get(o, "p99"), 0)};
}

/* What is delivered without the first device, beside decode. */
static hf_status show_lost(const plan *p, hf_buf *b) {
  const json *lost = json_get(p->extra, "fallback"), *load = json_get(lost, "sustained");
  const char *device = json_string(json_get(lost, "lost")), *why = json_string(json_get(lost, "why_not"));
  if (device == NULL) return HF_OK;
  if (why != NULL) return hf_buf_printf(b, "    with %s lost: %s\n", device, why);
  double rate = json_number(json_get(load, "tok_per_s"), 0),
         now = json_number(json_get(json_get(p->extra, "sustained"), "tok_per_s"), 0);
  char t[2][24];
  time_text(percentiles_of(json_get(load, "ttft_s")).p95, t[0]);
  time_text(percentiles_of(json_get(load, "tpot_s")).p95, t[1]);
  HF_TRY(hf_buf_printf(b, "    with %s lost: %.2f tokens/s delivered, TTFT p95 %s, TPOT p95 %s; %.2f tokens/s decode; %s%s\n",
                       device, rate, t[0], t[1], json_number(json_get(lost, "decode_tok_per_s"), 0),
                       json_string(json_get(lost, "placement")), p->from_run > 0 ? " (not corrected by the run)" : ""));
  if (p->from_run > 0 || rate <= now) return HF_OK;
  return hf_buf_printf(b, "      more than with it: the device does not pay here, leave it out (--gpu none)\n");
}

/* One name of a placement, and in words what is nearest to the loss of a device but is not it. */
static const char *baseline_name(const json *o) {
  const char *name = json_string(json_get(o, "name"));
  return name != NULL && strcmp(name, "all-cpu") == 0 ? "experts all-cpu" : name;
}

/* Chunks of prompts per decode step in what placements are compared by; 0: decode alone. */
static double prompt_weight(const plan *p) {
  return json_number(json_get(json_get(json_get(p->extra, "inputs"), "prefill"), "weight"), 0);
}

static hf_status show_baseline(const plan *p, const json *o, hf_buf *b) {
  double slower = json_number(json_get(o, "slower_by"), 0);
  HF_TRY(hf_buf_printf(b, "    %-15s ", baseline_name(o)));
  if (prompt_weight(p) > 0) HF_TRY(hf_buf_printf(b, "(depth %d)", (int)json_number(json_get(o, "depth"), 0)));
  else
    HF_TRY(hf_buf_printf(b, "%8.2f tokens/s (depth %d)", json_number(json_get(o, "decode_tok_per_s"), 0),
                         (int)json_number(json_get(o, "depth"), 0)));
  return hf_buf_printf(
      b, "  %+.2f %%%s\n", 100 * (1 / (1 + slower) - 1),
      baseline_name(o) != json_string(json_get(o, "name")) ? "  (the device keeps attention, shared experts and KV cache)" : "");
}

static hf_status show_baselines(const plan *p, hf_buf *b) {
  const json *list = json_get(p->extra, "baselines");
  if (prompt_weight(p) > 0)
    HF_TRY(hf_buf_printf(b, "  simpler placements, by decode step and prompts together, nobody waiting in turn\n"));
  else
    HF_TRY(hf_buf_printf(b, "  simpler placements, by the decode step alone, nobody waiting in turn (this plan: %.2f tokens/s)\n",
                         1e9 * p->users / p->ilp.objective_ns));
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) HF_TRY(show_baseline(p, o, b));
  const char *worth = json_string(json_get(json_get(p->extra, "advice"), "placement"));
  if (worth != NULL) HF_TRY(hf_buf_printf(b, "    %s\n", worth));
  HF_TRY(show_advice(p, b));
  return show_lost(p, b);
}

static hf_status show_ids(const json *ids, hf_buf *b) {
  int n = 0;
  for (const json *i = json_first(ids); i != NULL; i = json_next(i)) {
    if (++n > 12) return hf_buf_printf(b, " … (%d)", json_len(ids));
    HF_TRY(hf_buf_printf(b, " %d", (int)json_number(i, 0)));
  }
  return n > 0 ? HF_OK : hf_buf_printf(b, " none");
}

static hf_status show_changes(const plan *p, hf_buf *b) {
  const json *o = json_get(p->extra, "changes");
  if (o == NULL) return HF_OK;
  HF_TRY(hf_buf_printf(b, "  against run %lld%s\n", (long long)p->from_run,
                       json_get(o, "old_plan_id") != NULL ? " and its plan" : ""));
  double others = json_number(json_get(o, "other_cpu_share"), 0);
  if (others > 0)
    HF_TRY(hf_buf_printf(
        b, "    doubtful: measured beside other programs, which had %.0f %% of the CPU time; run it again on a quiet machine\n",
        100 * others));
  for (const json *f = json_first(json_get(o, "drift")); f != NULL; f = json_next(f))
    HF_TRY(hf_buf_printf(b, "    %-14s x %.3f (measured over predicted)\n", json_key(f), json_number(f, 1)));
  const json *x = json_get(o, "distinct_experts");
  if (x != NULL)
    HF_TRY(hf_buf_printf(b, "    experts touched %.2f per layer and step, %.2f if tokens were independent\n",
                         json_number(json_get(x, "measured"), 0), json_number(json_get(x, "predicted"), 0)));
  for (const json *l = json_first(json_get(o, "layers")); l != NULL; l = json_next(l)) {
    HF_TRY(hf_buf_printf(b, "    layer %-3d in", (int)json_number(json_get(l, "layer"), 0)));
    HF_TRY(show_ids(json_get(l, "in"), b));
    HF_TRY(hf_buf_printf(b, "; out"));
    HF_TRY(show_ids(json_get(l, "out"), b));
    HF_TRY(hf_buf_printf(b, ": %s\n", json_string(json_get(l, "why"))));
  }
  return hf_buf_printf(b, "    %d experts moved; expected gain %+.1f %% over the old placement\n",
                       (int)json_number(json_get(o, "moved"), 0), 100 * json_number(json_get(o, "gain_expected"), 0));
}

static hf_status show_percentiles(const char *name, const plan_percentiles *p, hf_buf *b) {
  char t[4][24];
  time_text(p->p50, t[0]);
  time_text(p->p90, t[1]);
  time_text(p->p95, t[2]);
  time_text(p->p99, t[3]);
  HF_TRY(hf_buf_printf(b, "    %s       p50 %s, p90 %s", name, t[0], t[1]));
  return p->p95 > 0 ? hf_buf_printf(b, ", p95 %s, p99 %s\n", t[2], t[3]) : hf_buf_printf(b, ", p99 %s\n", t[3]);
}

/* What delivering waits for, which prompts may make another resource than the one that binds a decode step. */
static hf_status show_busy(const json *busy, hf_buf *b) {
  const char *before = "    busy       ";
  for (const json *o = json_first(busy); o != NULL; o = json_next(o)) {
    HF_TRY(hf_buf_printf(b, "%s%s %.0f %%", before, json_key(o), 100 * json_number(o, 0)));
    before = ", ";
  }
  return json_len(busy) > 0 ? hf_buf_printf(b, "\n") : HF_OK;
}

/* What is delivered to users who never pause, then what a run of one request each shows. */
static hf_status show_times(const plan *p, hf_buf *b) {
  const json *o = json_get(p->extra, "sustained");
  if (o != NULL) {
    plan_percentiles ttft = percentiles_of(json_get(o, "ttft_s")), tpot = percentiles_of(json_get(o, "tpot_s"));
    HF_TRY(hf_buf_printf(b, "  delivered    %.2f tokens/s under sustained load: every user sends the next request at once\n",
                         json_number(json_get(o, "tok_per_s"), 0)));
    HF_TRY(show_percentiles("TTFT", &ttft, b));
    HF_TRY(show_percentiles("TPOT", &tpot, b));
    HF_TRY(show_busy(json_get(o, "busy"), b));
  }
  HF_TRY(hf_buf_printf(b, "  predicted    %.2f tokens/s decode (%.2f to %.2f, %s), users who start together, one request each\n",
                       p->decode_tok_per_s.likely, p->decode_tok_per_s.low, p->decode_tok_per_s.high, p->tag));
  HF_TRY(show_percentiles("TTFT", &p->ttft_s, b));
  return show_percentiles("TPOT", &p->tpot_s, b);
}

static hf_status show_depths(const plan *p, hf_buf *b) {
  HF_TRY(hf_buf_printf(b, "  depth        %d", p->depth));
  bool first = true;
  for (const json *o = json_first(json_get(p->extra, "by_depth")); o != NULL; o = json_next(o)) {
    double rate = json_number(json_get(o, "delivered_tok_per_s"), 0);
    int depth = (int)json_number(json_get(o, "depth"), 0);
    if (depth == p->depth || !(rate > 0)) continue;
    HF_TRY(hf_buf_printf(b, "%s%d: %.2f", first ? " (delivered at " : ", ", depth, rate));
    first = false;
  }
  if (first) return hf_buf_printf(b, "\n");
  return hf_buf_printf(b, " tokens/s; another depth than that of the shortest step must win by %.0f %%)\n",
                       100 * (PLAN_DEPTH_MARGIN - 1));
}

static hf_status show_class(const json *o, const char *before, hf_buf *b) {
  int from = (int)json_number(json_get(o, "first"), 0), count = (int)json_number(json_get(o, "count"), 0);
  HF_TRY(count == 1 ? hf_buf_printf(b, "%s%d: ", before, from)
                    : hf_buf_printf(b, "%s%d-%d: %d ", before, from, from + count - 1, count));
  return hf_buf_printf(b, "%s, %s", json_string(json_get(o, "class")), json_string(json_get(o, "waits_for")));
}

/* Runs of layers that wait for the same, the one with most time first: "3-60: 58 MoE, DRAM bandwidth; 0-2: 3 dense, device". */
static hf_status show_classes(const plan *p, hf_buf *b) {
  const json *list = json_get(p->extra, "layer_classes"), *first = json_first(list);
  int n = json_len(list), shown = 1;
  if (n == 0) return HF_OK;
  for (const json *o = first; o != NULL; o = json_next(o))
    if (json_number(json_get(o, "ns"), 0) > json_number(json_get(first, "ns"), 0)) first = o;
  HF_TRY(show_class(first, "  layers       ", b));
  for (const json *o = json_first(list); o != NULL && shown < SHOWN_CLASSES; o = json_next(o)) {
    if (o == first) continue;
    HF_TRY(show_class(o, "; ", b));
    shown++;
  }
  if (n > shown) HF_TRY(hf_buf_printf(b, "; and %d more runs", n - shown));
  return hf_buf_printf(b, "\n");
}

/* Service levels: the row of the program and the percentile that it must come to. */
static hf_status show_slo(const plan *p, hf_buf *b) {
  char t[4][24];
  const json *rows = json_get(json_get(p->extra, "slo"), "rows");
  for (const json *o = json_first(rows); o != NULL; o = json_next(o)) {
    bool ttft = strcmp(json_string(json_get(o, "row")), "ttft") == 0;
    double value = json_number(json_get(o, "value_s"), 0), row = json_number(json_get(o, "row_limit_s"), 0),
           worth = json_number(json_get(o, "tok_per_s_per_percent"), 0);
    time_text(json_number(json_get(o, "limit_s"), 0), t[0]);
    time_text(json_number(json_get(o, "p95_s"), 0), t[1]);
    time_text(value, t[2]);
    time_text(row, t[3]);
    HF_TRY(hf_buf_printf(b, "  limit        %s p95 %s of %s", ttft ? "TTFT" : "TPOT", t[1], t[0]));
    if (value > 0 && row > 0) {
      HF_TRY(hf_buf_printf(b, "; %s %s, row %s", ttft ? "chunks of a prompt" : "decode step", t[2], t[3]));
      HF_TRY(worth > 0 ? hf_buf_printf(b, ", binds: 1 %% more is worth %+.3g tokens/s", worth)
                       : hf_buf_printf(b, ", does not bind"));
    }
    HF_TRY(hf_buf_printf(b, "\n"));
  }
  return HF_OK;
}

/* Whether limits were rows of the program, narrowed ones among them: its bound then holds for what keeps them. */
static bool has_rows(const plan *p) {
  for (const json *o = json_first(json_get(json_get(p->extra, "slo"), "rows")); o != NULL; o = json_next(o))
    if (json_number(json_get(o, "row_limit_s"), 0) > 0) return true;
  return false;
}

static hf_status show_hardware(const plan *p, hf_buf *b) {
  const json *o = json_get(p->extra, "hardware"), *price = json_get(o, "price_usd");
  const int machines = (int)json_number(json_get(o, "machines"), 1);
  char many[64] = "";
  if (price == NULL) return HF_OK;
  if (machines > 1) snprintf(many, sizeof many, " for %d machines without their network", machines);
  return hf_buf_printf(b, "  hardware     about %.0f USD%s (%.0f to %.0f, %s)\n", json_number(json_get(price, "likely"), 0), many,
                       json_number(json_get(price, "low"), 0), json_number(json_get(price, "high"), 0),
                       json_string(json_get(price, "tag")));
}

/* What placements are compared by: the decode step, or with --optimise request that and its share of prompt chunks. */
static hf_status show_objective(const plan *p, hf_buf *b) {
  char t[4][24];
  double weight = prompt_weight(p), gain = json_number(json_get(p->extra, "placement_gain"), 0);
  time_text(1e-9 * p->ilp.objective_ns, t[0]);
  time_text(1e-9 * p->ilp.bound_ns, t[1]);
  const char *failed = json_string(json_get(p->extra, "search_failed"));
  if (failed != NULL)
    HF_TRY(hf_buf_printf(b,
                         "  decode step  %s, of a simple placement, without certificate: %s\n               (none takes less "
                         "than %s, what is left "
                         "without routed experts)\n",
                         t[0], failed, t[1]));
  else
    HF_TRY(hf_buf_printf(
        b, "  %s  %s, no placement%s below %s: gap %.4f %%, %s, found in %.2f s\n", weight > 0 ? "step+prompt" : "decode step",
        t[0], has_rows(p) ? " that keeps the rows of its limits" : "", t[1], 100 * p->ilp.gap, p->ilp.status, p->ilp.seconds));
  if (weight > 0) {
    double chunk_ns = json_number(json_get(json_get(p->extra, "resources"), "chunk_ns"), 0);
    time_text(1e-9 * (p->ilp.objective_ns - weight * chunk_ns), t[2]);
    time_text(1e-9 * chunk_ns, t[3]);
    HF_TRY(hf_buf_printf(
        b, "               (a decode step of %s and %.3g chunks of prompts of %s: what a request asks for per step)\n", t[2],
        weight, t[3]));
  }
  if (strcmp(p->ilp.status, "bounded") == 0)
    HF_TRY(hf_buf_printf(
        b, "               (a wide gap: a better placement is not excluded; the bound is weak where like devices, or this "
           "machine and another, share layers)\n"));
  if (gain > 0)
    HF_TRY(hf_buf_printf(
        b,
        "               (not the least step within the gap, but it delivers %.1f %% more than that one: less waiting in turn)\n",
        100 * gain));
  return HF_OK;
}

/* A line per operation and format: who computes it, from how many tokens on. */
static hf_status show_kernels(const plan *p, hf_buf *b) {
  for (int i = 0; i < p->n_kernels; i++) {
    const plan_kernel *k = &p->kernel[i], *before = i > 0 ? k - 1 : NULL;
    const bool same = before && strcmp(before->op, k->op) == 0 && strcmp(before->format, k->format) == 0;
    if (same) HF_TRY(hf_buf_printf(b, "; from %d tokens %s", k->tokens_lo, k->candidate));
    else HF_TRY(hf_buf_printf(b, "%s  %-12s %s in %s: %s", i ? "\n" : "", i ? "" : "kernels", k->op, k->format, k->candidate));
  }
  return p->n_kernels > 0 ? hf_buf_printf(b, "\n") : HF_OK;
}

hf_status plan_show(const plan *p, hf_buf *b) {
  char loss[PLAN_LOSS_TEXT];
  plan_quality q;
  plan_quality_read(p->extra, &q);
  plan_quality_text(&q, loss);
  HF_TRY(hf_buf_printf(b, "Plan %lld: %s (%s%s) on %s, device %s\n", (long long)p->id, p->model, p->format, loss, p->machine,
                       p->gpu));
  HF_TRY(plan_show_doubts(p, b));
  HF_TRY(hf_buf_printf(b, "  load         %d user%s, context %d (prompt %d, output %d), prompts in chunks of %d\n", p->users,
                       p->users == 1 ? "" : "s", p->context, p->prompt_tokens, p->output_tokens, p->chunk_tokens));
  HF_TRY(plan_show_standby(p, b));
  HF_TRY(show_depths(p, b));
  HF_TRY(show_placement(p, b));
  HF_TRY(show_objective(p, b));
  if (p->depth > 1)
    HF_TRY(hf_buf_printf(
        b, "               (what the busiest resource or one micro-batch's way asks for; see predicted for waiting in turn)\n"));
  HF_TRY(hf_buf_printf(b, "  binding      %s\n", p->binding));
  HF_TRY(show_classes(p, b));
  const char *from = json_string(json_get(p->extra, "scaled_from"));
  if (from != NULL) HF_TRY(hf_buf_printf(b, "  kernels      curves of machine %s, scaled to this one\n", from));
  HF_TRY(show_kernels(p, b));
  HF_TRY(show_times(p, b));
  HF_TRY(show_slo(p, b));
  HF_TRY(show_hardware(p, b));
  HF_TRY(show_baselines(p, b));
  HF_TRY(show_changes(p, b));
  HF_TRY(hf_buf_printf(b, "  budget\n"));
  return plan_show_budget(p->budget, p->n_budget, b);
}
