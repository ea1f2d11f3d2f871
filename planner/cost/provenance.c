/* provenance.c: every figure behind a stage table, with its interval, tag and source: nothing printed is without an origin. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/cost/cost_int.h"

typedef struct {
  const cost_input *in;
  json *list;
} notes;

static json *note(const notes *n, const char *name, const char *device, const char *unit, double low, double likely, double high,
                  db_tag tag, const char *source) {
  json *o = json_add_object(n->list, NULL);
  json_add_str(o, "name", name);
  json_add_str(o, "device", device);
  json_add_num(o, "low", low);
  json_add_num(o, "likely", likely);
  json_add_num(o, "high", high);
  json_add_str(o, "unit", unit);
  json_add_str(o, "tag", db_tag_name(tag));
  json_add_str(o, "source", source);
  return o;
}

/* Two kernels may read the same figure. */
static bool noted(const notes *n, const char *name, const char *device) {
  for (const json *o = json_first(n->list); o != NULL; o = json_next(o))
    if (strcmp(json_string(json_get(o, "name")), name) == 0 && strcmp(json_string(json_get(o, "device")), device) == 0)
      return true;
  return false;
}

/* Row or sum of rows or prior, whatever the table read; a figure without any of them was not needed. */
static void note_figure(const notes *n, const cost_rows *r, const char *device, const char *as, const char *what) {
  cost_figure f;
  const cost_prior *p = cost_prior_of(what);
  if (noted(n, what, as)) return;
  if (cost_find(r, device, what, &f)) {
    const rec_figure *row = cost_row(r, device, what);
    note(n, what, as,
         row != NULL ? row->unit
         : p != NULL ? p->unit
                     : "",
         f.low, f.likely, f.high, f.tag, row != NULL ? row->source : "sum over the nodes");
  } else if (p != NULL) {
    note(n, what, as, p->unit, p->value[0], p->value[1], p->value[2], TAG_ASSUMED, p->source);
  }
}

/* The unit of arithmetic that serves a format, as cost_unit_flops finds it. */
static void note_flops(const notes *n, const cost_unit *u, const char *as, fmt f) {
  char what[48];
  db_tag tag = TAG_MEASURED;
  if (cost_flops_figure(u, f, what, sizeof what)) {
    note_figure(n, u->rows, u->device, as, what);
    return;
  }
  unsigned g = u->cpu ? COST_CPU_FLOPS : COST_GPU_FLOPS;
  double low = cost_unit_flops(u, f, (cost_case){-1, g}, &tag), high = cost_unit_flops(u, f, (cost_case){1, g}, &tag);
  double likely = cost_unit_flops(u, f, (cost_case){0}, &tag);
  snprintf(what, sizeof what, "flops_%s", fmt_get(f)->name);
  note(n, what, as, "FLOP/s", low, likely, high, tag,
       tag == TAG_ASSUMED ? cost_prior_of(u->cpu ? "cpu_flops_per_thread" : "gpu_flops")->source : "fastest measured product");
}

/* A measured kernel as one entry: its time for one token, and how many points there are. */
static void note_curve(const notes *n, const cost_unit *u, const char *as, const char *kernel, const model_part *p, fmt f,
                       int n_out, int n_in) {
  stage_curve c[3];
  db_tag tag = TAG_MEASURED;
  cost_shape s = {.kernel = kernel, .format = f, .n_out = n_out, .n_in = n_in, .bytes = (double)p->bytes};
  if (p->bytes <= 0) return;
  unsigned g = u->cpu ? COST_CPU_MEM : COST_GPU_MEM;
  bool found = cost_measured_curve(u, &s, (cost_case){0}, &c[1], &tag) &&
               cost_measured_curve(u, &s, (cost_case){1, g}, &c[0], &tag) &&
               cost_measured_curve(u, &s, (cost_case){-1, g}, &c[2], &tag);
  if (!found) {
    note_flops(n, u, as, f);
    return;
  }
  char name[64], source[200];
  snprintf(name, sizeof name, "%s %s", kernel, fmt_get(f)->name);
  snprintf(source, sizeof source, "kernel curve of %.127s, %d points over tokens; the value is for one token",
           u->rows->machine.name, c[1].n);
  note(n, name, as, "ns", c[0].ns[0], c[1].ns[0], c[2].ns[0], tag, source);
}

static void note_unit(const notes *n, const cost_unit *u, const char *as) {
  note_figure(n, u->rows, u->device, as, u->cpu ? "dram_read_bytes_per_s" : "gpu_mem_bytes_per_s");
  static const char *const optional[] = {"cpu_kv_bytes_per_s", "gpu_kv_bytes_per_s", "cpu_unpack_weights_per_s",
                                         "cpu_unpack_bytes_per_s", "numa_split_ns"};
  cost_figure f;
  for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++)
    if (cost_find(u->rows, u->device, optional[i], &f)) note_figure(n, u->rows, u->device, as, optional[i]);
}

/* First MoE layer, else the first one: all others differ in size only. */
static int typical_layer(const model_config *c) {
  for (int l = 0; l < c->n_layers; l++)
    if (c->layer_is_moe[l]) return l;
  return 0;
}

static void note_machine(const notes *n, const cost_rows *r) {
  note_figure(n, r, "cpu", "cpu", "layer_fixed_ns");
  note_figure(n, r, "cpu", "", "step_fixed_ns");
  if (gpu_set_kind(&n->in->gpus) == GPU_NONE || gpu_set_kind(&n->in->gpus) == GPU_VIRTUAL)
    note_figure(n, r, "cpu", "cpu", "thread_layer_fixed_ns");
  if (n->in->gpus.n == 0) note_figure(n, r, "cpu", "cpu", "barrier_ns");
  cost_figure f;
  if (n->in->correlated && cost_find(r, "cpu", "distinct_factor", &f)) note_figure(n, r, "cpu", "", "distinct_factor");
}

static void note_device(const notes *n, int d, const model_layer_parts *p) {
  const model_config *m = model_get_config(n->in->m);
  cost_unit u = cost_device_unit(n->in, d);
  char as[GPU_NAME];
  cost_figure f;
  gpu_name(d, as);
  note_unit(n, &u, as);
  note_curve(n, &u, as, "matmul", &p->attn, p->attn_fmt, 0, m->d_model);
  if (m->n_experts > 0) note_curve(n, &u, as, "expert_ffn", &p->expert, p->expert_fmt, m->d_ff_expert, m->d_model);
  note_figure(n, u.rows, !u.cpu && cost_find(u.rows, u.device, "handover_ns", &f) ? u.device : "cpu", as, "handover_ns");
  if (u.cpu) return;
  note_figure(n, u.rows, u.device, as, "launch_ns");
  note_figure(n, u.rows, u.device, as, "pcie_h2d_bytes_per_s");
  note_figure(n, u.rows, u.device, as, "pcie_d2h_bytes_per_s");
}

static void note_numa(const notes *n, const model_layer_parts *p) {
  cost_numa s;
  db_tag tag = TAG_MEASURED;
  if (p->expert.bytes <= 0 || !cost_numa_of_expert(n->in, p, (cost_case){0}, &s, &tag)) return;
  json *o = note(n, "numa_split", "cpu", "ns", s.ns, s.ns, s.ns, tag,
                 "one expert over the nodes by their read rates, in whole quantisation blocks of its intermediate dimension");
  int begin[SPLIT_MAX_NODES + 1];
  split_layer(&s.rule, 1, NULL, begin);
  json *shares =
      json_add_array(o, "shares"); /* of the first expert: with the next ones what does not divide goes to other nodes */
  for (int i = 0; i < s.n; i++) json_add_int(shares, NULL, begin[i + 1] - begin[i]);
}

static void note_remote(const notes *n, int i, const model_layer_parts *p) {
  const cost_remote *r = &n->in->remote[i];
  const model_config *m = model_get_config(n->in->m);
  cost_unit u = r->here ? cost_crowd_unit(n->in) : cost_remote_unit(r);
  char as[24];
  snprintf(as, sizeof as, "remote%d", i);
  note(n, "link_bytes_per_s", as, "B/s", r->bytes_per_s.low, r->bytes_per_s.likely, r->bytes_per_s.high, r->bytes_per_s.tag,
       r->text);
  note(n, "link_latency_ns", as, "ns", r->latency_ns.low, r->latency_ns.likely, r->latency_ns.high, r->latency_ns.tag, r->text);
  note_unit(n, &u, as);
  note_curve(n, &u, as, "expert_ffn", &p->expert, p->expert_fmt, m->d_ff_expert, m->d_model);
  note_figure(n, r->rows, "cpu", as, "layer_fixed_ns");
}

/* Of one expert for one token. */
static double expert_ns(const cost_unit *u, const model_config *m, const model_layer_parts *p, db_tag *tag) {
  const cost_shape s = {.kernel = "expert_ffn",
                        .format = p->expert_fmt,
                        .n_out = m->d_ff_expert,
                        .n_in = m->d_model,
                        .bytes = (double)p->expert.bytes};
  stage_curve c;
  if (cost_measured_curve(u, &s, (cost_case){0}, &c, tag)) return stage_curve_at(&c, 1);
  return 1e9 * s.bytes / cost_unit_bytes_per_s(u, (cost_case){0}, tag);
}

static void note_ranks(const notes *n, const model_layer_parts *p) {
  const model_config *m = model_get_config(n->in->m);
  const cost_unit alone = cost_pool_unit(n->in), crowd = cost_crowd_unit(n->in);
  const int ranks = cost_ranks_here(n->in);
  db_tag tag = TAG_MEASURED;
  if (ranks == 1 || p->expert.bytes <= 0) return;
  const double c = ranks * expert_ns(&crowd, m, p, &tag) / expert_ns(&alone, m, p, &tag);
  note(n, "ranks_contend", "cpu", "1", c, c, c, tag,
       "an expert for one token while every rank on this machine computes one, over one alone");
}

static void note_contend(const notes *n, const model_layer_parts *p) {
  db_tag tag = TAG_SCALED;
  cost_shape s = {.kernel = "expert_ffn", .format = p->expert_fmt, .bytes = (double)p->expert.bytes};
  gpu_kind kind = gpu_set_kind(&n->in->gpus);
  if (kind == GPU_VIRTUAL) {
    double c = cost_contend(n->in, &s, &tag);
    note(n, "contend", "cpu", "1", c, c, c, tag, "rates of one thread and of the others, each alone, over that of all together");
  } else if (kind == GPU_CUDA) {
    double c = cost_contend_dma(n->in, &s, &tag);
    note(n, "contend_dma", "cpu", "1", c, c, c, tag,
         "an upload and the CPU share the memory: experts measured beside a DMA, else 1 + link / DRAM");
  }
}

hf_status cost_provenance(const cost_input *in, json *list) {
  notes n = {in, list};
  const model_config *m = model_get_config(in->m);
  model_layer_parts p;
  HF_TRY(model_layer_parts_of(in->m, in->format, typical_layer(m), &p));
  cost_unit pool = cost_pool_unit(in);
  note_unit(&n, &pool, "cpu");
  if (m->n_experts > 0) note_curve(&n, &pool, "cpu", "expert_ffn", &p.expert, p.expert_fmt, m->d_ff_expert, m->d_model);
  if (in->gpus.n == 0) note_curve(&n, &pool, "cpu", "matmul", &p.attn, p.attn_fmt, 0, m->d_model);
  note_machine(&n, in->rows);
  note_numa(&n, &p);
  for (int d = 0; d < in->gpus.n; d++) note_device(&n, d, &p);
  for (int i = 0; i < in->n_remotes; i++) note_remote(&n, i, &p);
  note_ranks(&n, &p);
  if (m->n_experts > 0) note_contend(&n, &p);
  return json_type(list) == JSON_ARRAY ? HF_OK : hf_fail(HF_MACHINE, "out of memory: figures of a plan");
}
