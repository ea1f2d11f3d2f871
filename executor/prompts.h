/* prompts.h: prompts in, answers out, as JSON Lines.
 * In:  {"prompt": TEXT} or {"ids": [...]}, optional "id", "arrival_s", "max_tokens"; other members can be filtered on.
 * Out: {"id", "prompt_tokens", "output_tokens", "text", "ids", "finish", "arrival_s", "ttft_s", "tpot_s", "end_s"}; ttft_s where a token
 * came, tpot_s where two did. "text" is valid UTF-8 whatever the model wrote. */
#ifndef HF_EXECUTOR_PROMPTS_H
#define HF_EXECUTOR_PROMPTS_H
#include "executor/serve.h"
#include "model/tokenizer.h"

typedef struct {
  int max_tokens;        /* where a line has none */
  int limit;             /* most requests; 0 = all */
  int repeat_to;         /* repeat the prompts until there are so many; 0 = no */
  const char *where_key; /* only lines whose member where_key equals where_value; NULL = all */
  const char *where_value;
  bool ignore_eos;
  int vocab_size;           /* ids must lie below it */
  const char *no_tokenizer; /* why there is none, for the error of a prompt of text; may be NULL */
} prompt_options;

typedef struct {
  serve_request *req;
  int n;
  hf_arena *a; /* owns everything */
} prompt_list;

/* tok may be NULL when every line has ids. HF_INPUT with file and line. */
HF_MUST hf_status prompts_read(const char *path, const tokenizer *tok, const prompt_options *o, prompt_list *out);
/* One request from text, or n random ids (bench) when text is NULL. */
HF_MUST hf_status prompts_add_text(prompt_list *l, const tokenizer *tok, const char *text, const prompt_options *o);
HF_MUST hf_status prompts_random(int n_requests, int n_ids, int vocab, uint64_t seed, const prompt_options *o, prompt_list *out);
void prompts_free(prompt_list *l);
const serve_request *prompts_longest_request(const prompt_list *l); /* n > 0 */
int prompts_longest(const prompt_list *l);                          /* most prompt + output tokens of a request */
/* Means over the requests, rounded; what a plan for this load is made for. */
void prompts_mean(const prompt_list *l, int *prompt_tokens, int *output_tokens);
/* Writes all answers to path as hf_write_file does (a failure leaves the old file). tok may be NULL (no text then). */
HF_MUST hf_status prompts_write(const char *path, const prompt_list *l, const tokenizer *tok);
/* The bytes of one token, or of all that came out; ids that the vocabulary does not have (models round its size up) give nothing. */
HF_MUST hf_status prompts_token_text(const tokenizer *tok, int32_t id, hf_buf *out);
HF_MUST hf_status prompts_text(const serve_request *r, const tokenizer *tok, hf_buf *out);
#endif
