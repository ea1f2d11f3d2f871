/* profile.h: one profiling session: what is measured, how each figure is timed, and where the results gather. Private to
 * profiler/.
 *
 * A measurement is a function that does one piece of work and can be called again and again; prof_time() warms it up, calls it
 * until the point's time is over (never fewer than the mode's least number of samples) and keeps median, 10th and 90th
 * percentile. Samples during which the system gave a CPU to another program are left out if enough others remain. A point
 * whose samples lie too far apart is measured once more and the quieter of the two kept. A rate of several threads above what as
 * many times one thread reaches is measured again, both of them; where it stays it is stored as doubtful.
 *
 * Groups run one after another, the important ones first: dram, memory, fixed, experts, matmul, attention, norm, dma, peaks. Each has a time
 * budget; over it, the points that remain take the least number of samples, and in quick mode the dearest are left out. Results
 * stay in memory until the end, then one transaction stores them; a full profile keeps finished units in a journal on the way (journal.h).
 * After every point memory is read for a moment. Shared machines read at one rate for some minutes and at another for the next, and figure and
 * points are taken minutes apart: what a point of all threads reads from memory is stored as if it had been read at the rate that the profile
 * states (dram_read_bytes_per_s), so that all rows are of one machine, and a run can tell drift from error by that one rate.
 * After every point the clock of the core is looked at (watch.h); a point at a slow clock is measured again. */
#ifndef HF_PROFILER_PROFILE_H
#define HF_PROFILER_PROFILE_H

#include "base/log.h"
#include "db/db.h"
#include "kernels/kernels.h"
#include "kernels/mem/pool.h"
#include "kernels/mem/probe.h"
#include "profiler/journal.h"
#include "profiler/stats.h"
#include "profiler/watch.h"

enum { PROF_MAX_SHAPES = 12, PROF_MAX_THREADS = 4 };

/* A matrix (rows, cols) or an expert (d_ff = rows, d_model = cols). resident: the weights are meant to stay in cache, as those
 * of a small model do; otherwise they stream from memory. */
typedef struct {
  int rows, cols;
  int resident;    /* truth values as int: one size of field throughout keeps GCC 12 from a false overflow warning */
  int large;       /* full mode only */
  int only_format; /* kern_format, or -1 = all */
} prof_shape;

typedef struct {
  int heads, n_out, n_in; /* MLA: lora, rope; GQA: head_dim, KV heads */
  bool mla;
  int nope, v, format; /* MLA: of a head; kern_format of its weights */
} prof_attn;

typedef struct {
  prof_shape matmul[PROF_MAX_SHAPES], expert[PROF_MAX_SHAPES];
  prof_attn attn[4];
  int norm[4];
  int n_matmul, n_expert, n_attn, n_norm;
} prof_shapes;

/* The common shapes: the example model, a model of 2048 x 768 experts, DeepSeek-R1. With a model path: that model's. */
HF_MUST hf_status prof_shapes_for(const char *model_or_null, prof_shapes *out);

typedef struct {
  bool quick;
  int threads;      /* 0 = all cores */
  const char *only; /* group name or NULL */
} prof_options;

typedef struct {
  prof_options o;
  prof_shapes shapes;
  const topology *topo;
  pool *pools[PROF_MAX_THREADS]; /* by number of threads, most first: all, all but one, one */
  int n_pools;
  int64_t group_end_ns; /* budget of the running group */
  int point_times;      /* of the running group: its points' time over the usual one */
  int64_t started_ns;
  hf_progress bar;
  watch clock;
  mem_probe *beside;  /* all threads; NULL: memory is not looked at */
  double bytes_per_s; /* read around the last point */
  bool from_cache;    /* the weights of the running unit stay in cache */
  journal *journal;   /* NULL: none; the caller's */
  char unit[96];      /* the one that is measured, and where its rows begin */
  int unit_figure, unit_point;
  rec_figure *figure;
  int n_figure, cap_figure;
  rec_kernel_point *point;
  int n_point, cap_point;
} profile;

/* HF_INPUT for a group that does not exist (lists them) or a model that cannot be opened. */
HF_MUST hf_status prof_new(const prof_options *o, const topology *topo, const char *model_or_null, profile **out);
void prof_free(profile *p); /* NULL ok */
/* All groups, or the one named. */
HF_MUST hf_status prof_run(profile *p);

/* One sample: returns its nanoseconds. */
typedef double prof_sample_fn(void *user);
stats prof_time(profile *p, prof_sample_fn *sample, void *user);
bool prof_over_budget(const profile *p);
/* The whole profile takes longer than it should: points that plans can do without are left out. */
bool prof_late(const profile *p);
/* What cannot be is measured again, so often in all. */
enum { PROF_TRIES = 3 };
/* Among the figures from number `from` on is a rate of several threads that is impossible beside that of one (db/records.h), or two thirds of it at
 * most: threads that only disturb each other are no machine's, but those that waited for another program. */
bool prof_impossible(const profile *p, int from);
/* The interval of such figures is widened down to what is possible, their source says that they are doubtful, and a line is logged. */
void prof_mark_doubtful(profile *p, int from);
/* More tokens, or more context, never take less time. Points from number `from` on, of one curve and in rising order, that take a quarter longer
 * than a later one are measured again, a few times at most, and the quickest of all kept: on a busy machine all samples of a point may have
 * met another program. again: measures the work of that point. */
typedef stats prof_again_fn(profile *p, void *user, const rec_kernel_point *k);
void prof_in_order(profile *p, int from, prof_again_fn *again, void *user);
/* Time for measuring again, whatever the group's budget. */
void prof_more_time(profile *p);

/* Stores a figure of device ("cpu", "cpu0", ""); params "" or "threads=2". */
HF_MUST hf_status prof_add_figure(profile *p, const char *device, const char *what, const char *params, const char *unit,
                                  const stats *s, const char *source);
HF_MUST hf_status prof_add_point(profile *p, const rec_kernel_point *k, const stats *s);

/* A unit is what an interrupted profile does not do again: rows between begin and end are kept in the journal where there is one.
 * begin: false when the journal had the unit; its rows are in the profile then, and there is no end. */
bool prof_unit_begin(profile *p, const char *fmt, ...) HF_PRINTF(2, 3);
HF_MUST hf_status prof_unit_end(profile *p);

/* Groups. */
HF_MUST hf_status prof_dram(profile *p);
HF_MUST hf_status prof_fixed(profile *p);
HF_MUST hf_status prof_experts(profile *p);
HF_MUST hf_status prof_matmul(profile *p);
HF_MUST hf_status prof_attention(profile *p);
HF_MUST hf_status prof_latent(profile *p, const prof_attn *a); /* part of prof_attention */
HF_MUST hf_status prof_memory(profile *p);
HF_MUST hf_status prof_dma(profile *p);
HF_MUST hf_status prof_peaks(profile *p);
HF_MUST hf_status prof_norm(profile *p);

/* The machine's facts as one JSON object of at most 4,095 bytes. */
HF_MUST hf_status prof_facts(const topology *t, char *out, size_t n);
/* Figure dram_theoretical_bytes_per_s (tag spec), where the facts have it. */
HF_MUST hf_status prof_add_theoretical(profile *p, const char *facts);
/* Device rows: one per NUMA node. */
int prof_devices(const topology *t, rec_device *out, int max);

/* Random values, the same ones each time. */
void prof_random(float *x, int n, uint64_t seed);
/* Fills a weight buffer with rows of the format; small values, so that nothing overflows. */
void prof_random_weights(kern_format f, int n_cols, int64_t n_rows, char *out);

/* Store and print. */
HF_MUST hf_status prof_store(db *d, const profile *p, const char *name, const char *facts, rec_machine *m);
typedef struct {
  rec_machine machine;
  rec_device *device;
  rec_figure *figure;
  rec_kernel_point *point;
  rec_link_point *link;
  int n_device, n_figure, n_point, n_link;
} prof_view;
HF_MUST hf_status prof_load(db *d, const rec_machine *m, prof_view *out);
void prof_view_free(prof_view *v);
HF_MUST hf_status prof_print_json(const prof_view *v);
void prof_print_table(const prof_view *v);
#endif
