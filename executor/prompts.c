#include "executor/prompts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "executor/sessions.h"
#include "executor/stream.h"

enum { MAX_FILE = 1 << 30, MAX_REQUESTS = 1 << 20 };

static hf_status list_new(int cap, prompt_list *l) {
  *l = (prompt_list){.cap = cap};
  HF_TRY(hf_arena_new(&l->a, (size_t)8 << 30, "requests"));
  return hf_arena_get(l->a, &l->req, (size_t)cap + 1, sizeof *l->req);
}

void prompts_free(prompt_list *l) {
  hf_arena_free(l->a);
  *l = (prompt_list){0};
}

static hf_status add(prompt_list *l, const char *id, const int32_t *ids, int n_ids, int max_tokens, double arrival_s,
                     bool ignore_eos) {
  serve_request *r = &l->req[l->n];
  size_t n = strlen(id) < sizeof r->ext_id ? strlen(id) : utf8_complete_prefix(id, sizeof r->ext_id - 1);
  memcpy(r->ext_id, id, n);
  r->ext_id[n] = 0;
  HF_TRY(hf_arena_get(l->a, &r->ids, (size_t)n_ids, sizeof *ids));
  memcpy(r->ids, ids, (size_t)n_ids * sizeof *ids);
  HF_TRY(hf_arena_get(l->a, &r->out, (size_t)max_tokens, sizeof *r->out));
  r->n_ids = n_ids;
  r->max_tokens = max_tokens;
  r->arrival_s = arrival_s;
  r->ignore_eos = ignore_eos;
  r->draw = (uint64_t)l->n;
  l->n++;
  return HF_OK;
}

/* Room for the probabilities of the request added last. */
static hf_status add_logprobs(prompt_list *l, const prompt_options *o) {
  serve_request *r = &l->req[l->n - 1];
  size_t n = (size_t)r->max_tokens, k = (size_t)o->logprobs;
  if (o->logprobs <= 0) return HF_OK;
  r->n_logprobs = o->logprobs;
  HF_TRY(hf_arena_get(l->a, &r->logprob, n, sizeof(float)));
  HF_TRY(hf_arena_get(l->a, &r->top_ids, n * k, sizeof(int32_t)));
  return hf_arena_get(l->a, &r->top_logprob, n * k, sizeof(float));
}

/* Stop texts of the request added last: those of every request, then its own. */
static hf_status add_stops(prompt_list *l, const prompt_options *o, const json *own, const char *where) {
  serve_request *r = &l->req[l->n - 1];
  bool list = json_type(own) == JSON_ARRAY;
  int n = o->n_stop + (!own || json_type(own) == JSON_NULL ? 0 : list ? json_len(own) : 1), k = 0;
  const char **stop;
  if (n == 0) return HF_OK;
  HF_TRY(hf_arena_get(l->a, &stop, (size_t)n, sizeof *stop));
  for (; k < o->n_stop; k++) stop[k] = o->stop[k];
  for (const json *v = list ? json_first(own) : own; v && k < n; v = list ? json_next(v) : NULL, k++) {
    const char *text = json_string(v);
    char *copy;
    if (!text || !*text) return hf_fail(HF_INPUT, "%s: field stop: not a text, or an array of texts, none empty", where);
    HF_TRY(hf_arena_str(l->a, &copy, text, strlen(text)));
    stop[k] = copy;
  }
  r->stop = stop;
  r->n_stop = n;
  return HF_OK;
}

static hf_status need_tokenizer(const tokenizer *tok, const char *where, const prompt_options *o) {
  if (tok) return HF_OK;
  return hf_fail(HF_INPUT, "%s: a prompt of text, but the model has no tokenizer%s%s%s; give \"ids\"", where,
                 o->no_tokenizer ? " (" : "", o->no_tokenizer ? o->no_tokenizer : "", o->no_tokenizer ? ")" : "");
}

static hf_status add_encoded(prompt_list *l, const tokenizer *tok, const char *where, const char *field, const char *id,
                             const char *text, bool bos, int max_tokens, double arrival_s, const prompt_options *o) {
  int32_t *ids = NULL;
  int n = 0;
  HF_TRY(hf_note(tokenizer_encode(tok, text, strlen(text), bos, true, &ids, &n), "%s: field %s", where, field));
  hf_status st = n ? hf_note(add(l, id, ids, n, max_tokens, arrival_s, o->ignore_eos), "%s", where)
                   : hf_fail(HF_INPUT, "%s: field %s: empty", where, field);
  free(ids);
  return st;
}

static hf_status add_conversation(prompt_list *l, const tokenizer *tok, const char *where, const char *field, const char *id,
                                  const chat_message *msg, int n, int max_tokens, double arrival_s, const prompt_options *o) {
  hf_buf text;
  hf_buf_init(&text, 64u << 20);
  hf_status st = hf_note(chat_write(o->chat, msg, n, &text), "%s: field %s", where, field);
  if (st == HF_OK) st = add_encoded(l, tok, where, field, id, text.data, false, max_tokens, arrival_s, o);
  hf_buf_free(&text);
  return st;
}

static hf_status add_text(prompt_list *l, const tokenizer *tok, const char *where, const char *id, const char *text, bool begins,
                          int max_tokens, double arrival_s, const prompt_options *o) {
  HF_TRY(need_tokenizer(tok, where, o));
  if (!o->chat) return add_encoded(l, tok, where, "prompt", id, text, begins, max_tokens, arrival_s, o);
  chat_message msg[] = {{CHAT_SYSTEM, o->system}, {CHAT_USER, text}};
  int skip = !o->system;
  return add_conversation(l, tok, where, "prompt", id, msg + skip, 2 - skip, max_tokens, arrival_s, o);
}

static hf_status add_messages(prompt_list *l, const tokenizer *tok, const char *where, const char *id, const json *list,
                              int max_tokens, double arrival_s, const prompt_options *o) {
  static const char *const roles[] = {"system", "user", "assistant"};
  chat_message *msg = NULL;
  int n = 0, most = json_len(list);
  HF_TRY(need_tokenizer(tok, where, o));
  if (!o->chat) return hf_fail(HF_INPUT, "%s: field messages: a conversation needs --chat", where);
  if (json_type(list) != JSON_ARRAY || most == 0)
    return hf_fail(HF_INPUT, "%s: field messages: expected a non-empty array of {role, content}", where);
  HF_TRY(hf_alloc(&msg, (size_t)most, sizeof *msg, "messages"));
  hf_status st = HF_OK;
  for (const json *m = json_first(list); m && st == HF_OK; m = json_next(m), n++) {
    const char *role = json_string(json_get(m, "role")), *text = json_string(json_get(m, "content"));
    int k = 0;
    while (k < 3 && (!role || strcmp(role, roles[k]))) k++;
    if (k == 3 || !text)
      st = hf_fail(HF_INPUT, "%s: field messages[%d]: expected a role (system, user, assistant) and content of text", where, n);
    else msg[n] = (chat_message){(chat_role)k, text};
  }
  if (st == HF_OK) st = add_conversation(l, tok, where, "messages", id, msg, n, max_tokens, arrival_s, o);
  free(msg);
  return st;
}

static hf_status add_ids(prompt_list *l, const json *v, const char *where, const char *id, int vocab, int max_tokens,
                         double arrival_s, bool ignore_eos) {
  int n = json_len(v), i = 0;
  int32_t *ids;
  if (json_type(v) != JSON_ARRAY || n == 0)
    return hf_fail(HF_INPUT, "%s: field ids: expected a non-empty array of token ids", where);
  HF_TRY(hf_alloc(&ids, (size_t)n, sizeof *ids, "token ids"));
  hf_status st = HF_OK;
  for (const json *x = json_first(v); x && st == HF_OK; x = json_next(x), i++) {
    double d = json_number(x, -1);
    if (d < 0 || d >= vocab || d != floor(d)) st = hf_fail(HF_INPUT, "%s: field ids[%d]: no token id below %d", where, i, vocab);
    else ids[i] = (int32_t)d;
  }
  if (st == HF_OK) st = hf_note(add(l, id, ids, n, max_tokens, arrival_s, ignore_eos), "%s", where);
  free(ids);
  return st;
}

static hf_status add_request(prompt_list *l, const json *doc, const char *where, const tokenizer *tok, const prompt_options *o,
                             const char *id, bool begins, int max_tokens, double arrival) {
  const char *prompt = NULL;
  HF_TRY(json_opt_str(doc, where, "prompt", &prompt));
  if (prompt) return add_text(l, tok, where, id, prompt, begins, max_tokens, arrival, o);
  const json *messages = json_get(doc, "messages"), *ids = json_get(doc, "ids");
  if (messages) return add_messages(l, tok, where, id, messages, max_tokens, arrival, o);
  if (ids) return add_ids(l, ids, where, id, o->vocab_size, max_tokens, arrival, o->ignore_eos);
  return hf_fail(HF_INPUT, "%s: neither \"prompt\" nor \"ids\" nor \"messages\"", where);
}

static hf_status read_line(prompt_list *l, const json *doc, const char *where, const tokenizer *tok, const prompt_options *o,
                           int line) {
  int64_t max_tokens = o->max_tokens;
  double arrival = 0;
  const char *id = NULL;
  char number[32];
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: expected an object", where);
  if (o->where_key) {
    const char *v = json_string(json_get(doc, o->where_key));
    if (!v || strcmp(v, o->where_value)) return HF_OK;
  }
  HF_TRY(json_opt_int(doc, where, "max_tokens", 1, 1 << 20, &max_tokens));
  HF_TRY(json_opt_num(doc, where, "arrival_s", 0, 1e9, &arrival));
  id = json_string(json_get(doc, "id"));
  if (!id) {
    snprintf(number, sizeof number, "%.15g", json_number(json_get(doc, "id"), line));
    id = number;
  }
  const char *session = NULL;
  HF_TRY(json_opt_str(doc, where, "session", &session));
  if (session && !*session) return hf_fail(HF_INPUT, "%s: field session: empty", where);
  if (session && o->repeat_to) return hf_fail(HF_INPUT, "%s: field session: sessions cannot be repeated (--batch)", where);
  if (session && o->chat && !json_string(json_get(doc, "prompt")))
    return hf_fail(HF_INPUT, "%s: field session: with --chat each line of a session has a \"prompt\", the user's next message",
                   where);
  const int before = session ? session_find(l, session) : -1;
  HF_TRY(add_request(l, doc, where, tok, o, id, before < 0, (int)max_tokens, arrival));
  if (session) HF_TRY(hf_note(session_add(l, session, before, doc), "%s", where));
  HF_TRY(add_stops(l, o, json_get(doc, "stop"), where));
  return add_logprobs(l, o);
}

static hf_status repeat(prompt_list *l, int to, const prompt_options *o) {
  for (int n = l->n; l->n < to;) {
    const serve_request *r = &l->req[l->n % n];
    char id[96];
    size_t keep = strlen(r->ext_id) <= 50 ? strlen(r->ext_id) : utf8_complete_prefix(r->ext_id, 50);
    snprintf(id, sizeof id, "%.*s#%d", (int)keep, r->ext_id, l->n / n + 1);
    HF_TRY(add(l, id, r->ids, r->n_ids, r->max_tokens, r->arrival_s, r->ignore_eos));
    l->req[l->n - 1].stop = r->stop;
    l->req[l->n - 1].n_stop = r->n_stop;
    HF_TRY(add_logprobs(l, o));
  }
  return HF_OK;
}

hf_status prompts_read(const char *path, const tokenizer *tok, const prompt_options *o, prompt_list *out) {
  char *text = NULL;
  size_t n;
  int lines = 1, line = 0;
  HF_TRY(hf_read_file(path, MAX_FILE, &text, &n));
  for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
  if (lines < o->repeat_to) lines = o->repeat_to;
  hf_status st = lines > MAX_REQUESTS ? hf_fail(HF_INPUT, "%s: more than %d lines", path, MAX_REQUESTS) : list_new(lines, out);
  for (char *p = text, *end; st == HF_OK && p < text + n && (o->limit == 0 || out->n < o->limit); p = end + 1) {
    end = memchr(p, '\n', (size_t)(text + n - p));
    if (!end) end = text + n;
    line++;
    if (strspn(p, " \t\r\n") >= (size_t)(end - p)) continue;
    char where[4200];
    json *doc = NULL;
    snprintf(where, sizeof where, "%s: line %d", path, line);
    st = json_parse(p, (size_t)(end - p), where, &doc);
    if (st == HF_OK) st = read_line(out, doc, where, tok, o, line);
    json_free(doc);
  }
  free(text);
  if (st == HF_OK && out->n == 0) st = hf_fail(HF_INPUT, "%s: no prompts%s", path, o->where_key ? " match --where" : "");
  if (st == HF_OK && o->repeat_to) st = repeat(out, o->repeat_to, o);
  if (st != HF_OK) prompts_free(out);
  return st;
}

hf_status prompts_add_text(prompt_list *l, const tokenizer *tok, const char *text, const prompt_options *o) {
  if (!l->a) HF_TRY(list_new(1, l));
  HF_TRY(add_text(l, tok, "--prompt", "prompt", text, true, o->max_tokens, 0, o));
  HF_TRY(add_stops(l, o, NULL, "--prompt"));
  return add_logprobs(l, o);
}

hf_status prompts_random(int n_requests, int n_ids, int vocab, uint64_t seed, const prompt_options *o, prompt_list *out) {
  int32_t *ids;
  HF_TRY(list_new(n_requests, out));
  HF_TRY(hf_alloc(&ids, (size_t)n_ids, sizeof *ids, "token ids"));
  hf_status st = HF_OK;
  uint64_t z = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (int r = 0; r < n_requests && st == HF_OK; r++) {
    char id[32];
    for (int i = 0; i < n_ids;
         i++) { /* xorshift64 (Marsaglia 2003): other tokens in every sequence, so that they choose other experts */
      z ^= z << 13;
      z ^= z >> 7;
      z ^= z << 17;
      ids[i] = (int32_t)(z % (uint64_t)vocab);
    }
    snprintf(id, sizeof id, "%d", r);
    st = add(out, id, ids, n_ids, o->max_tokens, 0, true);
  }
  free(ids);
  return st;
}

const serve_request *prompts_longest_request(const prompt_list *l) {
  const serve_request *most = l->req;
  for (int i = 1; i < l->n; i++)
    if (l->req[i].n_ids + l->req[i].max_tokens > most->n_ids + most->max_tokens) most = &l->req[i];
  return most;
}

int prompts_parked(const prompt_list *l, int users) {
  for (int i = 0; i < l->n; i++)
    if (!l->req[i].session) return l->n_sessions;
  return l->n_sessions > users ? l->n_sessions - users : 0;
}

int prompts_longest(const prompt_list *l) {
  const serve_request *r = prompts_longest_request(l);
  return l->n ? r->n_ids + r->max_tokens : 0;
}

void prompts_mean(const prompt_list *l, int *prompt_tokens, int *output_tokens) {
  int64_t in = 0, out = 0;
  for (int i = 0; i < l->n; i++) {
    in += l->req[i].n_ids;
    out += l->req[i].max_tokens;
  }
  *prompt_tokens = l->n ? (int)((in + l->n / 2) / l->n) : 0;
  *output_tokens = l->n ? (int)((out + l->n / 2) / l->n) : 0;
}

hf_status prompts_text(const serve_request *r, const tokenizer *tok, hf_buf *out) {
  text_stream s;
  stream_init(&s);
  hf_status st = HF_OK;
  for (int i = 0; i < r->n_out && st == HF_OK; i++) st = stream_add(&s, tok, r->out[i], false, r->stop, r->n_stop);
  if (st == HF_OK && s.text.len) st = hf_buf_add(out, s.text.data, s.text.len);
  stream_free(&s);
  return st;
}

/* The text of an answer. JSON must be valid UTF-8 while a model may write any bytes: an incomplete character at the end, where the answer
 * was cut, is left out; whatever else is invalid becomes U+FFFD (json_add_str), and so does the zero byte. */
static hf_status add_answer_text(json *obj, const serve_request *r, const tokenizer *tok) {
  hf_buf b;
  hf_buf_init(&b, 64u << 20);
  hf_status st = prompts_text(r, tok, &b);
  if (st == HF_OK) {
    size_t n = utf8_complete_prefix(b.data ? b.data : "", b.len);
    for (size_t i = 0; i < n; i++)
      if (!b.data[i]) b.data[i] = (char)0xff; /* no byte of UTF-8 */
    if (b.data) b.data[n] = 0;
    json_add_str(obj, "text", b.data ? b.data : "");
  }
  hf_buf_free(&b);
  return st;
}

static void add_answer_logprobs(json *obj, const serve_request *r) {
  json *list = json_add_array(obj, "logprobs");
  for (int i = 0; i < r->n_out; i++) {
    json *t = json_add_object(list, NULL);
    json_add_int(t, "id", r->out[i]);
    json_add_num(t, "logprob", r->logprob[i]);
    json *top = json_add_array(t, "top");
    for (int k = 0; k < r->n_logprobs; k++) {
      json *pair = json_add_array(top, NULL);
      json_add_int(pair, NULL, r->top_ids[i * r->n_logprobs + k]);
      json_add_num(pair, NULL, r->top_logprob[i * r->n_logprobs + k]);
    }
  }
}

hf_status prompts_answer_line(const serve_request *r, const tokenizer *tok, hf_buf *out) {
  char *line = NULL;
  json *o = json_new_object();
  json_add_str(o, "id", r->ext_id);
  if (r->session) json_add_str(o, "session", r->session);
  json_add_int(o, "prompt_tokens", r->n_ids);
  json_add_int(o, "output_tokens", r->n_out);
  hf_status st = tok ? add_answer_text(o, r, tok) : HF_OK;
  json *ids = json_add_array(o, "ids");
  for (int i = 0; i < r->n_out; i++) json_add_int(ids, NULL, r->out[i]);
  json_add_str(o, "finish", r->finish);
  if (r->suspect) json_add_bool(o, "suspect", true);
  json_add_num(o, "arrival_s", r->arrival_s);
  if (r->n_out > 0) json_add_num(o, "ttft_s", r->first_token_s - r->arrival_s);
  if (r->n_out > 1) json_add_num(o, "tpot_s", (r->end_s - r->first_token_s) / (r->n_out - 1));
  json_add_num(o, "end_s", r->end_s);
  if (r->logprob) add_answer_logprobs(o, r);
  if (st == HF_OK) st = json_print(o, false, &line);
  json_free(o);
  if (st == HF_OK) st = hf_buf_add(out, line, strlen(line));
  if (st == HF_OK) st = hf_buf_add(out, "\n", 1);
  free(line);
  return st;
}

hf_status prompts_write(const char *path, const prompt_list *l, const tokenizer *tok) {
  hf_buf b;
  hf_status st = HF_OK;
  int next = 0, n = l->kept ? l->n_all : l->n;
  hf_buf_init(&b, (size_t)4 << 30);
  for (int i = 0; i < n && st == HF_OK; i++) {
    if (!l->kept || !l->kept[i]) st = prompts_answer_line(&l->req[next++], tok, &b);
    else st = hf_buf_printf(&b, "%s\n", l->kept[i]);
  }
  if (st == HF_OK) st = hf_write_file(path, b.data ? b.data : "", b.len);
  hf_buf_free(&b);
  return st;
}

/* The tokens of an answer that later turns go on from. */
static hf_status take_answer(serve_request *r, const json *doc, const char *where, const char *finish) {
  const json *ids = json_get(doc, "ids");
  const int n = json_len(ids);
  int i = 0;
  if (json_type(ids) != JSON_ARRAY || n > r->max_tokens)
    return hf_fail(HF_INPUT, "%s: field ids: not the tokens of this answer", where);
  for (const json *x = json_first(ids); x; x = json_next(x), i++) {
    const double d = json_number(x, -1);
    if (d < 0 || d > INT32_MAX || d != floor(d)) return hf_fail(HF_INPUT, "%s: field ids[%d]: no token id", where, i);
    r->out[i] = (int32_t)d;
  }
  r->n_out = n;
  snprintf(r->finish, sizeof r->finish, "%s", finish);
  return HF_OK;
}

static hf_status other_prompt(const char *where, const char *id) {
  return hf_fail(HF_INPUT, "%s: the answer to request %s is of another prompt; resume with the prompts it was begun with", where,
                 id);
}

/* The request that an answer's line belongs to: the first of its id without an answer; -1 = it is to be served again, or there twice. */
static hf_status request_of(const prompt_list *l, const json *doc, const char *where, int *out) {
  const char *id = json_string(json_get(doc, "id")), *finish = json_string(json_get(doc, "finish"));
  *out = -1;
  if (!id || !finish) return hf_fail(HF_INPUT, "%s: not an answer that hf-run wrote", where);
  if (strcmp(finish, "stop") && strcmp(finish, "length")) return HF_OK;
  bool suspect = false;
  HF_TRY(json_opt_bool(doc, where, "suspect", &suspect));
  if (suspect) return HF_OK; /* it is asked for again */
  int i = 0;
  bool known = false; /* one that is there twice is kept once */
  while (i < l->n_all && (l->kept[i] || strcmp(l->req[i].ext_id, id))) known |= !strcmp(l->req[i++].ext_id, id);
  if (i == l->n_all && !known)
    return hf_fail(
        HF_INPUT,
        "%s: answers request %s, which is none of these prompts, and would be lost: resume with the prompts it was begun with "
        "(--limit and --where leave some out), or write to another --out",
        where, id);
  if (i == l->n_all) return HF_OK;
  serve_request *r = &l->req[i];
  if (r->after && !l->kept[r->after - l->req]) return HF_OK; /* what it goes on from is asked for again */
  const double n_ids = json_number(json_get(doc, "prompt_tokens"), -1);
  if (!r->after && n_ids != r->n_ids) return other_prompt(where, id);
  if (r->session) HF_TRY(take_answer(r, doc, where, finish));
  if (r->after) HF_TRY(session_keep(l, i, (int64_t)n_ids));
  *out = i;
  return HF_OK;
}

static hf_status keep_lines(prompt_list *l, const char *path, char *text, size_t n) {
  int line = 0;
  for (char *p = text, *end; p < text + n && (end = memchr(p, '\n', (size_t)(text + n - p))); p = end + 1) {
    char where[4200];
    json *doc = NULL;
    int i = -1;
    line++;
    if (p == end) continue;
    snprintf(where, sizeof where, "%s: line %d", path, line);
    hf_status st = json_parse(p, (size_t)(end - p), where, &doc);
    if (st == HF_OK) st = request_of(l, doc, where, &i);
    json_free(doc);
    if (st == HF_OK && i >= 0) st = hf_arena_str(l->a, &l->kept[i], p, (size_t)(end - p));
    if (st != HF_OK) return st;
  }
  return HF_OK;
}

hf_status prompts_keep(prompt_list *l, const char *path) {
  char *text = NULL;
  size_t n;
  if (!l->kept) {
    HF_TRY(hf_arena_get(l->a, &l->kept, (size_t)l->n + 1, sizeof *l->kept));
    l->n_all = l->n;
  }
  if (access(path, F_OK) != 0) return HF_OK;
  HF_TRY(hf_read_file(path, MAX_FILE, &text, &n));
  hf_status st = keep_lines(l, path, text, n);
  free(text);
  return st;
}

/* To the front those that are left; those before which some of them come stay behind them. */
static hf_status part(prompt_list *l) {
  const size_t n = (size_t)l->n_all;
  serve_request *req;
  int *at, left = 0, done = 0;
  HF_TRY(hf_arena_get(l->a, &req, n + 1, sizeof *req));
  HF_TRY(hf_arena_get(l->a, &at, n + 1, sizeof *at));
  for (int i = 0; i < l->n_all; i++) left += !l->kept[i];
  for (int i = 0, k = 0; i < l->n_all; i++) at[i] = l->kept[i] ? left + done++ : k++;
  for (int i = 0; i < l->n_all; i++) {
    req[at[i]] = l->req[i];
    if (l->req[i].after) req[at[i]].after = &req[at[l->req[i].after - l->req]];
  }
  HF_TRY(sessions_move(l, at));
  l->req = req;
  l->n = left;
  return HF_OK;
}

hf_status prompts_drop_kept(prompt_list *l, const tokenizer *tok, const chat_form *form, const char *system,
                            const model_config *c) {
  HF_TRY(part(l));
  HF_TRY(sessions_resume(l, tok, form, system, c));
  return HF_OK;
}
