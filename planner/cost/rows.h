/* rows.h: a machine as the planner sees it: its database rows in memory, and look-ups that say how sure they are.
 *
 * A figure is looked up by device and name, with fallbacks that are part of the contract:
 *   "cpu"   the pooled row; else the sum over "cpu0", "cpu1", … for rates and bytes (tag scaled), their maximum for times
 *   gpuN    the row of that device only
 * A rate of a number of threads takes the row with params "threads=N"; else it is scaled from the pooled one (tag scaled).
 * Each look-up weakens *tag to the weakest of itself and what was read. */
#ifndef HF_PLANNER_COST_ROWS_H
#define HF_PLANNER_COST_ROWS_H

#include "db/db.h"

typedef struct {
  rec_machine machine;
  rec_device *device;
  rec_figure *figure;
  rec_kernel_point *kernel;
  rec_link_point *link;
  int n_device, n_figure, n_kernel, n_link;
} cost_rows;

/* rounded: points of kernels that round more than the contract of their format has it count, too (rec_kernel_rounded). */
HF_MUST hf_status cost_rows_load(db *d, const rec_machine *m, bool rounded, cost_rows **out);
/* A machine that is in no database (composed in memory): copies what is given. HF_INPUT when a figure or point is not finite, negative or not
 * in order (low <= likely <= high), as the database would say. Read-only from then on: threads may share it. */
HF_MUST hf_status cost_rows_from_arrays(const rec_machine *m, const rec_device *device, int n_device, const rec_figure *figure,
                                        int n_figure, const rec_kernel_point *kernel, int n_kernel, const rec_link_point *link,
                                        int n_link, cost_rows **out);
void cost_rows_free(cost_rows *r); /* NULL ok */

typedef struct {
  double low, likely, high;
  db_tag tag;
} cost_figure;

/* Which figures are moved away from their likely value: side -1 makes the machine slower, +1 faster, 0 leaves it. Groups are independent
 * sources of doubt; the interval of a prediction comes from moving them one by one (planner/plan_make.h). */
typedef enum {
  COST_CPU_MEM = 1,
  COST_CPU_FLOPS = 2,
  COST_GPU_MEM = 4,
  COST_GPU_FLOPS = 8,
  COST_LINK = 16,
  COST_FIXED = 32,
  COST_ROUTING = 64,
  COST_N_GROUPS = 7,
  COST_ALL = 127
} cost_group;
typedef struct {
  int side;
  unsigned groups;
} cost_case;

bool cost_find(const cost_rows *r, const char *device, const char *what, cost_figure *out);
/* Bytes or FLOPs per second; fallback (low, likely, high, tag assumed) when there is no row. */
double cost_rate(const cost_rows *r, const char *device, const char *what, cost_group g, cost_case c, const double fallback[3],
                 db_tag *tag);
/* The same for `threads` threads of the CPU; 0 = all. */
double cost_cpu_rate(const cost_rows *r, const char *what, int threads, cost_group g, cost_case c, const double fallback[3],
                     db_tag *tag);
/* A time in ns; fallback[0] is the fastest. */
double cost_time(const cost_rows *r, const char *device, const char *what, cost_case c, const double fallback[3], db_tag *tag);

/* The same of `threads` threads of the CPU (params "threads=N"); 0, or where that was not measured, the row of most threads. */
double cost_cpu_time(const cost_rows *r, const char *what, int threads, cost_case c, const double fallback[3], db_tag *tag);

int cost_cpu_cores(const cost_rows *r); /* >= 1 */
int64_t cost_mem_bytes(const cost_rows *r, const char *kind,
                       int index); /* of the index-th device of a kind ("cpu", "gpu"); index -1: sum; 0 = unknown */
const rec_device *cost_device(const cost_rows *r, const char *device); /* NULL when there is none */
void cost_weaken(db_tag *tag, db_tag with);
#endif
