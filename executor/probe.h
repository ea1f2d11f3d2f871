/* probe.h: one routed expert on the device, alone. Experts that change places (residency.h) would change what a check of the whole model gives, for sums are
 * taken in another order then; so a movable engine's check looks at two things apart:
 *   all but routed experts   a step of fixed tokens through the device with no expert there, the host answering with what was handed to it, scaled: the
 *                            same bits wherever experts are, for as long as the device is good (check_device.c)
 *   each expert there        fixed rows through it alone, whose result is known by its hash, PROBE_EXPERTS a check, in turn
 * The device is taken to be good when the engine opens and never again: an expert that comes to it is known only once its result is that of the CPU from the
 * bytes in host memory, within PROBE_TOLERANCE, before any step uses it; one that leaves must give its known bits a last time, and the CPU
 * the same from the bytes that were read back. The tolerance: both round activations alike and take the same products of them, so that only the
 * order of sums in f32 differs, which moves an f32 result of these lengths by 1e-6 to 1e-5 of its norm; where such a difference makes a hidden value round
 * to the next of 255 steps, by some 1e-4 more.
 *
 * A probe runs on a stream of its own beside steps; one at a time. Thread rule: the driver's thread. Private to the engine. */
#ifndef HF_EXECUTOR_PROBE_H
#define HF_EXECUTOR_PROBE_H

#include "executor/engine_int.h"

enum { PROBE_EXPERTS = 8 /* a check */, PROBE_ROWS = 2 };
static const double PROBE_TOLERANCE = 1e-3; /* relative RMS of the rows */

typedef enum { PROBE_NOBODY, PROBE_CHECK, PROBE_MOVE } probe_user;

typedef struct probe {
  dev_context ctx;   /* one layer, whose first expert is the one that is probed */
  dev_expert *table; /* [n_experts] */
  moe_expert *host;  /* [n_experts], for the CPU */
  dev_expert *none;  /* [n_layers * n_experts]: what a check's step has of experts */
  dev_recording *rec;
  dev_step step;    /* host_x: rows in, then rows out */
  float *x, *y;     /* [PROBE_ROWS][d_model]: in; of the CPU */
  uint64_t *known;  /* [n_layers * n_experts]: hash of what an expert on the device gives; 0 = not known */
  probe_user user;  /* whose is at work */
  int left;         /* of the check at work */
  size_t at, first; /* cell of the check's probe; where it looks for the next */
  uint64_t want;    /* what it gave so far */
} probe;

/* RAM, and memory of the device, that a movable engine needs for it. */
int64_t probe_ram_bytes(const model_config *c);
int64_t probe_device_bytes(const model_config *c);
HF_MUST hf_status probe_open(engine *e); /* weights are loaded; nothing when the engine is not movable */
void probe_close(engine *e);             /* nothing runs any more; the device's memory is not touched */
/* What all experts on the device give: it is taken to be good. */
HF_MUST hf_status probe_learn(engine *e);

/* False: somebody else's is at work. */
HF_MUST hf_status probe_begin(engine *e, probe_user user, const dev_expert *x, bool *begun);
/* Whether the user's probe has ended; its rows are in step.host_x. HF_LOST. */
HF_MUST hf_status probe_ended(engine *e, bool *ended);
uint64_t probe_hash(const engine *e);
uint64_t probe_hash_of(const float *x, size_t n); /* never 0, which stands for what is not known */
/* Whether the CPU makes the same of x, within the tolerance. */
bool probe_as_on_cpu(engine *e, const moe_expert *x);

/* The experts' part of a check, taken on by probe_check_work while the engine is polled. */
void probe_check_begin(engine *e);
HF_MUST hf_status probe_check_work(engine *e);
bool probe_checking(const engine *e);
#endif
