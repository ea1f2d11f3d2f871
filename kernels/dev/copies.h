/* copies.h: the copy queue of a virtual device (device.h, steps that upload): a thread that sends experts from host memory into the slots of a
 * stream, one at a time. Private to kernels/dev.
 *
 * Of the layer whose routing is known the experts go in ascending order, which is that in which the device computes them; what the device waits
 * for takes the place of the last one sent ahead where no slot is free, so that a wrong guess costs time and never an end.
 *
 * Paced: an expert has arrived when it would have on the modelled link: so long after the link was free, the slot was free and somebody
 * could have asked for it. The thread itself never sleeps for that, so its own delays are no part of the modelled time. */
#ifndef HF_KERNELS_DEV_COPIES_H
#define HF_KERNELS_DEV_COPIES_H

#include <pthread.h>

#include "kernels/dev/cpu_ops.h"

enum { COPIES_MAX_STREAMS = 16 };
typedef struct {
  int n_streams;     /* at most COPIES_MAX_STREAMS */
  pthread_t beside;  /* the device's own thread: the queue's may run where that may, not where its maker is pinned */
  dev_pace_fn *pace; /* NULL: not paced */
  void *pace_user;
  bool (*before)(void *user); /* a copy; true: the device is lost or about to be freed, nothing is sent any more */
  void (*after)(void *user, int64_t started_ns); /* the copy that began then */
  void *user;
} copies_options;

typedef struct copies copies;
HF_MUST hf_status copies_new(const copies_options *o, copies **out);
/* Nothing is sent any more when this returns. `before` must not wait for ever by then. */
void copies_quit(copies *q);
/* Copies that have begun and those that are over. */
void copies_count(copies *q, int64_t *begun, int64_t *ended);
void copies_free(copies *q); /* after copies_quit; NULL ok */

/* A step of r begins on this stream: likely experts of its first layer may go. */
void copies_begin(copies *q, int stream, const dev_recording *r, dev_step *s);

/* By the device's thread. The routing of the stream's next layer that uploads is known. */
void copies_routed(copies *q, int stream);
typedef enum { COPIES_NOT_YET, COPIES_READY, COPIES_ALL } copies_state;
/* The next expert to compute, x as it lies in its slot, until copies_used. */
copies_state copies_next(copies *q, int stream, int *expert, moe_expert *x);
void copies_used(copies *q, int stream, int expert);
/* All of the layer's were computed: the trace gets what was sent for it. */
void copies_layer_ends(copies *q, int stream);
#endif
