/* plan_sizes.c: what needs how much where. */
#include <stdio.h>
#include <string.h>

#include "planner/plan_inputs.h"
#include "sched/footprint.h"

static int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}
static int64_t activation_bytes(const model_config *c, int64_t tokens, int64_t logits) {
  const footprint_shape s = {.mla = c->attn == ATTN_MLA,
                             .d_model = c->d_model,
                             .vocab_size = c->vocab_size,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .q_lora_rank = c->q_lora_rank,
                             .kv_lora_rank = c->kv_lora_rank,
                             .nope_dim = c->nope_dim,
                             .rope_dim = c->rope_dim,
                             .v_dim = c->v_dim,
                             .d_ff_dense = c->d_ff_dense,
                             .d_ff_shared = c->d_ff_shared,
                             .n_experts = c->n_experts};
  int64_t bytes[FOOTPRINT_BUFFERS];
  return footprint_bytes(&s, tokens, logits, bytes);
}

hf_status plan_sizes_of(const plan_inputs *in, plan_sizes *s) {
  const model_config *c = in->c;
  const plan_request *r = &in->req;
  memset(s, 0, sizeof *s);
  if (c->n_layers > (int)(sizeof s->expert / sizeof s->expert[0]))
    return hf_fail(HF_UNSUPPORTED, "model %s: %d layers are more than can be planned", c->name, c->n_layers);
  for (int l = 0; l < c->n_layers; l++) {
    model_layer_parts p;
    HF_TRY(model_layer_parts_of(in->m, in->format, l, &p));
    s->dense += p.attn.bytes + p.norms.bytes + p.router.bytes + p.dense_ffn.bytes + p.shared.bytes;
    if (!c->layer_is_moe[l]) continue;
    s->expert[l] = round_up(p.expert.bytes, 64);
    s->all_experts += s->expert[l] * c->n_experts;
  }
  model_head_parts h;
  HF_TRY(model_head_parts_of(in->m, in->format, &h));
  s->head = h.embed.bytes + (c->tied_embeddings ? 0 : h.output.bytes);
  int64_t pages = (r->context + PLAN_PAGE_TOKENS - 1) / PLAN_PAGE_TOKENS;
  s->kv = r->users * cost_kv_bytes(c, pages * PLAN_PAGE_TOKENS, 2) + 64LL * c->n_layers;
  int64_t tokens = in->chunk_tokens + r->users;
  s->activations = activation_bytes(c, tokens, r->users);
  s->rope = 8LL * r->context * (c->rope.dim / 2) + 64;
  s->host_step = 8LL * tokens * c->d_model + 4LL * r->users * c->vocab_size;
  s->device_limit = in->device_bytes;
  s->ram_limit = cost_mem_bytes(in->host, "cpu", -1);
  if (in->gpu.kind == GPU_CUDA)
    s->margin = (in->device_bytes > 8LL << 30 ? 512LL << 20 : in->device_bytes / 16) + in->device_bytes / 50;
  if (in->gpu.kind == GPU_VIRTUAL || in->gpu.kind == GPU_PACED) s->margin = (64 << 10) + in->device_bytes / 100;
  return HF_OK;
}

int64_t plan_expert_room(const plan_sizes *s, int depth) {
  return s->device_limit - s->dense - s->head - s->kv - s->rope - s->margin - depth * s->activations;
}

typedef struct {
  plan_budget *rows;
  int n;
} table;

static void add(table *t, const char *where, const char *what, int64_t bytes, int64_t limit) {
  if (bytes <= 0) return;
  plan_budget *b = &t->rows[t->n++];
  *b = (plan_budget){.bytes = bytes, .limit_bytes = limit};
  snprintf(b->where, sizeof b->where, "%s", where);
  snprintf(b->what, sizeof b->what, "%s", what);
}

int plan_budget_rows(const plan_inputs *in, const plan_sizes *s, int depth, int64_t resident_bytes,
                     plan_budget rows[PLAN_MAX_BUDGET]) {
  table t = {rows, 0};
  bool device = in->gpu.kind != GPU_NONE;
  const char *where = device ? "gpu0" : "ram";
  int64_t limit = device ? s->device_limit : s->ram_limit;
  add(&t, where, "attention, shared experts, dense layers, norms", s->dense, limit);
  add(&t, where, "embedding and output", s->head, limit);
  add(&t, where, "KV cache", s->kv, limit);
  add(&t, where, "activation buffers and rotary table", depth * s->activations + s->rope, limit);
  add(&t, where, "resident experts", resident_bytes, limit);
  add(&t, where, "runtime and margin", s->margin, limit);
  add(&t, "ram", "experts on the CPU", s->all_experts - resident_bytes, s->ram_limit);
  add(&t, "ram", "step contexts and logits", depth * s->host_step, s->ram_limit);
  if (in->gpu.kind == GPU_VIRTUAL || in->gpu.kind == GPU_PACED)
    add(&t, "ram", "memory of the virtual device in use",
        s->dense + s->head + s->kv + depth * s->activations + s->rope + resident_bytes + s->margin, s->ram_limit);
  return t.n;
}

const char *plan_budget_over(const plan_budget *rows, int n) {
  for (int i = 0; i < n; i++) {
    int64_t sum = 0;
    for (int k = 0; k < n; k++)
      if (strcmp(rows[k].where, rows[i].where) == 0) sum += rows[k].bytes;
    if (rows[i].limit_bytes > 0 && sum > rows[i].limit_bytes) return rows[i].where;
  }
  return NULL;
}

void plan_bytes_text(int64_t bytes, char out[24]) {
  static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double v = (double)bytes;
  int u = 0;
  for (; v >= 1024 && u < 4; u++) v /= 1024;
  snprintf(out, 24, u == 0 ? "%.0f %s" : "%.2f %s", v, unit[u]);
}

int plan_remedies(const plan_inputs *in, const plan_sizes *s, char lines[PLAN_MAX_REMEDIES][200]) {
  const plan_request *r = &in->req;
  int n = 0;
  bool device = in->gpu.kind != GPU_NONE;
  int64_t room = device ? plan_expert_room(s, 1) : 0;
  if (device && room < 0) {
    int64_t page = cost_kv_bytes(in->c, PLAN_PAGE_TOKENS, 2), over = -room, need = s->device_limit + over;
    int64_t users = (s->kv - over) / (s->kv / r->users), pages = (s->kv - over) / (page * r->users);
    char t[2][24];
    plan_bytes_text(need, t[0]);
    plan_bytes_text(s->device_limit, t[1]);
    snprintf(lines[n++], 200, "a device of at least %s (%lld bytes) instead of %s", t[0], (long long)need, t[1]);
    if (s->kv > over && users >= 1)
      snprintf(lines[n++], 200, "at most %lld users at context %lld", (long long)users, (long long)r->context);
    if (s->kv > over && pages >= 1)
      snprintf(lines[n++], 200, "a context of at most %lld for %lld users", (long long)(pages * PLAN_PAGE_TOKENS),
               (long long)r->users);
    if (s->activations > 0 && in->chunk_tokens > 16)
      snprintf(lines[n++], 200, "shorter prompt chunks (--chunk-tokens below %d)", in->chunk_tokens);
  }
  int64_t ram = s->all_experts + s->host_step + (device ? 0 : s->dense + s->head + s->kv + s->rope + s->activations);
  if (device && room > 0) ram -= room < s->all_experts ? room : s->all_experts;
  if (s->ram_limit > 0 && ram > s->ram_limit) {
    double bits =
        8.0 * (double)(s->ram_limit - (ram - s->all_experts)) /
        ((double)s->all_experts * 8 / fmt_get(in->format != FMT_DEFAULT ? in->format : in->c->default_format)->bits_per_weight);
    char t[2][24];
    plan_bytes_text(ram, t[0]);
    plan_bytes_text(s->ram_limit, t[1]);
    snprintf(lines[n++], 200, "at least %s of memory instead of %s", t[0], t[1]);
    if (bits > 1) snprintf(lines[n++], 200, "a weight format with at most %.1f bits per weight (now %s)", bits, in->format_name);
  }
  return n;
}
