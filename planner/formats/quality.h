/* quality.h: what a weight format costs in quality, from published perplexities (db/catalog/quality/) or a user's table.
 *
 * The measure is ln(perplexity of the recipe / perplexity of the original model): 0.02 is 2 % more. Additive over the weights:
 *
 *   loss = scale x ( sum over routed experts' matrices of share x experts[type]
 *                  + sum over attention, shared and dense matrices of share x rest[type]
 *                  + head_share x the mean of rest[type] over embedding and output )
 *
 * where share is a matrix' part of its group's weights. experts[] and rest[] are of the reference family (DeepSeek-V3 and R1, the one with
 * rows enough to tell the parts apart); scale fits them to the rows of the model's own family: the geometric mean of published over computed
 * losses. Types in which the original itself is published lose nothing. Where a recipe is published for the very model, its own row counts.
 * Everything here is read-only once loaded. */
#ifndef HF_PLANNER_FORMATS_QUALITY_H
#define HF_PLANNER_FORMATS_QUALITY_H

#include "base/json.h"
#include "db/records.h"
#include "model/recipe.h"

enum { QUALITY_MAX_ROWS = 128 };

typedef struct {
  model_recipe recipe; /* in the terms of the model asked about */
  double loss;         /* published */
  char source[200], date[16];
} quality_row;

typedef struct {
  bool known[FMT_N];
  double experts[FMT_N], rest[FMT_N], head_share;
  char reference[64], family[64], measure[160]; /* titles of the tables; what was measured on what text */
  bool own;                                     /* a table of the model's own family was found */
  bool user;                                    /* the user's table was read */
  double scale;
  int n_rows;
  quality_row row[QUALITY_MAX_ROWS];
} quality;

/* What the model was published in, as its config says: fp8, mxfp4, int4 or bf16. */
fmt quality_original(const model_config *c);

/* For a model of the catalog by its name there (or any other name: then no own family). user_file NULL: the catalog alone. HF_INPUT names file and
 * member. free() *out. */
HF_MUST hf_status quality_load(const model *m, const char *name, const char *user_file, quality **out);
/* From documents: reference has the types; own (NULL: none) the rows of the model's family; user (NULL: none) is laid over both. `where` starts
 * error lines. */
HF_MUST hf_status quality_from_json(const model *m, const json *reference, const json *own, const json *user, const char *where,
                                    quality **out);

typedef struct {
  double loss;
  db_tag tag; /* measured: a published row of this model; scaled: fitted to its family's rows; assumed: another family's */
  const char *source; /* of the row, or NULL */
} quality_loss;
/* HF_INPUT when a type has no figure (names it). */
HF_MUST hf_status quality_composed(const quality *q, const model *m, const model_recipe *r,
                                   double *loss); /* of its types, rows or not */
HF_MUST hf_status quality_of(const quality *q, const model *m, const model_recipe *r, quality_loss *out);

#endif
