/* ranks.h: experts on the CPUs of other machines. mpirun starts hf-run once per machine; rank 0 is hf-run as ever, the others hold experts and compute them
 * for it (ranks_work). A plan with other machines (hf-plan --remote) places experts there, its k-th other machine being rank k; without one
 * --experts-on-ranks does.
 *
 * Of a layer's step, rank 0 sends each rank the rows of the tokens that chose an expert there, with choices and weights; then computes its own experts
 * while the ranks compute theirs; then adds what comes back, rank by rank in ascending order. A token's result depends on no other token, and is that
 * of one machine but for the order in which f32 numbers are added, as with experts on a device. Both sides run the same kernels under the same
 * rounding of activations (kernels.h); machines with different instruction sets agree within the tolerance of that.
 *
 * A rank that does not answer in time (watch.h, as for devices; --device-deadline) is lost: engine_poll says HF_LOST, and engine_fail_over loads
 * its experts into this machine's memory. A rank that hears nothing from rank 0 for RANKS_SILENCE_S seconds ends itself; rank 0 speaks once a second.
 *
 * Threads: the owner's functions are called by one thread, ranks_post, _collect and _add inside of pool_run as they say. All of MPI is behind
 * kernels/net; a thread of rank 0 moves the messages, for MPI moves long ones only while it is called. */
#ifndef HF_EXECUTOR_RANKS_H
#define HF_EXECUTOR_RANKS_H

#include "db/plan.h"
#include "executor/options.h"
#include "kernels/device.h"
#include "model/model.h"

enum { RANKS_MOST = 64, RANKS_SILENCE_S = 300 /* more than any wait of rank 0 */ };

typedef struct ranks ranks;

/* By rank 0 of several: learns who the others are. HF_LOST when one does not come, what a rank says that cannot even begin otherwise; *out is to be closed
 * then, too, once the error has been told. */
HF_MUST hf_status ranks_open(ranks **out);
/* The others end, too. Does not return when a rank was lost: mpirun then ends with this exit status. NULL: nothing. */
void ranks_close(ranks *r, int status);

/* Decides which rank has which expert: the plan's places, else `percent` of every layer's experts that the options do not put on the device, in turn over
 * the ranks. HF_INPUT when the plan names other machines than there are ranks, or there are ranks with nothing to do. */
HF_MUST hf_status ranks_place(ranks *r, const model_config *c, const engine_options *o, double percent);
/* [n_layers][n_experts]; NULL before ranks_place. */
const uint8_t *ranks_owner(const ranks *r);
/* Other ranks that are not lost. */
int ranks_left(const ranks *r);
/* Ranks beside this one that the options say. */
int ranks_of(const engine_options *o);

/* Tells the ranks what to load. They load while this one does; ranks_ready waits for them. */
HF_MUST hf_status ranks_load(ranks *r, const model *m, const engine_options *o);
HF_MUST hf_status ranks_ready(ranks *r);
/* They free what they have loaded. */
void ranks_unload(ranks *r);

/* By thread 0 before a layer's own experts: sends rows away. */
void ranks_post(ranks *r, int layer, const dev_step *s, const int32_t *ids, const float *weights);
/* By thread 0 after them: waits until every rank has answered or is lost; breathe, if there is one, is called again and again meanwhile. It may not come
 * back to this layer's functions: rows of one layer are away at a time. */
void ranks_collect(ranks *r, void (*breathe)(void *user), void *user);
/* By all threads, after a barrier: each adds its part of the columns. */
void ranks_add(ranks *r, float *y, int thread, int n_threads);

/* Whether a rank was lost since ranks_forget, and why. */
bool ranks_lost(const ranks *r, char *why, size_t n);
/* Experts of lost ranks belong to rank 0 from now on. */
void ranks_forget(ranks *r);

/* What the ranks have done, for people and as members of a document. */
void ranks_print(const ranks *r);
void ranks_json(const ranks *r, json *into);

/* What the ranks above 0 do, until rank 0 ends. st: what there is to be said of this rank already, in the error trail; rank 0 is told it, and tells it.
 *
 * For tests, $HF_FAIL_RANK: "K:hang@N" or "K:die@N", several with commas: rank K is stopped, or killed, by its N-th order of rows. $HF_RANKS_SILENCE_S in
 * place of RANKS_SILENCE_S. */
HF_MUST hf_status ranks_work(const run_options *o, hf_status st);
#endif
