#include "planner/ask/whatif.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- columns ---- */

static bool contradicted(const ask_changes *sets, int n, const ask_change *c) {
  for (int i = 0; i < n; i++) {
    const ask_change *x = ask_find_change(&sets[i], c->key);
    if (x != NULL && strcasecmp(x->value, c->value) != 0) return true;
  }
  return false;
}

bool whatif_together(const ask_changes *sets, int n, bool with_lost, ask_changes *out) {
  int contributing = 0, lost = 0;
  size_t used = 0;
  *out = (ask_changes){0};
  for (int i = 0; i < n; i++) {
    bool gave = false;
    for (int k = 0; k < sets[i].n; k++) {
      const ask_change *c = &sets[i].c[k];
      bool is_lost = c->key == ASK_LOST;
      if ((is_lost && !with_lost) || contradicted(sets, n, c) || ask_find_change(out, c->key) != NULL ||
          out->n == ASK_MAX_CHANGES)
        continue;
      out->c[out->n++] = *c;
      lost += is_lost;
      gave = gave || !is_lost;
      if (used < sizeof out->name)
        used += (size_t)snprintf(out->name + used, sizeof out->name - used, "%s%s=%s", used > 0 ? "," : "", ask_key_name(c->key),
                                 c->value);
    }
    contributing += gave;
  }
  if (with_lost) return lost > 0 && contributing >= 1;
  return contributing >= 2;
}

static void add_column(whatif *w, const ask_changes *set, bool together) {
  whatif_column *y = &w->column[w->n++];
  if (set != NULL) y->set = *set;
  y->together = together;
  y->lost = set != NULL && ask_find_change(set, ASK_LOST) != NULL;
  y->c.users_at_slo = -1;
}

hf_status whatif_columns(const ask_changes *sets, int n_sets, const ask_changes *cases, int n_cases, bool together, bool alone,
                         whatif *w) {
  ask_changes all;
  if (n_sets + n_cases > WHATIF_MAX_COLUMNS - 3)
    return hf_fail(HF_INPUT, "options --set, --case: more than %d changes", WHATIF_MAX_COLUMNS - 3);
  HF_TRY(hf_alloc(&w->column, WHATIF_MAX_COLUMNS, sizeof *w->column, "columns"));
  add_column(w, NULL, false);
  for (int i = 0; i < n_sets && !together; i++) add_column(w, &sets[i], false);
  for (int i = 0; i < n_cases; i++) add_column(w, &cases[i], false);
  if (alone) return HF_OK;
  if (together && n_sets == 1) add_column(w, &sets[0], true);
  if (whatif_together(sets, n_sets, false, &all)) add_column(w, &all, true);
  if (whatif_together(sets, n_sets, true, &all)) add_column(w, &all, true);
  if (w->n == 1) return hf_fail(HF_INPUT, "option --together: the changes contradict each other: nothing is left");
  return HF_OK;
}

void whatif_free(whatif *w) {
  for (int i = 0; i < w->n; i++) ask_machine_free(w->column[i].machine);
  free(w->column);
  *w = (whatif){0};
}

/* ---- evaluation ---- */

static hf_status prepare(whatif *w, whatif_column *y, db *d, const ask_machine *base) {
  const ask_command *c = w->command;
  HF_TRY(ask_machine_change(d, base, &y->set, &y->machine));
  y->spec = (ask_case_spec){.machine = y->machine,
                            .req = c->req,
                            .slo = w->slo,
                            .scenario = &c->scenario,
                            .quick = !c->exact,
                            .search_fully = true,
                            .count_users = w->slo_from != NULL};
  HF_TRY(ask_apply(&y->set, y->machine, &y->spec.req));
  snprintf(y->spec.name, sizeof y->spec.name, "%s", y->set.n == 0 ? "base" : y->set.name);
  return HF_OK;
}

/* A column of all together that cannot be is left out with its reason: each change alone is still answered. */
static hf_status prepare_all(whatif *w, db *d, const ask_machine *base) {
  int kept = 1;
  for (int i = 1; i < w->n; i++) {
    whatif_column *y = &w->column[i];
    hf_status st = prepare(w, y, d, base);
    /* a change that speaks for itself is not named twice */
    if (st != HF_OK && strncmp(hf_error_line(), y->set.name, strlen(y->set.name)) != 0) st = hf_note(st, "%s", y->set.name);
    if (st != HF_OK && !(y->together && w->n > 2)) return st;
    if (st != HF_OK) {
      snprintf(w->dropped, sizeof w->dropped, "%.199s", hf_error_line());
      hf_clear_error();
      continue;
    }
    if (kept != i) {
      w->column[kept] = *y;
      y->machine = NULL;
    }
    kept++;
  }
  w->n = kept;
  /* ask_apply_load leaves pointers into the set it was given: those of columns that moved are set again. */
  for (int i = 1; i < w->n; i++) ask_apply_load(&w->column[i].set, &w->column[i].spec.req);
  return HF_OK;
}

/* Without an SLO of the asker, a loss is measured by what the base gives its users now. */
static void choose_slo(whatif *w, const ask_case *base) {
  bool asked = w->command->slo.tpot_s > 0 || w->command->slo.ttft_s > 0, lost = false;
  for (int i = 0; i < w->n; i++) lost = lost || w->column[i].lost;
  w->slo = w->command->slo;
  if (asked) w->slo_from = "asked";
  if (asked || !lost || !base->feasible) return;
  w->slo_from = "base";
  w->slo.tpot_s = base->tpot_s.p95;
  w->slo.ttft_s = base->ttft_s.p95;
}

/* Other modules that read no faster: what keeps them back is the cause. */
static void name_limit(const ask_case *base, whatif_column *y) {
  const char *limit = ask_machine_facts_of(y->machine)->memory_limit;
  double from = base->dram_bytes_per_s, to = y->c.dram_bytes_per_s;
  if (limit[0] == '\0' || !base->feasible || !y->c.feasible || fabs(to / from - 1) > 2e-3) return;
  if (y->n_causes == 1 && y->cause[0].weight == 0) y->n_causes = 0; /* "what changed does not bind" */
  if (y->n_causes == ASK_MAX_CAUSES) y->n_causes--;
  memmove(&y->cause[1], y->cause, (size_t)y->n_causes * sizeof *y->cause);
  y->cause[0] = (ask_cause){.what = "dram_bandwidth", .unit = "B/s", .from = from, .to = to};
  snprintf(y->cause[0].text, sizeof y->cause[0].text, "DRAM bandwidth stays at %.4g GB/s: %s", to / 1e9, limit);
  y->n_causes++;
}

hf_status whatif_evaluate(whatif *w, db *d, const ask_machine *base) {
  ask_case_spec *specs = NULL;
  ask_case *cases = NULL;
  hf_status st = HF_OK;
  HF_TRY(prepare(w, &w->column[0], d, base));
  HF_TRY(ask_evaluate(&w->column[0].spec, &w->column[0].c));
  choose_slo(w, &w->column[0].c);
  w->column[0].spec.slo = w->slo;
  w->column[0].spec.count_users = w->slo_from != NULL;
  HF_TRY(prepare_all(w, d, base));
  HF_GO(done, hf_alloc(&specs, (size_t)w->n, sizeof *specs, "cases"));
  HF_GO(done, hf_alloc(&cases, (size_t)w->n, sizeof *cases, "cases"));
  for (int i = 0; i < w->n; i++) specs[i] = w->column[i].spec;
  HF_GO(done, ask_evaluate_all(specs, w->n, (int)w->command->jobs, NULL, NULL, cases));
  for (int i = 0; i < w->n; i++) {
    whatif_column *y = &w->column[i];
    y->c = cases[i];
    if (i > 0) y->n_causes = ask_causes(&w->column[0].c, &y->c, y->cause);
    if (i > 0) name_limit(&w->column[0].c, y);
  }
done:
  free(specs);
  free(cases);
  return st;
}

/* ---- verdict ---- */

static bool is_purchase(const whatif_column *y) {
  if (y->lost || y->together || !y->c.feasible) return false;
  for (int i = 0; i < y->set.n; i++)
    if (y->set.c[i].key >= ASK_N_MACHINE_KEYS) return false;
  return y->set.n > 0;
}

static void against_base(const whatif *w, const whatif_column *y, char *out, size_t n) {
  const ask_case *b = &w->column[0].c, *c = &y->c;
  char change[24], money[24];
  ask_change_text(c->tok_per_s_wall / b->tok_per_s_wall, change);
  int used = snprintf(out, n, "%s: %.1f tokens/s (%s", y->set.name, c->tok_per_s_wall, change);
  if (b->has_price && c->has_price && fabs(c->price.likely - b->price.likely) >= 1 && used > 0 && (size_t)used < n) {
    double more = c->price.likely - b->price.likely;
    ask_money(fabs(more), money);
    used += snprintf(out + used, n - (size_t)used, ", %s USD %s", money, more > 0 ? "more" : "less");
  }
  if ((size_t)used < n) used += snprintf(out + used, n - (size_t)used, ")");
  if (y->lost && c->users_at_slo >= 0 && (size_t)used < n)
    snprintf(out + used, n - (size_t)used, ", %lld user%s still served %s", (long long)c->users_at_slo,
             c->users_at_slo == 1 ? "" : "s",
             strcmp(w->slo_from, "asked") == 0 ? "within the SLO" : "as well as the base serves its own");
}

void whatif_verdict(const whatif *w, char *out, size_t n) {
  const ask_case *b = &w->column[0].c;
  const whatif_column *best = NULL, *lost = NULL, *all = NULL, *other = NULL;
  static const double SAME = 5e-4; /* prints as "same" */
  char text[200];
  size_t used = 0;
  int n_purchases = 0;
  for (int i = 1; i < w->n; i++) {
    const whatif_column *y = &w->column[i];
    n_purchases += is_purchase(y);
    if (is_purchase(y) && (best == NULL || y->c.tok_per_s_wall > best->c.tok_per_s_wall)) best = y;
    if (y->lost && lost == NULL) lost = y;
    if (y->together && !y->lost) all = y;
    if (!is_purchase(y) && !y->lost && !y->together && other == NULL) other = y;
  }
  if (!b->feasible) used = (size_t)snprintf(out, n, "The base does not fit: %.200s.", b->why_not);
  else {
    char ttft[24], tpot[24];
    ask_seconds(b->ttft_s.p95, ttft);
    ask_seconds(b->tpot_s.p95, tpot);
    used = (size_t)snprintf(
        out, n, "Base: %.1f tokens/s delivered, first token within %s, each further one within %s (95 %% of requests).",
        b->tok_per_s_wall, ttft, tpot);
  }
  const whatif_column *say[4] = {best, other, all, lost};
  const char *words[4] = {"Of single changes of the machine the most is ", "", "All together, ", "If it fails, "};
  double gain = best != NULL && b->feasible ? best->c.tok_per_s_wall / b->tok_per_s_wall - 1 : 1;
  if (gain < SAME)
    words[0] = n_purchases == 1 ? "That change of the machine does not help: "
               : gain > -SAME   ? "No single change of the machine helps; at best it stays as it is: "
                                : "No single change of the machine helps; the least is lost with ";
  for (int i = 0; i < 4; i++) {
    if (say[i] == NULL || used >= n) continue;
    if (!say[i]->c.feasible) snprintf(text, sizeof text, "%.80s: does not fit", say[i]->set.name);
    else if (b->feasible) against_base(w, say[i], text, sizeof text);
    else snprintf(text, sizeof text, "%.80s: %.1f tokens/s", say[i]->set.name, say[i]->c.tok_per_s_wall);
    used += (size_t)snprintf(out + used, n - used, " %s%s.", words[i], text);
  }
}

/* ---- JSON ---- */

static void add_ratio(json *o, const char *key, double from, double to) {
  if (from > 0 && to > 0) json_add_num(o, key, to / from - 1);
}

static void add_change(const ask_case *b, const ask_case *c, json *o) {
  if (!b->feasible || !c->feasible) return;
  json *x = json_add_object(o, "change");
  add_ratio(x, "tok_per_s_wall", b->tok_per_s_wall, c->tok_per_s_wall);
  add_ratio(x, "decode_tok_per_s", b->decode_tok_per_s.likely, c->decode_tok_per_s.likely);
  add_ratio(x, "tpot_p95", b->tpot_s.p95, c->tpot_s.p95);
  add_ratio(x, "ttft_p95", b->ttft_s.p95, c->ttft_s.p95);
  add_ratio(x, "joule_per_token", b->joule_per_token, c->joule_per_token);
  if (b->has_cost && c->has_cost) add_ratio(x, "cost_per_million_tokens", b->cost.likely, c->cost.likely);
  if (b->has_price && c->has_price) json_add_num(x, "price", c->price.likely - b->price.likely);
}

static void add_column_json(const whatif *w, const whatif_column *y, json *list) {
  json *o = json_add_object(list, NULL);
  ask_case_to_json(&y->c, o);
  json *set = json_add_object(o, "set");
  for (int i = 0; i < y->set.n; i++) json_add_str(set, ask_key_name(y->set.c[i].key), y->set.c[i].value);
  json_add_bool(o, "together", y->together);
  add_change(&w->column[0].c, &y->c, o);
  json *causes = json_add_array(o, "causes");
  for (int i = 0; i < y->n_causes; i++) {
    json *x = json_add_object(causes, NULL);
    json_add_str(x, "text", y->cause[i].text);
    json_add_str(x, "what", y->cause[i].what);
    json_add_num(x, "from", y->cause[i].from);
    json_add_num(x, "to", y->cause[i].to);
    json_add_str(x, "unit", y->cause[i].unit);
  }
  const ask_machine_facts *f = ask_machine_facts_of(y->machine);
  json *notes = json_add_array(o, "notes");
  for (int i = 0; i < f->n_notes; i++) json_add_str(notes, NULL, f->note[i]);
}

static bool any_gpu(const whatif *w) {
  bool any = false;
  for (int i = 0; i < w->n; i++) any = any || (w->column[i].c.gpus[0] != '\0' && strcmp(w->column[i].c.gpus, "none") != 0);
  return any;
}

hf_status whatif_to_json(const whatif *w, json *doc) {
  const ask_case *b = &w->column[0].c;
  json *q = json_add_object(doc, "question");
  json_add_str(q, "model", b->model);
  json_add_str(q, "machine", b->machine);
  json_add_str(q, "format", b->format);
  plan_quality_json(&w->quality, q);
  json_add_int(q, "users", b->users);
  json_add_int(q, "context", b->context);
  ask_add_slo(q, &w->slo, w->slo_from != NULL ? w->slo_from : "asked");
  ask_case_to_json(b, json_add_object(doc, "base"));
  json *list = json_add_array(doc, "cases");
  for (int i = 1; i < w->n; i++) add_column_json(w, &w->column[i], list);
  if (w->dropped[0] != '\0') json_add_str(doc, "together_left_out", w->dropped);
  for (int i = 0; i < w->n; i++) {
    const ask_machine_facts *f = ask_machine_facts_of(w->column[i].machine);
    for (int k = 0; k < f->n_notes; k++)
      if (i == 0 || !w->column[i].together) ask_add_assumption(doc, f->note[k], "assumed", w->column[i].c.name);
  }
  ask_add_load(doc);
  ask_add_engine_note(doc, any_gpu(w));
  ask_add_assumption(doc, "Popularity of experts is uniform unless the question says otherwise.", "assumed", "hf-plan");
  return HF_OK;
}

hf_status whatif_csv(const whatif *w, hf_buf *b) {
  HF_TRY(ask_csv_case_header(b));
  for (int i = 0; i < w->n; i++) HF_TRY(ask_csv_case(b, &w->column[i].c));
  return HF_OK;
}

/* ---- text ---- */

static hf_status text_row(const whatif *w, const whatif_column *y, int name_width, hf_buf *b) {
  const ask_case *base = &w->column[0].c, *c = &y->c;
  char change[24] = "", ttft[24], tpot[24], price[24] = "-", joule[24] = "-", cost[24] = "-", served[24] = "-";
  int shown = (int)strlen(c->name);
  const char *name = c->name;
  HF_TRY(hf_buf_printf(b, "  %.*s%*s", shown > name_width ? name_width : shown, name, shown > name_width ? 0 : name_width - shown,
                       ""));
  if (!c->feasible) return hf_buf_printf(b, "  does not fit\n");
  if (y != w->column && base->feasible) ask_change_text(c->tok_per_s_wall / base->tok_per_s_wall, change);
  ask_seconds(c->ttft_s.p95, ttft);
  ask_seconds(c->tpot_s.p95, tpot);
  if (c->has_price) ask_money(c->price.likely, price);
  if (c->joule_per_token > 0) snprintf(joule, sizeof joule, "%.1f", c->joule_per_token);
  if (c->has_cost) snprintf(cost, sizeof cost, "%.2f", c->cost.likely);
  if (c->users_at_slo >= 0) snprintf(served, sizeof served, "%lld", (long long)c->users_at_slo);
  HF_TRY(hf_buf_printf(b, " %5lld %9.1f %8s %9s %9s %8.1f %6.1f-%-6.1f %9s %7s", (long long)c->users, c->tok_per_s_wall, change,
                       ttft, tpot, c->decode_tok_per_s.likely, c->decode_tok_per_s.low, c->decode_tok_per_s.high, price, joule));
  if (base->has_cost) HF_TRY(hf_buf_printf(b, " %12s", cost));
  if (w->slo_from != NULL) HF_TRY(hf_buf_printf(b, " %6s", served));
  return hf_buf_printf(b, "  %s\n", c->binding);
}

static hf_status text_causes(const whatif *w, hf_buf *b) {
  HF_TRY(hf_buf_printf(b, "\nWhy\n"));
  for (int i = 1; i < w->n; i++) {
    const whatif_column *y = &w->column[i];
    HF_TRY(hf_buf_printf(b, "  %s\n", y->c.name));
    for (int k = 0; k < y->n_causes && k < 4; k++) HF_TRY(hf_buf_printf(b, "    %s\n", y->cause[k].text));
    for (int k = 0; k < y->c.n_possible && k < 3; k++) HF_TRY(hf_buf_printf(b, "    possible: %s\n", y->c.possible[k]));
  }
  return HF_OK;
}

hf_status whatif_text(const whatif *w, hf_buf *b) {
  const ask_case *base = &w->column[0].c;
  char verdict[900], context[24], s[2][24], loss[PLAN_LOSS_TEXT];
  int width = 10;
  bool same_users = true, same_lengths = true;
  for (int i = 0; i < w->n; i++) {
    const ask_case *c = &w->column[i].c;
    int n = (int)strlen(c->name);
    if (n > width) width = n;
    if (!c->feasible) continue;
    same_users = same_users && c->users == base->users;
    same_lengths = same_lengths && c->prompt_tokens == base->prompt_tokens && c->output_tokens == base->output_tokens;
  }
  if (width > 44) width = 44;
  whatif_verdict(w, verdict, sizeof verdict);
  ask_tokens(base->context, context);
  plan_quality_text(&w->quality, loss);
  HF_TRY(hf_buf_printf(b, "%s\n\n%s (%s%s) on %s, %lld user%s, context %s (prompt %lld, answer %lld)\n\n", verdict, base->model,
                       base->format, loss, base->machine, (long long)base->users, base->users == 1 ? "" : "s", context,
                       (long long)base->prompt_tokens, (long long)base->output_tokens));
  HF_TRY(hf_buf_printf(b, "  %*s %5s %9s %8s %9s %9s %8s %13s %9s %7s", -width, "", "users", "delivered", "change", "TTFT p95",
                       "TPOT p95", "decode", "low-high", "price USD", "J/token"));
  if (base->has_cost) HF_TRY(hf_buf_printf(b, " %12s", "USD/M in+out"));
  if (w->slo_from != NULL) HF_TRY(hf_buf_printf(b, " %6s", "served"));
  HF_TRY(hf_buf_printf(b, "  binding\n"));
  for (int i = 0; i < w->n; i++) HF_TRY(text_row(w, &w->column[i], width, b));
  if (w->slo_from != NULL) {
    ask_seconds(w->slo.ttft_s, s[0]);
    ask_seconds(w->slo.tpot_s, s[1]);
    HF_TRY(hf_buf_printf(b, "\n  served: most users at once whose p95 stays within%s%s%s%s%s\n",
                         w->slo.ttft_s > 0 ? " TTFT " : "", w->slo.ttft_s > 0 ? s[0] : "", w->slo.tpot_s > 0 ? " TPOT " : "",
                         w->slo.tpot_s > 0 ? s[1] : "",
                         strcmp(w->slo_from, "base") == 0 ? ", which is what the base gives its own" : ""));
  }
  HF_TRY(text_causes(w, b));
  if (w->dropped[0] != '\0') HF_TRY(hf_buf_printf(b, "\nAll together is left out: %s\n", w->dropped));
  bool any = false;
  for (int i = 0; i < w->n; i++) {
    const ask_machine_facts *f = ask_machine_facts_of(w->column[i].machine);
    if (w->column[i].together) continue;
    for (int k = 0; k < f->n_notes; k++) {
      HF_TRY(hf_buf_printf(b, "%s  %s: %s\n", any ? "" : "\nAssumed\n", w->column[i].c.name, f->note[k]));
      any = true;
    }
  }
  HF_TRY(ask_load_text_rows(base, same_users, same_lengths, b));
  return any_gpu(w) ? hf_buf_printf(b, "%s\n", ASK_ENGINE_NOTE) : HF_OK;
}
