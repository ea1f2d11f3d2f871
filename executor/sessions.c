#include "executor/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "executor/stream.h"

struct prompt_turn {
  const int32_t *own; /* what the line itself has */
  int n_own;
  const char *text; /* the same as text, NULL: ids */
  int64_t n_prompt; /* tokens of the whole prompt that an answer, which is there already, was given to; 0 = there is none */
};

enum { MOST_TOKENS = 1 << 24, MOST_TEXT = 64 << 20 };

int session_find(const prompt_list *l, const char *name) {
  for (int i = l->n - 1; i >= 0; i--)
    if (l->req[i].session && !strcmp(l->req[i].session, name)) return i;
  return -1;
}

/* The prompt gets room for the most that can come before it. */
static hf_status grow(prompt_list *l, serve_request *r, const serve_request *before) {
  const int64_t most = (int64_t)before->n_ids + before->max_tokens + r->n_ids;
  if (most > MOST_TOKENS)
    return hf_fail(HF_INPUT, "field session: with its earlier turns it has more than %d tokens", MOST_TOKENS);
  r->after = before;
  r->n_ids = (int)most;
  return hf_arena_get(l->a, &r->ids, (size_t)most, sizeof *r->ids);
}

hf_status session_add(prompt_list *l, const char *name, int before, const json *doc) {
  serve_request *r = &l->req[l->n - 1];
  const char *text = json_string(json_get(doc, "prompt"));
  char *copy = NULL;
  if (!l->turn) HF_TRY(hf_arena_get(l->a, &l->turn, (size_t)l->cap + 1, sizeof *l->turn));
  if (text) HF_TRY(hf_arena_str(l->a, &copy, text, strlen(text)));
  l->turn[l->n - 1] = (struct prompt_turn){.own = r->ids, .n_own = r->n_ids, .text = copy};
  HF_TRY(hf_arena_str(l->a, &copy, name, strlen(name)));
  r->session = copy;
  l->n_sessions += before < 0;
  return before < 0 ? HF_OK : grow(l, r, &l->req[before]);
}

static bool is_end(const model_config *c, int32_t id) {
  for (int i = 0; i < c->n_eos; i++)
    if (c->eos_ids[i] == id) return true;
  return false;
}

/* Prompt and answer of the turn before, without a token that ended it, and what is new. */
static void append(const serve_request *before, const struct prompt_turn *t, const model_config *c, serve_request *r) {
  const int n =
      before->n_out - (!strcmp(before->finish, "stop") && before->n_out > 0 && is_end(c, before->out[before->n_out - 1]));
  memcpy(r->ids, before->ids, (size_t)before->n_ids * sizeof *r->ids);
  memcpy(r->ids + before->n_ids, before->out, (size_t)n * sizeof *r->ids);
  memcpy(r->ids + before->n_ids + n, t->own, (size_t)t->n_own * sizeof *r->ids);
  r->n_ids = before->n_ids + n + t->n_own;
}

/* Text of an answer as the model is given it again. */
static hf_status answer_of(const serve_request *r, const tokenizer *tok, const chat_form *form, const model_config *c,
                           char **out) {
  text_stream s;
  hf_status st = HF_OK;
  stream_init(&s);
  for (int i = 0; i < r->n_out && st == HF_OK; i++)
    if (r->out[i] != form->end_id && !is_end(c, r->out[i])) st = stream_add(&s, tok, r->out[i], true, r->stop, r->n_stop);
  if (st == HF_OK) st = hf_strdup(out, chat_answer(form->style.family, s.text.data ? s.text.data : ""));
  stream_free(&s);
  return st;
}

/* The whole conversation up to r's message, as the model's form has it. */
static hf_status write_out(const prompt_list *l, const tokenizer *tok, const chat_form *form, const model_config *c,
                           const char *system, const serve_request *r, hf_buf *text) {
  int turns = 0, n = 0;
  chat_message *msg = NULL;
  hf_status st = HF_OK;
  for (const serve_request *q = r; q; q = q->after) turns++;
  HF_TRY(hf_alloc(&msg, 2 * (size_t)turns + 1, sizeof *msg, "conversation"));
  if (system) msg[n++] = (chat_message){CHAT_SYSTEM, system};
  const int first = n;
  n += 2 * turns - 1;
  int at = n - 1;
  for (const serve_request *q = r; q && st == HF_OK; q = q->after, at -= 2) {
    msg[at] = (chat_message){CHAT_USER, l->turn[q - l->req].text};
    char *answer = NULL;
    if (q->after) st = answer_of(q->after, tok, form, c, &answer);
    if (answer) msg[at - 1] = (chat_message){CHAT_ASSISTANT, answer};
  }
  if (st == HF_OK) st = chat_write(&form->style, msg, n, text);
  for (int i = first + 1; i < n; i += 2) free((char *)(uintptr_t)msg[i].text);
  free(msg);
  return st;
}

hf_status prompts_go_on(const prompt_list *l, const tokenizer *tok, const chat_form *form, const char *system,
                        const model_config *c, serve_request *r) {
  hf_buf text;
  int32_t *ids = NULL;
  int n = 0;
  if (!form) {
    append(r->after, &l->turn[r - l->req], c, r);
    return HF_OK;
  }
  hf_buf_init(&text, MOST_TEXT);
  hf_status st = write_out(l, tok, form, c, system, r, &text);
  if (st == HF_OK) st = tokenizer_encode(tok, text.data, text.len, false, true, &ids, &n);
  if (st == HF_OK && n > r->n_ids) st = hf_arena_get(l->a, &r->ids, (size_t)n, sizeof *ids);
  if (st == HF_OK) {
    memcpy(r->ids, ids, (size_t)n * sizeof *ids);
    r->n_ids = n;
  }
  free(ids);
  hf_buf_free(&text);
  return st;
}

/* ---- going on after an interruption ---- */

hf_status session_keep(const prompt_list *l, int i, int64_t n_prompt) {
  if (n_prompt <= 0) return hf_fail(HF_INPUT, "the answer to request %s does not say how long its prompt was", l->req[i].ext_id);
  l->turn[i].n_prompt = n_prompt;
  return HF_OK;
}

hf_status sessions_move(prompt_list *l, const int *at) {
  struct prompt_turn *turn;
  if (!l->turn) return HF_OK;
  HF_TRY(hf_arena_get(l->a, &turn, (size_t)l->n_all + 1, sizeof *turn));
  for (int i = 0; i < l->n_all; i++) turn[at[i]] = l->turn[i];
  l->turn = turn;
  return HF_OK;
}

hf_status sessions_resume(prompt_list *l, const tokenizer *tok, const chat_form *form, const char *system,
                          const model_config *c) {
  l->n_sessions = 0;
  for (int i = 0; i < l->n; i++) { /* one of each session that has any left is the first of them */
    const serve_request *before = l->req[i].after;
    l->n_sessions += l->req[i].session && (!before || before - l->req >= l->n);
  }
  for (int i = l->n; i < l->n_all; i++) { /* in the order of the file: what comes before is whole */
    serve_request *r = &l->req[i];
    for (int k = 0; r->session && k < r->n_out; k++)
      if (r->out[k] >= c->vocab_size)
        return hf_fail(HF_INPUT, "the answer to request %s has a token that the model has not", r->ext_id);
    if (!r->after) continue;
    HF_TRY(hf_note(prompts_go_on(l, tok, form, system, c, r), "request %s", r->ext_id));
    if (r->n_ids != l->turn[i].n_prompt)
      return hf_fail(HF_INPUT, "the answer to request %s is of another prompt; resume with the prompts it was begun with",
                     r->ext_id);
  }
  return HF_OK;
}
