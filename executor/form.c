#include "executor/form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static hf_status token_text(const tokenizer *tok, int id, char *out, size_t size) {
  hf_buf b;
  hf_buf_init(&b, size);
  hf_status st = id >= 0 ? tokenizer_decode(tok, id, true, &b) : HF_OK;
  if (st == HF_OK) snprintf(out, size, "%s", b.data ? b.data : "");
  hf_buf_free(&b);
  return st;
}

hf_status form_of(const model *m, const tokenizer *tok, const char *why, chat_form *out) {
  memset(out, 0, sizeof *out);
  if (!tok) return hf_fail(HF_INPUT, "--chat: the model has no tokenizer%s%s%s", why ? " (" : "", why ? why : "", why ? ")" : "");
  HF_TRY(token_text(tok, tokenizer_bos(tok), out->bos, sizeof out->bos));
  HF_TRY(token_text(tok, tokenizer_eos(tok), out->eos, sizeof out->eos));
  time_t now = time(NULL);
  struct tm day;
  if (localtime_r(&now, &day)) (void)strftime(out->date, sizeof out->date, "%Y-%m-%d", &day);
  const char *template = tokenizer_chat_template(tok);
  model_family f = model_get_config(m)->family;
  out->style = (chat_style){f, out->bos, out->eos, template ? template : "", out->date};
  out->end_id = -1;
  const char *end = chat_end_token(f);
  if (!end) return HF_OK;
  int32_t *ids = NULL;
  int n = 0;
  HF_TRY(tokenizer_encode(tok, end, strlen(end), false, true, &ids, &n));
  if (n == 1) out->end_id = ids[0];
  free(ids);
  return HF_OK;
}
