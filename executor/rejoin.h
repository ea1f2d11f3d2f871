/* rejoin.h: a device that was lost, and answers again, is taken back. Private to the engine but for engine_returning and engine_take_back (engine.h).
 *
 *   lost | probe .. probe .. good, good, good | loading, at a limited rate | ready -> the driver, between steps: KV pages over, recordings
 *          a thread of its own, of low priority; steps run on all the time  |          as before the loss
 *
 * Every engine_options.probe_every_ns each lost device is opened and checks itself (dev_self_check). After REJOIN_GOOD good answers in a row its weights are
 * read again, as the options of the beginning have them for the devices that are there then. Loading and probing touch nothing that steps use. A device lost
 * REJOIN_MOST times is not asked any more. Another loss ends all of this, and it begins anew. */
#ifndef HF_EXECUTOR_REJOIN_H
#define HF_EXECUTOR_REJOIN_H

#include "executor/engine_int.h"

enum { REJOIN_GOOD = 3, REJOIN_MOST = 3 };

/* Where a device is lost that may come back; without a thread a line says so, no more. */
void rejoin_begin(engine *e);
void rejoin_stop(engine *e);

/* What the thread has made, for rearrange: a device, and of the tables what is on it. */
struct rejoin {
  engine *e;
  engine made;
  int device;
  engine_options target;
  pthread_t thread;
  _Atomic bool stop;
  _Atomic int state; /* rejoin_state */
  int probes[ENGINE_DEVICES], good[ENGINE_DEVICES];
  int64_t loaded_bytes, due_ns;
};
typedef enum { REJOIN_PROBING, REJOIN_LOADING, REJOIN_READY, REJOIN_FAILED } rejoin_state;
#endif
