#include "planner/ask/sweep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* ---- knee ---- */

sweep_knee sweep_find_knee(const double *users, const double *rate, const bool *ok, const bool *meets, int n, double gain) {
  sweep_knee none = {-1, KNEE_NONE};
  if (n == 0 || !ok[0]) return none;
  if (meets != NULL && !meets[0]) return (sweep_knee){-1, KNEE_SLO};
  double first = rate[0] / users[0];
  for (int i = 1; i < n; i++) {
    if (!ok[i]) return (sweep_knee){i - 1, KNEE_NONE};
    if (meets != NULL && !meets[i]) return (sweep_knee){i - 1, KNEE_SLO};
    if ((rate[i] - rate[i - 1]) / (users[i] - users[i - 1]) < gain * first) return (sweep_knee){i - 1, KNEE_GAIN};
  }
  return (sweep_knee){n - 1, KNEE_NONE};
}

static bool has_slo(const sweep *w) {
  return w->command->slo.tpot_s > 0 || w->command->slo.ttft_s > 0 || w->command->slo.tok_per_s > 0;
}

static void find_knees(sweep *w) {
  int n = w->axis[0].n;
  double users[ASK_MAX_POINTS], rate[ASK_MAX_POINTS];
  bool ok[ASK_MAX_POINTS], meets[ASK_MAX_POINTS];
  w->has_knees = w->axis[0].key == ASK_USERS;
  for (int i = 1; i < n && w->has_knees; i++) w->has_knees = w->axis[0].point[i].number > w->axis[0].point[i - 1].number;
  for (int j = 0; j < w->axis[1].n && w->has_knees; j++) {
    for (int i = 0; i < n; i++) {
      const ask_case *c = &w->c[j * n + i];
      users[i] = (double)c->users;
      rate[i] = c->tok_per_s_wall;
      ok[i] = c->feasible;
      meets[i] = ask_meets(c, &w->command->slo, NULL);
    }
    w->knee[j] = sweep_find_knee(users, rate, ok, has_slo(w) ? meets : NULL, n, w->knee_gain);
  }
}

/* ---- cells ---- */

void sweep_free(sweep *w) {
  int n = w->axis[0].n * w->axis[1].n;
  for (int i = 0; w->machine != NULL && i < n; i++) ask_machine_free(w->machine[i]);
  free(w->machine);
  free(w->set);
  free(w->spec);
  free(w->c);
  w->machine = NULL;
  w->set = NULL;
  w->spec = NULL;
  w->c = NULL;
}

static hf_status prepare_cell(sweep *w, int k, db *d, const ask_machine *base) {
  ask_changes *set = &w->set[k];
  const ask_change *x = &w->axis[0].point[k % w->axis[0].n], *y = &w->axis[1].point[k / w->axis[0].n];
  ask_case_spec *s = &w->spec[k];
  *set = (ask_changes){.n = 2, .c = {*x, *y}};
  snprintf(set->name, sizeof set->name, "%.12s=%.24s, %.12s=%.24s", ask_key_name(x->key), x->value, ask_key_name(y->key),
           y->value);
  *s = (ask_case_spec){.machine = base,
                       .req = w->command->req,
                       .slo = w->command->slo,
                       .scenario = &w->command->scenario,
                       .quick = !w->command->exact};
  snprintf(s->name, sizeof s->name, "%s", set->name);
  if (ask_changes_machine(set)) {
    HF_TRY(hf_note(ask_machine_change(d, base, set, &w->machine[k]), "%s", set->name));
    s->machine = w->machine[k];
  }
  return ask_apply(set, s->machine, &s->req);
}

hf_status sweep_prepare(sweep *w, db *d, const ask_machine *base) {
  size_t n = (size_t)w->axis[0].n * (size_t)w->axis[1].n;
  if (w->axis[0].key == w->axis[1].key)
    return hf_fail(HF_INPUT, "option --axis: %s is on both axes", ask_key_name(w->axis[0].key));
  HF_TRY(hf_alloc(&w->machine, n, sizeof *w->machine, "cells of a sweep"));
  HF_TRY(hf_alloc(&w->set, n, sizeof *w->set, "cells of a sweep"));
  HF_TRY(hf_alloc(&w->spec, n, sizeof *w->spec, "cells of a sweep"));
  HF_TRY(hf_alloc(&w->c, n, sizeof *w->c, "cells of a sweep"));
  for (size_t k = 0; k < n; k++) HF_TRY(prepare_cell(w, (int)k, d, base));
  return HF_OK;
}

hf_status sweep_run(sweep *w, void (*done)(void *user, int i), void *user) {
  int64_t start = hf_now_ns();
  int n = w->axis[0].n * w->axis[1].n;
  w->threads = ask_threads((int)w->command->jobs, n);
  HF_TRY(ask_evaluate_all(w->spec, n, w->threads, done, user, w->c));
  w->seconds = 1e-9 * (double)(hf_now_ns() - start);
  find_knees(w);
  return HF_OK;
}

/* ---- words ---- */

static void knee_text(const sweep *w, int j, char *out, size_t n) {
  const sweep_knee *k = &w->knee[j];
  const ask_change *y = &w->axis[1].point[j];
  const ask_case *c = k->at >= 0 ? &w->c[j * w->axis[0].n + k->at] : NULL, *next = NULL;
  if (c != NULL && k->at + 1 < w->axis[0].n) next = c + 1;
  int used = snprintf(out, n, "%s %s: ", ask_key_name(y->key), y->value);
  if (used < 0 || (size_t)used >= n) return;
  out += used;
  n -= (size_t)used;
  if (c == NULL && k->rule == KNEE_SLO) {
    char why[160];
    (void)ask_meets(&w->c[j * w->axis[0].n], &w->command->slo, why);
    snprintf(out, n, "not even %s user(s) within the SLO: %s", w->axis[0].point[0].value, why);
    return;
  }
  if (c == NULL) {
    snprintf(out, n, "does not fit");
    return;
  }
  used = snprintf(out, n, "%lld user%s, %.1f tokens/s delivered, ", (long long)c->users, c->users == 1 ? "" : "s",
                  c->tok_per_s_wall);
  if (used < 0 || (size_t)used >= n) return;
  out += used;
  n -= (size_t)used;
  if (next == NULL) snprintf(out, n, "no knee within the axis");
  else if (!next->feasible) snprintf(out, n, "more do not fit");
  else if (k->rule == KNEE_SLO) {
    char why[160];
    (void)ask_meets(next, &w->command->slo, why);
    snprintf(out, n, "then the SLO is missed (%s)", why);
  } else {
    snprintf(out, n, "then a further user adds %.2f instead of %.2f tokens/s",
             (next->tok_per_s_wall - c->tok_per_s_wall) / (double)(next->users - c->users),
             w->c[j * w->axis[0].n].tok_per_s_wall / (double)w->c[j * w->axis[0].n].users);
  }
}

void sweep_verdict(const sweep *w, char *out, size_t n) {
  int cells = w->axis[0].n * w->axis[1].n, fit = 0, best = -1;
  char knee[300];
  for (int k = 0; k < cells; k++) {
    fit += w->c[k].feasible;
    if (w->c[k].feasible && (best < 0 || w->c[k].tok_per_s_wall > w->c[best].tok_per_s_wall)) best = k;
  }
  if (best < 0) {
    snprintf(out, n, "No cell fits: %.200s.", w->c[0].why_not);
    return;
  }
  size_t used = 0;
  if (w->has_knees) {
    /* The knee of the middle row stands for all; the text below has every one. */
    int middle = w->axis[1].n / 2;
    bool bends = w->knee[middle].at >= 0 && w->knee[middle].rule != KNEE_NONE;
    knee_text(w, middle, knee, sizeof knee);
    used = (size_t)snprintf(out, n, "%s %s. ", bends ? "Knee at" : "At", knee);
  }
  if (used >= n) return;
  used += (size_t)snprintf(out + used, n - used, "Most: %.1f tokens/s delivered at %s (%s binds).", w->c[best].tok_per_s_wall,
                           w->c[best].name, w->c[best].binding);
  if (fit < cells && used < n) snprintf(out + used, n - used, " %d of %d cells do not fit.", cells - fit, cells);
}

/* Where cells have other lengths than were asked for, said once; "" otherwise. */
static void lengths_note(const sweep *w, char *out, size_t n) {
  const plan_request *r = &w->command->req;
  int cells = w->axis[0].n * w->axis[1].n, other = 0, at = 0;
  int64_t least = 0, most = 0;
  out[0] = '\0';
  for (int k = 0; k < cells; k++) {
    const ask_case *c = &w->c[k];
    bool own = ask_find_change(&w->set[k], ASK_PROMPT) != NULL || ask_find_change(&w->set[k], ASK_OUTPUT) != NULL;
    bool same = (r->prompt_tokens == 0 || c->prompt_tokens == r->prompt_tokens) &&
                (r->output_tokens == 0 || c->output_tokens == r->output_tokens);
    if (own || same) continue;
    if (other++ == 0) least = most = c->prompt_tokens;
    if (c->prompt_tokens < least) least = c->prompt_tokens;
    if (c->prompt_tokens > most) most = c->prompt_tokens;
    if (c->output_tokens != r->output_tokens) at = k;
  }
  if (other == 0) return;
  int used =
      snprintf(out, n,
               "In %d of %d cells the lengths are not those asked for: where context is an axis, prompts fill what the answer "
               "leaves of it (here %lld to %lld tokens)",
               other, cells, (long long)least, (long long)most);
  if (r->output_tokens > 0 && w->c[at].output_tokens != r->output_tokens && used > 0 && (size_t)used < n)
    used += snprintf(out + used, n - (size_t)used, ", and answers that do not fit are shorter (%lld)",
                     (long long)w->c[at].output_tokens);
  if (used > 0 && (size_t)used < n) snprintf(out + used, n - (size_t)used, ".");
}

/* ---- JSON and CSV ---- */

static void add_axes(const sweep *w, json *q) {
  json *axes = json_add_array(q, "axes");
  for (int a = 0; a < 2; a++) {
    json *o = json_add_object(axes, NULL);
    json_add_str(o, "key", ask_key_name(w->axis[a].key));
    json *values = json_add_array(o, "values");
    for (int i = 0; i < w->axis[a].n; i++) json_add_str(values, NULL, w->axis[a].point[i].value);
  }
}

static void add_knees(const sweep *w, json *doc) {
  static const char *const rule[] = {[KNEE_NONE] = "none", [KNEE_GAIN] = "gain", [KNEE_SLO] = "slo"};
  json *list = json_add_array(doc, "knees");
  char text[400];
  for (int j = 0; j < w->axis[1].n && w->has_knees; j++) {
    json *o = json_add_object(list, NULL);
    json_add_str(o, "at", w->axis[1].point[j].value);
    if (w->knee[j].at >= 0) json_add_int(o, "users", w->c[j * w->axis[0].n + w->knee[j].at].users);
    else json_add_null(o, "users");
    json_add_str(o, "rule", rule[w->knee[j].rule]);
    knee_text(w, j, text, sizeof text);
    json_add_str(o, "text", text);
  }
  json_add_num(doc, "knee_gain", w->knee_gain);
}

hf_status sweep_to_json(const sweep *w, json *doc) {
  json *q = json_add_object(doc, "question");
  json_add_str(q, "model", w->c[0].model);
  json_add_str(q, "machine", w->c[0].machine);
  json_add_str(q, "format", w->c[0].format);
  if (w->axis[0].key != ASK_USERS && w->axis[1].key != ASK_USERS) json_add_int(q, "users", w->c[0].users);
  if (w->axis[0].key != ASK_CONTEXT && w->axis[1].key != ASK_CONTEXT) json_add_int(q, "context", w->c[0].context);
  ask_add_slo(q, &w->command->slo, "asked");
  add_axes(w, q);
  json *cells = json_add_array(doc, "cells");
  for (int k = 0; k < w->axis[0].n * w->axis[1].n; k++) {
    json *o = json_add_object(cells, NULL);
    ask_case_to_json(&w->c[k], o);
    json *at = json_add_array(o, "at");
    json_add_str(at, NULL, w->axis[0].point[k % w->axis[0].n].value);
    json_add_str(at, NULL, w->axis[1].point[k / w->axis[0].n].value);
    if (has_slo(w)) json_add_bool(o, "meets_slo", ask_meets(&w->c[k], &w->command->slo, NULL));
  }
  add_knees(w, doc);
  char note[400];
  lengths_note(w, note, sizeof note);
  json *notes = json_add_array(doc, "notes");
  if (note[0] != '\0') json_add_str(notes, NULL, note);
  json_add_num(doc, "seconds", w->seconds);
  json_add_int(doc, "threads", w->threads);
  if (!w->command->exact)
    ask_add_assumption(doc, "A cell's placement is the Lagrangian one where its proven gap is at most 0.5 %; its gap is printed.",
                       "assumed", "hf-plan");
  ask_add_load(doc);
  ask_add_assumption(doc, "Popularity of experts as in the question.", "assumed", "hf-plan");
  return HF_OK;
}

hf_status sweep_csv(const sweep *w, hf_buf *b) {
  for (int a = 0; a < 2; a++) HF_TRY(hf_buf_printf(b, "at_%s,", ask_key_name(w->axis[a].key)));
  HF_TRY(ask_csv_case_header(b));
  for (int k = 0; k < w->axis[0].n * w->axis[1].n; k++) {
    HF_TRY(ask_csv_text(b, w->axis[0].point[k % w->axis[0].n].value, false));
    HF_TRY(ask_csv_text(b, w->axis[1].point[k / w->axis[0].n].value, false));
    HF_TRY(ask_csv_case(b, &w->c[k]));
  }
  return HF_OK;
}

/* ---- text: tables whose shade says how much of the best a cell reaches ---- */

typedef enum { SHOW_WALL, SHOW_TTFT, SHOW_TPOT, SHOW_RATE, SHOW_COST, SHOW_N } shown;

static double value_of(const ask_case *c, shown what) {
  switch (what) {
    case SHOW_WALL: return c->tok_per_s_wall;
    case SHOW_RATE: return c->decode_tok_per_s.likely;
    case SHOW_TTFT: return c->ttft_s.p95;
    case SHOW_TPOT: return 1e3 * c->tpot_s.p95;
    default: return c->cost.likely;
  }
}

static void cell_text(const sweep *w, const ask_case *c, shown what, char out[24]) {
  bool slo = has_slo(w) && !ask_meets(c, &w->command->slo, NULL);
  double v = value_of(c, what);
  char number[16];
  if (!c->feasible) {
    snprintf(out, 24, "-");
    return;
  }
  snprintf(number, sizeof number, v >= 99.95 ? "%.0f" : v >= 9.995 ? "%.1f" : "%.2f", v);
  if (what == SHOW_WALL) snprintf(out, 24, "%s%c%s", number, plan_binding_letter(c->binding), slo ? "!" : " ");
  else snprintf(out, 24, "%s%s", number, slo ? "!" : " ");
}

/* Green over yellow to red by rank between least and most, on a logarithmic scale; text stays black. */
static int shade(double v, double least, double most, bool high_is_good) {
  static const int colours[] = {203, 215, 222, 229, 192, 156, 120};
  if (!(most > least) || !(least > 0)) return 229;
  double x = log(v / least) / log(most / least);
  int i = (int)(6.999 * (high_is_good ? x : 1 - x));
  return colours[i < 0 ? 0 : i > 6 ? 6 : i];
}

static hf_status text_table(const sweep *w, shown what, bool colour, hf_buf *b) {
  static const char *const title[] = {"Delivered tokens/s, all users together, prompts and waiting included",
                                      "Time to the first token (TTFT), p95, s", "Time per further token (TPOT), p95, ms",
                                      "Decode tokens/s, while every user decodes",
                                      "USD per million tokens, input and output together"};
  int n0 = w->axis[0].n, n1 = w->axis[1].n, width = 8, left = (int)strlen(ask_key_name(w->axis[1].key));
  double least = INFINITY, most = 0;
  char text[24];
  for (int k = 0; k < n0 * n1; k++) {
    double v = value_of(&w->c[k], what);
    if (!w->c[k].feasible) continue;
    if (v < least) least = v;
    if (v > most) most = v;
  }
  for (int j = 0; j < n1; j++)
    if ((int)strlen(w->axis[1].point[j].value) > left) left = (int)strlen(w->axis[1].point[j].value);
  for (int i = 0; i < n0; i++)
    if ((int)strlen(w->axis[0].point[i].value) + 1 > width) width = (int)strlen(w->axis[0].point[i].value) + 1;
  HF_TRY(hf_buf_printf(b, "\n%s\n  %*s  %s\n  %*s ", title[what], -left, "", ask_key_name(w->axis[0].key), -left,
                       ask_key_name(w->axis[1].key)));
  int after = what == SHOW_WALL ? 2 : 1; /* the letters stand behind the numbers */
  for (int i = 0; i < n0; i++) HF_TRY(hf_buf_printf(b, " %*s%*s", width - after, w->axis[0].point[i].value, after, ""));
  HF_TRY(hf_buf_add(b, "\n", 1));
  for (int j = 0; j < n1; j++) {
    HF_TRY(hf_buf_printf(b, "  %*s ", -left, w->axis[1].point[j].value));
    for (int i = 0; i < n0; i++) {
      const ask_case *c = &w->c[j * n0 + i];
      cell_text(w, c, what, text);
      if (!c->feasible) snprintf(text, sizeof text, what == SHOW_WALL ? "-  " : "- ");
      if (colour && c->feasible)
        HF_TRY(hf_buf_printf(b, " \033[30;48;5;%dm%*s\033[0m",
                             shade(value_of(c, what), least, most, what == SHOW_RATE || what == SHOW_WALL), width, text));
      else HF_TRY(hf_buf_printf(b, " %*s", width, text));
    }
    HF_TRY(hf_buf_add(b, "\n", 1));
  }
  return HF_OK;
}

hf_status sweep_text(const sweep *w, hf_buf *b, bool colour) {
  char verdict[900], knee[400];
  double gap = 0;
  int cells = w->axis[0].n * w->axis[1].n, first = 0;
  for (int k = 0; k < cells; k++) {
    if (w->c[k].gap > gap) gap = w->c[k].gap;
    if (w->c[k].feasible && !w->c[first].feasible) first = k;
  }
  sweep_verdict(w, verdict, sizeof verdict);
  HF_TRY(hf_buf_printf(b, "%s\n\n%s (%s) on %s\n", verdict, w->c[0].model, w->c[0].format, w->c[0].machine));
  for (int s = 0; s < SHOW_N; s++)
    if (s != SHOW_COST || w->c[first].has_cost) HF_TRY(text_table(w, (shown)s, colour, b));
  HF_TRY(hf_buf_printf(b, "\n  letter: what binds: " PLAN_BINDING_LEGEND "; - does not fit%s\n",
                       has_slo(w) ? "; ! misses the SLO" : ""));
  lengths_note(w, knee, sizeof knee);
  if (knee[0] != '\0') HF_TRY(hf_buf_printf(b, "  %s\n", knee));
  for (int j = 0; j < w->axis[1].n && w->has_knees; j++) {
    knee_text(w, j, knee, sizeof knee);
    HF_TRY(hf_buf_printf(b, "%s  %s\n", j == 0 ? "\nKnees\n" : "", knee));
  }
  if (w->has_knees)
    HF_TRY(hf_buf_printf(b,
                         "  knee: the last number of users at which a further one still adds at least %.0f %% of what a user "
                         "adds at the start of the row%s\n",
                         100 * w->knee_gain, has_slo(w) ? ", and all meet the SLO" : ""));
  for (int k = 0; k < cells; k++) {
    if (w->c[k].feasible) continue;
    HF_TRY(hf_buf_printf(b, "\nFirst that does not fit, %s: %s\n", w->c[k].name, w->c[k].why_not));
    break;
  }
  HF_TRY(hf_buf_printf(
      b,
      "\nDelivered tokens/s, TTFT and TPOT of a cell are of its users under sustained load: each sends the next request "
      "at once, prompts and answers\nwithin a quarter of the cell's lengths; p95 after a warm-up. Decode tokens/s: all "
      "users together while every one decodes.\nTTFT: arrival to first token; TPOT: seconds per further token. "
      "Figures: %s.\n",
      w->c[first].tag[0] != '\0' ? w->c[first].tag : "assumed"));
  return hf_buf_printf(b, "\n%d cells in %.1f s on %d thread%s; widest proven gap %.3f %%.\n", cells, w->seconds, w->threads,
                       w->threads == 1 ? "" : "s", 100 * gap);
}
