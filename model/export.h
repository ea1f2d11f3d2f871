/* export.h: a model written again as one GGUF file, in other weight formats: what goes where, and the header. Turning numbers into blocks is not
 * this room's; the caller reads rows here, encodes them and writes them at the offsets given.
 *
 * From a Hugging Face folder every canonical tensor is written as llama.cpp names and lays it out, with metadata from config.json and the
 * tokenizer of the folder. From GGUF (single or split) names, dimensions and metadata stay as they are, formats and what depends on them apart.
 * Norms, biases, sinks and routers are F32 (from GGUF: as they are). A plan is read-only and refers to the model: rows may be read by any thread. */
#ifndef HF_MODEL_EXPORT_H
#define HF_MODEL_EXPORT_H

#include "model/recipe.h"

typedef struct {
  const char *name;       /* in the file to be written */
  int layer;              /* -1: of the whole model */
  recipe_part part;       /* PART_N: norms, biases, routers and what this room does not know */
  int n_mats;             /* matrices one behind the other: the experts; else 1 */
  int64_t rows, cols;     /* of one matrix */
  fmt stored;             /* in the source */
  fmt from, to;           /* of rows as export_read gives them, and as they are to be written. Equal: the bytes are the same */
  bool whole;             /* rows of a matrix can be read together only */
  int row_group;          /* rows change places within groups of so many (export_place); 1: they do not */
  uint64_t offset, bytes; /* in the file to be written */
} export_tensor;

typedef struct model_export model_export;

/* HF_INPUT: no weights; HF_UNSUPPORTED: no GGUF of this family, a type that GGUF does not have, or a tokenizer that it cannot express. with_tokenizer
 * false: none is written from a folder (tokenizer.ggml.model says "none"). */
HF_MUST hf_status model_export_plan(const model *m, const model_recipe *r, bool with_tokenizer, model_export **out);
void model_export_free(model_export *e);
int model_export_count(const model_export *e);
const export_tensor *model_export_at(const model_export *e, int i);
bool model_export_has_tokenizer(const model_export *e);
/* Everything before the first tensor's bytes. Owned by the plan. */
const hf_buf *model_export_header(const model_export *e);
uint64_t model_export_bytes(const model_export *e); /* of the whole file */
/* Rows [row0, row1) of matrix `mat` of tensor i in format `from`; all rows where `whole`. HF_MACHINE on a read error. */
HF_MUST hf_status model_export_read(const model_export *e, int i, int mat, int64_t row0, int64_t row1, void *dst);
/* Where row r of the source's matrix goes. */
int64_t model_export_place(const model_export *e, int i, int64_t r);
/* The header at `path`, read again, must say what the model is: HF_UNSUPPORTED names what GGUF would lose. */
HF_MUST hf_status model_export_check(const model_export *e, const char *path);
#endif
