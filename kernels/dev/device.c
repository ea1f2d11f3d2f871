/* device.c: the parts of device.h that all devices on CPUs share: memory accounting and calls through the device's own functions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/dev/cpu_ops.h"

const char *dev_stage_name(dev_stage s) {
  static const char *const names[DEV_STAGE_N] = {"attn", "shared", "dexp", "hand", "cexp", "head", "upload"};
  return s >= 0 && s < DEV_STAGE_N ? names[s] : "?";
}

void dev_free(dev *d) {
  if (!d) return;
  d->free_impl(d);
  free(d);
}

void dev_quit(dev *d) {
  if (d && d->quit) d->quit(d);
}

bool dev_is_host(const dev *d) {
  return d->host;
}
int64_t dev_mem_bytes(const dev *d) {
  return d->mem_bytes;
}
int64_t dev_mem_used(const dev *d) {
  return atomic_load(&d->mem_used);
}
bool dev_lost(const dev *d) {
  return d->lost;
}
const char *dev_lost_reason(const dev *d) {
  return d->lost ? d->lost_reason : "";
}

void dev_give_up(dev *d, const char *why) {
  if (!d->give_up || d->lost) return;
  snprintf(d->lost_reason, sizeof d->lost_reason, "%s", why);
  d->lost = true;
  d->give_up(d);
}

hf_status dev_fault_check(const dev_fault *f) {
  if (f->kind != DEV_FAULT_NONE && f->at < 1)
    return hf_fail(HF_INPUT, "a fault at operation %lld: they count from 1", (long long)f->at);
  if (f->kind == DEV_FAULT_SLOW && !(f->factor >= 1 && f->factor <= 1e6))
    return hf_fail(HF_INPUT, "a device slowed down %g times: 1 to a million", f->factor);
  return HF_OK;
}

hf_status dev_inject(dev *d, const dev_fault *f) {
  if (!d->rehearses) return hf_fail(HF_UNSUPPORTED, "faults can be rehearsed on a virtual device only");
  HF_TRY(dev_fault_check(f));
  d->fault = *f;
  return HF_OK;
}

bool dev_memory_fault(dev *d) {
  return d->fault.kind == DEV_FAULT_MEMORY && atomic_fetch_add(&d->n_memory_calls, 1) + 1 == d->fault.at;
}

static hf_status memory_fault(dev *d, const char *what) {
  if (!dev_memory_fault(d)) return HF_OK;
  char why[64];
  snprintf(why, sizeof why, "%s failed", what);
  dev_give_up(d, why);
  return hf_fail(HF_LOST, "device memory: %s", why);
}

static size_t padded(size_t bytes) {
  return (bytes + 63) & ~(size_t)63;
}

hf_status dev_alloc(dev *d, size_t bytes, const char *what, dev_addr *out) {
  if (d->lost) return hf_fail(HF_LOST, "device is lost: %s", d->lost_reason);
  int64_t used = atomic_load(&d->mem_used);
  size_t n =
      bytes > INT64_MAX - 64 ? INT64_MAX : padded(bytes ? bytes : 1); /* the former fits nowhere, and does not wrap around */
  if (d->mem_bytes && (int64_t)n > d->mem_bytes - used)
    return hf_fail(HF_MACHINE, "device memory: %zu bytes for %s do not fit, %lld of %lld are in use", bytes, what,
                   (long long)used, (long long)d->mem_bytes);
  HF_TRY(memory_fault(d, "an allocation"));
  void *p;
  if (d->mem_alloc) {
    HF_TRY(d->mem_alloc(d, n, what, out));
  } else {
    HF_TRY(mem_alloc(n, -1, what, &p));
    *out = (dev_addr)(uintptr_t)p;
  }
  atomic_fetch_add(&d->mem_used, (int64_t)n);
  return HF_OK;
}

void dev_release(dev *d, dev_addr a, size_t bytes) {
  if (!a) return;
  size_t n = padded(bytes ? bytes : 1);
  if (d && d->mem_release) d->mem_release(d, a);
  else mem_free((void *)(uintptr_t)a, n, -1);
  if (d) atomic_fetch_sub(&d->mem_used, (int64_t)n);
}

hf_status dev_upload(dev *d, dev_addr dst, const void *src, size_t bytes) {
  if (d->lost) return hf_fail(HF_LOST, "device is lost: %s", d->lost_reason);
  HF_TRY(memory_fault(d, "an upload"));
  if (d->copy) return d->copy(d, (void *)(uintptr_t)dst, src, bytes, true);
  memcpy((void *)(uintptr_t)dst, src, bytes);
  return HF_OK;
}

hf_status dev_read_back(dev *d, void *dst, dev_addr src, size_t bytes) {
  if (d->lost) return hf_fail(HF_LOST, "device is lost: %s", d->lost_reason);
  HF_TRY(memory_fault(d, "a read"));
  if (d->copy) return d->copy(d, dst, (const void *)(uintptr_t)src, bytes, false);
  memcpy(dst, (const void *)(uintptr_t)src, bytes);
  return HF_OK;
}

/* Not d->lost, which is the driver's: this may be another thread. */
hf_status dev_download(dev *d, void *dst, dev_addr src, size_t bytes, int64_t deadline_ns) {
  if (d->download) return d->download(d, dst, src, bytes, deadline_ns);
  memcpy(dst, (const void *)(uintptr_t)src, bytes);
  return HF_OK;
}

void dev_copies_count(dev *d, int64_t *begun, int64_t *ended) {
  *begun = *ended = 0;
  if (d->copies_count) d->copies_count(d, begun, ended);
}

dev_addr dev_wrap(const dev *d, const void *host) {
  return d->host ? (dev_addr)(uintptr_t)host : 0;
}

hf_status dev_record(dev *d, const dev_op *ops, int n_ops, const dev_context *ctx, int max_tok, int max_logits,
                     dev_recording **out) {
  if (d->lost) return hf_fail(HF_LOST, "device is lost: %s", d->lost_reason);
  HF_TRY(cpu_record(d, ops, n_ops, ctx, max_tok, max_logits, d->n_threads, out));
  if (!d->record) return HF_OK;
  const hf_status st = d->record(d, *out);
  if (st != HF_OK) {
    cpu_recording_free(*out);
    *out = NULL;
  }
  return st;
}

void dev_recording_free(dev_recording *r) {
  cpu_recording_free(r);
}

hf_status dev_launch(dev *d, dev_recording *r, dev_step *step) {
  if (d->lost) return hf_fail(HF_LOST, "device is lost: %s", d->lost_reason);
  if (r->owner != d) return hf_fail(HF_INPUT, "device: the recording belongs to another device");
  if (step->n_tok <= 0 || step->n_tok > r->max_tok || step->n_logits < 0 || step->n_logits > r->max_logits)
    return hf_fail(HF_INPUT, "device: a step of %d tokens and %d logit rows, recorded for %d and %d", step->n_tok, step->n_logits,
                   r->max_tok, r->max_logits);
  if (r->of_step && (step->layer < 0 || step->layer >= r->ctx->n_layers))
    return hf_fail(HF_INPUT, "device: a step of layer %d, recorded for %d", step->layer, r->ctx->n_layers);
  if (r->adds_guests && !step->host_guests) return hf_fail(HF_INPUT, "device: a step without the sums of guests that it adds");
  if (step->upload && d->host) return hf_fail(HF_INPUT, "device: the host device uploads nothing");
  return d->launch(d, r, step);
}

/* A stream that does not exist has nothing to finish. */
bool dev_finished(dev *d, int stream) {
  return d->finished(d, stream);
}
hf_status dev_sync(dev *d, int stream, int64_t deadline_ns) {
  return d->sync(d, stream, deadline_ns);
}

void dev_set_wait_limit(dev *d, int64_t ns) {
  if (d->wait_limit) d->wait_limit(d, ns);
}

static size_t slot_part(const kern_mat *w) {
  return padded(kern_mat_bytes(w->layout, w->format, w->n_rows, w->n_cols));
}

size_t dev_slot_bytes(const moe_expert *x, int d_model, int d_ff) {
  const size_t f = sizeof(float), biases = x->gate_bias ? 2 * padded((size_t)d_ff * f) + padded((size_t)d_model * f) : 0;
  return slot_part(&x->gate) + slot_part(&x->up) + slot_part(&x->down) + biases;
}

void dev_host_done(dev_step *step, int layer, int64_t at_ns) {
  atomic_store_explicit(&step->done_at_ns, at_ns, memory_order_relaxed);
  if (step->answer) step->answer(step, layer);
  atomic_store_explicit(&step->done, layer + 1, memory_order_release);
}
