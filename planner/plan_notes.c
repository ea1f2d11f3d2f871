#include "planner/plan_notes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/formats/quality.h"

/* A loss that rests on another family's rows is no news of this model, and a format without rows has none. */
hf_status plan_quality_of(const model *m, const char *name, const char *format, plan_quality *out) {
  quality *q = NULL;
  model_recipe r;
  quality_loss loss;
  *out = (plan_quality){.known = false};
  if (name == NULL) return HF_OK;
  HF_TRY(quality_load(m, name, NULL, &q));
  hf_status st = HF_OK;
  if (format == NULL && model_get_recipe(m) != NULL) r = *model_get_recipe(m);
  else st = recipe_parse(format != NULL ? format : fmt_get(model_get_config(m)->default_format)->name, model_get_config(m), &r);
  if (st == HF_OK) st = quality_of(q, m, &r, &loss);
  if (st == HF_OK && loss.tag != TAG_ASSUMED) {
    *out = (plan_quality){.known = true, .increase = expm1(loss.loss), .tag = loss.tag};
    snprintf(out->source, sizeof out->source, "%s", loss.source != NULL ? loss.source : "");
  }
  free(q);
  if (st == HF_OK || st == HF_MACHINE) return st;
  hf_clear_error(); /* stored in types of no table */
  return HF_OK;
}

void plan_quality_json(const plan_quality *q, json *into) {
  if (!q->known) return;
  json *o = json_add_object(into, "quality");
  json_add_num(o, "perplexity_increase", q->increase);
  json_add_str(o, "tag", db_tag_name(q->tag));
  if (q->source[0] != '\0') json_add_str(o, "source", q->source);
}

void plan_quality_read(const json *from, plan_quality *out) {
  const json *o = json_get(from, "quality");
  const char *tag = json_string(json_get(o, "tag"));
  *out = (plan_quality){.known = tag != NULL, .increase = json_number(json_get(o, "perplexity_increase"), 0), .tag = TAG_SCALED};
  if (tag != NULL && strcmp(tag, db_tag_name(TAG_MEASURED)) == 0) out->tag = TAG_MEASURED;
  const char *source = json_string(json_get(o, "source"));
  snprintf(out->source, sizeof out->source, "%s", source != NULL ? source : "");
}

void plan_quality_text(const plan_quality *q, char out[PLAN_LOSS_TEXT]) {
  out[0] = '\0';
  if (!q->known || fabs(q->increase) < 5e-5) return;
  snprintf(out, PLAN_LOSS_TEXT, ", %+.2g %% perplexity, %s", 100 * q->increase,
           q->tag == TAG_MEASURED ? "published" : "from published rows of its family");
}

static void note_doubts(const plan_inputs *in, json *extra) {
  const cost_rows *r = in->host;
  json *list = NULL;
  for (int i = 0; i < r->n_figure; i++) {
    const rec_figure *f = &r->figure[i];
    char text[320];
    int threads = 0;
    double over = f->tag == TAG_MEASURED ? rec_figure_over_linear(r->figure, r->n_figure, i, &threads) : 0;
    if (!(over > REC_POSSIBLE)) continue;
    if (list == NULL) list = json_add_array(extra, "doubts");
    snprintf(
        text, sizeof text,
        "%s of %s with %d threads was measured as %.1f times that of one thread, which cannot be: run hf-profile again while "
        "no other program runs",
        f->what, f->device, threads, over * threads);
    json_add_str(list, NULL, text);
  }
}

hf_status plan_notes(const plan_inputs *in, json *extra) {
  plan_quality q;
  note_doubts(in, extra);
  HF_TRY(plan_quality_of(in->m, in->req.model, in->format == FMT_DEFAULT ? NULL : in->format_name, &q));
  plan_quality_json(&q, extra);
  return HF_OK;
}

hf_status plan_show_doubts(const plan *p, hf_buf *b) {
  const json *list = json_get(p->extra, "doubts");
  for (const json *o = json_type(list) == JSON_ARRAY ? json_first(list) : NULL; o != NULL; o = json_next(o))
    HF_TRY(hf_buf_printf(b, "  doubtful     %s\n", json_string(o)));
  return HF_OK;
}
