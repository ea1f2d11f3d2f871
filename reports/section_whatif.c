/* section_whatif.c: a plan for a machine that nobody here owns, and the definitions of all terms. */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reports/draw.h"
#include "reports/words.h"

static bool inside(const plan_range *r, double v) {
  return v >= r->low && v <= r->high;
}

/* Rounded figures can hide on which side of an end a value lies. */
static const char *where(const plan_range *r, double v) {
  if (inside(r, v)) return "inside";
  return v > 0.99 * r->low && v < 1.01 * r->high ? "just outside" : "outside";
}

hf_status say_whatif(const data_plan *pl, double published, hf_buf *b) {
  const plan *p = pl->p;
  char likely[FORMAT_MAX], low[FORMAT_MAX], high[FORMAT_MAX], stated[FORMAT_MAX];
  format_number(p->decode_tok_per_s.likely, FMT_TOK_S, likely);
  format_number(p->decode_tok_per_s.low, FMT_TOK_S, low);
  format_number(p->decode_tok_per_s.high, FMT_TOK_S, high);
  HF_TRY(hf_buf_printf(b, "%s for %d user%s on %s: about %s tokens/s (%s to %s)", p->model, p->users, plural(p->users),
                       machine_title(pl->machine), likely, low, high));
  if (!(published > 0)) return hf_buf_printf(b, ".");
  format_number(published, FMT_TOK_S, stated);
  return hf_buf_printf(b, "; the published %s tokens/s lie %s that interval.", stated, where(&p->decode_tok_per_s, published));
}

static void tiles_of_whatif(page *p, const plan *pl, double published) {
  const plan_range *r = &pl->decode_tok_per_s;
  char v[FORMAT_MAX], w[FORMAT_MAX], x[FORMAT_MAX];
  page_tiles(p);
  format_number(r->likely, FMT_TOK_S, v);
  format_number(r->low, FMT_TOK_S, w);
  format_number(r->high, FMT_TOK_S, x);
  page_tile(p, "Decode, all users", v, "tokens/s likely, %s to %s, %s", w, x, pl->tag);
  format_number(r->low > 0 ? r->high / r->low : NAN, FMT_TOK_S, v);
  page_tile(p, "Width of the interval", v, "high over low");
  if (published > 0) {
    format_number(published, FMT_TOK_S, v);
    format_number(signed_error(r->likely, published), FMT_SIGNED, w);
    page_tile(p, "Published figure", v, "%s the interval; prediction %s off", where(r, published), w);
  }
  format_number(pl->users > 0 ? r->likely / pl->users : NAN, FMT_TOK_S, v);
  page_tile(p, "Each user sees", v, "tokens/s, %d user%s", pl->users, plural(pl->users));
  format_number(pl->ttft_s.p50, FMT_SECONDS, v);
  page_tile(p, "Time to first token", v, "median, prompts of %d tokens, all start together", pl->prompt_tokens);
  page_tile(p, "Binding resource", pl->binding[0] ? pl->binding : "–", "of the decode step");
  page_tiles_end(p);
}

static void list_assumptions(page *p, const data_machine *m) {
  const json *list = json_get(m->facts, "assumptions");
  if (json_len(list) == 0) return;
  page_heading(p, "What is assumed");
  page_raw(p, "<ul>\n");
  for (const json *a = json_first(list); a != NULL; a = json_next(a)) {
    page_raw(p, "<li>");
    page_escaped(p, "%s", json_string(a) != NULL ? json_string(a) : "");
    page_raw(p, "</li>\n");
  }
  page_raw(p, "</ul>\n");
}

/* How many figures of the machine stand on what. */
static void table_tags(page *p, const char *id, const data_machine *m) {
  static const rep_col cols[] = {{"tag", "Tag", FMT_TEXT}, {"figures", "Figures", FMT_INT}, {"examples", "Among them", FMT_TEXT}};
  char name[SECTION_ID_MAX], examples[256];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "tags"), cols, "What the machine's figures stand on");
  for (int tag = 0; tag < TAG_N; tag++) {
    int n = 0, shown = 0;
    examples[0] = 0;
    for (int i = 0; i < m->n_figure; i++) {
      const rec_figure *f = &m->figure[i];
      if (f->tag != (db_tag)tag) continue;
      n++;
      if (shown >= 4 || strstr(examples, words_of(f->what)) != NULL) continue;
      size_t used = strlen(examples);
      snprintf(examples + used, sizeof examples - used, "%s%.47s", shown++ > 0 ? "; " : "", words_of(f->what));
    }
    if (n > 0) table_text(p, t, db_tag_name((db_tag)tag)), table_num(p, t, n), table_text(p, t, examples);
  }
  page_table_end(p, t, false);
}

void section_whatif(page *p, const char *id, const data_plan *d, double published, const char *published_source) {
  char name[64];
  const plan *pl = d->p;
  page_section(p, id, "What if: %s on %s", pl->model, machine_title(d->machine));
  page_text(p, "Neither the machine nor the weights were at hand: this is the cost model on catalog figures, placed and "
               "simulated like any other plan.");
  tiles_of_whatif(p, pl, published);
  draw_mark mark = {"published", published, "published"};
  draw_range(p, &pl->decode_tok_per_s, &mark, published > 0 ? 1 : 0);
  if (d->machine != NULL) {
    list_assumptions(p, d->machine);
    table_tags(p, id, d->machine);
    table_devices(p, id, d->machine);
    table_figures(p, id, d->machine, true);
    table_facts(p, id, d->machine, true);
  }
  part_placement(p, id, pl, NULL);
  part_alternatives(p, id, pl);
  part_budget(p, id, pl);
  snprintf(name, sizeof name, "What-if, plan %lld", (long long)pl->id);
  source_of_plan(p, d, name);
  for (int tag = 0; tag < TAG_N && d->machine != NULL; tag++) {
    int n = 0;
    for (int i = 0; i < d->machine->n_figure; i++) n += d->machine->figure[i].tag == (db_tag)tag;
    if (n > 0)
      page_source(p, db_tag_name((db_tag)tag), "catalog; table of figures, column Source", "%s: %d figure%s",
                  machine_title(d->machine), n, plural(n));
  }
  if (published > 0)
    page_source(p, "published", published_source != NULL ? published_source : "given on the command line without a source",
                "Published tokens/s");
}

/* ---- definitions ---- */

void section_definitions(page *p) {
  static const struct {
    const char *term, *meaning;
  } list[] = {
      {"signed error", "(predicted − measured) / measured. Above zero: the prediction promised too much."},
      {"decode tokens/s",
       "output tokens of all users together per second while every user decodes; prefill and waiting are left out."},
      {"delivered tokens/s",
       "output tokens of all users together over the whole time, prompts and waiting included, under sustained load."},
      {"sustained load",
       "every user sends the next request as soon as the last one is answered; prompts and answers vary within a quarter of the "
       "lengths asked for; the first two requests of each user do not count."},
      {"time to first token (TTFT)", "from the arrival of a request to its first output token, at the client."},
      {"time per output token (TPOT)", "(end to end − time to first token) / (n − 1) of a request with n output tokens."},
      {"median, p90, p95, p99", "half, 90, 95, 99 of 100 requests are at or below this value; '90 % within' is p90."},
      {"gap", "(step of the plan − proven lower bound) / step of the plan: what any other placement at the same depth could gain "
              "at most, by the "
              "same cost model."},
      {"binding resource", "what the step waits for: CPU (bandwidth or compute), GPU, or path, the hand-over between them."},
      {"share of choices", "how often the router's choices fall on experts that live on the device."},
      {"depth", "micro-batches in flight: while one is in attention on the device another is in its experts on the CPU."},
      {"interval", "low to high: each group of inputs (bandwidth, compute, links, fixed times and so on) is moved alone to its "
                   "low and to its high end, and the effects are added as independent ones are (root of the sum of squares), "
                   "together with a doubt in the cost model itself. No guarantee: a measured figure should mostly fall inside."},
      {"measured", "timed on the machine that the figure speaks of."},
      {"scaled", "carried over from a measurement of something similar, by size or speed."},
      {"spec", "a datasheet's value, times a documented efficiency prior where the figure is one that programs reach."},
      {"assumed", "nobody measured it for this: a judgement, with the interval as wide as that deserves."},
  };
  page_section(p, "definitions", "Definitions");
  page_raw(p, "<dl class=\"terms\">\n");
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) page_raw(p, "<dt>%s</dt><dd>%s</dd>\n", list[i].term, list[i].meaning);
  page_raw(p, "</dl>\n");
}
