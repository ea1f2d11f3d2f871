/* recipe.h: which format each part of a model is stored in. Planning only: files that exist say it themselves, tensor by tensor.
 *
 * A published "Q4_K_M" or "IQ4_K_R4" is a mixture: attention, shared experts and the routed experts' down matrices get other types than the rest,
 * and some layers more bits than others. DRAM bytes per token follow from the types of the routed experts, device memory from all others, so
 * both are taken part by part. Pure functions, safe from any thread. */
#ifndef HF_MODEL_RECIPE_H
#define HF_MODEL_RECIPE_H

#include "model/model.h"

/* Parts that can have a format of their own. `in` is gate and up. */
typedef enum {
  PART_Q, /* q, or q_a and q_b */
  PART_K,
  PART_V,
  PART_KV_A,
  PART_KV_B, /* k_b and v_b of MLA */
  PART_O,
  PART_DENSE_IN,
  PART_DENSE_DOWN,
  PART_SHARED_IN,
  PART_SHARED_DOWN,
  PART_EXPERT_IN,
  PART_EXPERT_DOWN,
  PART_EMBED,
  PART_OUTPUT,
  PART_N
} recipe_part;

/* Layers first, first + step, .. of at most last have a part in another format; the last rule that fits counts. */
typedef struct {
  recipe_part part;
  int first, last, step;
  fmt f;
} recipe_rule;

enum { RECIPE_NAME = 160, RECIPE_MAX_RULES = 48 };
typedef struct model_recipe {
  char name[RECIPE_NAME]; /* as recipe_parse reads it again */
  fmt base;               /* whose conventions hold for vectors and routers: F32 in GGUF, BF16 in safetensors */
  fmt part[PART_N];
  int n_rules;
  recipe_rule rule[RECIPE_MAX_RULES];
} model_recipe;

/* The recipe that a format's name stands for, in a model of this config: mixtures by the rules of the programs that make them; any other name
 * means every matrix in that format, with the exceptions that files of that kind have. */
void recipe_of(fmt f, const model_config *c, model_recipe *out);

/* "FORMAT" or "FORMAT:PART=FORMAT[@FIRST-LAST],...", for example q4_k_m:attn=q8_0,down=q6_k@3-20. PART is one of the names below. HF_INPUT names
 * what is wrong. */
HF_MUST hf_status recipe_parse(const char *text, const model_config *c, model_recipe *out);

/* Parts by name: those of recipe_part_name, and attn, dense, shared, experts, rest (all but experts) for groups. Sets bit 1 << part each; false: unknown. */
bool recipe_parts_named(const char *name, size_t n, unsigned *mask);
const char *recipe_part_name(recipe_part p);

/* The format of a tensor with rows of cols elements: a type whose blocks do not divide cols is replaced as llama.cpp does. */
fmt recipe_tensor_format(const model_recipe *r, model_tensor_id id, int layer, int64_t cols);
/* PART_N for norms, biases and routers. */
recipe_part recipe_part_of(model_tensor_id id);

/* Rows and columns of a tensor (of one routed expert); false when a model of this config has none such in the layer (-1: embedding, output). */
bool recipe_tensor_shape(const model_config *c, model_tensor_id id, int layer, int64_t *rows, int64_t *cols);
/* The programs that can run it: those that read all of its types from one kind of file, GGUF or safetensors (the last: engines that read the
 * latter), and hf-run only what it has fast products for (fmt_info.slow). */
typedef enum { RUNS_HF_RUN, RUNS_LLAMA_CPP, RUNS_IK_LLAMA_CPP, RUNS_SAFETENSORS, RUNS_NONE } recipe_program;
bool recipe_runs_on(const model_recipe *r, recipe_program p); /* p: not RUNS_NONE */
/* The first in this order; RUNS_NONE where there is none. */
recipe_program recipe_program_of(const model_recipe *r);
const char *recipe_program_name(recipe_program p);

HF_MUST hf_status recipe_layer_parts_of(const model *m, const model_recipe *r, int layer, model_layer_parts *out);
HF_MUST hf_status recipe_head_parts_of(const model *m, const model_recipe *r, model_head_parts *out);
int64_t recipe_total_bytes(const model *m, const model_recipe *r);

/* A second model of the same config, without weights, as if it were stored by this recipe: FMT_DEFAULT means it. m may be shared by threads and
 * closed before. */
HF_MUST hf_status model_with_recipe(const model *m, const model_recipe *r, model **out);
const model_recipe *model_get_recipe(const model *m); /* NULL for any other model */

#endif
