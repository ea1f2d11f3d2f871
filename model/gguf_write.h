/* gguf_write.h: the header of a GGUF file, key by key. Private to model/.
 *
 * Appends never fail one by one: the first failure is kept in `st` and ends the rest; gguf_header() reports it. One head, one thread. */
#ifndef HF_MODEL_GGUF_WRITE_H
#define HF_MODEL_GGUF_WRITE_H
#include "model/gguf.h"
#include "model/tokenizer.h"

enum { GGUF_ALIGN = 32 };

typedef struct {
  hf_buf b;
  hf_status st;
  uint64_t n; /* entries appended */
  const char *arch;
} gguf_head;

void gguf_head_init(gguf_head *h, const char *arch);
void gguf_put_raw(gguf_head *h, const void *p, size_t n);
void gguf_put_u32(gguf_head *h, uint32_t v);
void gguf_put_u64(gguf_head *h, uint64_t v);
void gguf_put_text(gguf_head *h, const char *s, size_t n); /* length and bytes */
/* Begins an entry; its value must follow. A key that begins with '.' belongs to the architecture. */
void gguf_put_key(gguf_head *h, const char *k, gguf_type type);
/* A key of any length, whatever it begins with. */
void gguf_put_key_as_it_is(gguf_head *h, const char *k, gguf_type type);
/* Begins an array of n elements; they must follow. */
void gguf_put_array(gguf_head *h, const char *k, gguf_type elem, uint64_t n);
void gguf_put_int(gguf_head *h, const char *k, int v);
void gguf_put_num(gguf_head *h, const char *k, double v); /* as f32 */
void gguf_put_str(gguf_head *h, const char *k, const char *v);
void gguf_put_bool(gguf_head *h, const char *k, bool v);

/* general.* and all keys of the architecture: what config_from_gguf reads. */
void gguf_put_config(gguf_head *h, const model_config *c, const rope_spec *r, fmt file_format);
/* llama.cpp's number of a file whose matrices are mostly in f (general.file_type). */
int gguf_file_type(fmt f);

/* One entry of the list of tensors; dims innermost first. */
void gguf_put_tensor(gguf_head *infos, const char *name, int n_dims, const int64_t *dims, fmt f, uint64_t offset);
/* Name and dimensions (innermost first) of a canonical tensor of rows x cols (of one expert) in files of the model's family. */
void gguf_name_of(const model_config *c, model_tensor_id id, int layer, char out[128]);
int gguf_dims_of(const model_config *c, model_tensor_id id, int64_t rows, int64_t cols, int64_t dims[3]);

/* Magic, counts, metadata and tensors; *out is the caller's, hf_buf_free. Both heads are freed, also on failure. */
HF_MUST hf_status gguf_header(gguf_head *kv, gguf_head *infos, hf_buf *out);
/* GGUF cannot say everything that a config can: reads the header at `path` again; HF_UNSUPPORTED names what would be lost of c. */
HF_MUST hf_status gguf_says(const char *path, const model_config *c, const char *where);
/* tokenizer_put.c: a tokenizer as metadata. HF_UNSUPPORTED: what GGUF cannot say; HF_INPUT: more tokens than c has rows. */
HF_MUST hf_status tok_put_gguf(const tokenizer *t, const model_config *c, gguf_head *h);
#endif
