/* kv.c: KV pages of requests, to the host and back (engine.h). A page lies in as many places as the model has layers. */
#include <pthread.h>
#include <sched.h>

#include "base/clock.h"
#include "executor/engine_int.h"

static const int64_t COPY_LIMIT_NS = 10000000000; /* of one layer's part of a page, far above what any link needs */

int64_t engine_kv_page_bytes(const model_config *c, const engine_options *o) {
  return (int64_t)c->n_layers * (int64_t)kv_row_bytes(c, o) * o->page_tokens;
}

int engine_kv_grain(const engine *e) {
  return kern_kv_grain(e->c.attn != ATTN_MLA, e->o.page_tokens);
}

void engine_step_aside(const engine *e) {
  cpu_set_t cpus;
  if (!pool_spare_cpus(e->p, &cpus, sizeof cpus)) {
    CPU_ZERO(&cpus);
    for (int n = 0; n < e->topo->n_nodes; n++)
      for (int i = 0; i < e->topo->node[n].n_cpus; i++) CPU_SET((size_t)e->topo->node[n].cpus[i], &cpus);
  }
  if (!e->topo->fake) (void)pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
}

/* ns a byte takes on the modelled machine's link: what the plan's uploads of experts take; 0: not known. Asked before steps run, while experts are where they are. */
double kv_link_ns(const engine *e) {
  for (int l = 0; e->o.pace && l < e->c.n_layers; l++) {
    const moe_expert *x = e->host_experts + (size_t)l * (size_t)(e->nodes.parts.n * e->c.n_experts);
    for (int k = 0; e->o.pace->layer[l].upload_ns > 0 && e->nodes.parts.n == 1 && k < e->c.n_experts; k++)
      if (x[k].gate.data) return e->o.pace->layer[l].upload_ns / (double)dev_slot_bytes(&x[k], e->c.d_model, e->c.d_ff_expert);
  }
  return 0;
}

typedef struct {
  size_t page, at, bytes; /* of a layer's part: the whole, where it begins, how much of it */
} part;

static part part_of(const engine *e, int from, int to) {
  const int g = engine_kv_grain(e), begin = from / g * g, end = (to + g - 1) / g * g;
  const dev_context *x = common_context(e);
  return (part){x->kv_page_bytes, (size_t)begin * x->kv_row_bytes, (size_t)(end - begin) * x->kv_row_bytes};
}

/* With several devices each layer's KV is where its attention is. */
static const engine_device *home_of(const engine *e, int layer) {
  return &e->device[e->home[layer]];
}

static void last(const engine *e, int64_t start_ns, size_t bytes) {
  if (e->o.pace) hf_sleep_until_ns(start_ns + (int64_t)(e->kv_link_ns * (double)bytes * e->c.n_layers));
}

hf_status engine_kv_save(engine *e, int32_t page, int from, int to, char *host) {
  const part p = part_of(e, from, to);
  const int64_t start = hf_now_ns();
  for (int l = 0; l < e->c.n_layers; l++)
    HF_TRY(dev_download(home_of(e, l)->d, host + (size_t)l * p.page + p.at,
                        home_of(e, l)->ctx.kv[l] + (size_t)page * p.page + p.at, p.bytes,
                        e->o.deadline_ns > 0 ? e->o.deadline_ns : COPY_LIMIT_NS));
  last(e, start, p.bytes);
  return HF_OK;
}

hf_status engine_kv_load(engine *e, int32_t page, int from, int to, const char *host) {
  const part p = part_of(e, from, to);
  const int64_t start = hf_now_ns();
  for (int l = 0; l < e->c.n_layers; l++)
    HF_TRY(dev_upload(home_of(e, l)->d, home_of(e, l)->ctx.kv[l] + (size_t)page * p.page + p.at, host + (size_t)l * p.page + p.at,
                      p.bytes));
  last(e, start, p.bytes);
  for (int i = 0; i < e->o.depth; i++) /* of modelled time this is no part of what the host does for every step (step_fixed_ns) */
    if (e->mb[i].over_ns > 0) e->mb[i].over_ns += hf_now_ns() - start;
  return HF_OK;
}
