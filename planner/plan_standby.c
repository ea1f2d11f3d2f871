#include "planner/plan_standby.h"

#include <string.h>

#include "sched/footprint.h"

static const char FILE_KIND[] = "file:";

static bool has_mirror(const plan_request *r) {
  return r->standby != NULL && strcmp(r->standby, "none") != 0;
}

static bool in_file(const plan_request *r) {
  return r->standby != NULL && strncmp(r->standby, FILE_KIND, strlen(FILE_KIND)) == 0;
}

hf_status plan_standby_check(const plan_request *r) {
  const bool named = in_file(r) && r->standby[strlen(FILE_KIND)] != 0;
  if (has_mirror(r) && !named && strcmp(r->standby, "ram") != 0)
    return hf_fail(HF_INPUT, "option --standby: '%.40s' is none of none, ram and file:PATH", r->standby);
  if (r->parked_users > 0 && !has_mirror(r))
    return hf_fail(HF_INPUT, "option --parked: users are parked with --standby ram or file:PATH only");
  return HF_OK;
}

static int64_t mirror_pages(const plan_request *r) {
  return footprint_standby_pages(r->users, r->parked_users, (r->context + PLAN_PAGE_TOKENS - 1) / PLAN_PAGE_TOKENS);
}

int64_t plan_standby_bytes(const plan_request *r, int64_t page) {
  if (!has_mirror(r)) return 0;
  return in_file(r) ? footprint_standby_file(page) : mirror_pages(r) * page;
}

int64_t plan_kv_page_bytes(const plan_inputs *in) {
  int64_t sum = 0;
  for (int l = 0; l < in->c->n_layers; l++) sum += PLAN_PAGE_TOKENS * model_kv_bytes_per_token(in->c, l, in->kv);
  return sum;
}

/* Bytes/s of the link that experts are sent over; 0: there is none, or it is not known. */
static double link_rate(const planned *p) {
  const stage_table *t = p->eval->table;
  for (int l = 0; l < t->n_layers; l++)
    if (t->layer[l].moe && t->layer[l].upload_ns > 0) return (double)p->eval->expert_bytes[l] * 1e9 / t->layer[l].upload_ns;
  return 0;
}

double plan_kv_token_ns(const plan *p, const plan_eval *v) {
  const stage_table *t = v->table;
  const int page = p->kv_page_tokens > 0 ? p->kv_page_tokens : PLAN_PAGE_TOKENS, seqs = p->max_seqs > 0 ? p->max_seqs : p->users;
  const double tokens = (double)seqs * ((p->context + page - 1) / page) * page, bytes = (double)p->kv_bytes / tokens;
  double attn = 0;
  for (int l = 0; l < t->n_layers; l++) {
    const stage_layer *y = &t->layer[l];
    attn += y->attn_ctx_ns + y->attn_seq_ctx_ns;
    if (!y->moe || v->expert_bytes[l] <= 0) continue;
    /* an expert for one token is read as fast as memory is */
    return bytes * (y->upload_ns > 0 ? y->upload_ns : 2 * stage_curve_at(&y->cexp, 1)) / (double)v->expert_bytes[l];
  }
  return 2 * attn; /* attention reads its rows, and takes no less */
}

int64_t plan_standby_pages(const plan *p) {
  const double n = json_number(json_get(json_get(p->extra, "standby"), "pages"), 0);
  return n >= 1 && n <= 1 << 24 ? (int64_t)n : 0;
}

void plan_standby_json(const plan_inputs *in, const planned *p, json *extra) {
  const plan_request *r = &in->req;
  const double token = (double)plan_kv_page_bytes(in) / PLAN_PAGE_TOKENS, link = link_rate(p);
  if (!has_mirror(r)) return;
  json *o = json_add_object(extra, "standby");
  const double rate = p->p->decode_tok_per_s.likely * token;
  json_add_str(o, "kind", in_file(r) ? "file" : "ram");
  if (in_file(r)) json_add_str(o, "path", r->standby + strlen(FILE_KIND));
  json_add_int(o, "parked_users", r->parked_users);
  json_add_num(o, "bytes_per_token", token);
  json_add_int(o, "pages", mirror_pages(r));
  json_add_int(o, "bytes", mirror_pages(r) * plan_kv_page_bytes(in));
  json_add_num(o, "decode_bytes_per_s", rate);
  if (!(link > 0)) return;
  json_add_num(o, "link_bytes_per_s", link);
  json_add_num(o, "link_share", rate / link);
  json_add_num(o, "resume_s", (double)r->context * token / link); /* of one user at full context */
}

hf_status plan_show_standby(const plan *p, hf_buf *b) {
  const json *o = json_get(p->extra, "standby");
  char size[24];
  if (json_type(o) != JSON_OBJECT) return HF_OK;
  plan_bytes_text((int64_t)json_number(json_get(o, "bytes"), 0), size);
  HF_TRY(hf_buf_printf(
      b, "  KV mirror    %s of %s for %d users at once and %.0f parked; %.3g KB a token, %.3g MB/s while they decode", size,
      json_get(o, "path") ? "a file" : "memory", p->users, json_number(json_get(o, "parked_users"), 0),
      json_number(json_get(o, "bytes_per_token"), 0) * 1e-3, json_number(json_get(o, "decode_bytes_per_s"), 0) * 1e-6));
  if (json_get(o, "link_share"))
    HF_TRY(hf_buf_printf(b, " (%.2g %% of the link); one user is back after %.2g s",
                         100 * json_number(json_get(o, "link_share"), 0), json_number(json_get(o, "resume_s"), 0)));
  return hf_buf_printf(b, "\n");
}
