#include "planner/plan_notes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/formats/quality.h"

/* A loss that rests on another family's rows is no news of this model, and a format without rows has none. */
static hf_status note_quality(const plan_inputs *in, json *extra) {
  quality *q = NULL;
  model_recipe r;
  quality_loss loss;
  if (in->req.model == NULL) return HF_OK;
  HF_TRY(quality_load(in->m, in->req.model, NULL, &q));
  hf_status st = HF_OK;
  if (in->format == FMT_DEFAULT && model_get_recipe(in->m) != NULL) r = *model_get_recipe(in->m);
  else st = recipe_parse(in->format_name, in->c, &r);
  if (st == HF_OK) st = quality_of(q, in->m, &r, &loss);
  free(q);
  if (st != HF_OK) { /* stored in types of no table */
    hf_clear_error();
    return st == HF_MACHINE ? st : HF_OK;
  }
  if (loss.tag == TAG_ASSUMED) return HF_OK;
  json *o = json_add_object(extra, "quality");
  json_add_num(o, "perplexity_increase", expm1(loss.loss));
  json_add_str(o, "tag", db_tag_name(loss.tag));
  if (loss.source != NULL) json_add_str(o, "source", loss.source);
  return HF_OK;
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
  note_doubts(in, extra);
  return note_quality(in, extra);
}

void plan_loss_text(const plan *p, char out[PLAN_LOSS_TEXT]) {
  const json *o = json_get(p->extra, "quality");
  double loss = json_number(json_get(o, "perplexity_increase"), 0);
  const char *tag = json_string(json_get(o, "tag"));
  out[0] = '\0';
  if (fabs(loss) < 5e-5 || tag == NULL) return;
  snprintf(out, PLAN_LOSS_TEXT, ", %+.2g %% perplexity, %s", 100 * loss,
           strcmp(tag, db_tag_name(TAG_MEASURED)) == 0 ? "published" : "from published rows of its family");
}

hf_status plan_show_doubts(const plan *p, hf_buf *b) {
  const json *list = json_get(p->extra, "doubts");
  for (const json *o = json_type(list) == JSON_ARRAY ? json_first(list) : NULL; o != NULL; o = json_next(o))
    HF_TRY(hf_buf_printf(b, "  doubtful     %s\n", json_string(o)));
  return HF_OK;
}
