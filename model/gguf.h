/* gguf.h: GGUF v2 and v3: header, metadata, tensor infos, split files. Private to model/.
 *
 * The header is read in place from the mapping; strings in it are not NUL-terminated, so getters copy or give a length. */
#ifndef HF_MODEL_GGUF_H
#define HF_MODEL_GGUF_H
#include "model/internal.h"

typedef enum {
  GGUF_U8,
  GGUF_I8,
  GGUF_U16,
  GGUF_I16,
  GGUF_U32,
  GGUF_I32,
  GGUF_F32,
  GGUF_BOOL,
  GGUF_STR,
  GGUF_ARRAY,
  GGUF_U64,
  GGUF_I64,
  GGUF_F64,
  GGUF_TYPES
} gguf_type;

typedef struct {
  const char *key;      /* NUL-terminated copy */
  gguf_type type, elem; /* elem: of an array */
  uint64_t count;       /* of an array */
  const uint8_t *value; /* little-endian; a string's begins with its u64 length */
  uint64_t bytes;       /* of value, all elements of an array */
} gguf_kv;

typedef struct {
  const char *path;
  gguf_kv *kv; /* arena of the set */
  uint64_t n_kv, n_tensors;
  bool header_only; /* the data area is absent altogether: enough to plan */
} gguf_file;

/* Opens one file into the set: metadata and tensors. */
HF_MUST hf_status gguf_open(tensor_set *s, const char *path, gguf_file *out);
const gguf_kv *gguf_find(const gguf_file *g, const char *key);
/* n <= 8 bytes at p, little-endian. */
uint64_t gguf_le(const uint8_t *p, int n);
/* Element i < kv->count of an array; false when its elements are no integers. Over INT64_MAX gives INT64_MAX. */
bool gguf_int_at(const gguf_kv *kv, uint64_t i, int64_t *out);
/* Optional members: absent leaves *out. Integers of any width, bool where bool is asked; floats of both widths, as the shortest
 * decimal that the f32 stands for. Errors name file and key. */
HF_MUST hf_status gguf_opt_int(const gguf_file *g, const char *key, int64_t lo, int64_t hi, int64_t *out);
HF_MUST hf_status gguf_opt_num(const gguf_file *g, const char *key, double lo, double hi, double *out);
HF_MUST hf_status gguf_opt_bool(const gguf_file *g, const char *key, bool *out);
HF_MUST hf_status gguf_opt_str(const gguf_file *g, const char *key, char *buf, size_t n);

/* A header on its way to a config: metadata under "ARCH.NAME", and which tensors there are. For the families' readers. */
typedef struct {
  const gguf_file *g;
  const tensor_set *s;
  const char *arch;
  model_config *c;
} gguf_source;
HF_MUST hf_status src_opt_int(const gguf_source *in, const char *name, int lo, int hi, int *out);
HF_MUST hf_status src_need_int(const gguf_source *in, const char *name, int lo, int hi, int *out); /* HF_INPUT when absent */
HF_MUST hf_status src_opt_num(const gguf_source *in, const char *name, double lo, double hi, double *out);
HF_MUST hf_status src_opt_bool(const gguf_source *in, const char *name, bool *out);
bool src_has_tensor(const gguf_source *in, const char *name, int layer);
/* Grouped-query attention: heads, widths, rotary dimensions, halves. */
HF_MUST hf_status src_gqa(const gguf_source *in);

/* Metadata to config; reads family rules of the architecture. */
HF_MUST hf_status config_from_gguf(const gguf_file *g, const tensor_set *s, model_config *c);
/* Name within a layer ("attn_q.weight") or of the whole model. */
const char *gguf_tensor_name(model_tensor_id id);
/* Opens path and, for a split, its other parts; config, slots. */
HF_MUST hf_status gguf_open_model(model *m, const char *path);
#endif
