/* plan_sizes.c: what needs how much where. */
#include <stdio.h>
#include <string.h>

#include "planner/plan_inputs.h"
#include "planner/plan_standby.h"
#include "sched/footprint.h"
#include "sched/sched.h"

static const int64_t HOST_SMALL = (int64_t)8 << 30; /* below it nobody plans to the last GiB */

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

/* KV pages of one layer for all users at full context. The executor stores every layer in whole pages, sliding ones too: a window saves
 * reading, not memory. */
static int64_t layer_kv_bytes(const plan_inputs *in, int l) {
  int64_t pages = (in->req.context + PLAN_PAGE_TOKENS - 1) / PLAN_PAGE_TOKENS;
  return in->req.users * pages * PLAN_PAGE_TOKENS * model_kv_bytes_per_token(in->c, l, in->kv) + 64;
}

static int64_t kv_bytes(const plan_inputs *in, fmt kv) {
  return model_kv_bytes_per_token(in->c, 0, kv);
}

static int64_t dense_bytes(const model_layer_parts *p) {
  return p->attn.loaded_bytes + p->norms.loaded_bytes + p->router.loaded_bytes + p->dense_ffn.loaded_bytes +
         p->shared.loaded_bytes;
}

hf_status plan_layer_bytes(const plan_inputs *in, int l, int64_t *bytes) {
  model_layer_parts p;
  HF_TRY(model_layer_parts_of(in->m, in->format, l, &p));
  *bytes = dense_bytes(&p) + layer_kv_bytes(in, l);
  return HF_OK;
}

static int64_t margin_bytes(gpu_kind kind, int64_t mem) {
  if (kind == GPU_CUDA) return (mem > 8LL << 30 ? 512LL << 20 : mem / 16) + mem / 50;
  return kind == GPU_NONE ? 0 : (64 << 10) + mem / 100;
}

bool plan_cuts_experts(const plan_inputs *in) {
  double rate[COST_MAX_NODES];
  db_tag tag = TAG_MEASURED;
  return cost_numa_rates(in->host, (cost_case){0}, rate, &tag) > 1;
}

bool plan_can_upload(gpu_kind kind) {
  return kind == GPU_CUDA || kind == GPU_PACED; /* a virtual device would only copy what its CPU could compute */
}

int64_t plan_slot_bytes(const model_config *c, const int64_t *expert) {
  int64_t most = 0;
  for (int l = 0; l < c->n_layers; l++) most = expert[l] > most ? expert[l] : most;
  return most > 0 ? footprint_slot_bytes(most, c->d_ff_expert, c->d_model) : 0;
}

/* What a device holds besides its layers. */
static void device_sizes(const plan_inputs *in, const plan_sizes *s, const model_head_parts *h, int d, plan_device_sizes *v) {
  bool first = d == in->home[0], last = d == in->home[in->c->n_layers - 1];
  /* a tied matrix is one where both ends are on one device, else each end has its copy */
  if (first) v->head += h->embed.loaded_bytes;
  if (last) v->head += h->output.loaded_bytes;
  if (last && !first && in->c->tied_embeddings) v->head += h->embed.loaded_bytes;
  v->activations = s->activations;
  v->slots = plan_can_upload(in->gpus.g[d].kind) ? s->slots : 0;
  v->rope = s->rope;
  v->limit = in->device_mem[d];
  v->margin = margin_bytes(in->gpus.g[d].kind, v->limit);
}

hf_status plan_sizes_of(const plan_inputs *in, plan_sizes *s) {
  const model_config *c = in->c;
  const plan_request *r = &in->req;
  memset(s, 0, sizeof *s);
  s->n_devices = in->gpus.n;
  s->n_remotes = in->n_remotes;
  for (int l = 0; l < c->n_layers; l++) {
    model_layer_parts p;
    HF_TRY(model_layer_parts_of(in->m, in->format, l, &p));
    s->dense += dense_bytes(&p);
    s->kv += layer_kv_bytes(in, l);
    s->device[in->home[l]].dense += dense_bytes(&p);
    s->device[in->home[l]].kv += layer_kv_bytes(in, l);
    if (!c->layer_is_moe[l]) continue;
    s->expert[l] = p.expert.loaded_bytes;
    s->all_experts += s->expert[l] * c->n_experts;
  }
  s->standby = plan_standby_bytes(r, plan_kv_page_bytes(in));
  model_head_parts h;
  HF_TRY(model_head_parts_of(in->m, in->format, &h));
  s->head = h.embed.loaded_bytes + h.output.loaded_bytes;
  int64_t tokens = in->chunk_tokens + r->users;
  s->activations = activation_bytes(c, tokens, r->users);
  s->slots = plan_slot_bytes(c, s->expert) * (in->upload_slots < 0   ? 0
                                              : in->upload_slots > 0 ? in->upload_slots
                                                                     : SCHED_UPLOAD_SLOTS);
  s->rope = 8LL * r->context * (c->rope.dim / 2) + 64;
  /* rows for experts that live on other devices than their layer's home: any of several may have such */
  int64_t away = s->n_devices > 1 ? s->n_devices : 0;
  s->host_step = (8LL + 4 * away) * tokens * c->d_model + 4LL * r->users * c->vocab_size;
  s->rank_rows = footprint_rank_bytes(tokens, c->top_k, c->d_model);
  s->ram_limit = cost_mem_bytes(in->host, "cpu", -1);
  s->host_reserve = s->ram_limit > HOST_SMALL ? s->ram_limit / 64 + ((int64_t)1 << 30) : 0;
  for (int d = 0; d < s->n_devices; d++) {
    device_sizes(in, s, &h, d, &s->device[d]);
    s->margin += s->device[d].margin;
    s->device_limit += s->device[d].limit;
  }
  for (int i = 0; i < s->n_remotes; i++) {
    s->remote_limit[i] = cost_mem_bytes(in->remote[i].rows, "cpu", -1);
    s->here[i] = in->remote[i].here;
    s->n_here += s->here[i];
  }
  return HF_OK;
}

int64_t plan_expert_room(const plan_sizes *s, int device, int depth) {
  const plan_device_sizes *v = &s->device[device];
  return v->limit - v->dense - v->head - v->kv - v->rope - v->margin - depth * (v->activations + v->slots);
}

/* Bytes of experts that this machine's memory has room for beside all else it holds. */
int64_t plan_ram_room(const plan_inputs *in, const plan_sizes *s, int depth) {
  plan_budget rows[PLAN_MAX_BUDGET];
  int64_t room = s->ram_limit + s->all_experts;
  int n = plan_budget_rows(in, s, depth, &(plan_resident){0}, rows);
  for (int i = 0; i < n; i++)
    if (strcmp(rows[i].where, "ram") == 0) room -= rows[i].bytes;
  return room;
}

bool plan_can_fit(const plan_inputs *in, const plan_sizes *s, int depth) {
  bool away = in->gpu.kind != GPU_VIRTUAL && in->gpu.kind != GPU_PACED; /* their experts are in the same memory */
  int64_t elsewhere = 0;
  for (int d = 0; d < s->n_devices; d++) {
    if (plan_expert_room(s, d, depth) < 0) return false;
    elsewhere += away ? plan_expert_room(s, d, depth) : 0;
  }
  for (int r = 0; r < s->n_remotes; r++) elsewhere += plan_remote_room(s, r);
  return s->ram_limit <= 0 || plan_ram_room(in, s, depth) + elsewhere >= s->all_experts;
}

int64_t plan_remote_room(const plan_sizes *s, int remote) {
  const int64_t room = s->remote_limit[remote] > 0 ? s->remote_limit[remote] - s->rank_rows : (int64_t)1 << 60;
  return s->here[remote] || room < 0 ? 0 : room;
}

/* Names of the rows that hold the model itself; a remote machine's experts have its name behind. */
static const char *const model_rows[] = {"attention, shared experts, dense layers, norms", "embedding and output", "KV cache",
                                         "resident experts", "experts on the CPU"};

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

static void add_parts(table *t, const char *where, const plan_device_sizes *v, int depth, int64_t resident) {
  add(t, where, model_rows[0], v->dense, v->limit);
  add(t, where, model_rows[1], v->head, v->limit);
  add(t, where, model_rows[2], v->kv, v->limit);
  add(t, where, "activation buffers and rotary table", depth * v->activations + v->rope, v->limit);
  add(t, where, "slots for experts that are sent", depth * v->slots, v->limit);
  add(t, where, model_rows[3], resident, v->limit);
  add(t, where, "runtime and margin", v->margin, v->limit);
}

int plan_budget_rows(const plan_inputs *in, const plan_sizes *s, int depth, const plan_resident *resident,
                     plan_budget rows[PLAN_MAX_BUDGET]) {
  table t = {rows, 0};
  int64_t away = 0, ranks_here = 0;
  for (int d = 0; d < s->n_devices; d++) {
    char where[GPU_NAME];
    gpu_name(d, where);
    add_parts(&t, where, &s->device[d], depth, resident->device[d]);
    away += resident->device[d];
  }
  for (int r = 0; r < s->n_remotes; r++) {
    char where[48], what[96];
    snprintf(where, sizeof where, "remote%d", r);
    snprintf(what, sizeof what, "%s of %.60s", model_rows[4], in->remote[r].rows->machine.name);
    add(&t, where, what, resident->remote[r], s->remote_limit[r]);
    add(&t, where, "rows for other machines", s->rank_rows, s->remote_limit[r]);
    away += resident->remote[r];
    ranks_here += s->here[r] ? resident->remote[r] + s->rank_rows : 0;
  }
  const plan_device_sizes all = {
      .dense = s->dense, .head = s->head, .kv = s->kv, .activations = s->activations, .rope = s->rope, .limit = s->ram_limit};
  if (s->n_devices == 0) add_parts(&t, "ram", &all, depth, 0);
  add(&t, "ram", model_rows[4], s->all_experts - away, s->ram_limit);
  add(&t, "ram", "step contexts and logits", depth * s->host_step, s->ram_limit);
  add(&t, "ram", "KV mirror", s->standby, s->ram_limit);
  add(&t, "ram", "rows for other machines", s->n_remotes * s->rank_rows, s->ram_limit);
  add(&t, "ram", "ranks on this machine", ranks_here, s->ram_limit);
  add(&t, "ram", "operating system and its page tables", s->host_reserve, s->ram_limit);
  int64_t in_use = 0; /* of virtual devices: this machine's memory */
  for (int d = 0; d < s->n_devices && in->gpu.kind != GPU_CUDA; d++) {
    const plan_device_sizes *v = &s->device[d];
    in_use += v->dense + v->head + v->kv + depth * (v->activations + v->slots) + v->rope + resident->device[d] + v->margin;
  }
  add(&t, "ram", "memory of the virtual device in use", in_use, s->ram_limit);
  return t.n;
}

int64_t plan_budget_model_bytes(const plan_budget *rows, int n) {
  int64_t sum = 0;
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < sizeof model_rows / sizeof *model_rows; k++)
      if (strncmp(rows[i].what, model_rows[k], strlen(model_rows[k])) == 0) sum += rows[i].bytes;
  return sum;
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

/* The device that lacks most. */
static int tightest_device(const plan_sizes *s, int depth) {
  int worst = 0;
  for (int d = 1; d < s->n_devices; d++)
    if (plan_expert_room(s, d, depth) < plan_expert_room(s, worst, depth)) worst = d;
  return worst;
}

static int device_remedies(const plan_inputs *in, const plan_sizes *s, int d, char lines[PLAN_MAX_REMEDIES][200]) {
  const plan_request *r = &in->req;
  const plan_device_sizes *v = &s->device[d];
  int64_t over = -plan_expert_room(s, d, 1), need = v->limit + over, per_user = v->kv / r->users;
  int64_t users = per_user > 0 ? (v->kv - over) / per_user : 0;
  double part = v->kv > over ? (double)(v->kv - over) / (double)v->kv : 0; /* of the KV cache that does fit */
  int64_t context = (int64_t)((double)r->context * part) / PLAN_PAGE_TOKENS * PLAN_PAGE_TOKENS;
  char t[2][24];
  int n = 0;
  plan_bytes_text(need, t[0]);
  plan_bytes_text(v->limit, t[1]);
  snprintf(lines[n++], 200, "a device of at least %s (%lld bytes) instead of %s", t[0], (long long)need, t[1]);
  if (v->kv > over && users >= 1)
    snprintf(lines[n++], 200, "at most %lld user%s at context %lld", (long long)users, users == 1 ? "" : "s",
             (long long)r->context);
  if (v->kv > over && context >= PLAN_PAGE_TOKENS)
    snprintf(lines[n++], 200, "a context of at most %lld for %lld user%s", (long long)context, (long long)r->users,
             r->users == 1 ? "" : "s");
  if (in->kv != FMT_Q8_0 && v->kv - v->kv / kv_bytes(in, in->kv) * kv_bytes(in, FMT_Q8_0) >= over)
    snprintf(lines[n++], 200, "a KV cache in q8_0 (--kv-type q8_0)");
  /* buffers go with the tokens of a chunk; the least that the option takes is 16 */
  if (in->chunk_tokens > 16 && (double)s->activations * (1 - 16.0 / in->chunk_tokens) >= (double)over)
    snprintf(lines[n++], 200, "shorter prompt chunks (--chunk-tokens below %d)", in->chunk_tokens);
  return n;
}

/* The deepest pipeline below `depth` that every device has room for; 0: none. */
static int depth_that_fits(const plan_sizes *s, int depth) {
  while (depth > 0 && plan_expert_room(s, tightest_device(s, depth), depth) < 0) depth--;
  return depth;
}

int plan_remedies(const plan_inputs *in, const plan_sizes *s, int depth, int64_t ram_need, char lines[PLAN_MAX_REMEDIES][200]) {
  int n = 0, worst = tightest_device(s, 1), fits = s->n_devices > 0 ? depth_that_fits(s, depth) : depth;
  bool device = s->n_devices > 0;
  if (device && plan_expert_room(s, worst, 1) < 0) n = device_remedies(in, s, worst, lines);
  int64_t ram = s->all_experts + s->host_step + (s->n_remotes + s->n_here) * s->rank_rows + s->host_reserve + s->standby +
                (device ? 0 : s->dense + s->head + s->kv + s->rope + s->activations),
          away = 0;
  for (int d = 0; d < s->n_devices; d++) away += plan_expert_room(s, d, 1) > 0 ? plan_expert_room(s, d, 1) : 0;
  for (int r = 0; r < s->n_remotes; r++) away += plan_remote_room(s, r);
  ram -= away < s->all_experts ? away : s->all_experts;
  if (s->ram_limit > 0 && ram > s->ram_limit) {
    double bits =
        8.0 * (double)(s->ram_limit - (ram - s->all_experts)) /
        ((double)s->all_experts * 8 / fmt_get(in->format != FMT_DEFAULT ? in->format : in->c->default_format)->bits_per_weight);
    char t[2][24];
    plan_bytes_text(ram_need > ram ? ram_need : ram, t[0]); /* no less than is said to be needed */
    plan_bytes_text(s->ram_limit, t[1]);
    snprintf(lines[n++], 200, "at least %s of memory instead of %s", t[0], t[1]);
    double buffers = (double)(depth * (s->host_step + (device ? 0 : s->activations)));
    if (in->chunk_tokens > PLAN_CHUNK_LEAST &&
        buffers * (1 - (double)PLAN_CHUNK_LEAST / in->chunk_tokens) >= (double)((ram_need > ram ? ram_need : ram) - s->ram_limit))
      snprintf(lines[n++], 200, "shorter prompt chunks (--chunk-tokens below %d)", in->chunk_tokens);
    if (bits > 1) snprintf(lines[n++], 200, "a weight format with at most %.1f bits per weight (now %s)", bits, in->format_name);
  }
  if (n == 0 && fits > 0 && fits < depth) snprintf(lines[n++], 200, "a depth of at most %d", fits);
  return n;
}
