/* section_replan.c: what a plan made from a run changed, why, and what came of it. */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reports/words.h"

double replan_gain_expected(const plan *now) {
  return json_number(json_get(json_get(now->extra, "changes"), "gain_expected"), NAN);
}

double replan_gain_measured(const data_run *before, const data_run *after) {
  if (before == NULL || after == NULL || !run_alike(before, after) || !(before->r.decode_tok_per_s > 0) ||
      !(after->r.decode_tok_per_s > 0))
    return NAN;
  return after->r.decode_tok_per_s / before->r.decode_tok_per_s - 1;
}

hf_status say_gain(const data_plan *now, const data_run *before, const data_run *after, hf_buf *b) {
  char expected[FORMAT_MAX], measured[FORMAT_MAX];
  format_number(replan_gain_expected(now->p), FMT_SIGNED, expected);
  format_number(replan_gain_measured(before, after), FMT_SIGNED, measured);
  double all = json_number(json_get(json_get(now->p->extra, "changes"), "moved"), -1);
  int moved = all >= 0 && all <= INT32_MAX ? (int)all : -1;
  HF_TRY(hf_buf_printf(b, "Re-planned from run %lld", (long long)now->p->from_run));
  if (moved >= 0) HF_TRY(hf_buf_printf(b, ", %d expert%s moved", moved, plural(moved)));
  if (isfinite(replan_gain_expected(now->p))) HF_TRY(hf_buf_printf(b, "; expected gain %s", expected));
  if (isfinite(replan_gain_measured(before, after))) HF_TRY(hf_buf_printf(b, ", measured %s", measured));
  return hf_buf_printf(b, ".");
}

/* ---- moves ---- */

enum { IDS_LIMIT = 1 << 16 };
typedef struct {
  hf_buf in, out;
  int n_in, n_out;
} moves;

static hf_status add_id(hf_buf *b, int e) {
  return hf_buf_printf(b, "%s%d", b->len > 0 ? ", " : "", e);
}

static hf_status compare(const plan_layer *now, const plan_layer *old, moves *m) {
  for (int e = 0; e < now->n_experts && e < old->n_experts; e++) {
    bool is = now->device[e] >= 0, was = old->device[e] >= 0;
    if (is && !was) {
      HF_TRY(add_id(&m->in, e));
      m->n_in++;
    } else if (was && !is) {
      HF_TRY(add_id(&m->out, e));
      m->n_out++;
    }
  }
  return HF_OK;
}

static const plan_layer *layer_at(const plan *p, int index) {
  for (int i = 0; i < p->n_layers; i++)
    if (p->layer[i].index == index) return &p->layer[i];
  return NULL;
}

static const json *change_of(const plan *p, int layer) {
  for (const json *l = json_first(json_get(json_get(p->extra, "changes"), "layers")); l != NULL; l = json_next(l))
    if (json_number(json_get(l, "layer"), -1) == layer) return l;
  return NULL;
}

/* Probabilities that a step touches an expert that moved, over all layers. */
typedef struct {
  struct mean {
    double sum;
    int n;
  } in, out;
} hits;

static void sum_hits(struct mean *m, double hit, int n) {
  if (!isfinite(hit)) return;
  m->sum += hit * n;
  m->n += n;
}

static void say_why(page *p, const hits *h) {
  char in[FORMAT_MAX], out[FORMAT_MAX];
  if (h->in.n == 0 || h->out.n == 0) return;
  format_number(h->in.sum / h->in.n, FMT_SHARE, in);
  format_number(h->out.sum / h->out.n, FMT_SHARE, out);
  page_text(p,
            "Why: by the run's counts a decode step touches an expert that came in with a probability of %s on average, one that "
            "went out with %s.",
            in, out);
}

static void row_of_moves(page *p, rep_table *t, const plan *now, const plan_layer *l, const plan_layer *before, hits *all) {
  moves m = {0};
  hf_buf_init(&m.in, IDS_LIMIT);
  hf_buf_init(&m.out, IDS_LIMIT);
  page_failed(p, compare(l, before, &m));
  const json *why = change_of(now, l->index);
  if (m.n_in + m.n_out > 0) {
    table_num(p, t, l->index), table_num(p, t, m.n_in), table_num(p, t, m.n_out);
    table_text(p, t, m.n_in > 0 ? m.in.data : "none"), table_text(p, t, m.n_out > 0 ? m.out.data : "none");
    double hit_in = json_number(json_get(why, "hit_in"), NAN), hit_out = json_number(json_get(why, "hit_out"), NAN);
    table_num(p, t, m.n_in > 0 ? hit_in : NAN), table_num(p, t, m.n_out > 0 ? hit_out : NAN);
    sum_hits(&all->in, hit_in, m.n_in);
    sum_hits(&all->out, hit_out, m.n_out);
  }
  hf_buf_free(&m.in);
  hf_buf_free(&m.out);
}

static void table_moves(page *p, const char *id, const plan *now, const plan *old) {
  static const rep_col cols[] = {{"layer", "Layer", FMT_INT},
                                 {"moved_in", "In", FMT_INT},
                                 {"moved_out", "Out", FMT_INT},
                                 {"experts_in", "Experts that came in", FMT_TEXT},
                                 {"experts_out", "Experts that went out", FMT_TEXT},
                                 {"hit_in", "A step touches one: in", FMT_SHARE},
                                 {"hit_out", "out", FMT_SHARE}};
  char name[SECTION_ID_MAX];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "moves"), cols,
                            "Experts that moved to (in) and from (out) the device, plan %lld against plan %lld",
                            (long long)now->id, (long long)old->id);
  hits all = {0};
  for (int i = 0; i < now->n_layers; i++) {
    const plan_layer *l = &now->layer[i], *before = layer_at(old, l->index);
    if (l->moe && before != NULL && before->moe) row_of_moves(p, t, now, l, before, &all);
  }
  if (table_rows(t) == 0) page_text(p, "No expert moved: the placement was already the best for what the run measured.");
  else page_table_end(p, t, false);
  say_why(p, &all);
}

static void table_drift(page *p, const char *id, const plan *now) {
  static const rep_col cols[] = {{"stage", "Stage", FMT_TEXT}, {"factor", "Measured over predicted", FMT_NUM}};
  const json *drift = json_get(json_get(now->extra, "changes"), "drift"),
             *x = json_get(json_get(now->extra, "changes"), "distinct_experts");
  char name[SECTION_ID_MAX], measured[FORMAT_MAX], predicted[FORMAT_MAX];
  if (json_len(drift) > 0) {
    rep_table *t = PAGE_TABLE(p, section_id(name, id, "drift"), cols, "What the run taught the cost model, by stage");
    for (const json *f = json_first(drift); f != NULL; f = json_next(f)) {
      table_key(p, t, json_key(f)), table_num(p, t, json_number(f, NAN));
    }
    page_table_end(p, t, true);
  }
  format_number(json_number(json_get(x, "measured"), NAN), FMT_NUM, measured);
  format_number(json_number(json_get(x, "predicted"), NAN), FMT_NUM, predicted);
  if (x != NULL) page_text(p, "A decode step touched %s experts per layer; %s had been expected.", measured, predicted);
}

static void table_gain(page *p, const char *id, const data_plan *now, const data_plan *old, const data_run *before,
                       const data_run *after) {
  static const rep_col cols[] = {{"what", "Decode, tokens/s", FMT_TEXT},
                                 {"before", "First", FMT_TOK_S},
                                 {"after", "After the re-plan", FMT_TOK_S},
                                 {"gain", "Gain", FMT_SIGNED}};
  char name[SECTION_ID_MAX];
  const json *changes = json_get(now->p->extra, "changes");
  double was = json_number(json_get(changes, "old_objective_ns"), NAN);
  double simulated = json_number(json_get(changes, "old_decode_tok_per_s"), NAN);
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "gain"), cols, "What the re-plan was expected to give, and gave");
  if (simulated > 0) {
    table_text(p, t, "expected: old and new placement simulated with what the run taught"), table_num(p, t, simulated);
    table_num(p, t, now->p->decode_tok_per_s.likely), table_num(p, t, replan_gain_expected(now->p));
  }
  if (was > 0 && now->p->ilp.objective_ns > 0) {
    table_text(p, t, "the same by the time of a full step alone"), table_num(p, t, 1e9 * now->p->users / was);
    table_num(p, t, 1e9 * now->p->users / now->p->ilp.objective_ns), table_num(p, t, was / now->p->ilp.objective_ns - 1);
  }
  if (before != NULL && after != NULL) {
    table_text(p, t, "measured"), table_num(p, t, before->r.decode_tok_per_s), table_num(p, t, after->r.decode_tok_per_s);
    table_num(p, t, replan_gain_measured(before, after));
  }
  if (old != NULL) {
    double first = old->p->decode_tok_per_s.likely, second = now->p->decode_tok_per_s.likely;
    table_text(p, t, "predicted by each plan, each with what it knew"), table_num(p, t, first), table_num(p, t, second);
    table_num(p, t, first > 0 ? second / first - 1 : NAN);
  }
  page_table_end(p, t, false);
}

/* ---- the section ---- */

void section_replan(page *p, const char *id, const data_plan *now, const data_plan *old, const data_run *before,
                    const data_run *after) {
  char v[FORMAT_MAX], w[FORMAT_MAX], source[32];
  const json *changes = json_get(now->p->extra, "changes");
  const char *note = json_string(json_get(changes, "note"));
  double expected = replan_gain_expected(now->p), measured = replan_gain_measured(before, after);
  page_section(p, id, "Re-plan from run %lld", (long long)now->p->from_run);
  page_tiles(p);
  format_number(json_number(json_get(changes, "moved"), NAN), FMT_INT, v);
  page_tile(p, "Experts moved", v, "plan %lld against plan %lld", (long long)now->p->id,
            old != NULL ? (long long)old->p->id : 0LL);
  format_number(expected, FMT_SIGNED, v);
  page_tile(p, "Gain expected", v, "over the old placement, with what the run measured");
  format_number(measured, FMT_SIGNED, v);
  page_tile(p, "Gain measured", v, "%s",
            after == NULL || before == NULL ? "the new plan was not run yet"
            : run_alike(before, after)      ? "second run over first run"
                                            : "the two runs cannot be compared: stopped, or of different loads");
  format_number(now->p->decode_tok_per_s.likely, FMT_TOK_S, v);
  format_number(now->p->ilp.gap, FMT_GAP, w);
  page_tile(p, "New prediction", v, "tokens/s, %s; proven gap %s", now->p->tag, w);
  page_tiles_end(p);
  if (note != NULL) page_text(p, "%s.", note);
  if (old != NULL) table_moves(p, id, now->p, old->p);
  table_gain(p, id, now, old, before, after);
  table_drift(p, id, now->p);
  part_placement(p, id, now->p, old != NULL ? old->p : NULL);
  part_alternatives(p, id, now->p);
  part_budget(p, id, now->p);
  snprintf(source, sizeof source, "Plan %lld", (long long)now->p->id);
  source_of_plan(p, now, source);
}
