#include "planner/plan_sim.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static int whole(const plan *p, const char *key, int lo, int hi, int fallback) {
  const double v = json_number(json_get(p->extra, key), fallback);
  return v >= lo && v <= hi ? (int)v : fallback;
}

static hf_status uploads_of(const plan *p, plan_sim *s) {
  bool any = false;
  HF_TRY(hf_alloc(&s->upload, (size_t)p->n_layers, 1, "layers that upload"));
  for (int l = 0; l < p->n_layers; l++) any |= s->upload[l] = strcmp(p->layer[l].prefill, "upload") == 0;
  s->o.prefill_upload = any ? s->upload : NULL;
  s->o.upload_tokens = whole(p, "upload_tokens", 1, 1 << 20, SCHED_UPLOAD_TOKENS);
  s->o.upload_slots = whole(p, "upload_slots", SCHED_UPLOAD_SLOTS, SCHED_MOST_SLOTS, SCHED_UPLOAD_SLOTS);
  return HF_OK;
}

static hf_status open_parts(const plan *p, const char *where, plan_sim *s) {
  HF_TRY(plan_eval_from_plan(p, where, &s->eval));
  HF_TRY(plan_placement(p, p->n_layers, p->n_experts, &s->placement));
  int page = p->kv_page_tokens > 0 ? p->kv_page_tokens : 16, slots = p->max_seqs > 0 ? p->max_seqs : p->users;
  if (slots > SCHED_MAX_SEQS) slots = SCHED_MAX_SEQS;
  s->o = (sim_options){.table = s->eval->table,
                       .pop = s->eval->pop,
                       .on_device = s->eval->n_devices + s->eval->table->n_remotes > 0 ? s->placement : NULL,
                       .users = p->users,
                       .depth = p->depth,
                       .prompt_tokens = p->prompt_tokens > 0 ? p->prompt_tokens : 1,
                       .output_tokens = p->output_tokens > 0 ? p->output_tokens : 1,
                       .requests_per_user = 1,
                       .seed = 1,
                       .chunk_tokens = p->chunk_tokens > 0 ? p->chunk_tokens : 512,
                       .page_tokens = page,
                       .n_pages = (int)((int64_t)slots * ((p->context + page - 1) / page)),
                       .max_context = p->context,
                       .max_seqs = slots};
  return uploads_of(p, s);
}

hf_status plan_sim_open(const plan *p, const char *where, plan_sim *out) {
  memset(out, 0, sizeof *out);
  hf_status st = open_parts(p, where, out);
  if (st != HF_OK) plan_sim_close(out);
  return st;
}

void plan_sim_close(plan_sim *s) {
  plan_eval_free(s->eval);
  free(s->placement);
  free(s->upload);
  memset(s, 0, sizeof *s);
}
