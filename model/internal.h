/* internal.h: what the files of this room share. Private to model/.
 *
 * How a model comes to be:
 *
 *   config.json  --config_from_json-->  model_config  <--config_from_gguf--  GGUF metadata
 *   *.safetensors / *.gguf  --st_open, gguf_open-->  tensor_set: every stored tensor, checked against its file
 *   model_config + tensor_set  --bind_hf, bind_gguf-->  slots: canonical tensor -> place in a file and how to read it
 *
 * Invariants after opening:
 *  1. every tensor of a tensor_set lies inside its mapped file, overlaps no other, and bytes = dims x format;
 *  2. a present slot has exactly the canonical shape that tensor_shape() derives from the config;
 *  3. slots are indexed [layer + 1][id] (layer -1 = whole model), so a look-up hashes nothing. */
#ifndef HF_MODEL_INTERNAL_H
#define HF_MODEL_INTERNAL_H

#include <string.h>

#include "model/model.h"

/* ---- stored tensors ---- */

enum { RAW_MAX_DIMS = 4 };
#define FMT_OTHER ((fmt)-2)

typedef struct {
  const char *name;  /* arena or mapping lifetime: as long as the set; not NUL-terminated strings never occur here */
  fmt format;        /* FMT_OTHER: a type that holds no weights (integers of packed formats); dtype says which */
  const char *dtype; /* as the file names it, for messages */
  int n_dims;
  int64_t dims[RAW_MAX_DIMS]; /* outermost first, whatever the file's order */
  int file;
  uint64_t offset; /* from the start of the file */
  uint64_t bytes;
} raw_tensor;

typedef struct {
  char *path;
  int fd;
  const uint8_t *data; /* NULL for an empty file */
  uint64_t size;
} mapped_file;

typedef struct {
  hf_arena *arena; /* names, paths */
  mapped_file *files;
  int n_files;
  raw_tensor *v;
  size_t n, cap;
  uint32_t *table; /* open addressing over names: index + 1, 0 = free */
  size_t table_mask;
  model_fault_fn *fault; /* model_open_tolerant, or NULL */
  void *fault_user;
} tensor_set;

/* Passes a failure on, unless faults are being collected and this is one of files: then it is told, and HF_OK returned. */
HF_MUST hf_status tset_fault(const tensor_set *s, hf_status st);

HF_MUST hf_status tset_init(tensor_set *s);
void tset_free(tensor_set *s);
/* guard.c: a mapping of a file, for model_guard_mappings. */
void guard_add(const void *data, size_t bytes, const char *path);
void guard_remove(const void *data);
/* Opens and maps; *index is its number. HF_NOT_FOUND when it does not exist, HF_INPUT when it is no regular file. */
HF_MUST hf_status tset_add_file(tensor_set *s, const char *path, int *index);
HF_MUST hf_status tset_add(tensor_set *s, const raw_tensor *t);
/* Builds the name table; HF_INPUT on a duplicate name. */
HF_MUST hf_status tset_index(tensor_set *s);
const raw_tensor *tset_find(const tensor_set *s, const char *name);
/* Tensors [first, n) of one file: HF_INPUT when two overlap. no_holes: they must also fill [begin, end) entirely. */
HF_MUST hf_status tset_check_layout(const tensor_set *s, size_t first, uint64_t begin, uint64_t end, bool no_holes);

/* Product of dims and block sizes with overflow checks: bytes of a tensor. false when impossible. When true, the product of any
 * leading dims fits int64_t too, also where a later dim is 0. */
bool raw_bytes(fmt f, int elem_bytes, int n_dims, const int64_t *dims, uint64_t *bytes);

/* ---- canonical tensors ---- */

typedef enum {
  READ_DIRECT,    /* rows lie as they should */
  READ_KVB_K,     /* MT_K_B out of kv_b_proj [heads*(nope+v)][lora]: transposed per head */
  READ_KVB_V,     /* MT_V_B out of kv_b_proj: rows gathered per head */
  READ_UNPERMUTE, /* GGUF arch llama: q and k rows of a head from adjacent pairs back to halves */
  READ_COLUMNS,   /* transposed per expert: canonical row r is stored column r*step + first (gpt-oss BF16 experts) */
  READ_STRIDED,   /* vector or rows with a step: stored row r*step + first (gpt-oss gate and up, biases) */
  READ_FP8,   /* F8_E4M3 with a scale per 128 x 128 block in a tensor of its own, to rows of blocks with scales; MT_K_B to BF16 */
  READ_INT4,  /* nibbles and scales in two tensors, to blocks of FMT_INT4_G32 */
  READ_MXFP4, /* blocks and scales in two tensors, rows with a step (gpt-oss), to blocks of FMT_MXFP4 */
  READ_REFUSED, /* known for planning, no reader: see why */
} read_kind;

typedef struct {
  bool present;
  read_kind how;
  fmt format;         /* of what model_tensor_read gives */
  fmt stored;         /* of the stored bytes */
  int64_t rows, cols; /* canonical, of one expert */
  uint64_t bytes;     /* rows * fmt_loaded_row_bytes(format, cols) */
  int file;
  uint64_t offset;        /* of expert 0 */
  uint64_t expert_stride; /* stacked experts; 0 with `experts` set */
  struct expert_place {
    uint64_t offset;
    int file;
  } * experts;     /* per expert, when each is a tensor of its own */
  int step, first; /* READ_COLUMNS, READ_STRIDED */
  int scale_file;  /* READ_MXFP4: scales of expert 0; an expert's follow those of the one before */
  uint64_t scale_offset;
  const char *why; /* READ_REFUSED */
} tensor_slot;

typedef enum { SRC_NONE, SRC_FILE, SRC_SYNTH } source_kind;

struct model {
  model_config c;
  char *path;
  source_kind source;
  bool hf;         /* opened from a folder: slots lead to the stored tensors by Hugging Face names */
  char *missing;   /* why there are no weights, or NULL */
  hf_arena *arena; /* slots' expert tables */
  tensor_set set;
  tensor_slot *slots; /* [(n_layers + 1) * MT_N] */
  uint64_t seed;      /* SRC_SYNTH */
  fmt synth_format;
  struct model_recipe *recipe; /* of model_with_recipe, or NULL */
};

static inline tensor_slot *model_slot(const model *m, model_tensor_id id, int layer) {
  return &m->slots[(size_t)(layer + 1) * MT_N + (size_t)id];
}

/* Canonical shape by config alone; false when this model has no such tensor in this layer. */
bool tensor_shape(const model_config *c, model_tensor_id id, int layer, int64_t *rows, int64_t *cols);
bool tensor_is_expert(model_tensor_id id);
bool tensor_is_global(model_tensor_id id); /* MT_EMBED, MT_OUT_NORM, MT_OUTPUT */
bool tensor_is_matrix(model_tensor_id id); /* weights of a product that formats apply to: no norm, bias, router */
const char *tensor_name(model_tensor_id id);

/* ---- config ---- */

typedef struct {
  double theta;
  bool yarn;
  double factor; /* YaRN or linear; 1 = none */
  double orig_context, beta_fast, beta_slow;
  bool truncate;
  double mscale, mscale_all_dim; /* 0 = not given */
  double attention_factor;       /* 0 = not given */
} rope_spec;

void rope_spec_init(rope_spec *r);
/* Sets c->rope.{theta,inv_freq,mscale} and c->attn_scale from kind and dim, which are set before. */
HF_MUST hf_status config_resolve_rope(model_config *c, const rope_spec *r);
/* Allocates layer_is_moe, all true. */
HF_MUST hf_status config_alloc_layers(model_config *c);
/* Sets n_dense_layers from layer_is_moe. */
void config_count_dense(model_config *c);
/* Relations between fields; `where` starts the error line. */
HF_MUST hf_status config_check(const model_config *c, const char *where);
void config_free(model_config *c);
/* The field in which two configs describe different functions, or NULL: names, ids and stored form apart; numbers to 1e-9. */
const char *config_differ(const model_config *a, const model_config *b);

HF_MUST hf_status config_from_json(const json *j, const char *where, model_config *c);

/* Readers shared by the family files: ints into int, with the room's limits. */
HF_MUST hf_status cfg_int(const json *j, const char *where, const char *key, int lo, int hi, int *out);
HF_MUST hf_status cfg_opt_int(const json *j, const char *where, const char *key, int lo, int hi, int *out);
/* Rotary fields of config.json, in the old (rope_theta, rope_scaling) and the new (rope_parameters) form. */
HF_MUST hf_status cfg_rope(const json *j, const char *where, double default_theta, rope_spec *r);
/* The same into c->rope: kind and dim must be set. */
HF_MUST hf_status cfg_resolve_rope(const json *j, const char *where, double default_theta, model_config *c);
/* head_dim when given, else hidden_size / num_attention_heads, checked. */
HF_MUST hf_status cfg_gqa(const json *j, const char *where, model_config *c);
/* Grouped-query attention and softmax routing as Qwen and OLMoE name them: heads, biases by attention_bias, experts, norm_topk_prob. */
HF_MUST hf_status cfg_softmax_moe(const json *j, const char *where, model_config *c);
/* Feed-forward fields under the names of DeepSeek and GLM-4.5: widths, experts, groups, scale. Absent ones stay, so that a family
 * sets its defaults before: *first_dense, c->n_group, c->topk_group, c->routed_scale. */
HF_MUST hf_status cfg_deepseek_ffn(const json *j, const char *where, model_config *c, int *first_dense);
/* ---- files ---- */

/* Reads the header of one safetensors file into the set. */
HF_MUST hf_status st_open(tensor_set *s, const char *path);
/* Every weight file of a folder: index or model.safetensors. *missing says why weights are not complete (arena string), or NULL;
 * nothing is added then. */
HF_MUST hf_status st_open_folder(tensor_set *s, const char *folder, const char **missing);

/* binding: fills m->slots from m->set */
HF_MUST hf_status slots_alloc(model *m);
HF_MUST hf_status bind_hf(model *m);
/* HF_INPUT: the tensor `name` is missing. */
hf_status bind_absent(const model *m, const char *name);
/* Name in a Hugging Face checkpoint; `suffix` goes to the end ("_packed"). */
enum { NAME_MAX_BYTES = 256 };
void hf_tensor_name(const model_config *c, model_tensor_id id, int layer, int expert, const char *suffix,
                    char buf[NAME_MAX_BYTES]);
HF_MUST hf_status bind_gguf(model *m);
/* Checks a stored tensor's element count against rows x cols (leading dimensions may be split or merged) and fills the slot as
 * READ_DIRECT. */
HF_MUST hf_status slot_set(model *m, tensor_slot *s, const raw_tensor *t, model_tensor_id id, int64_t rows, int64_t cols);
/* Stored format of the routed experts, of the first MoE layer's where layers differ: "the model's format". m has slots. */
fmt slots_expert_format(const model *m);

/* ---- element conversions: F32, F16, BF16, Q8_0 ---- */

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest even */
static inline float bf16_to_f32(uint16_t h) {
  union {
    uint32_t u;
    float f;
  } x = {(uint32_t)h << 16};
  return x.f;
}
/* To nearest even; of a number. */
static inline uint16_t f32_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
/* n elements starting at a block boundary. HF_UNSUPPORTED for any other format. */
HF_MUST hf_status dequant_row(fmt f, const void *row, int64_t n, float *out);

/* ---- packed.c: weights whose scales are tensors of their own ---- */

/* n bytes of a file of the set. */
HF_MUST hf_status model_read_at(const model *m, int file, uint64_t offset, void *dst, size_t n);
/* Where the stored bytes of (slot, expert) begin. */
void slot_place(const tensor_slot *s, int expert, int *file, uint64_t *offset);
/* READ_INT4, READ_MXFP4: all rows as blocks. */
HF_MUST hf_status packed_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, uint8_t *dst);
/* READ_FP8: rows [row0, row1) as f32; not of MT_K_B and MT_V_B. */
HF_MUST hf_status fp8_read_rows(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t row0,
                                int64_t row1, float *dst);
/* READ_FP8: rows of blocks. */
HF_MUST hf_status fp8_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, uint8_t *dst);
/* READ_FP8 of MT_K_B, whose transposed blocks are no blocks: as f32. */
HF_MUST hf_status fp8_read_k_b(const model *m, const tensor_slot *s, int layer, float *dst);
void fp8_row(const uint8_t *row, int64_t n, float *out);
/* Blocks of FMT_INT4_G32 and FMT_MXFP4, which dequant_row leaves to packed.c. */
void int4_row(const uint8_t *row, int64_t n, float *out);
void mxfp4_row(const uint8_t *row, int64_t n, float *out);

#endif
