/* Prompts from anybody, with and without a tokenizer. What is accepted keeps its promises, and can be written back as answers that are lines of
 * valid JSON. */
#include "tests/fuzz/fuzz_model.h"

#include <string.h>

#include "executor/prompts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char in_path[64], out_path[64];
static tokenizer *tok;

static void remove_files(void) {
  unlink(in_path);
  unlink(out_path);
  tokenizer_close(tok);
}

static void prepare(void) {
  fuzz_path(in_path, sizeof in_path, "hf-fuzz-prompts-%d.jsonl");
  fuzz_path(out_path, sizeof out_path, "hf-fuzz-answers-%d.jsonl");
  if (tokenizer_open("tests/golden/deepseek_v3_gguf/model.gguf", &tok) != HF_OK) abort(); /* run from the repository's root */
  atexit(remove_files);
}

static void check_answers(const prompt_list *l) {
  char *text, *line;
  size_t n;
  int lines = 0;
  if (prompts_write(out_path, l, tok) != HF_OK || hf_read_file(out_path, 1u << 30, &text, &n) != HF_OK) abort();
  for (line = text; line < text + n; lines++) {
    char *end = memchr(line, '\n', (size_t)(text + n - line));
    json *doc = NULL;
    if (!end || json_parse(line, (size_t)(end - line), "answer", &doc) != HF_OK) abort();
    if (!json_string(json_get(doc, "id"))) abort();
    json_free(doc);
    line = end + 1;
  }
  if (lines != l->n) abort();
  free(text);
}

static void read_with(const tokenizer *t, const prompt_options *o, unsigned seed) {
  prompt_list l = {0};
  if (prompts_read(in_path, t, o, &l) != HF_OK) {
    if (!hf_error_line()[0] || strchr(hf_error_line(), '\n') || l.a) abort();
    return;
  }
  if (l.n < 1 || (o->limit && !o->repeat_to && l.n > o->limit) || l.n < o->repeat_to) abort();
  for (int i = 0; i < l.n; i++) {
    serve_request *r = &l.req[i];
    if (r->n_ids < 1 || r->max_tokens < 1 || r->max_tokens > 1 << 20 || !(r->arrival_s >= 0 && r->arrival_s <= 1e9)) abort();
    for (int k = 0; k < r->n_ids; k++)
      if (r->ids[k] < 0 || r->ids[k] >= o->vocab_size) abort();
    if (strlen(r->ext_id) >= sizeof r->ext_id) abort();
    /* an answer of any tokens, those that are single bytes included */
    r->n_out = r->max_tokens < 20 ? r->max_tokens : 20;
    for (int k = 0; k < r->n_out; k++) r->out[k] = (int32_t)((seed = seed * 1664525u + 1013904223u) >> 8) % (o->vocab_size + 3);
    snprintf(r->finish, sizeof r->finish, "length");
  }
  int prompt, output;
  prompts_mean(&l, &prompt, &output);
  if (prompt < 1 || output < 1 || prompt > prompts_longest(&l)) abort();
  check_answers(&l);
  prompts_free(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!tok) prepare();
  if (size > 1 << 20 || !fuzz_write(in_path, data, size)) return 0;
  unsigned seed = (unsigned)size;
  prompt_options o = {.max_tokens = 5, .vocab_size = tokenizer_vocab_size(tok)};
  read_with(tok, &o, seed);
  o.limit = 2;
  o.where_key = "kind";
  o.where_value = "a";
  read_with(NULL, &o, seed);
  o = (prompt_options){.max_tokens = 1, .vocab_size = 4, .repeat_to = 3, .ignore_eos = true};
  read_with(NULL, &o, seed);
  return 0;
}
