/* model.h: what a model is: its shape, its tensors, its bytes and FLOPs per part, and where its weights come from.
 *
 * Three ways to name a model, all giving the same `model`:
 *   a Hugging Face folder  (config.json, *.safetensors [+ index], tokenizer.json); config.json alone is enough to plan
 *   a GGUF file            (single or first of a split); the header alone is enough to plan
 *   synth:CONFIG,key=val…  weights made from a seed at any time: "synth:deepseek-r1,layers=6,seed=1,format=q8_0".
 *                          CONFIG is a path of a config.json/folder or a name resolved through model_set_catalog_hook().
 * Every offset and size in a file is checked before use; weights are memory-mapped, never copied by this room unless a
 * tensor must be derived (below). Thread rule: an open model is read-only; all functions on it are thread-safe. */
#ifndef HF_MODEL_MODEL_H
#define HF_MODEL_MODEL_H

#include "base/json.h"
#include "model/families.h"
#include "model/format.h"

/* FAM_DEEPSEEK_V3, ...: one for each line of families.h. */
#define FAMILY_ID(id, name) FAM_##id,
typedef enum { MODEL_FAMILIES(FAMILY_ID) FAM_N } model_family;
#undef FAMILY_ID

typedef enum { ATTN_MLA, ATTN_GQA } attn_kind;
typedef enum { ROUTE_SOFTMAX, ROUTE_SIGMOID, ROUTE_SOFTMAX_TOPK /* softmax over the chosen logits: gpt-oss */ } route_kind;
typedef enum { GROUP_NONE, GROUP_TOP2SUM /* V3 */, GROUP_MAX /* V2 */ } group_kind;
typedef enum { ROPE_PAIRS /* (2i, 2i+1) */, ROPE_HALVES /* (i, i+d/2) */ } rope_kind;

/* Rotary embedding, all constants resolved so that no consumer repeats family rules.
 * inv_freq [dim/2] includes YaRN interpolation (arXiv:2309.00071); cos and sin are multiplied by mscale. */
typedef struct {
  rope_kind kind;
  int dim; /* rotated dimensions of a head (qk_rope_head_dim, or partial * head_dim) */
  double theta;
  double *inv_freq; /* [dim/2], owned by the model */
  double mscale;    /* factor on cos and sin */
} model_rope;

typedef struct {
  model_family family;
  char name[128];
  int n_layers, n_dense_layers; /* layers 0 .. n_dense_layers-1 have a dense FFN (see layer_is_moe for exceptions) */
  int d_model, vocab_size, max_context;
  double norm_eps;
  bool tied_embeddings;
  /* attention */
  attn_kind attn;
  int n_heads, n_kv_heads, head_dim;           /* GQA */
  int q_lora_rank;                             /* MLA: 0 = plain q projection */
  int kv_lora_rank, nope_dim, rope_dim, v_dim; /* MLA; q/k head = nope_dim + rope_dim */
  double mla_norm_eps;                         /* q_a and kv_a norms (1e-6) */
  double attn_scale;                           /* factor on q.k: head_dim^-0.5, times YaRN's mscale^2 for MLA */
  bool qk_norm_head, qk_norm_full, qkv_bias, o_bias, sinks;
  int sliding_window; /* 0 = none; tokens a query sees, itself counted */
  bool *layer_slides; /* [n_layers] or NULL */
  model_rope rope;
  /* feed-forward */
  int d_ff_dense, d_ff_expert, d_ff_shared; /* d_ff_shared: all shared experts together; 0 = none */
  bool shared_gate;                         /* qwen2_moe: shared expert * sigmoid(gate . x) */
  int n_experts, top_k, n_group, topk_group;
  route_kind route;
  group_kind group;
  bool norm_topk, router_bias; /* router_bias: e_score_correction_bias, added for the choice only */
  double routed_scale;
  bool router_lin_bias, expert_bias; /* gpt-oss: biases of the router's product and of the experts' three */
  bool swiglu_clamped;               /* gpt-oss */
  double swiglu_limit;
  bool *layer_is_moe; /* [n_layers], always set */
  /* stored form */
  fmt default_format; /* of the routed experts, or the stated default of a catalog config */
  int bos_id, eos_ids[8], n_eos;
} model_config;

/* Canonical tensors. Shapes are [rows][cols] row-major, a product is y = W x with x of length cols.
 * For MT_K_B and MT_V_B of models that store kv_b_proj (Hugging Face) the tensor is derived: model_tensor_read
 * transposes or gathers; model_tensor_map returns NULL. The same holds wherever a file's layout differs from the canonical one. */
typedef enum {
  MT_EMBED,    /* [vocab][d_model] */
  MT_OUT_NORM, /* [d_model] f32-able */
  MT_OUTPUT,   /* [vocab][d_model]; tied: the embedding */
  MT_ATTN_NORM,
  MT_FFN_NORM, /* [d_model] */
  MT_Q,        /* GQA [n_heads*head_dim][d_model]; MLA without q lora [n_heads*(nope+rope)][d_model] */
  MT_K,
  MT_V, /* GQA [n_kv_heads*head_dim][d_model] */
  MT_O, /* [d_model][n_heads*head_dim or n_heads*v_dim] */
  MT_Q_BIAS,
  MT_K_BIAS,
  MT_V_BIAS,
  MT_O_BIAS,
  MT_Q_NORM,
  MT_K_NORM,      /* [head_dim], or whole width for OLMoE */
  MT_SINKS,       /* [n_heads] */
  MT_Q_A,         /* [q_lora][d_model] */
  MT_Q_A_NORM,    /* [q_lora] */
  MT_Q_B,         /* [n_heads*(nope+rope)][q_lora]; per head nope first, then rope */
  MT_KV_A,        /* [kv_lora+rope][d_model] */
  MT_KV_A_NORM,   /* [kv_lora] */
  MT_K_B,         /* [n_heads*kv_lora][nope]: head h rows h*kv_lora.. : q_latent_h = K_B_h q_nope_h */
  MT_V_B,         /* [n_heads*v_dim][kv_lora]: o_h = V_B_h (attention-weighted latent) */
  MT_ROUTER,      /* [n_experts][d_model] */
  MT_ROUTER_BIAS, /* [n_experts] */
  MT_GATE,
  MT_UP,
  MT_DOWN, /* dense layers: [d_ff][d_model] x2, [d_model][d_ff] */
  MT_SH_GATE,
  MT_SH_UP,
  MT_SH_DOWN,     /* shared experts as one of width d_ff_shared */
  MT_SH_GATE_INP, /* [1][d_model] */
  MT_EXP_GATE,
  MT_EXP_UP,
  MT_EXP_DOWN,        /* one routed expert: [d_ff_expert][d_model] x2, [d_model][d_ff_expert] */
  MT_ROUTER_LIN_BIAS, /* gpt-oss: [n_experts], part of the logits (unlike MT_ROUTER_BIAS) */
  MT_EXP_GATE_BIAS,
  MT_EXP_UP_BIAS,
  MT_EXP_DOWN_BIAS, /* gpt-oss, one expert: [d_ff_expert] x2, [d_model] */
  MT_N
} model_tensor_id;

typedef struct {
  fmt format;
  int64_t rows, cols;
  size_t bytes; /* rows * fmt_loaded_row_bytes(format, cols) */
  bool derived; /* read only: no mapping exists */
} model_tensor_info;

typedef struct model model;

/* Tensors of one routed expert, its biases too: asked for with an expert's index. */
bool model_tensor_is_expert(model_tensor_id id);

/* Opens by path or synth: string. HF_NOT_FOUND / HF_INPUT with file and field; HF_UNSUPPORTED for an unknown architecture
 * (names the ones known). Weights need not be there: model_has_weights() tells. */
HF_MUST hf_status model_open(const char *name_or_path, model **out);
/* The same to find all that is wrong with weight files: what is wrong with single files and tensors goes to `fault`, one line each, and opening goes
 * on without them. Fails as model_open does where there is nothing to go on with. */
typedef void model_fault_fn(void *user, const char *line);
HF_MUST hf_status model_open_tolerant(const char *path, model_fault_fn *fault, void *user, model **out);
void model_close(model *m);
/* From a config.json that is already parsed (a catalog entry): planning only. `where` starts error lines. */
HF_MUST hf_status model_from_config(const json *config, const char *where, model **out);

/* Resolves "deepseek-r1" in synth:deepseek-r1,… to a config. Set by programs that link the catalog (db room), once, before they
 * start threads or open a model: it is not guarded. The hook
 * returns HF_NOT_FOUND for an unknown name; *config is owned by the caller, json_free. */
typedef hf_status (*model_catalog_hook)(void *user, const char *name, json **config);
void model_set_catalog_hook(model_catalog_hook hook, void *user);

const model_config *model_get_config(const model *m);
const char *model_path(const model *m); /* as opened; tokenizer_open takes it too, unless it is a synth: name */
bool model_has_weights(const model *m);

/* layer -1 for MT_EMBED, MT_OUT_NORM, MT_OUTPUT; expert -1 unless MT_EXP_*. HF_NOT_FOUND when this model has no such
 * tensor (not an error of the file: optional tensors are asked for with model_has_tensor). */
bool model_has_tensor(const model *m, model_tensor_id id, int layer);
HF_MUST hf_status model_tensor(const model *m, model_tensor_id id, int layer, int expert, model_tensor_info *out);
/* Direct pointer into the mapping, valid until model_close; *out NULL when derived or synthetic: use _read then. HF_MACHINE when the file
 * has become shorter than it was when opened. What nobody can check is a file that is cut, or a disk that fails, after this call: touching a
 * page that is no longer there raises SIGBUS. Do not write into weight files that are in use; replace them. */
HF_MUST hf_status model_tensor_map(const model *m, model_tensor_id id, int layer, int expert, const void **out);
/* For a program's main: from now on such a SIGBUS ends the process with one line that names the file (base/end.h). Any other SIGBUS is as before. */
void model_guard_mappings(void);
/* Writes info.bytes bytes in canonical layout and info.format to dst. HF_MACHINE on a read error (file shrank). */
HF_MUST hf_status model_tensor_read(const model *m, model_tensor_id id, int layer, int expert, void *dst, size_t dst_bytes);
/* The whole tensor as float32, n = rows * cols, exactly: also where model_tensor_read rounds (MT_K_B of FP8 checkpoints, to BF16). HF_UNSUPPORTED
 * for formats that nothing here can turn into numbers. */
HF_MUST hf_status model_tensor_read_f32(const model *m, model_tensor_id id, int layer, int expert, float *dst, int64_t n);
/* One row as float32 (embedding look-up, vectors); n = cols. */
HF_MUST hf_status model_row_f32(const model *m, model_tensor_id id, int layer, int64_t row, float *dst, int64_t n);

/* Tensors as the files have them, in file order; none for synthetic models and configs. Texts live as long as the model. */
typedef struct {
  const char *name, *dtype, *file;
  fmt format; /* FMT_DEFAULT: a type that holds no weights, dtype names it */
  int n_dims;
  int64_t dims[4]; /* outermost first */
  uint64_t offset, bytes;
  bool in_file; /* false: the file ends before it (a header alone, or cut short) */
} model_stored_tensor;
int64_t model_stored_count(const model *m);
model_stored_tensor model_stored(const model *m, int64_t i);
/* n bytes of a stored tensor from byte `at`. HF_MACHINE on a read error. */
HF_MUST hf_status model_stored_read(const model *m, int64_t i, uint64_t at, void *dst, size_t n);
int model_file_count(const model *m);
const char *model_file_path(const model *m, int i);
/* "expert_down": the name of a canonical tensor in messages and tables. */
const char *model_tensor_name(model_tensor_id id);
const char *model_missing(const model *m); /* why there are no weights, or NULL */

/* Bytes and FLOPs per part, for planning; every figure follows from config and formats alone, or from the file's tensors
 * where there are some. FLOPs count 2 per multiply-add, for one token at context 0 (attention's part over context apart). */
typedef struct {
  int64_t bytes;
  int64_t loaded_bytes; /* by model_loaded_bytes, on a machine that uses tiles */
  double flops_per_token;
} model_part;
typedef struct {
  model_part attn, norms, dense_ffn, router, shared, expert /* one expert */;
  fmt attn_fmt, ffn_fmt, shared_fmt, expert_fmt;
  fmt down_fmt;                   /* of MT_EXP_DOWN: its blocks lie along the intermediate dimension */
  double flops_per_token_context; /* attention: per token of context, absorbed form for MLA */
} model_layer_parts;
HF_MUST hf_status model_layer_parts_of(const model *m, fmt expert_format_or_default, int layer, model_layer_parts *out);
typedef struct {
  model_part embed, output; /* output = final norm + lm head */
} model_head_parts;
HF_MUST hf_status model_head_parts_of(const model *m, fmt format_or_default, model_head_parts *out);
/* KV cache bytes per token of one layer: MLA (kv_lora + rope) numbers, GQA 2 * n_kv_heads * head_dim. kv: F32, F16, BF16, or Q8_0, which fills up the
 * numbers of MLA's row, or of each head, to whole blocks. hf-plan budgets with it what hf-run takes. */
int64_t model_kv_bytes_per_token(const model_config *c, int layer, fmt kv);
/* Takes the names of these four. */
bool model_kv_type(const char *name, fmt *out);
int64_t model_total_bytes(const model *m, fmt format_or_default);
int64_t model_total_params(const model_config *c);

/* Are rows of it looked up one by one, or is it cut at other places than tiles? */
bool model_tensor_by_rows(const model_config *c, model_tensor_id id);
/* A tensor's bytes in the memory of hf-run, which begins each at a multiple of 64: a single row or column as f32; a matrix in whole tiles where they
 * are used, the format has them and no row of it is needed alone; else row after row. hf-plan budgets with it what hf-run takes by it. */
int64_t model_loaded_bytes(const model_config *c, model_tensor_id id, fmt f, int64_t rows, int64_t cols, bool tiles);

/* A seeded generator: writes a synthetic model of any config as GGUF or as a safetensors folder, streaming (memory stays under
 * 64 MB). Weights are drawn so that activations stay finite and routing is not degenerate. */
typedef struct {
  uint64_t seed;
  fmt format;  /* of matrices; norms and router F32 */
  int layers;  /* 0 = as in the config */
  int experts; /* 0 = as in the config */
  bool gguf;
} model_synth_options;
HF_MUST hf_status model_synth_write(const json *config, const char *where, const model_synth_options *o, const char *path);
/* Writes what "synth:CONFIG,..." names: a GGUF file when path ends in .gguf, else a safetensors folder. */
HF_MUST hf_status model_synth_export(const char *name, const char *path);

const char *model_family_name(model_family f);
#endif
