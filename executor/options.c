#include "executor/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/log.h"
#include "base/mem.h"
#include "executor/ask.h"
#include "executor/ranks.h"
#include "sched/footprint.h"
#include "sched/sched.h"

enum { PAGE_TOKENS = 16, MAX_PAGE_TOKENS = 1 << 16, DEFAULT_CHUNK = 512, MAX_CHUNK = 4096 };

static bool is_number(const char *s) {
  return *s && strspn(s, "0123456789") == strlen(s);
}

hf_status gpu_parse(const char *text, gpu_set *out) {
  HF_TRY(gpu_set_parse(text, out));
  if (gpu_set_kind(out) != GPU_CUDA) return HF_OK;
  return hf_fail(HF_UNSUPPORTED, "--gpu: %s: this build has no CUDA device yet; use none, virtual:SIZE or paced:MACHINE[:SIZE]",
                 text);
}

hf_status fault_parse(const char *text, dev_fault *out, int *device) {
  static const char *const name[] = {
      [DEV_FAULT_ERROR] = "error", [DEV_FAULT_HANG] = "hang",     [DEV_FAULT_SIGNAL] = "signal", [DEV_FAULT_SLOW] = "slow",
      [DEV_FAULT_WRONG] = "wrong", [DEV_FAULT_SLIGHT] = "slight", [DEV_FAULT_MEMORY] = "memory"};
  char head[64];
  const char *of = strstr(text, ":gpu"), *back = strstr(text, ",back@");
  const int most = (int)sizeof head - 1;
  snprintf(head, sizeof head, "%.*s", back ? (int)(back - text) : of ? (int)(of - text) : most, text);
  const char *at = strchr(head, '@'), *factor = strchr(head, '*');
  size_t n = strcspn(head, "*@");
  char *end;
  *out = (dev_fault){.factor = 1};
  const size_t digits = back ? strspn(back + 6, "0123456789") : 0;
  const bool returns =
      !back || (digits > 0 && digits < 10 && back + 6 + digits == (of ? of : text + strlen(text)) && (!of || back < of));
  if (back && returns) out->back = atoll(back + 6);
  *device = of ? of[4] - '0' : 0;
  for (int k = DEV_FAULT_ERROR; k <= DEV_FAULT_MEMORY; k++)
    if (n == strlen(name[k]) && !strncmp(head, name[k], n)) out->kind = (dev_fault_kind)k;
  const bool named = !of || (of[4] >= '0' && of[4] < '0' + ENGINE_DEVICES && !of[5]);
  if (out->kind != DEV_FAULT_NONE && named && returns && (!back || out->back > 0) && at && is_number(at + 1) && strlen(at) < 20) {
    out->at = atoll(at + 1);
    if (out->kind == DEV_FAULT_SLOW && factor && factor < at) out->factor = strtod(factor + 1, &end);
    const bool whole = out->kind == DEV_FAULT_SLOW ? factor && factor < at && end == at : !factor;
    if (whole) return hf_note(dev_fault_check(out), "--fault: '%s'", text);
  }
  return hf_fail(HF_INPUT,
                 "--fault: '%s' is none of error@N, hang@N, signal@N, wrong@N, slight@N, memory@N, slow*FACTOR@N, where N counts "
                 "operations from 1, each with "
                 ",back@M behind it where the device answers again from the M-th time on that it is asked, and "
                 ":gpuK behind it for another device than the first",
                 text);
}

static hf_status standby_kind(const char *text, standby_spec *out) {
  *out = (standby_spec){.on = strcmp(text, "none") != 0};
  if (!strncmp(text, "file:", 5) && text[5]) out->path = text + 5;
  else if (out->on && strcmp(text, "ram") != 0)
    return hf_fail(HF_INPUT, "--standby: '%s' is none of none, ram and file:PATH", text);
  return HF_OK;
}

hf_status standby_parse(const run_options *r, standby_spec *out) {
  HF_TRY(standby_kind(r->standby ? r->standby : "none", out));
  if (r->standby_size && r->standby && !out->on) return hf_fail(HF_INPUT, "--standby-size: goes with --standby ram or file:PATH");
  if (out->on && r->no_shared_prefixes)
    return hf_fail(HF_INPUT, "--standby: finds KV by the beginnings of texts; it cannot go with --no-shared-prefixes");
  if (!r->standby_size) return HF_OK;
  HF_TRY(cli_parse_size(r->standby_size, "--standby-size", &out->bytes));
  return out->bytes > 0 ? HF_OK : hf_fail(HF_INPUT, "--standby-size: must be above 0");
}

/* Member "standby" of a plan, where nobody said anything. */
static hf_status standby_planned(const plan *p, standby_spec *out) {
  const json *o = p ? json_get(p->extra, "standby") : NULL;
  const char *kind = NULL;
  int64_t bytes = 0;
  if (!o) return HF_OK;
  if (json_type(o) != JSON_OBJECT) return hf_fail(HF_INPUT, "plan: standby: expected an object");
  HF_TRY(json_get_str(o, "plan: standby", "kind", &kind));
  HF_TRY(json_get_int(o, "plan: standby", "bytes", 1, INT64_C(1) << 52, &bytes));
  out->on = out->planned = strcmp(kind, "none") != 0;
  if (out->bytes == 0) out->bytes = bytes;
  if (!strcmp(kind, "file")) return json_get_str(o, "plan: standby", "path", &out->path);
  if (out->on && strcmp(kind, "ram") != 0) return hf_fail(HF_INPUT, "plan: standby.kind: none of none, ram and file");
  return HF_OK;
}

hf_status standby_size(const run_options *r, const plan *p, const model_config *c, standby_users u, engine_options *o,
                       standby_spec *s) {
  enum { MOST = 1 << 28 };
  const char *why = NULL;
  HF_TRY(standby_parse(r, s));
  if (!r->standby) HF_TRY(standby_planned(p, s));
  if (!s->on && r->standby_size) return hf_fail(HF_INPUT, "--standby-size: goes with --standby ram or file:PATH");
  if (!s->on) return HF_OK;
  if (!engine_has_device(o) && u.sessions == 0)
    why = "there is no device whose KV could be lost (--gpu), and no prompt names a \"session\" to park";
  if (!s->planned && why) return hf_fail(HF_INPUT, "--standby: %s", why);
  if (s->planned && r->no_shared_prefixes) why = "it cannot go with --no-shared-prefixes";
  if (why) {
    hf_log(HF_LOG_INFO, "the plan's KV mirror is left out: %s", why);
    *s = (standby_spec){0};
    return HF_OK;
  }
  const int64_t page = engine_kv_page_bytes(c, o), each = (o->context + o->page_tokens - 1) / o->page_tokens;
  const int64_t n = s->bytes > 0 ? s->bytes / page : footprint_standby_pages(o->max_seqs, u.parked, each);
  if (n < 1) return hf_fail(HF_INPUT, "--standby-size: a page of KV has %lld bytes", (long long)page);
  s->slots = (int)(n < MOST ? n : MOST);
  o->standby_bytes = s->path ? footprint_standby_file(page) : s->slots * page;
  if (s->planned)
    hf_log(HF_LOG_INFO, "KV mirror, as the plan says: %d pages (%.3g MB) in %s", s->slots, 1e-6 * (double)(s->slots * page),
           s->path ? s->path : "memory");
  return HF_OK;
}

sample_options sample_options_of(const run_options *r) {
  return (sample_options){.temperature = r->temperature,
                          .top_k = (int)r->top_k,
                          .top_p = r->top_p,
                          .min_p = r->min_p,
                          .repetition_penalty = r->repetition_penalty,
                          .seed = (uint64_t)r->seed};
}

hf_status plan_open(const run_options *r, db *d, plan **out) {
  *out = NULL;
  if (!r->plan) return HF_OK;
  if (is_number(r->plan)) return db_plan_get(d, atoll(r->plan), out);
  return plan_read_file(r->plan, out);
}

static hf_status plan_text(const plan *p, char **out) {
  json *doc;
  HF_TRY(plan_to_json(p, &doc));
  hf_status st = json_print(doc, false, out);
  json_free(doc);
  return st;
}

static hf_status same_plan(const plan *a, const plan *b, bool *same) {
  char *x = NULL, *y = NULL;
  hf_status st = plan_text(a, &x);
  if (st == HF_OK) st = plan_text(b, &y);
  *same = st == HF_OK && !strcmp(x, y);
  free(x);
  free(y);
  return st;
}

hf_status plan_adopt(db *d, plan *p) {
  plan *row = NULL;
  bool same = false;
  hf_status st = p->id ? db_plan_get(d, p->id, &row) : HF_NOT_FOUND;
  if (st == HF_OK) st = same_plan(p, row, &same);
  plan_free(row);
  if (st != HF_OK && st != HF_NOT_FOUND) return st;
  if (same) return HF_OK;
  rec_machine m;
  st = p->machine_id ? db_machine_get(d, p->machine_id, &m) : HF_NOT_FOUND;
  if (st != HF_OK && st != HF_NOT_FOUND) return st;
  if (st == HF_NOT_FOUND || strcmp(m.name, p->machine)) p->machine_id = 0;
  p->from_run = 0; /* a run of the database that the plan was made in */
  return db_plan_put(d, p);
}

int64_t ram_bytes(void) {
  struct sysinfo s;
  topology *t = NULL;
  int64_t pretended = 0;
  if (sysinfo(&s)) return 0;
  const int64_t real = (int64_t)s.totalram * s.mem_unit;
  if (!getenv("HF_TOPOLOGY") || hf_alloc(&t, 1, sizeof *t, "topology") != HF_OK) return real;
  if (topo_get(t) != HF_OK) hf_clear_error(); /* whoever opens the engine says it */
  for (int i = 0; t->fake && i < t->n_nodes; i++) pretended += t->node[i].mem_bytes;
  free(t);
  return pretended > 0 && pretended < real ? pretended : real;
}

bool plan_uploads(const plan *p) {
  bool any = false;
  for (int l = 0; p && l < p->n_layers; l++) any = any || (p->layer[l].moe && !strcmp(p->layer[l].prefill, "upload"));
  return any;
}

/* plan_check knows what a plan may say; here is what can be executed. Zero leaves the choice to the executor. */
hf_status plan_fits_model(const plan *p, const model_config *c) {
  if (p->kv_page_tokens > MAX_PAGE_TOKENS || (p->kv_page_tokens & (p->kv_page_tokens - 1)))
    return hf_fail(HF_INPUT, "plan: kv.page_tokens: %d is no power of two up to %d", p->kv_page_tokens, MAX_PAGE_TOKENS);
  if (p->chunk_tokens > MAX_CHUNK)
    return hf_fail(HF_INPUT, "plan: chunk_tokens: %d is over the most that a step can take, %d", p->chunk_tokens, MAX_CHUNK);
  if (p->n_layers != c->n_layers || p->n_experts != c->n_experts)
    return hf_fail(HF_INPUT, "plan: made for %.80s, %d layers of %d experts; this model has %d of %d", p->model, p->n_layers,
                   p->n_experts, c->n_layers, c->n_experts);
  for (int l = 0; l < p->n_layers; l++)
    if (p->layer[l].moe != c->layer_is_moe[l] || (p->layer[l].moe && p->layer[l].n_experts != c->n_experts))
      return hf_fail(HF_INPUT, "plan: placement[%d] does not fit the model's layer", l);
  return HF_OK;
}

static hf_status kv_type_of(const run_options *r, const plan *p, bool exact, kern_kv_type *out) {
  *out = KV_F16;
  if (r->kv_type && !kern_kv_parse(r->kv_type, out))
    return hf_fail(HF_INPUT, "option --kv-type: '%.40s' is none of f16, q8_0, bf16, f32", r->kv_type);
  if (r->kv_type && exact && *out != KV_F32)
    return hf_fail(HF_INPUT, "option --kv-type: %s: with exact activations the KV cache is in f32", r->kv_type);
  if (r->kv_type || !p || !p->kv_type[0]) return HF_OK;
  if (!kern_kv_parse(p->kv_type, out))
    return hf_fail(HF_UNSUPPORTED, "plan: kv.type %s cannot be executed; f16, q8_0, bf16 and f32 can", p->kv_type);
  if (*out == KV_Q8_0 && p->kv_page_tokens > 0 && p->kv_page_tokens < KERN_KV_GROUP)
    return hf_fail(HF_INPUT, "plan: kv.page_tokens: %d: a KV cache in q8_0 needs %d at least", p->kv_page_tokens, KERN_KV_GROUP);
  return HF_OK;
}

/* Sizes that are not given: the plan's devices, else 24 GB. */
static void sizes_of(const gpu_set *g, const plan *p, engine_options *o) {
  o->more_devices = g->n > 1 ? g->n - 1 : 0;
  for (int k = 0; k < g->n; k++) {
    int64_t bytes = g->g[k].size_bytes;
    if (!bytes && p && k < p->n_devices && !plan_rank(p, k)) bytes = p->device[k].mem_bytes;
    if (!bytes) bytes = 24LL << 30;
    *(k == 0 ? &o->device_bytes : &o->more_bytes[k - 1]) = bytes;
  }
}

/* Most bytes a second that are loaded to a device which comes back: a hundredth of a link, a tenth of a core. */
static const int64_t REJOIN_RATE = INT64_C(256) << 20;

static hf_status device_part(const run_options *r, const char *db_path, const plan *p, engine_options *o, stage_table **pace) {
  const char *gpu = r->gpu ? r->gpu : p ? p->gpu : "none";
  gpu_set g;
  HF_TRY(gpu_parse(*gpu ? gpu : "none", &g));
  if (strlen(gpu) >= sizeof o->gpu) return hf_fail(HF_INPUT, "--gpu: longer than %zu bytes", sizeof o->gpu - 1);
  snprintf(o->gpu, sizeof o->gpu, "%s", *gpu ? gpu : "none");
  sizes_of(&g, p, o);
  if (gpu_set_kind(&g) == GPU_PACED) {
    const plan_question q = {.db_path = db_path,
                             .model = r->model,
                             .gpu = gpu,
                             .kv_type = kern_kv_name(o->kv_type),
                             .plan = p,
                             .users = p ? p->users : 0,
                             .context = p ? p->context : 0,
                             .prompt_tokens = p ? p->prompt_tokens : 0,
                             .output_tokens = p ? p->output_tokens : 0};
    HF_TRY(ask_stages(&q, g.g[0].machine, pace));
    o->pace = *pace;
  }
  if (r->fault) HF_TRY(fault_parse(r->fault, &o->fault, &o->fault_device));
  if (r->fault && g.n == 0) return hf_fail(HF_INPUT, "--fault: happens to a device, and there is none (--gpu)");
  if (r->fault && o->fault_device >= g.n)
    return hf_fail(HF_INPUT, "--fault: happens to gpu%d, and there are %d devices (--gpu)", o->fault_device, g.n);
  o->deadline_ns = (int64_t)(r->deadline_s * 1e9);
  o->probe_every_ns = (int64_t)(r->probe_s * 1e9);
  o->rejoin_bytes_per_s = REJOIN_RATE;
  if (g.n > 0) o->check_every_ns = (int64_t)(r->check_s * 1e9);
  return HF_OK;
}

/* What computes is told where it is not what would have been taken anyhow. */
static void tell_choice(const plan_kernel *k, kern_format f) {
  const kern_mm_candidate *list[32];
  const int n = kern_mm_candidates(kern_get()->isa, f, kern_act_of(f, false), list, 32);
  for (int i = 0; i < n && i < 32; i++)
    if (list[i]->library && strcmp(list[i]->name, k->candidate) == 0)
      hf_log(HF_LOG_INFO, "the plan's kernels: %s in %s from %d tokens by %s (%s)%s", k->op, k->format,
             k->tokens_lo > list[i]->min_tok ? k->tokens_lo : list[i]->min_tok, k->candidate, kern_library_state(),
             list[i]->rounded ? ", weights and activations rounded to BF16" : "");
}

/* Absent: fallback. */
static hf_status plan_number(const plan *p, const char *key, int lo, int hi, int fallback, int *out) {
  const json *j = json_get(p->extra, key);
  const double v = j ? json_number(j, 0) : fallback;
  if (!(v >= lo && v <= hi)) return hf_fail(HF_INPUT, "plan: %s: not a number between %d and %d", key, lo, hi);
  *out = (int)v;
  return HF_OK;
}

/* From which steps on, and through how many slots, experts are sent: the plan's, or asked for. */
static hf_status upload_part(const run_options *r, const plan *p, engine_options *o) {
  _Static_assert((int)SCHED_MOST_SLOTS == (int)DEV_MAX_SLOTS, "what is planned can be recorded");
  const bool device = engine_has_device(o);
  o->upload_slots = SCHED_UPLOAD_SLOTS;
  if (plan_uploads(p)) {
    HF_TRY(plan_number(p, "upload_tokens", 1, 1 << 20, SCHED_UPLOAD_TOKENS, &o->upload_tokens));
    HF_TRY(plan_number(p, "upload_slots", SCHED_UPLOAD_SLOTS, SCHED_MOST_SLOTS, SCHED_UPLOAD_SLOTS, &o->upload_slots));
  }
  if (r->upload_tokens > 0 && !device)
    return hf_fail(HF_INPUT, "--upload-tokens: experts are sent to a device, and there is none (--gpu)");
  if (r->upload_tokens > 0 && p && !plan_uploads(p))
    hf_log(HF_LOG_INFO, "--upload-tokens: the plan sends no layer's experts, so none are sent");
  if (r->upload_tokens >= 0) o->upload_tokens = (int)r->upload_tokens;
  if (!device) o->upload_tokens = 0;
  return HF_OK;
}

static hf_status ranks_part(const run_options *r, const model_config *c, const plan *p, engine_options *o) {
  const int planned = plan_ranks(p);
  if (r->ranks) {
    HF_TRY(ranks_place(r->ranks, c, o, r->ranks_percent));
    o->ranks = r->ranks;
    o->owner = ranks_owner(r->ranks);
    return HF_OK;
  }
  if (planned > 0)
    return hf_fail(HF_INPUT,
                   "plan: places experts on %d other machine%s: start hf-run on all of them with mpirun --enable-recovery -n %d",
                   planned, planned == 1 ? "" : "s", planned + 1);
  if (r->ranks_percent > 0)
    return hf_fail(HF_INPUT, "--experts-on-ranks: there are no other ranks; start hf-run with mpirun -n 2");
  return HF_OK;
}

void prefer_kernels(const plan_kernel *kernel, int n) {
  kern_forget();
  for (int i = 0; i < n; i++) {
    const plan_kernel *k = &kernel[i];
    kern_format f;
    kern_use use = strcmp(k->op, "expert_ffn") ? KERN_USE_MATMUL : KERN_USE_EXPERTS;
    if (!kern_format_parse(k->format, &f)) continue;
    const hf_status st = kern_prefer(use, f, k->tokens_lo, k->tokens_hi, k->candidate);
    if (st == HF_OK) tell_choice(k, f);
    else
      hf_log(st == HF_NOT_FOUND && !strstr(k->candidate, ".onednn") ? HF_LOG_DEBUG : HF_LOG_INFO,
             "the plan's kernels: %s; using the default", hf_error_line());
    if (st != HF_OK) hf_clear_error();
  }
}

hf_status engine_options_for(const run_options *r, const char *db_path, const model *m, const plan *p, int seqs, int context,
                             int depth, engine_options *o, stage_table **pace) {
  const model_config *c = model_get_config(m);
  *pace = NULL;
  memset(o, 0, sizeof *o);
  if (seqs > SCHED_MAX_SEQS) return hf_fail(HF_INPUT, "%d sequences at once: at most %d are possible", seqs, SCHED_MAX_SEQS);
  if (context > c->max_context)
    return hf_fail(HF_INPUT, "%d tokens of context: this model has at most %d", context, c->max_context);
  if (p) HF_TRY(plan_fits_model(p, c));
  prefer_kernels(p ? p->kernel : NULL, p ? p->n_kernels : 0);
  o->mla = !r->mla || !strcmp(r->mla, "auto") ? ENGINE_MLA_AUTO
           : !strcmp(r->mla, "plain")         ? ENGINE_MLA_PLAIN
                                              : ENGINE_MLA_ABSORBED;
  o->exact = r->activations && !strcmp(r->activations, "exact");
  HF_TRY(kv_type_of(r, p, o->exact, &o->kv_type));
  o->dequantise = r->dequantise != NULL;
  o->dequantised_to = r->dequantise && !strcmp(r->dequantise, "f32") ? FMT_F32 : FMT_BF16;
  o->depth = depth;
  o->max_seqs = seqs;
  o->context = context;
  o->page_tokens = p && p->kv_page_tokens > 0 ? p->kv_page_tokens : PAGE_TOKENS;
  o->n_pages = seqs * ((context + o->page_tokens - 1) / o->page_tokens);
  int chunk = r->chunk ? (int)r->chunk : p && p->chunk_tokens > 0 ? p->chunk_tokens : DEFAULT_CHUNK;
  o->max_tok = chunk + seqs;
  o->max_logits = seqs;
  o->threads = r->threads ? (int)r->threads : 0;
  o->placement = p;
  o->experts_on_gpu_percent = r->experts_percent;
  o->ram_limit_bytes = ram_bytes();
  HF_TRY(device_part(r, db_path, p, o, pace));
  HF_TRY(upload_part(r, p, o));
  HF_TRY(ranks_part(r, c, p, o));
  if (p && !engine_has_device(o))
    for (int l = 0; l < p->n_layers; l++)
      for (int x = 0; x < p->layer[l].n_experts; x++)
        if (p->layer[l].device[x] >= 0 && !plan_rank(p, p->layer[l].device[x]))
          return hf_fail(HF_INPUT, "plan: places experts on a device, but --gpu is none");
  return HF_OK;
}
