/* family.h: a model family in one place. Private to model/; docs/adding-a-model.md shows how to add one.
 *
 * A family is what cannot be read from the fields of model_config alone: how its config.json and GGUF header become one, which tensors
 * have other names or lie otherwise, and how a conversation is written for it. Everything behind that (shapes, planning, execution) goes by
 * model_config. */
#ifndef HF_MODEL_FAMILY_H
#define HF_MODEL_FAMILY_H

#include "model/chat.h"
#include "model/gguf.h"

typedef struct {
  model_family id;
  const char *name;         /* model_type of config.json */
  const char *architecture; /* architectures[0], for configs without model_type; NULL = none */
  /* Fills everything but name, vocabulary, context, norm eps, ids and default_format, which config_from_json reads. */
  hf_status (*read)(const json *, const char *where, model_config *);
  /* Names in Hugging Face checkpoints that are not the usual ones (bind_hf.c; "%d" is the expert); NULL: the usual one. May be NULL. */
  const char *(*tensor_name)(model_tensor_id);
  /* Binds routed experts that are not a tensor each; NULL: they are. */
  hf_status (*bind_expert)(model *, tensor_slot *, model_tensor_id, int layer, int64_t rows, int64_t cols);
  /* GGUF: general.architecture, NULL = none is known; its reader; families that share an architecture share the reader, which sets
   * c->family. */
  const char *gguf_arch;
  hf_status (*read_gguf)(const gguf_source *);
  bool gguf_permuted;   /* q and k are stored for adjacent pairs, though halves are rotated */
  bool gguf_post_norm;  /* the norm before the feed-forward is called post_attention_norm */
  bool gguf_expert_ffn; /* feed_forward_length is that of an expert */
  /* Conversations (chat.h): the writer, NULL where no form is known; chat_end_token, chat_answer. */
  hf_status (*chat)(const chat_style *, const chat_message *, int n, hf_buf *out);
  const char *chat_end;
  const char *(*chat_answer)(const char *text);
} family;

#define FAMILY_DECLARE(id, name) extern const family family_##name;
MODEL_FAMILIES(FAMILY_DECLARE)
#undef FAMILY_DECLARE

const family *family_get(model_family f);

/* For the writers of conversations. Appends three strings. */
HF_MUST hf_status chat_put(hf_buf *out, const char *a, const char *b, const char *c);
/* Behind the last </think>, or the whole text. */
const char *chat_after_thought(const char *text);
/* The text without leading characters of `blanks`. */
const char *chat_skip(const char *text, const char *blanks);
#endif
