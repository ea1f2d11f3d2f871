/* report.c: the kinds of report: which rows, which sections, and the sentence on top. */
#include "base/text.h"
#include "reports/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "reports/answers.h"
#include "reports/data.h"
#include "reports/sections.h"

enum { VERDICT_LIMIT = 1 << 14 };

/* One fact of the verdict: st is that of the function that wrote it into b. b is empty again afterwards. */
static void add_fact(page *p, hf_status st, hf_buf *b) {
  page_failed(p, st);
  if (b->len > 0) page_verdict(p, "%s", b->data);
  hf_buf_free(b);
  hf_buf_init(b, VERDICT_LIMIT);
}

static hf_status id_of(const report_options *o, int64_t chosen, int64_t *id) {
  char *end;
  if (o->operand == NULL) {
    *id = chosen;
    return HF_OK;
  }
  long long v = strtoll(o->operand, &end, 10);
  if (end == o->operand || *end || v < 1)
    return hf_fail(HF_INPUT, "%s: '%.100s' is no id: a whole number from 1", o->kind, o->operand);
  *id = v;
  return HF_OK;
}

/* ---- one thing ---- */

static hf_status build_machine(db *d, const report_options *o, page *p, hf_buf *verdict) {
  rec_machine row;
  data_machine *m = NULL;
  const char *which = o->operand != NULL ? o->operand : o->machine;
  HF_TRY(which != NULL ? db_machine_find(d, which, &row) : db_machine_latest(d, MACHINE_MEASURED, &row));
  HF_TRY(data_machine_get(d, row.id, &m));
  page_title(p, "machine", "Machine %s", machine_title(m));
  add_fact(p, say_machine(m, verdict), verdict);
  section_machine(p, "machine", "Machine", m);
  data_machine_free(m);
  return HF_OK;
}

static hf_status build_plan(db *d, const report_options *o, page *p, hf_buf *verdict) {
  data_plan *pl = NULL;
  int64_t id = o->plan[0];
  if (o->operand == NULL && id == 0) HF_TRY(data_latest_plan(d, &id));
  HF_TRY(id_of(o, id, &id));
  HF_TRY(data_plan_get(d, id, &pl));
  page_title(p, "plan", "Plan %lld: %s", (long long)id, pl->p->model);
  add_fact(p, say_plan(pl->p, verdict), verdict);
  add_fact(p, say_plan_doubts(pl->p, verdict), verdict);
  section_plan(p, "plan", "Plan", pl);
  if (pl->machine != NULL) section_machine(p, "machine", "Machine", pl->machine);
  data_plan_free(pl);
  return HF_OK;
}

static hf_status build_run(db *d, const report_options *o, page *p, hf_buf *verdict) {
  data_run *r = NULL;
  data_plan *pl = NULL;
  int64_t id = o->run[0];
  if (o->operand == NULL && id == 0) HF_TRY(data_latest_run(d, &id));
  HF_TRY(id_of(o, id, &id));
  HF_TRY(data_run_get(d, id, &r));
  hf_status st = r->r.plan_id > 0 ? data_plan_get(d, r->r.plan_id, &pl) : HF_OK;
  if (st == HF_OK) {
    page_title(p, "run", "Run %lld: %s", (long long)id, r->r.model);
    add_fact(p, say_run(r, verdict), verdict);
    add_fact(p, say_run_doubt(r, verdict), verdict);
    section_run(p, "run", "Run", r);
    if (pl != NULL) section_plan(p, "plan", "Its plan", pl);
  }
  data_run_free(r);
  data_plan_free(pl);
  return st;
}

static hf_status build_answer(db *d, const report_options *o, page *p, const char *title, void (*section)(page *, const json *)) {
  data_answer *a = NULL;
  int64_t id = 0;
  HF_TRY(id_of(o, o->answer, &id));
  HF_TRY(data_answer_get(d, o->kind, id, &a));
  page_title(p, o->kind, "%s%s%s", title, *title ? ": " : "", a->row.title);
  answer_verdict(p, a->doc);
  section(p, a->doc);
  answer_sources(p, a->doc);
  data_answer_free(a);
  return HF_OK;
}

static bool has_answers(db *d, const char *kind) {
  rec_answer *list = NULL;
  int n = 0;
  if (db_answer_list(d, kind, &list, &n) != HF_OK) n = 0;
  free(list);
  hf_clear_error();
  return n > 0;
}

/* An id that is no plan's may be an answer's. */
static hf_status build_whatif_answer(db *d, const report_options *o, page *p, int64_t id) {
  report_options named = *o;
  hf_clear_error();
  named.answer = id;
  named.operand = NULL;
  hf_status st = build_answer(d, &named, p, "", section_changes);
  if (st != HF_NOT_FOUND) return st;
  return hf_fail(HF_NOT_FOUND, "whatif: %lld is the number of neither an answer of hf-plan whatif nor a plan", (long long)id);
}

/* An answer of hf-plan whatif; or, named by its id, with a published figure beside it, or where there is no answer, a plan for a machine of the
 * catalog. */
static hf_status build_whatif(db *d, const report_options *o, page *p, hf_buf *verdict) {
  data_plan *pl = NULL;
  int64_t id = o->whatif;
  bool plan_named = o->operand != NULL || id > 0 || o->published > 0;
  if (o->answer > 0 || (!plan_named && has_answers(d, "whatif"))) return build_answer(d, o, p, "", section_changes);
  if (o->operand == NULL && id == 0) HF_TRY(data_latest_whatif(d, &id));
  HF_TRY(id_of(o, id, &id));
  hf_status st = data_plan_get(d, id, &pl);
  if (st == HF_NOT_FOUND) return build_whatif_answer(d, o, p, id);
  HF_TRY(st);
  page_title(p, "whatif", "What if: %s on %s", pl->p->model, machine_title(pl->machine));
  add_fact(p, say_whatif(pl, o->published, verdict), verdict);
  section_whatif(p, "whatif", pl, o->published, o->published_source);
  data_plan_free(pl);
  return HF_OK;
}

/* ---- the loop ---- */

static void say_loop(const data_loop *l, const report_options *o, page *p, hf_buf *b) {
  if (l->run[0] != NULL) {
    add_fact(p, say_run(l->run[0], b), b);
    add_fact(p, say_run_doubt(l->run[0], b), b);
  } else if (l->plan[0] != NULL) add_fact(p, say_plan(l->plan[0]->p, b), b);
  else if (l->machine != NULL) add_fact(p, say_machine(l->machine, b), b);
  if (l->plan[1] != NULL) add_fact(p, say_gain(l->plan[1], l->run[0], l->run[1], b), b);
  if (l->run[1] != NULL) {
    add_fact(p, say_run(l->run[1], b), b);
    add_fact(p, say_run_doubt(l->run[1], b), b);
  }
  if (l->whatif != NULL) add_fact(p, say_whatif(l->whatif, o->published, b), b);
}

/* The figures of the sentence above them. */
static void tiles_of_loop(page *p, const data_loop *l, double published) {
  char v[FORMAT_MAX], w[FORMAT_MAX], x[FORMAT_MAX];
  page_tiles(p);
  for (int i = 0; i < 2; i++) {
    if (l->run[i] == NULL) continue;
    const rec_run *r = &l->run[i]->r;
    format_number(r->decode_tok_per_s, FMT_TOK_S, v);
    format_number(r->predicted_decode_tok_per_s, FMT_TOK_S, w);
    format_number(signed_error(r->predicted_decode_tok_per_s, r->decode_tok_per_s), FMT_SIGNED, x);
    const char *label = i == 0 ? "First run, tokens/s" : "Second run, tokens/s";
    if (run_comparable(l->run[i])) page_tile(p, label, v, "predicted %s, error %s", w, x);
    else page_tile(p, label, v, strcmp(r->status, "done") == 0 ? "not the planned run: no error" : "not finished: no error");
  }
  if (l->plan[1] != NULL) {
    format_number(replan_gain_measured(l->run[0], l->run[1]), FMT_SIGNED, v);
    format_number(replan_gain_expected(l->plan[1]->p), FMT_SIGNED, w);
    page_tile(p, "Gain of the re-plan", v, "expected %s", w);
  }
  if (l->whatif != NULL) {
    const plan_range *r = &l->whatif->p->decode_tok_per_s;
    format_number(r->likely, FMT_TOK_S, v);
    format_number(r->low, FMT_TOK_S, w);
    format_number(r->high, FMT_TOK_S, x);
    page_tile(p, "What-if, tokens/s", v, "%s to %s", w, x);
  }
  if (l->whatif != NULL && published > 0) {
    format_number(published, FMT_TOK_S, v);
    page_tile(p, "Published for it", v, "beside the what-if");
  }
  page_tiles_end(p);
}

static void missing(page *p, const data_loop *l) {
  page_section(p, "missing", "Not in this report");
  page_raw(p, "<ul>\n");
  if (l->machine == NULL) page_raw(p, "<li>no measured machine: run hf-profile</li>\n");
  if (l->plan[0] == NULL) page_raw(p, "<li>no plan that was run: run hf-plan plan, then hf-run</li>\n");
  if (l->run[0] == NULL) page_raw(p, "<li>no finished run: run hf-run --plan ID</li>\n");
  if (l->plan[1] == NULL) page_raw(p, "<li>no re-plan: run hf-plan plan --from-run RUN</li>\n");
  if (l->plan[1] != NULL && l->run[1] == NULL) page_raw(p, "<li>no run of the re-plan: run hf-run --plan ID</li>\n");
  if (l->whatif == NULL) page_raw(p, "<li>no what-if: run hf-plan plan --machine NAME with a machine of the catalog</li>\n");
  page_raw(p, "</ul>\n");
}

static hf_status build_loop(db *d, const report_options *o, page *p, hf_buf *verdict) {
  data_loop l;
  HF_TRY(data_loop_get(d, o, &l));
  page_title(p, "loop", "Profile, plan, run, re-plan%s%.100s", l.plan[0] != NULL ? ": " : "",
             l.plan[0] != NULL ? l.plan[0]->p->model : "");
  say_loop(&l, o, p, verdict);
  tiles_of_loop(p, &l, o->published);
  if (l.machine != NULL) section_machine(p, "machine", "Machine", l.machine);
  if (l.plan[0] != NULL) section_plan(p, "plan", "First plan", l.plan[0]);
  if (l.run[0] != NULL) section_run(p, "run", "First run", l.run[0]);
  if (l.plan[1] != NULL) section_replan(p, "replan", l.plan[1], l.plan[0], l.run[0], l.run[1]);
  if (l.run[1] != NULL) section_run(p, "run-2", "Second run", l.run[1]);
  if (l.whatif != NULL) section_whatif(p, "whatif", l.whatif, o->published, o->published_source);
  bool whole =
      l.machine != NULL && l.plan[0] != NULL && l.run[0] != NULL && l.plan[1] != NULL && l.run[1] != NULL && l.whatif != NULL;
  if (!whole) missing(p, &l);
  data_loop_free(&l);
  return HF_OK;
}

/* ---- answers ---- */

static hf_status build_sweep(db *d, const report_options *o, page *p, hf_buf *verdict) {
  (void)verdict;
  return build_answer(d, o, p, "Sweep", section_sweep);
}

static hf_status build_roi(db *d, const report_options *o, page *p, hf_buf *verdict) {
  (void)verdict;
  return build_answer(d, o, p, "", section_roi);
}

static hf_status build_formats(db *d, const report_options *o, page *p, hf_buf *verdict) {
  (void)verdict;
  return build_answer(d, o, p, "", section_formats);
}

static hf_status build_validate(db *d, const report_options *o, page *p, hf_buf *verdict) {
  (void)verdict;
  return build_answer(d, o, p, "", section_validate);
}

static hf_status build_recommend(db *d, const report_options *o, page *p, hf_buf *verdict) {
  (void)verdict;
  return build_answer(d, o, p, "Recommendation", section_recommend);
}

/* ---- all kinds ---- */

static const struct {
  const char *name;
  hf_status (*build)(db *d, const report_options *o, page *p, hf_buf *verdict);
  bool operand, answers; /* takes an id; shows answers of hf-plan */
} kinds[] = {{"machine", build_machine, true, false},  {"plan", build_plan, true, false},
             {"run", build_run, true, false},          {"whatif", build_whatif, true, true},
             {"sweep", build_sweep, true, true},       {"recommend", build_recommend, true, true},
             {"validate", build_validate, true, true}, {"formats", build_formats, true, true},
             {"roi", build_roi, true, true},           {"loop", build_loop, false, false}};

const char *report_kinds(void) {
  return "machine, plan, run, whatif, sweep, recommend, validate, formats, roi, loop";
}

enum { N_KINDS = sizeof kinds / sizeof *kinds };

hf_status report_kind(const char *name, size_t *out) {
  int least = HF_EDIT_FAR;
  char hint[48] = "";
  for (*out = 0; *out < N_KINDS; (*out)++) {
    int d = hf_edit_distance(name, strlen(name), kinds[*out].name);
    if (strcmp(kinds[*out].name, name) == 0) return HF_OK;
    if (d < least && d <= 2) {
      least = d;
      snprintf(hint, sizeof hint, "is %s meant? ", kinds[*out].name);
    }
  }
  return hf_fail(HF_INPUT, "unknown kind of report '%.60s'; %sknown are %s", name, hint, report_kinds());
}

hf_status report_build(db *d, const report_options *o, page **out) {
  page *p = NULL;
  hf_buf verdict;
  size_t k = 0;
  HF_TRY(report_kind(o->kind, &k));
  if (o->operand != NULL && !kinds[k].operand)
    return hf_fail(HF_INPUT, "%s: unexpected '%.60s'; name rows by --machine, --plan, --run, --whatif", o->kind, o->operand);
  if (o->answer > 0 && (o->operand != NULL || !kinds[k].answers))
    return hf_fail(HF_INPUT, "%s: option --answer: %s", o->kind,
                   kinds[k].answers ? "an id was given already" : "this kind of report shows no answer of hf-plan");
  HF_TRY(page_new(&p));
  hf_buf_init(&verdict, VERDICT_LIMIT);
  hf_status st = kinds[k].build(d, o, p, &verdict);
  hf_buf_free(&verdict);
  if (st == HF_OK) {
    section_definitions(p);
    page_sources(p);
    st = page_status(p);
  }
  if (st != HF_OK) page_free(p);
  else *out = p;
  return st;
}
