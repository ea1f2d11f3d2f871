/* rings.h: weights to measure on: as many equal items as it takes to be larger than the last-level cache, or few enough to
 * stay in it, taken one after another. */
#ifndef HF_PROFILER_RINGS_H
#define HF_PROFILER_RINGS_H
#include "profiler/profile.h"

/* All formats, those people run first: under a tight budget the later ones take fewer samples. */
extern const kern_format ring_formats[KF_N];
/* Is a shape measured in ring_formats[i]? In the shape's own format where it has one, else in the usual ones. */
bool ring_wanted(const profile *p, const prof_shape *s, int i);

/* Bytes of a matrix in a ring in any layout, a multiple of 64. */
size_t ring_matrix_bytes(kern_format f, int rows, int cols);
/* Random weights in the layout wanted. */
HF_MUST hf_status ring_fill(kern_layout l, kern_mat *m);
/* How many items of item_bytes; at least 1, at most `most`, and never more than a quarter of the memory. */
int ring_items(const profile *p, const prof_shape *s, int64_t item_bytes, int most);
#endif
