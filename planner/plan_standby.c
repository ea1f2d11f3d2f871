#include "planner/plan_standby.h"

#include <string.h>

hf_status plan_standby_check(const plan_request *r) {
  const bool ram = r->standby != NULL && strcmp(r->standby, "ram") == 0;
  if (r->standby != NULL && !ram && strcmp(r->standby, "none") != 0)
    return hf_fail(HF_INPUT, "option --standby: '%.40s' is neither none nor ram", r->standby);
  if (r->parked_users > 0 && !ram)
    return hf_fail(HF_INPUT, "option --parked: users are parked in memory with --standby ram only");
  return HF_OK;
}

int64_t plan_standby_bytes(const plan_request *r, int64_t kv) {
  if (r->standby == NULL || strcmp(r->standby, "ram") != 0) return 0;
  return kv / r->users * (r->users + r->parked_users);
}

/* Of all layers. */
static double token_bytes(const plan_inputs *in) {
  double sum = 0;
  for (int l = 0; l < in->c->n_layers; l++) sum += (double)model_kv_bytes_per_token(in->c, l, in->kv);
  return sum;
}

/* Bytes/s of the link that experts are sent over; 0: there is none, or it is not known. */
static double link_rate(const planned *p) {
  const stage_table *t = p->eval->table;
  for (int l = 0; l < t->n_layers; l++)
    if (t->layer[l].moe && t->layer[l].upload_ns > 0) return (double)p->eval->expert_bytes[l] * 1e9 / t->layer[l].upload_ns;
  return 0;
}

void plan_standby_json(const plan_inputs *in, const planned *p, json *extra) {
  const plan_request *r = &in->req;
  const double token = token_bytes(in), link = link_rate(p);
  plan_sizes s;
  if (r->standby == NULL || strcmp(r->standby, "ram") != 0) return;
  if (plan_sizes_of(in, &s) != HF_OK) {
    hf_clear_error();
    return;
  }
  json *o = json_add_object(extra, "standby");
  const double rate = p->p->decode_tok_per_s.likely * token;
  json_add_str(o, "kind", "ram");
  json_add_int(o, "parked_users", r->parked_users);
  json_add_num(o, "bytes_per_token", token);
  json_add_int(o, "bytes", s.standby);
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
      b, "  KV mirror    %s of memory for %d users at once and %.0f parked; %.3g KB a token, %.3g MB/s while they decode", size,
      p->users, json_number(json_get(o, "parked_users"), 0), json_number(json_get(o, "bytes_per_token"), 0) * 1e-3,
      json_number(json_get(o, "decode_bytes_per_s"), 0) * 1e-6));
  if (json_get(o, "link_share"))
    HF_TRY(hf_buf_printf(b, " (%.2g %% of the link); one user is back after %.2g s",
                         100 * json_number(json_get(o, "link_share"), 0), json_number(json_get(o, "resume_s"), 0)));
  return hf_buf_printf(b, "\n");
}
