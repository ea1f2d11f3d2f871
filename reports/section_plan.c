/* section_plan.c: what was planned, how well it is proven, and what else was possible. */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "reports/draw.h"
#include "reports/words.h"

double signed_error(double predicted, double measured) {
  return predicted > 0 && measured > 0 ? (predicted - measured) / measured : NAN;
}

/* ---- head ---- */

hf_status say_plan_doubts(const plan *pl, hf_buf *b) {
  const json *list = json_get(pl->extra, "doubts");
  char others[FORMAT_MAX];
  double share = json_number(json_get(json_get(pl->extra, "changes"), "other_cpu_share"), 0);
  format_number(share, FMT_SHARE, others);
  if (share > 0)
    HF_TRY(hf_buf_printf(b, "Doubtful: plan %lld learned from a run beside other programs, which had %s of the CPU time. ",
                         (long long)pl->id, others));
  for (const json *o = json_type(list) == JSON_ARRAY ? json_first(list) : NULL; o != NULL; o = json_next(o))
    if (json_string(o) != NULL) HF_TRY(hf_buf_printf(b, "Doubtful: %s. ", json_string(o)));
  return HF_OK;
}

hf_status say_plan(const plan *pl, hf_buf *b) {
  char likely[FORMAT_MAX], low[FORMAT_MAX], high[FORMAT_MAX], gap[FORMAT_MAX];
  format_number(pl->decode_tok_per_s.likely, FMT_TOK_S, likely);
  format_number(pl->decode_tok_per_s.low, FMT_TOK_S, low);
  format_number(pl->decode_tok_per_s.high, FMT_TOK_S, high);
  format_number(pl->ilp.gap, FMT_GAP, gap);
  HF_TRY(hf_buf_printf(b, "Plan %lld for %s, %d user%s, ", (long long)pl->id, pl->model, pl->users, plural(pl->users)));
  const json *load = json_get(pl->extra, "sustained");
  if (load != NULL) {
    char wall[FORMAT_MAX], ttft[FORMAT_MAX];
    format_number(json_number(json_get(load, "tok_per_s"), NAN), FMT_TOK_S, wall);
    format_number(json_number(json_get(json_get(load, "ttft_s"), "p95"), NAN), FMT_SECONDS, ttft);
    HF_TRY(hf_buf_printf(b, "delivers %s tokens/s to all users together, first token within %s for 95 %% of requests; it ", wall,
                         ttft));
  }
  HF_TRY(hf_buf_printf(
      b,
      "is expected to decode %s tokens/s (%s to %s) while nobody's prompt is in the way; no placement at this depth can "
      "beat its step",
      likely, low, high));
  return pl->ilp.gap < 1e-6 ? hf_buf_printf(b, ".") : hf_buf_printf(b, " by more than %s.", gap);
}

static void tiles_of_plan(page *p, const plan *pl) {
  char v[FORMAT_MAX], w[FORMAT_MAX], x[FORMAT_MAX];
  const json *load = json_get(pl->extra, "sustained");
  page_tiles(p);
  if (load != NULL) {
    format_number(json_number(json_get(load, "tok_per_s"), NAN), FMT_TOK_S, v);
    page_tile(p, "Delivered, all users", v,
              "tokens/s, prompts and waiting included, every user sending the next request at once");
    format_number(json_number(json_get(json_get(load, "ttft_s"), "p95"), NAN), FMT_SECONDS, v);
    page_tile(p, "First token within", v, "for 95 %% of those requests");
    format_number(json_number(json_get(json_get(load, "tpot_s"), "p95"), NAN), FMT_SECONDS, v);
    page_tile(p, "Each further token within", v, "for 95 %% of those requests");
  }
  format_number(pl->decode_tok_per_s.likely, FMT_TOK_S, v);
  format_number(pl->decode_tok_per_s.low, FMT_TOK_S, w);
  format_number(pl->decode_tok_per_s.high, FMT_TOK_S, x);
  page_tile(p, "Decode, all users", v, "tokens/s predicted, %s to %s, %s", w, x, pl->tag);
  format_number(pl->ilp.objective_ns, FMT_NS, v);
  format_number(pl->ilp.bound_ns, FMT_NS, w);
  page_tile(p, "Decode step", v, "no placement at this depth below %s", w);
  format_number(pl->ilp.gap, FMT_GAP, v);
  format_number(pl->ilp.seconds, FMT_SECONDS, w);
  page_tile(p, "Proven gap", v, "%s, solved in %s", pl->ilp.status, w);
  page_tile(p, "Binding resource", pl->binding[0] ? pl->binding : "–", "of the whole step");
  format_number(pl->depth, FMT_INT, v);
  page_tile(p, "Pipeline depth", v, "%d user%s, context %d tokens", pl->users, plural(pl->users), pl->context);
  format_number(pl->ttft_s.p50, FMT_SECONDS, v);
  format_number(pl->ttft_s.p95, FMT_SECONDS, w);
  page_tile(p, "First token, all start together", v, "median of one request each; 95 %% within %s", w);
  format_number(pl->tpot_s.p50, FMT_SECONDS, v);
  format_number(pl->tpot_s.p95, FMT_SECONDS, w);
  page_tile(p, "Further token, all start together", v, "median of one request each; 95 %% within %s", w);
  page_tiles_end(p);
}

static const rep_col key_cols[] = {{"item", "Item", FMT_TEXT}, {"value", "Value", FMT_TEXT}};

static void table_quality(page *p, rep_table *t, const plan *pl) {
  const json *o = json_get(pl->extra, "quality");
  const char *tag = json_string(json_get(o, "tag"));
  char loss[FORMAT_MAX];
  if (tag == NULL) return;
  format_number(json_number(json_get(o, "perplexity_increase"), NAN), FMT_SIGNED, loss);
  table_text(p, t, "perplexity of that format"),
      table_printf(p, t, "%s against the original, %s", loss,
                   strcmp(tag, "measured") == 0 ? "published for this model" : "from published rows of its family");
}

static void table_head(page *p, const char *id, const data_plan *d) {
  const plan *pl = d->p;
  char name[SECTION_ID_MAX], date[FORMAT_MAX], kv[FORMAT_MAX];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "head"), key_cols, "Plan %lld", (long long)pl->id);
  format_date(d->head.created_ns, date);
  format_number((double)pl->kv_bytes, FMT_BYTES, kv);
  table_text(p, t, "model"), table_printf(p, t, "%s (%s), weights %s", pl->model, pl->family, pl->format);
  table_quality(p, t, pl);
  table_text(p, t, "machine"), table_text(p, t, d->machine != NULL ? machine_title(d->machine) : pl->machine);
  table_text(p, t, "device"), table_text(p, t, pl->gpu);
  for (int i = 0; i < pl->n_devices; i++) {
    char mem[FORMAT_MAX];
    format_number((double)pl->device[i].mem_bytes, FMT_BYTES, mem);
    table_printf(p, t, "device %d", i), table_printf(p, t, "%s, %s, %s", pl->device[i].name, pl->device[i].spec, mem);
  }
  table_text(p, t, "load"), table_printf(p, t, "%d user%s, context %d tokens, prompts of %d and answers of %d tokens", pl->users,
                                         plural(pl->users), pl->context, pl->prompt_tokens, pl->output_tokens);
  table_text(p, t, "KV cache"), table_printf(p, t, "%s, %s, pages of %d tokens, at most %d sequence%s", kv, pl->kv_type,
                                             pl->kv_page_tokens, pl->max_seqs, plural(pl->max_seqs));
  table_text(p, t, "prefill"), table_printf(p, t, "chunks of %d tokens", pl->chunk_tokens);
  table_text(p, t, "threads"), table_printf(p, t, "%d", pl->threads);
  table_text(p, t, "popularity of experts"), table_text(p, t, pl->popularity);
  if (pl->from_run > 0) table_text(p, t, "made from run"), table_printf(p, t, "%lld", (long long)pl->from_run);
  table_text(p, t, "made"), table_text(p, t, date);
  table_text(p, t, "cost model, inputs"), table_printf(p, t, "version %d, %s", pl->cost_model_version, pl->inputs_hash);
  page_table_end(p, t, false);
}

/* ---- placement ---- */

/* Sum of the popularity of the layer's experts on a device, as a share of the layer; NAN when the plan does not tell. */
static double popular_share(const plan *pl, int i, double *pop) {
  const plan_layer *l = &pl->layer[i];
  double on = 0, all = 0;
  if (!l->moe || !plan_popularity(pl, i, pop)) return NAN;
  for (int e = 0; e < l->n_experts; e++) {
    all += pop[e];
    if (l->device[e] >= 0) on += pop[e];
  }
  return all > 0 ? on / all : NAN;
}

static void table_layers(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"layer", "Layer", FMT_INT},
                                 {"experts_on_device", "Experts on device", FMT_INT},
                                 {"experts", "of", FMT_INT},
                                 {"choices_on_device", "Share of choices", FMT_SHARE},
                                 {"binding", "Binds", FMT_TEXT},
                                 {"layer_ns", "Layer", FMT_NS},
                                 {"attn_ns", "Attention", FMT_NS},
                                 {"shared_ns", "Shared, dense", FMT_NS},
                                 {"dexp_ns", "Device experts", FMT_NS},
                                 {"cexp_ns", "CPU experts", FMT_NS},
                                 {"hand_ns", "Hand-over", FMT_NS}};
  char name[SECTION_ID_MAX];
  double *pop = NULL;
  page_failed(p, hf_alloc(&pop, PLAN_MAX_EXPERTS, sizeof *pop, "popularity"));
  if (pop == NULL) return;
  rep_table *t =
      PAGE_TABLE(p, section_id(name, id, "layers"), cols,
                 "Layers of plan %lld: placement, what binds, expected times of a micro-batch in decode", (long long)pl->id);
  for (int i = 0; i < pl->n_layers; i++) {
    const plan_layer *l = &pl->layer[i];
    int64_t on = 0, all = 0;
    data_placed(pl, l->index, &on, &all);
    table_num(p, t, l->index), table_num(p, t, l->moe ? (double)on : NAN), table_num(p, t, l->moe ? (double)all : NAN);
    table_num(p, t, popular_share(pl, i, pop)), table_key(p, t, l->binding), table_num(p, t, l->layer_ns),
        table_num(p, t, l->attn_ns);
    table_num(p, t, l->shared_ns), table_num(p, t, l->dexp_ns), table_num(p, t, l->cexp_ns), table_num(p, t, l->hand_ns);
  }
  free(pop);
  page_table_end(p, t, true);
}

void part_placement(page *p, const char *id, const plan *pl, const plan *old) {
  char name[SECTION_ID_MAX], on_text[FORMAT_MAX], all_text[FORMAT_MAX];
  int64_t on = 0, all = 0;
  data_placed(pl, -1, &on, &all);
  format_number((double)on, FMT_INT, on_text);
  format_number((double)all, FMT_INT, all_text);
  if (all > 0) {
    page_heading(p, "Placement");
    page_text(p, "%s of %s routed experts (%.1f %%) live on the device, all others in CPU memory%s. Popularity of experts: %s.",
              on_text, all_text, 100.0 * (double)on / (double)all,
              plan_ranks(pl) > 0 ? ", of this machine or of another that the plan names" : "",
              pl->popularity[0] ? pl->popularity : "not stated");
    draw_map(p, section_id(name, id, "map"), pl, old);
  }
  table_layers(p, id, pl);
}

/* ---- alternatives ---- */

/* "all-cpu" is nearly the name of something else: what is left without the device. */
static const char *baseline_name(const char *name) {
  return name != NULL && strcmp(name, "all-cpu") == 0 ? "all experts on the CPU" : name;
}

/* What the search is worth: every figure here is of a step, so the plan's own is said a third way, which the note tells from the other two. */
static void table_baselines(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"placement", "Placement", FMT_TEXT},
                                 {"depth", "Depth", FMT_INT},
                                 {"decode_tok_per_s", "Tokens/s by the step alone", FMT_TOK_S},
                                 {"step_ns", "Step", FMT_NS},
                                 {"slower_by", "Longer step", FMT_SIGNED}};
  const json *list = json_get(pl->extra, "baselines");
  char name[SECTION_ID_MAX], step[FORMAT_MAX], decode[FORMAT_MAX], wall[FORMAT_MAX];
  bool prompts = json_number(json_get(json_get(json_get(pl->extra, "inputs"), "prefill"), "weight"), 0) > 0;
  double own = pl->ilp.objective_ns > 0 && !prompts ? 1e9 * pl->users / pl->ilp.objective_ns : NAN,
         delivered = json_number(json_get(json_get(pl->extra, "sustained"), "tok_per_s"), NAN);
  if (json_len(list) == 0) return;
  rep_table *t =
      PAGE_TABLE(p, section_id(name, id, "baselines"), cols,
                 prompts ? "What the search is worth here: simpler placements, by decode step and prompts together"
                         : "What the search is worth here: simpler placements, by the decode step of the same cost model");
  table_shown(p, t, "this plan", "this plan"), table_num(p, t, pl->depth);
  table_num(p, t, own), table_num(p, t, pl->ilp.objective_ns), table_num(p, t, 0);
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    const char *key = json_string(json_get(o, "name"));
    table_shown(p, t, key != NULL ? key : "", "%s", key != NULL ? baseline_name(key) : "–");
    table_num(p, t, json_number(json_get(o, "depth"), NAN));
    table_num(p, t, json_number(json_get(o, "decode_tok_per_s"), NAN)),
        table_num(p, t, json_number(json_get(o, "objective_ns"), NAN));
    table_num(p, t, json_number(json_get(o, "slower_by"), NAN));
  }
  page_table_end(p, t, false);
  format_number(own, FMT_TOK_S, step);
  format_number(pl->decode_tok_per_s.likely, FMT_TOK_S, decode);
  format_number(delivered, FMT_TOK_S, wall);
  if (isfinite(delivered) && !prompts)
    page_note(p,
              "Three figures of one plan: %s tokens/s by the step alone, which is what placements are compared by; %s simulated, "
              "micro-batches "
              "waiting for one another; %s delivered, with prompts and waiting. With all experts on the CPU the device still has "
              "attention, "
              "shared experts and the KV cache; that is not what is left when the device is lost.",
              step, decode, wall);
}

/* "pruned" speaks of the step alone; what counts is whether the depth was simulated. */
static const char *depth_state(const char *state, bool tried, bool chosen) {
  if (chosen) return "chosen";
  if (tried) return "simulated, not taken";
  return strcmp(state, "pruned") == 0 || strcmp(state, "solved") == 0 ? "step too long, not simulated" : state;
}

static void table_depths(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"depth", "Depth", FMT_INT},
                                 {"state", "Result", FMT_TEXT},
                                 {"delivered_tok_per_s", "Tokens/s delivered", FMT_TOK_S},
                                 {"objective_ns", "Step", FMT_NS},
                                 {"bound_ns", "Proven bound", FMT_NS}};
  const json *list = json_get(pl->extra, "by_depth");
  char name[SECTION_ID_MAX];
  bool simulated = false;
  if (json_len(list) == 0) return;
  rep_table *t =
      PAGE_TABLE(p, section_id(name, id, "depths"), cols, "Pipeline depths tried: delivered tokens/s decide, not the step alone");
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    double depth = json_number(json_get(o, "depth"), NAN), rate = json_number(json_get(o, "delivered_tok_per_s"), NAN);
    const char *state = json_string(json_get(o, "state"));
    bool tried = rate > 0 || json_get(o, "decode_tok_per_s") != NULL; /* a plan of an earlier version was chosen by decode */
    table_num(p, t, depth),
        table_shown(p, t, state != NULL ? state : "", "%s", depth_state(state != NULL ? state : "", tried, depth == pl->depth));
    table_num(p, t, rate), table_num(p, t, json_number(json_get(o, "objective_ns"), NAN));
    table_num(p, t, json_number(json_get(o, "bound_ns"), NAN));
    simulated = simulated || tried;
  }
  page_table_end(p, t, false);
  if (json_len(list) > 1 && simulated)
    page_note(p, "Micro-batches in different layers overlap, which the step does not show, so each depth that could win is "
                 "simulated. A deeper pipeline is taken only if it promises a clear gain, more than a few per cent.");
}

/* What more of something would give: by the multiplier of the memory, or by solving again. */
static void table_advice(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"what", "What", FMT_TEXT},
                                 {"change", "Change", FMT_TEXT},
                                 {"gain_tok_per_s", "Gain by the step, tokens/s", FMT_NUM},
                                 {"noise_tok_per_s", "sure to", FMT_NUM},
                                 {"decode_tok_per_s", "Tokens/s of the step with it", FMT_TOK_S},
                                 {"price", "Price", FMT_INT},
                                 {"price_per_delivered_tok_per_s", "Price of a delivered token/s", FMT_INT},
                                 {"price_per_tok_per_s", "of one while all decode", FMT_INT},
                                 {"method", "By", FMT_TEXT}};
  const json *list = json_get(json_get(pl->extra, "advice"), "values");
  char name[SECTION_ID_MAX];
  if (json_type(list) != JSON_ARRAY || json_len(list) == 0) return;
  rep_table *t =
      PAGE_TABLE(p, section_id(name, id, "advice"), cols, "What a little more of one thing would be worth, each alone");
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) {
      const json *v = json_get(o, cols[i].key);
      if (cols[i].format == FMT_TEXT) table_text(p, t, json_string(v) != NULL ? json_string(v) : "–");
      else table_num(p, t, json_number(v, NAN));
    }
  }
  page_table_end(p, t, false);
}

static double member(const json *o, const char *of, const char *key) {
  return json_number(json_get(json_get(o, of), key), NAN);
}

static const char *text_or_dash(const json *o, const char *key) {
  const char *text = json_string(json_get(o, key));
  return text != NULL ? text : "–";
}

/* The same changes in money: what the tokens they add would cost elsewhere, beside what the part asks. */
static void table_worth(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"what", "What", FMT_TEXT},
                                 {"change", "Change", FMT_TEXT},
                                 {"output_tok_per_s", "Delivered, tokens/s more", FMT_NUM},
                                 {"per_month_low", "Worth a month: low", FMT_NUM},
                                 {"per_month", "Worth a month: likely", FMT_NUM},
                                 {"per_month_high", "Worth a month: high", FMT_NUM},
                                 {"over_depreciation", "Worth over the years of use", FMT_NUM},
                                 {"part", "Part that brings it", FMT_TEXT},
                                 {"part_price", "Price of the part, more than now", FMT_NUM},
                                 {"per_change", "Price of this much of it", FMT_NUM},
                                 {"currency", "Currency", FMT_TEXT}};
  const json *advice = json_get(pl->extra, "advice"), *list = json_get(advice, "values");
  const char *note = json_string(json_get(advice, "worth_note"));
  char name[SECTION_ID_MAX];
  bool any = false;
  for (const json *o = json_first(list); o != NULL; o = json_next(o))
    any = any || json_type(json_get(o, "worth")) == JSON_OBJECT || json_type(json_get(o, "cost")) == JSON_OBJECT;
  if (!any) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "worth"), cols,
                            "The same in money: what each change is worth at most, and what the part asks");
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    const json *worth = json_get(o, "worth"), *cost = json_get(o, "cost"), *month = json_get(worth, "per_month");
    if (json_type(worth) != JSON_OBJECT && json_type(cost) != JSON_OBJECT) continue;
    table_text(p, t, text_or_dash(o, "what")), table_text(p, t, text_or_dash(o, "change"));
    table_num(p, t, json_number(json_get(worth, "output_tok_per_s"), NAN));
    table_num(p, t, json_number(json_get(month, "low"), NAN)), table_num(p, t, json_number(json_get(month, "likely"), NAN));
    table_num(p, t, json_number(json_get(month, "high"), NAN));
    table_num(p, t, member(worth, "over_depreciation", "likely"));
    table_text(p, t, text_or_dash(cost, "part"));
    table_num(p, t, member(cost, "price", "likely")), table_num(p, t, json_number(json_get(cost, "per_change"), NAN));
    table_text(p, t, text_or_dash(json_type(worth) == JSON_OBJECT ? worth : cost, "currency"));
  }
  page_table_end(p, t, false);
  if (note != NULL) page_note(p, "Worth: %s.", note);
}

static void table_worth_rests_on(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"words", "Input", FMT_TEXT},  {"low", "Low", FMT_NUM},  {"likely", "Likely", FMT_NUM},
                                 {"high", "High", FMT_NUM},     {"unit", NULL, FMT_TEXT}, {"tag", "Tag", FMT_TEXT},
                                 {"source", "Source", FMT_TEXT}};
  const json *list = json_get(json_get(pl->extra, "advice"), "assumptions");
  char name[SECTION_ID_MAX];
  if (json_type(list) != JSON_ARRAY || json_len(list) == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "worth-inputs"), cols, "What that worth rests on");
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) {
      if (cols[i].format == FMT_TEXT) table_text(p, t, text_or_dash(o, cols[i].key));
      else table_num(p, t, json_number(json_get(o, cols[i].key), NAN));
    }
  }
  page_table_end(p, t, true);
}

/* What is delivered without the first device. */
static void say_lost(page *p, const plan *pl) {
  const json *lost = json_get(pl->extra, "fallback"), *load = json_get(lost, "sustained");
  char wall[FORMAT_MAX], now[FORMAT_MAX], ttft[FORMAT_MAX], tpot[FORMAT_MAX], decode[FORMAT_MAX];
  const char *device = json_string(json_get(lost, "lost")), *why = json_string(json_get(lost, "why_not"));
  if (why != NULL) page_text(p, "With %s lost nothing runs: %s.", device != NULL ? device : "the device", why);
  format_number(json_number(json_get(load, "tok_per_s"), NAN), FMT_TOK_S, wall);
  format_number(json_number(json_get(json_get(pl->extra, "sustained"), "tok_per_s"), NAN), FMT_TOK_S, now);
  format_number(member(load, "ttft_s", "p95"), FMT_SECONDS, ttft);
  format_number(member(load, "tpot_s", "p95"), FMT_SECONDS, tpot);
  format_number(json_number(json_get(lost, "decode_tok_per_s"), NAN), FMT_TOK_S, decode);
  if (load != NULL)
    page_text(p,
              "With %s lost, %s tokens/s are delivered instead of %s, the first token within %s and each further one within %s "
              "for 95 %% of "
              "requests (decode: %s tokens/s); %s.",
              device != NULL ? device : "the device", wall, now, ttft, tpot, decode, text_or_dash(lost, "placement"));
  else if (why == NULL && isfinite(json_number(json_get(lost, "decode_tok_per_s"), NAN))) /* a plan of an earlier version */
    page_text(p, "With the device lost, the CPU alone would decode %s tokens/s.", decode);
}

void part_alternatives(page *p, const char *id, const plan *pl) {
  const json *advice = json_get(pl->extra, "advice"), *sim = json_get(pl->extra, "simulation");
  const char *placement = json_string(json_get(advice, "placement")),
             *certificate = json_string(json_get(pl->extra, "certificate"));
  double per_gib = json_number(json_get(advice, "device_memory_tok_per_s_per_gib"), NAN);
  double device_busy = json_number(json_get(sim, "device_busy"), NAN), cpu_busy = json_number(json_get(sim, "cpu_busy"), NAN);
  char v[FORMAT_MAX], w[FORMAT_MAX];
  if (json_len(json_get(pl->extra, "baselines")) + json_len(json_get(pl->extra, "by_depth")) > 0)
    page_heading(p, "What else was possible");
  table_baselines(p, id, pl);
  if (placement != NULL) page_text(p, "Advice: %s.", placement);
  bool small = pl->n_devices > 0 && pl->device[0].mem_bytes < 1 << 30;
  format_number(small ? per_gib / 1024 : per_gib, FMT_TOK_S, v);
  if (isfinite(per_gib)) page_text(p, "One more %s on the device is worth about %s tokens/s.", small ? "MiB" : "GiB", v);
  say_lost(p, pl);
  format_number(device_busy, FMT_SHARE, v);
  format_number(cpu_busy, FMT_SHARE, w);
  if (isfinite(device_busy) && isfinite(cpu_busy))
    page_text(p, "In the simulation the device is busy %s of the time, the CPU %s.", v, w);
  table_advice(p, id, pl);
  table_worth(p, id, pl);
  table_worth_rests_on(p, id, pl);
  table_depths(p, id, pl);
  if (certificate != NULL && certificate[0]) page_note(p, "Certificate of the bound: %s.", certificate);
}

/* Every figure of the machine that the cost model read, with its interval and source. */
static void table_used_figures(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"name", "Figure", FMT_TEXT},  {"device", "Device", FMT_TEXT}, {"low", "Low", FMT_NUM},
                                 {"likely", "Likely", FMT_NUM}, {"high", "High", FMT_NUM},      {"unit", NULL, FMT_TEXT},
                                 {"tag", "Tag", FMT_TEXT},      {"source", "Source", FMT_TEXT}};
  const json *list = json_get(pl->extra, "figures");
  char name[SECTION_ID_MAX];
  if (json_type(list) != JSON_ARRAY || json_len(list) == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "used-figures"), cols, "Figures that the prediction of plan %lld stands on",
                            (long long)pl->id);
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    const char *key = json_string(json_get(o, "name")), *unit = json_string(json_get(o, "unit"));
    table_key(p, t, key != NULL ? key : "");
    table_text(p, t, json_string(json_get(o, "device")));
    for (int i = 2; i < 5; i++)
      table_as(p, t, json_number(json_get(o, cols[i].key), NAN), format_of_unit(unit != NULL ? unit : ""));
    for (int i = 5; i < 8; i++) table_text(p, t, json_string(json_get(o, cols[i].key)));
  }
  page_table_end(p, t, true);
}

/* Price and power, where the rows of the machine say them. */
static void table_hardware(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"what", "What", FMT_TEXT},
                                 {"low", "Low", FMT_NUM},
                                 {"likely", "Likely", FMT_NUM},
                                 {"high", "High", FMT_NUM},
                                 {"tag", "Tag", FMT_TEXT}};
  const json *list = json_get(pl->extra, "hardware");
  char name[SECTION_ID_MAX];
  if (json_type(list) != JSON_OBJECT || json_len(list) == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "hardware"), cols, "What the hardware costs and draws");
  for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
    if (json_type(o) != JSON_OBJECT) continue; /* watts of single resources, for simulate */
    rep_format f = strstr(json_key(o), "usd") != NULL ? FMT_USD : FMT_WATTS;
    table_key(p, t, json_key(o));
    for (int i = 1; i < 4; i++) table_as(p, t, json_number(json_get(o, cols[i].key), NAN), f);
    table_text(p, t, json_string(json_get(o, "tag")));
  }
  page_table_end(p, t, false);
  page_note(p, "What a million tokens cost on it and when it pays back: hf-plan roi --plan %lld, then hf-report roi.",
            (long long)pl->id);
}

void part_budget(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"where", "Where", FMT_TEXT},
                                 {"what", "What", FMT_TEXT},
                                 {"bytes", "Needs", FMT_BYTES},
                                 {"limit_bytes", "Limit of the place", FMT_BYTES}};
  char name[SECTION_ID_MAX];
  if (pl->n_budget == 0) return;
  page_heading(p, "Budget");
  draw_budget(p, pl);
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "budget"), cols, "Budget of plan %lld", (long long)pl->id);
  for (int i = 0; i < pl->n_budget; i++) {
    const plan_budget *b = &pl->budget[i];
    table_text(p, t, b->where), table_text(p, t, b->what), table_num(p, t, (double)b->bytes);
    table_num(p, t, b->limit_bytes > 0 ? (double)b->limit_bytes : NAN);
  }
  page_table_end(p, t, true);
}

static void table_kernels(page *p, const char *id, const plan *pl) {
  static const rep_col cols[] = {{"op", "Operation", FMT_TEXT},
                                 {"format", "Weights", FMT_TEXT},
                                 {"candidate", "Variant", FMT_TEXT},
                                 {"tokens_lo", "From tokens", FMT_INT},
                                 {"tokens_hi", "to", FMT_TEXT}};
  char name[SECTION_ID_MAX];
  if (pl->n_kernels == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "plan-kernels"), cols,
                            "Kernel variants chosen, by operation, format and number of tokens");
  for (int i = 0; i < pl->n_kernels; i++) {
    const plan_kernel *k = &pl->kernel[i];
    table_key(p, t, k->op), table_text(p, t, k->format), table_text(p, t, k->candidate), table_num(p, t, k->tokens_lo);
    if (k->tokens_hi == INT32_MAX) table_text(p, t, "any");
    else table_as(p, t, k->tokens_hi, FMT_INT);
  }
  page_table_end(p, t, true);
}

void source_of_plan(page *p, const data_plan *pl, const char *name) {
  char date[FORMAT_MAX], source[320];
  format_date(pl->head.created_ns, date);
  snprintf(source, sizeof source, "hf-plan, plan %lld of %s, cost model %d, machine %.60s; tag = weakest of its inputs",
           (long long)pl->p->id, date, pl->p->cost_model_version, pl->p->machine);
  page_source(p, pl->p->tag, source, "%s: decode tokens/s with interval, times of tokens (simulated), step, bound", name);
  bool from_run = strncmp(pl->p->popularity, "run ", 4) == 0;
  page_source(p, from_run ? "measured" : "assumed", pl->p->popularity, "%s: popularity of experts", name);
}

void section_plan(page *p, const char *id, const char *title, const data_plan *pl) {
  char name[SECTION_ID_MAX];
  page_section(p, id, "%s: %s on %s", title, pl->p->model, pl->machine != NULL ? machine_title(pl->machine) : pl->p->machine);
  tiles_of_plan(p, pl->p);
  draw_range(p, &pl->p->decode_tok_per_s, NULL, 0);
  table_head(p, id, pl);
  part_placement(p, id, pl->p, NULL);
  part_alternatives(p, id, pl->p);
  part_budget(p, id, pl->p);
  table_kernels(p, id, pl->p);
  table_hardware(p, id, pl->p);
  table_used_figures(p, id, pl->p);
  snprintf(name, sizeof name, "Plan %lld", (long long)pl->p->id);
  source_of_plan(p, pl, name);
}
