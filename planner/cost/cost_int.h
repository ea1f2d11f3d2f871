/* cost_int.h: what the files of this room share. */
#ifndef HF_PLANNER_COST_COST_INT_H
#define HF_PLANNER_COST_COST_INT_H

#include "planner/cost/cost.h"

bool cost_on_unit(const rec_kernel_point *k, const cost_unit *u);
/* Thread count of the points to use: the wanted one if it was measured, else the largest. 0: no such kernel at all. */
int cost_usable_threads(const cost_unit *u, const char *kernel, const char *format);
/* Name of the figure that holds the arithmetic for weights of this format; false when the unit has none. */
bool cost_flops_figure(const cost_unit *u, fmt f, char *what, size_t n);
/* The row that cost_find takes, when it is one row. */
const rec_figure *cost_row(const cost_rows *r, const char *device, const char *what);
/* The best rate any measured product reached on this unit; 0 when none was measured. */
double cost_measured_flops(const cost_unit *u, fmt f);

/* What is assumed where a machine has no row: low, likely, high in order of size. NULL for a name that has none. */
typedef struct {
  const char *what, *unit;
  double value[3];
  const char *source;
} cost_prior;
const cost_prior *cost_prior_of(const char *what);
#endif
