/* draw.h: drawings that need no script: the placement map (SVG), budgets and ranges (HTML boxes). Private to reports. */
#ifndef HF_REPORTS_DRAW_H
#define HF_REPORTS_DRAW_H

#include "reports/data.h"

/* Layer x expert: device or CPU, shaded by the popularity the plan was made with (extra.inputs.popularity, where it is there). With
 * `old`, what moved against that plan is marked. id: unique in the page. Nothing is drawn for a model without experts. */
void draw_map(page *p, const char *id, const plan *now, const plan *old);

/* What needs how much where, against the limit. */
void draw_budget(page *p, const plan *pl);

/* low - likely - high in tokens/s on one axis from 0, and up to DRAW_MARKS figures marked on it. */
enum { DRAW_MARKS = 4 };
typedef struct {
  const char *label;
  double value;
  const char *role; /* "measured", "published", ... : the colour */
} draw_mark;
void draw_range(page *p, const plan_range *r, const draw_mark *marks, int n);

/* Popularity of the experts of the plan's layer at position i as [n_experts] numbers; false when the plan does not tell. */
bool plan_popularity(const plan *p, int i, double *out);
#endif
