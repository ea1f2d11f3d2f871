/* rejoin.c: see rejoin.h. The thread loads into an engine of its own (`made`), which has nothing but the one device, by the functions of load.c. */
#include "executor/rejoin.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/devices.h"

#define SELF_CHECK_NS INT64_C(2000000000)

static hf_status nap_until(const rejoin *r, int64_t ns) {
  for (int64_t now = hf_now_ns(); now < ns; now = hf_now_ns()) { /* ends: the time comes, or rejoin_stop */
    if (atomic_load(&r->stop)) break;
    hf_sleep_until_ns(ns - now > 2000000 ? now + 2000000 : ns);
  }
  return atomic_load(&r->stop) ? hf_fail(HF_TIMEOUT, "stopped") : HF_OK;
}

/* Of those that the options of the beginning name. */
static unsigned lost_of(const engine *e) {
  return engine_has_device(&e->o) ? e->o.lost_devices : (1u << devices_of(&e->asked)) - 1;
}

/* ---- probes ---- */

/* What is rehearsed: until then the device is as it was when it was lost. */
static hf_status rehearse(const rejoin *r, int k, dev *d) {
  const dev_fault *f = &r->e->asked.fault;
  if (f->kind == DEV_FAULT_NONE || k != r->e->asked.fault_device) return HF_OK;
  if (f->back > 0 && r->probes[k] >= f->back) return HF_OK;
  return dev_inject(d,
                    &(dev_fault){.kind = f->kind == DEV_FAULT_WRONG ? DEV_FAULT_WRONG : DEV_FAULT_ERROR, .at = 1, .factor = 1});
}

static hf_status probe(rejoin *r, int k) {
  dev *d = NULL;
  r->probes[k]++;
  HF_TRY(dev_virtual_new(device_size(&r->e->asked, k), 1, NULL, NULL, &d));
  hf_status st = rehearse(r, k, d);
  if (st == HF_OK) st = dev_self_check(d, SELF_CHECK_NS);
  dev_free(d);
  return st;
}

/* Returns when one has answered often enough. */
static hf_status find(rejoin *r) {
  const unsigned lost = lost_of(r->e);
  for (r->device = -1; r->device < 0;) { /* ends: one comes back, or rejoin_stop */
    HF_TRY(nap_until(r, hf_now_ns() + r->e->asked.probe_every_ns));
    for (int k = 0; k < devices_of(&r->e->asked) && r->device < 0; k++) {
      if (!(lost >> k & 1) || r->e->times_lost[k] >= REJOIN_MOST) continue;
      const hf_status st = probe(r, k);
      r->good[k] = st == HF_OK ? r->good[k] + 1 : 0;
      hf_clear_error();
      if (r->good[k] >= REJOIN_GOOD) r->device = k;
    }
  }
  return HF_OK;
}

/* ---- loading ---- */

/* engine.pause: so many bytes have been loaded; as many a second as is allowed. */
static hf_status pause_loading(engine *made, size_t bytes) {
  rejoin *r = (rejoin *)(void *)((char *)made - offsetof(rejoin, made));
  const double rate = (double)r->e->asked.rejoin_bytes_per_s;
  r->loaded_bytes += (int64_t)bytes;
  if (rate > 0) r->due_ns += (int64_t)(1e9 * (double)bytes / rate);
  return nap_until(r, r->due_ns);
}

static hf_status open_made(rejoin *r) {
  engine *s = &r->made;
  const engine *e = r->e;
  const size_t nl = (size_t)e->c.n_layers, ne = (size_t)e->c.n_experts;
  s->m = e->m;
  s->c = e->c;
  s->o = r->target;
  s->topo = e->topo;
  s->nodes = e->nodes;
  s->kv_layer_bytes = e->kv_layer_bytes;
  s->pause = pause_loading;
  HF_TRY(devices_share(s));
  HF_TRY(hf_alloc(&s->layer, nl, sizeof *s->layer, "layers"));
  HF_TRY(hf_alloc(&s->resident, nl * ne + 1, 1, "expert table"));
  for (size_t i = 0; i < nl * ne; i++)
    if (s->c.layer_is_moe[i / ne]) s->resident[i] = (uint8_t)(1 + device_of_expert(&s->c, &s->o, (int)(i / ne), (int)(i % ne)));
  HF_TRY(device_context(s, &s->device[r->device].ctx));
  HF_TRY(pool_new(s->topo, 1, &s->p));
  engine_step_aside(e); /* where the pool of one has not left it */
  return open_virtual(r->e, &r->target, r->device, &s->device[r->device].d);
}

static void close_made(rejoin *r) {
  engine *s = &r->made;
  for (int i = s->n_own - 1; i >= 0; i--) own_release(s, &s->own[i]);
  for (int k = 0; k < ENGINE_DEVICES; k++) {
    dev_free(s->device[k].d);
    free(s->device[k].ctx.experts);
    free(s->device[k].ctx.kv);
    free(s->device[k].ctx.router_bias);
  }
  repack_free(&s->repack);
  if (s->p) pool_free(s->p);
  free(s->own);
  free(s->layer);
  free(s->resident);
  free(s->home);
  memset(s, 0, sizeof *s);
}

static hf_status fill(rejoin *r) {
  engine_options_without(r->e, &r->e->asked, lost_of(r->e) & ~(1u << r->device), &r->target);
  r->target.fault.kind = DEV_FAULT_NONE;
  r->target.movable = false;
  r->target.standby_bytes = r->e->o.standby_bytes;
  r->due_ns = hf_now_ns();
  HF_TRY(open_made(r));
  return load_one_device(&r->made, r->device);
}

static void *work(void *arg) {
  rejoin *r = arg;
  hf_status st = HF_LOST;
  (void)setpriority(PRIO_PROCESS, 0, 15); /* of this thread */
  engine_step_aside(r->e);
  while (st == HF_LOST) { /* ends: one that is lost again while it is filled has to answer again */
    hf_clear_error();
    atomic_store(&r->state, REJOIN_PROBING);
    memset(r->good, 0, sizeof r->good);
    st = find(r);
    if (st != HF_OK) break;
    atomic_store(&r->state, REJOIN_LOADING);
    st = fill(r);
    if (st != HF_OK) close_made(r);
  }
  if (st != HF_OK && st != HF_TIMEOUT) hf_log(HF_LOG_WARN, "a device that answers again is not taken back: %s", hf_error_line());
  atomic_store(&r->state, st == HF_OK ? REJOIN_READY : REJOIN_FAILED);
  return NULL;
}

void rejoin_begin(engine *e) {
  rejoin *r = NULL;
  bool any = false;
  if (e->asked.probe_every_ns <= 0 || e->asked.ranks || e->cut) return;
  for (int k = 0; k < devices_of(&e->asked); k++) any = any || ((lost_of(e) >> k & 1) && e->times_lost[k] < REJOIN_MOST);
  if (!any || !engine_has_device(&e->asked)) return;
  if (hf_alloc(&r, 1, sizeof *r, "watching for lost devices") == HF_OK) {
    r->e = e;
    if (pthread_create(&r->thread, NULL, work, r) == 0) {
      e->rejoin = r;
      return;
    }
    free(r);
  }
  hf_clear_error();
  hf_log(HF_LOG_WARN, "nobody watches for the lost device to come back: there is no memory or no thread for it");
}

void rejoin_stop(engine *e) {
  rejoin *r = e->rejoin;
  if (!r) return;
  atomic_store(&r->stop, true);
  pthread_join(r->thread, NULL); /* ends: it looks at stop, and what it waits for has a deadline */
  close_made(r);
  free(r);
  e->rejoin = NULL;
}

bool engine_returning(const engine *e) {
  return e->rejoin && atomic_load(&e->rejoin->state) == REJOIN_READY;
}
