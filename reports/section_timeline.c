/* section_timeline.c: which resource worked when, and what the idle ones waited for (runs with --trace). */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "db/idle.h"
#include "reports/words.h"

/* A drawing of more stages than this shows nothing. */
enum { MOST_DRAWN = 1500, TICKS = 5 };

typedef struct {
  const data_run *d;
  const idle_account *a;
  int64_t from_ns, to_ns; /* what is drawn */
  int first_step, last_step;
} timeline;

static bool drawn(const timeline *t, int64_t start_ns, int64_t end_ns) {
  return end_ns > t->from_ns && start_ns < t->to_ns;
}

static int count_drawn(const timeline *t) {
  int n = 0;
  for (int i = 0; i < t->d->n_trace; i++) n += drawn(t, t->d->trace[i].start_ns, t->d->trace[i].end_ns);
  return n;
}

/* As many steps as there are micro-batches, and one more, from the middle of what was stored: past the prompts in most runs. */
static bool choose_window(timeline *t, int steps) {
  const data_run *d = t->d;
  t->first_step = d->trace[d->n_trace / 2].step;
  t->from_ns = INT64_MAX, t->to_ns = 0;
  for (int i = 0; i < d->n_trace; i++) {
    const rec_trace *r = &d->trace[i];
    if (r->step < t->first_step || r->step >= t->first_step + steps) continue;
    if (r->start_ns < t->from_ns) t->from_ns = r->start_ns;
    if (r->end_ns > t->to_ns) t->to_ns = r->end_ns, t->last_step = r->step;
  }
  return t->to_ns > t->from_ns && count_drawn(t) <= MOST_DRAWN;
}

static double at(const timeline *t, int64_t ns) {
  const double x = 1000 * (double)(ns - t->from_ns) / (double)(t->to_ns - t->from_ns);
  return x < 0 ? 0 : x > 1000 ? 1000 : x;
}

static void draw_span(page *p, const timeline *t, const char *class, int lane, int64_t start_ns, int64_t end_ns) {
  const double x = at(t, start_ns);
  page_raw(p, "<path class=\"%s\" d=\"M%.2f %d.5h%.2f\"><title>", class, x, lane, at(t, end_ns) - x);
}

static void draw_lanes(page *p, const timeline *t) {
  char v[FORMAT_MAX], words[96];
  for (int64_t i = 0; i < t->a->n_gaps; i++) {
    const idle_gap *g = &t->a->gap[i];
    if (!drawn(t, g->start_ns, g->end_ns)) continue;
    draw_span(p, t, "idle", g->resource, g->start_ns, g->end_ns);
    format_number((double)(g->end_ns - g->start_ns), FMT_NS, v);
    idle_words(g, words, sizeof words);
    page_escaped(p, "idle for %s: waits for %s", v, words);
    page_raw(p, "</title></path>\n");
  }
  for (int i = 0; i < t->d->n_trace; i++) {
    const rec_trace *r = &t->d->trace[i];
    int lane = 0;
    char class[24];
    if (!drawn(t, r->start_ns, r->end_ns)) continue;
    while (lane < t->a->n_resources && strcmp(t->a->resource[lane].name, r->resource) != 0) lane++;
    snprintf(class, sizeof class, "t-%s", r->stage);
    draw_span(p, t, class, lane, r->start_ns, r->end_ns);
    format_number((double)(r->end_ns - r->start_ns), FMT_NS, v);
    page_escaped(p, "%s: %s of layer %d, micro-batch %d", v, words_of(r->stage), r->layer, r->micro_batch);
    page_raw(p, "</title></path>\n");
  }
}

static void draw_axes(page *p, const timeline *t) {
  char v[FORMAT_MAX];
  page_raw(p, "<div class=\"map-y\" aria-hidden=\"true\">");
  for (int k = 0; k < t->a->n_resources; k++) {
    page_raw(p, "<span style=\"top:%.1f%%\">", 100 * (k + 0.5) / t->a->n_resources);
    page_escaped(p, "%s", t->a->resource[k].name);
    page_raw(p, "</span>");
  }
  page_raw(p, "</div><div class=\"map-x\" aria-hidden=\"true\">");
  for (int i = 0; i < TICKS; i++) {
    format_number((double)(t->to_ns - t->from_ns) * i / TICKS, FMT_NS, v);
    page_raw(p, "<span style=\"left:%d%%\">", 100 * i / TICKS);
    page_escaped(p, "%s", i ? v : "0");
    page_raw(p, "</span>");
  }
  page_raw(p, "</div>\n");
}

static void draw_legend(page *p, const timeline *t) {
  static const char *const stage[] = {"attn", "shared", "dexp", "hand", "cexp", "head", "upload"};
  page_raw(p, "<ul class=\"legend\">\n");
  for (size_t s = 0; s < sizeof stage / sizeof *stage; s++) {
    bool any = false;
    for (int i = 0; i < t->d->n_trace && !any; i++) any = !strcmp(t->d->trace[i].stage, stage[s]);
    if (!any) continue;
    page_raw(p, "<li><svg class=\"key\" viewBox=\"0 0 1 1\" aria-hidden=\"true\"><path class=\"t-%s\" d=\"M0 .5h1\"/></svg>",
             stage[s]);
    page_escaped(p, "%s", words_of(stage[s]));
    page_raw(p, "</li>\n");
  }
  page_raw(p, "<li><svg class=\"key\" viewBox=\"0 0 1 1\" aria-hidden=\"true\"><path class=\"idle\" d=\"M0 "
              ".5h1\"/></svg>idle</li>\n</ul>\n");
}

static void draw_timeline(page *p, const char *id, const timeline *t) {
  page_raw(p, "<figure class=\"map timeline\"><figcaption id=\"%s-caption\">", id);
  if (t->first_step == t->last_step) page_escaped(p, "Who worked when: step %d of the run", t->first_step);
  else page_escaped(p, "Who worked when: steps %d to %d of the run", t->first_step, t->last_step);
  page_raw(p, "</figcaption>\n");
  draw_legend(p, t);
  page_raw(p,
           "<div class=\"map-box\"><svg class=\"map-cells\" role=\"img\" aria-labelledby=\"%s-caption %s-alt\" viewBox=\"0 0 "
           "1000 %d\" "
           "preserveAspectRatio=\"none\" style=\"height:%dpx\">\n",
           id, id, t->a->n_resources, 46 * t->a->n_resources);
  draw_lanes(p, t);
  page_raw(p, "</svg>\n");
  draw_axes(p, t);
  page_raw(p, "</div><p class=\"alt\" id=\"%s-alt\">", id);
  page_escaped(p,
               "One row per resource, time to the right. The pointer over a stage or a gap names it; the table below sums up.");
  page_raw(p, "</p></figure>\n");
}

static void table_idle(page *p, const char *id, const idle_account *a) {
  static const rep_col cols[] = {{"resource", "Resource", FMT_TEXT}, {"state", "State", FMT_TEXT},
                                 {"time_ns", "Time", FMT_NS},        {"share", "Share", FMT_SHARE},
                                 {"gaps", "Gaps", FMT_INT},          {"mean_ns", "Mean gap", FMT_NS}};
  char words[64];
  rep_table *t = PAGE_TABLE(p, id, cols, "Busy and idle time of each resource, by what it waited for");
  for (int k = 0; k < a->n_resources; k++) {
    const idle_resource *y = &a->resource[k];
    table_text(p, t, y->name), table_text(p, t, "busy"), table_num(p, t, (double)y->busy_ns);
    table_num(p, t, (double)y->busy_ns / (double)a->span_ns), table_num(p, t, NAN), table_num(p, t, NAN);
    for (int i = 0; i < y->n_causes; i++) {
      const idle_cause *c = &y->cause[i];
      idle_cause_words(c, words, sizeof words);
      table_text(p, t, y->name), table_printf(p, t, "idle, waits for %s", words), table_num(p, t, (double)c->ns);
      table_num(p, t, (double)c->ns / (double)a->span_ns), table_num(p, t, (double)c->gaps);
      table_num(p, t, (double)c->ns / (double)c->gaps);
    }
  }
  page_table_end(p, t, false);
}

void part_timeline(page *p, const char *id, const data_run *d) {
  char name[SECTION_ID_MAX];
  idle_account a;
  if (d->n_trace == 0 || page_status(p) != HF_OK) return;
  hf_status st = idle_account_of(d->trace, d->n_trace, &a);
  page_failed(p, st);
  if (st != HF_OK) return;
  timeline t = {.d = d, .a = &a};
  page_heading(p, "Who waited for whom");
  const double overlap = idle_overlap(&a);
  int x, y;
  idle_busiest(&a, &x, &y);
  if (isfinite(overlap))
    page_text(p,
              "%s and %s worked at the same time for %.0f %% of what was possible: 100 %% when the less busy one works only "
              "while the other does, "
              "0 %% when they take turns.",
              a.resource[x].name, a.resource[y].name, 100 * overlap);
  for (int steps = d->r.depth + 1; steps >= 1; steps--) {
    if (!choose_window(&t, steps)) continue;
    draw_timeline(p, section_id(name, id, "timeline"), &t);
    break;
  }
  table_idle(p, section_id(name, id, "idle"), &a);
  page_note(p, "Of the first %d stages of the run, which hf-run --trace keeps in the database.", d->n_trace);
  idle_account_free(&a);
}
