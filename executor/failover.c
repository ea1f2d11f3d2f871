/* failover.c: an engine whose device is lost goes on on the CPU.
 *
 * The device's memory is gone, so whatever it held comes from the model's file (or seed) once more; experts in host memory are not touched. KV
 * pages begin empty: whoever serves computes them again from the tokens. Only then, with everything in place, may steps be launched. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "executor/devices.h"
#include "executor/engine_int.h"

/* Recordings first: they refer to the device; then what was allocated there; what is the host's stays. */
static void let_device_go(engine *e) {
  for (int k = 0; k < e->n_devices; k++) dev_quit(e->device[k].d);
  for (int i = 0; i < e->o.depth; i++) {
    micro_batch *mb = &e->mb[i];
    for (int p = 0; p < e->n_parts; p++) {
      dev_recording_free(mb->rec[p]);
      mb->rec[p] = NULL;
    }
    guests_close(mb);
    memset(mb->buffers, 0, sizeof mb->buffers);
    mb->running = false;
    mb->answered = 0;
    mb->over_ns = 0;
    for (int l = 0; l < e->c.n_layers * (1 + e->n_devices); l++) mb->trace[l].end_ns = 0;
  }
  e->aside = HF_OK;
  int kept = 0;
  for (int i = e->n_own - 1; i >= 0; i--) /* backwards: small blocks are taken back from the end of their pieces (kernels/mem) */
    if (e->own[i].device >= 0) own_release(e, &e->own[i]);
  for (int i = 0; i < e->n_own; i++)
    if (e->own[i].device < 0) e->own[kept++] = e->own[i];
  e->n_own = kept;
  for (int k = 0; k < e->n_devices; k++) {
    dev_free(e->device[k].d);
    e->device[k].d = NULL;
  }
  moe_free(e->cpu_moe);
  e->cpu_moe = NULL;
  pool_free(e->p);
  e->p = NULL;
}

/* Nothing is known to be on a device. */
static void forget_placement(engine *e) {
  const size_t nl = (size_t)e->c.n_layers, n = nl * (size_t)e->c.n_experts;
  memset(e->layer, 0, nl * sizeof *e->layer);
  memset(e->resident, 0, n);
  for (int k = 0; k < e->n_devices; k++) {
    dev_context *x = &e->device[k].ctx;
    memset(x->experts, 0, n * sizeof *x->experts);
    memset(x->kv, 0, nl * sizeof *x->kv);
    memset(x->router_bias, 0, nl * sizeof *x->router_bias);
    free(x->likely);
    x->likely = NULL;
    x->slots = 0;
  }
  engine_without_device(&e->o);
}

bool any_lost(const engine *e) {
  for (int k = 0; k < e->n_devices; k++)
    if (e->device[k].d && dev_lost(e->device[k].d)) return true;
  return false;
}

/* The device goes on; KV pages are whole, but for what lost steps have written. */
static hf_status without_ranks(engine *e) {
  if (!any_slots(e)) e->o.upload_tokens = 0; /* layers that had experts away are recorded without uploads, and stay so */
  HF_TRY(hf_note(engine_must_fit(e, &e->o), "%s, and with its experts the model", e->lost_reason));
  HF_TRY(load_experts_alone(e, NULL, NULL));
  free(e->check_logits); /* sums are rounded in another order from now on */
  e->check_logits = NULL;
  return check_learn(e);
}

bool engine_can_do_without(const engine *e) {
  engine_options o = e->o;
  if (o.ranks) ranks_forget(o.ranks);
  if (any_lost(e)) engine_without_device(&o);
  const hf_status st = engine_must_fit(e, &o);
  if (st != HF_OK) hf_clear_error();
  return st == HF_OK;
}

void engine_without_standby(engine *e) {
  e->o.standby_bytes = 0;
}

static hf_status without_device(engine *e) {
  let_device_go(e);
  residency_close(e);
  forget_placement(e);
  HF_TRY(hf_note(engine_must_fit(e, &e->o), "the device is lost (%s), and without it the model", e->lost_reason));
  HF_TRY(devices_share(e));
  HF_TRY(open_device(e));
  HF_TRY(load_weights(e));
  return open_steps(e);
}

/* The check that is learned anew may be what finds the next loss. Ends: each time there is a device or a rank less. */
hf_status engine_fail_over(engine *e) {
  hf_status st = HF_LOST;
  for (bool more = true; st == HF_LOST && more;) {
    char why[sizeof e->lost_reason];
    hf_clear_error();
    if (e->o.ranks) ranks_forget(e->o.ranks);
    st = any_lost(e) ? without_device(e) : without_ranks(e);
    more = any_lost(e) || (e->o.ranks && ranks_lost(e->o.ranks, why, sizeof why));
    if (st == HF_LOST && more)
      hf_log(HF_LOG_WARN, "%s was lost, too (%s)", e->lost_rank ? "another machine" : "the device", e->lost_reason);
  }
  return st;
}
