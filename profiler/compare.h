/* compare.h: two profiles side by side.
 *
 * Figures are paired by device, name and params, kernels by device, kernel, format, activation, shape, threads and load over the tokens and
 * contexts that both have; of several candidates the fastest counts. "All threads" of one machine is paired with all threads of the
 * other, however many that are.
 *
 * Every ratio says how much faster b is: rate b / rate a, time a / time b. Its ends are those of both measurements, taken as
 * independent: each end is moved by the root of the sum of squares of the two distances on a logarithmic scale. "same" where 1 lies
 * between the ends. What is neither rate nor time has the plain ratio b / a and no verdict. */
#ifndef HF_PROFILER_COMPARE_H
#define HF_PROFILER_COMPARE_H
#include "profiler/profile.h"

typedef struct {
  double low, likely, high;
} compare_ratio;

typedef struct {
  const rec_figure *a, *b;
  compare_ratio r;
  const char *verdict; /* "faster", "slower", "same", "" */
} compare_figure;

typedef struct {
  const rec_kernel_point *a, *b; /* one of the points */
  int n;                         /* points that both have */
  compare_ratio r;               /* geometric mean over them; the ends likewise */
  double least, most;            /* of the points' ratios */
  const char *verdict;
} compare_kernel;

typedef struct {
  const prof_view *a, *b;
  compare_figure *figure;
  compare_kernel *kernel;
  int n_figure, n_kernel;
  int only_a, only_b; /* figures that the other has not */
} comparison;

/* a and b must outlive *out. */
HF_MUST hf_status compare_profiles(const prof_view *a, const prof_view *b, comparison **out);
void compare_free(comparison *c); /* NULL ok */
void compare_print(const comparison *c);
HF_MUST hf_status compare_print_json(const comparison *c);
#endif
