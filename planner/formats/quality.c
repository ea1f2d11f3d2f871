#include "planner/formats/quality.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/catalog.h"

#define REFERENCE "deepseek"
enum { FILE_LIMIT = 1 << 20 };
static const double SCALE_LEAST = 0.05,
                    SCALE_MOST = 20; /* of published to computed losses; beyond that a row says nothing about types */

/* ---- loss of a recipe ---- */

typedef struct {
  double weights, loss;
} group;

/* A GGUF file's own types are not the original's. */
fmt quality_original(const model_config *c) {
  fmt f = c->default_format;
  return f == FMT_FP8_E4M3 || f == FMT_MXFP4 || f == FMT_INT4_G32 ? f : FMT_BF16;
}

/* Is this type the original's own, or wider than any? */
static bool lossless(fmt original, recipe_part p, fmt f) {
  if (f == FMT_F32 || f == FMT_BF16 || f == FMT_F16) return true;
  bool routed = p == PART_EXPERT_IN || p == PART_EXPERT_DOWN;
  return f == original && (routed || f == FMT_FP8_E4M3);
}

static hf_status add_tensor(const quality *q, const model_config *c, fmt original, const model_recipe *r, model_tensor_id id,
                            int layer, group *g, const double *table) {
  int64_t rows, cols;
  recipe_part p = recipe_part_of(id);
  if (!recipe_tensor_shape(c, id, layer, &rows, &cols)) return HF_OK;
  fmt f = recipe_tensor_format(r, id, layer, cols);
  double n = (double)rows * (double)cols;
  g->weights += n;
  if (lossless(original, p, f)) return HF_OK;
  if (!q->known[f])
    return hf_fail(HF_INPUT, "quality: no table has a figure for the type %s; give one with --quality FILE", fmt_get(f)->name);
  g->loss += n * table[f];
  return HF_OK;
}

static double mean(const group *g) {
  return g->weights > 0 ? g->loss / g->weights : 0;
}

/* Without scale. */
static hf_status computed(const quality *q, const model *m, const model_recipe *r, double *loss) {
  static const model_tensor_id experts[] = {MT_EXP_GATE, MT_EXP_UP, MT_EXP_DOWN},
                               rest[] = {MT_Q,   MT_K,    MT_V,  MT_O,    MT_Q_A,     MT_Q_B,   MT_KV_A,   MT_K_B,
                                         MT_V_B, MT_GATE, MT_UP, MT_DOWN, MT_SH_GATE, MT_SH_UP, MT_SH_DOWN},
                               head[] = {MT_EMBED, MT_OUTPUT};
  const model_config *c = model_get_config(m);
  fmt original = quality_original(c);
  group ge = {0, 0}, gr = {0, 0}, gh = {0, 0};
  for (int l = 0; l < c->n_layers; l++) {
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++)
      HF_TRY(add_tensor(q, c, original, r, experts[i], l, &ge, q->experts));
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) HF_TRY(add_tensor(q, c, original, r, rest[i], l, &gr, q->rest));
  }
  for (size_t i = 0; i < sizeof head / sizeof *head; i++) HF_TRY(add_tensor(q, c, original, r, head[i], -1, &gh, q->rest));
  *loss = mean(&ge) + mean(&gr) + q->head_share * mean(&gh);
  return HF_OK;
}

hf_status quality_composed(const quality *q, const model *m, const model_recipe *r, double *loss) {
  HF_TRY(computed(q, m, r, loss));
  *loss *= q->scale;
  return HF_OK;
}

static bool same_recipe(const model_recipe *a, const model_recipe *b) {
  if (memcmp(a->part, b->part, sizeof a->part) != 0 || a->n_rules != b->n_rules) return false;
  return memcmp(a->rule, b->rule, (size_t)a->n_rules * sizeof a->rule[0]) == 0;
}

hf_status quality_of(const quality *q, const model *m, const model_recipe *r, quality_loss *out) {
  *out = (quality_loss){.tag = q->own || q->user ? TAG_SCALED : TAG_ASSUMED};
  for (int i = q->n_rows - 1; i >= 0; i--) /* the user's rows stand last */
    if (same_recipe(&q->row[i].recipe, r)) {
      *out = (quality_loss){.loss = q->row[i].loss, .tag = TAG_MEASURED, .source = q->row[i].source};
      return HF_OK;
    }
  return quality_composed(q, m, r, &out->loss);
}

/* ---- reading ---- */

static hf_status read_types(const json *doc, const char *where, quality *q) {
  HF_TRY(json_opt_num(doc, where, "head_share", 0, 10, &q->head_share));
  const json *types = json_get(doc, "types");
  if (types != NULL && json_type(types) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: member types is no array", where);
  for (const json *e = json_first(types); e != NULL; e = json_next(e)) {
    const char *name = NULL;
    double experts = 0, rest = 0;
    fmt f;
    HF_TRY(json_get_str(e, where, "type", &name));
    HF_TRY(hf_note(fmt_parse(name, &f), "%s: types", where));
    if (fmt_is_mixture(f))
      return hf_fail(HF_INPUT, "%s: types: %s is a mixture, not a type; put it among published", where, name);
    HF_TRY(json_get_num(e, where, "experts", 0, 100, &experts));
    HF_TRY(json_get_num(e, where, "rest", 0, 100, &rest));
    q->known[f] = true;
    q->experts[f] = experts;
    q->rest[f] = rest;
  }
  return HF_OK;
}

/* Rows of published recipes; the loss of their baseline's own format is added later. */
static hf_status read_rows(const model *m, const json *doc, const char *where, bool any_model, const char *name, quality *q) {
  const json *rows = json_get(doc, "published");
  if (rows != NULL && json_type(rows) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: member published is no array", where);
  for (const json *e = json_first(rows); e != NULL; e = json_next(e)) {
    const char *of = NULL, *recipe = NULL, *source = "", *date = "";
    double value = 0, baseline = 0;
    HF_TRY(json_opt_str(e, where, "model", &of));
    HF_TRY(json_get_str(e, where, "recipe", &recipe));
    HF_TRY(json_get_num(e, where, "value", 1e-6, 1e9, &value));
    HF_TRY(json_get_num(e, where, "baseline", 1e-6, 1e9, &baseline));
    HF_TRY(json_opt_str(e, where, "source", &source));
    HF_TRY(json_opt_str(e, where, "date", &date));
    if (!any_model && of != NULL && name != NULL && strcmp(of, name) != 0) continue;
    if (q->n_rows == QUALITY_MAX_ROWS) return hf_fail(HF_INPUT, "%s: published: more than %d rows", where, QUALITY_MAX_ROWS);
    quality_row *row = &q->row[q->n_rows];
    HF_TRY(hf_note(recipe_parse(recipe, model_get_config(m), &row->recipe), "%s: published", where));
    row->loss = log(value / baseline);
    snprintf(row->source, sizeof row->source, "%s", source);
    snprintf(row->date, sizeof row->date, "%s", date);
    q->n_rows++;
  }
  return HF_OK;
}

static void name_tables(const json *doc, char to[64], char measure[160]) {
  const char *title = json_string(json_get(doc, "title")), *metric = json_string(json_get(doc, "metric")),
             *text = json_string(json_get(doc, "text"));
  snprintf(to, 64, "%s", title != NULL ? title : "unnamed");
  if (measure != NULL)
    snprintf(measure, 160, "%s on %s", metric != NULL ? metric : "perplexity", text != NULL ? text : "an unnamed text");
}

/* Geometric mean of published over computed losses, of the rows that lose enough to tell. */
static hf_status fit_scale(const model *m, quality *q) {
  double sum = 0;
  int n = 0;
  q->scale = 1;
  for (int i = 0; i < q->n_rows; i++) {
    double loss = 0;
    HF_TRY(computed(q, m, &q->row[i].recipe, &loss));
    if (!(loss > 1e-3) || !(q->row[i].loss > 1e-3)) continue;
    double ratio = q->row[i].loss / loss;
    sum += log(fmin(fmax(ratio, SCALE_LEAST), SCALE_MOST));
    n++;
  }
  if (n > 0) q->scale = exp(sum / n);
  return HF_OK;
}

/* Rows compare with a baseline that is itself a format: where the document names it, its own loss is added. */
static hf_status add_baseline(const model *m, const json *doc, const char *where, int from, quality *q) {
  const char *name = NULL;
  HF_TRY(json_opt_str(doc, where, "baseline_format", &name));
  if (name == NULL) return HF_OK;
  model_recipe r;
  double loss = 0;
  HF_TRY(hf_note(recipe_parse(name, model_get_config(m), &r), "%s: baseline_format", where));
  HF_TRY(computed(q, m, &r, &loss));
  for (int i = from; i < q->n_rows; i++) q->row[i].loss += loss;
  return HF_OK;
}

static hf_status read_table(const model *m, const json *doc, const char *where, bool any_model, const char *name, quality *q) {
  int from = q->n_rows;
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: no JSON object", where);
  HF_TRY(read_types(doc, where, q));
  HF_TRY(read_rows(m, doc, where, any_model, name, q));
  return add_baseline(m, doc, where, from, q);
}

/* Rows of the family count for the scale; those of the very model also as they are. */
static hf_status fill(const model *m, const json *reference, const json *own, const json *user, const char *where,
                      const char *name, quality *q) {
  HF_TRY(read_types(reference, "quality/" REFERENCE, q));
  name_tables(reference, q->reference, q->measure);
  snprintf(q->family, sizeof q->family, "%s", q->reference);
  q->scale = 1;
  if (own != NULL) {
    name_tables(own, q->family, q->measure);
    q->own = true;
    HF_TRY(read_table(m, own, where, true, NULL, q));
    if (json_get(own, "types") == NULL) HF_TRY(fit_scale(m, q));
    int kept = 0; /* of siblings only the scale is taken */
    const json *e = json_first(json_get(own, "published"));
    for (int i = 0; i < q->n_rows; i++, e = json_next(e)) {
      const char *of = json_string(json_get(e, "model"));
      if (of == NULL || name == NULL || strcmp(of, name) == 0) q->row[kept++] = q->row[i];
    }
    q->n_rows = kept;
  }
  if (user != NULL) {
    q->user = true;
    HF_TRY(read_table(m, user, where, false, name, q));
  }
  return HF_OK;
}

hf_status quality_from_json(const model *m, const json *reference, const json *own, const json *user, const char *where,
                            quality **out) {
  quality *q = NULL;
  HF_TRY(hf_alloc(&q, 1, sizeof *q, "quality table"));
  hf_status st = fill(m, reference, own, user, where, model_get_config(m)->name, q);
  if (st != HF_OK) {
    free(q);
    return st;
  }
  *out = q;
  return HF_OK;
}

/* The catalog's table that lists the model's name. */
static hf_status own_table(const char *name, json **out) {
  char **names = NULL;
  int n = 0;
  HF_TRY(catalog_names("quality", &names, &n));
  hf_status st = HF_OK;
  for (int i = 0; i < n && st == HF_OK && *out == NULL; i++) {
    json *doc = NULL;
    st = catalog_get("quality", names[i], &doc);
    for (const json *e = st == HF_OK ? json_first(json_get(doc, "models")) : NULL; e != NULL && *out == NULL; e = json_next(e))
      if (json_string(e) != NULL && strcmp(json_string(e), name) == 0) {
        *out = doc;
        doc = NULL;
      }
    json_free(doc);
  }
  free(names);
  return st;
}

hf_status quality_load(const model *m, const char *name, const char *user_file, quality **out) {
  json *reference = NULL, *own = NULL, *user = NULL, *entry = NULL;
  char canonical[128];
  quality *q = NULL;
  hf_status st = HF_OK;
  snprintf(canonical, sizeof canonical, "%s", name);
  if (catalog_get("models", name, &entry) == HF_OK) { /* an alias becomes the entry's own name */
    const char *of = json_string(json_get(entry, "name"));
    if (of != NULL) snprintf(canonical, sizeof canonical, "%s", of);
  } else {
    hf_clear_error();
  }
  HF_GO(done, catalog_get("quality", REFERENCE, &reference));
  HF_GO(done, own_table(canonical, &own));
  if (user_file != NULL) HF_GO(done, hf_note(json_read_file(user_file, FILE_LIMIT, &user), "option --quality"));
  HF_GO(done, hf_alloc(&q, 1, sizeof *q, "quality table"));
  st = fill(m, reference, own, user, user_file != NULL ? user_file : "quality", canonical, q);
  if (st == HF_OK) {
    *out = q;
    q = NULL;
  }
done:
  free(q);
  json_free(reference);
  json_free(own);
  json_free(user);
  json_free(entry);
  return st;
}
