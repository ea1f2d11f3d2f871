/* compare.h: predictions beside published figures: signed errors per row and per group, leaving machines out, gates, and the comparison with
 * an earlier table. signed_error = (predicted - published) / published. */
#ifndef HF_PLANNER_VALIDATE_COMPARE_H
#define HF_PLANNER_VALIDATE_COMPARE_H
#include "planner/validate/fit.h"

typedef enum { METRIC_DECODE, METRIC_PREFILL, METRIC_N } case_metric;
extern const char *const case_metric_name[METRIC_N];

typedef struct {
  bool used;
  double published;
  predicted_range predicted;
  double signed_error;
  bool inside;
  double left_out;           /* predicted by priors fitted without the rows of this machine */
  double left_out_error;     /* signed */
  double alone, alone_error; /* the same by priors fitted without this row alone; 0 = not asked for */
} case_figure;

typedef struct {
  case_metric metric;
  char by[16], name[96]; /* "all" "experts on the CPU"; "engine" NAME; "machine" NAME; "users" N */
  int n, inside;
  double median, p90, signed_median; /* of |error|, and of the error */
  double width;                      /* median high / low */
  double left_out_median, left_out_p90;
  double alone_median, alone_p90; /* each row with its own figure left out of the fit; 0: not refitted */
} case_group;

enum { COMPARE_MAX_GROUPS = 1024 };
typedef struct {
  int n, used;
  prepared_case *row;              /* [n], owned */
  case_figure (*figure)[METRIC_N]; /* [n], owned */
  int n_groups;
  case_group group[COMPARE_MAX_GROUPS];
  engine_set engines; /* as used */
  int parameters;     /* fitted */
  int n_fitted_figures;
} comparison;

/* Resolves and prepares every row. */
HF_MUST hf_status comparison_new(const published_cases *c, comparison *out);
void comparison_free(comparison *c);
/* Predicts with the priors given; with leave_machines again with those fitted without the row's machine, with leave_rows (the slower half of a
 * minute) with those fitted without that row. step (NULL ok) is called for each of the n rows left out. */
HF_MUST hf_status comparison_run(comparison *c, const engine_set *engines, bool leave_machines, bool leave_rows,
                                 void (*step)(void *user), void *user);
/* The errors that count: of rows left out where there are any, else of the fit that has them in. */
void case_group_errors(const case_group *g, double *median, double *p90);

typedef struct {
  double max_median, max_p90, max_prefill_median, min_inside, max_inside, max_width;
} comparison_bars;
/* HF_NO with the bars that were missed; HF_NO, too, when more than half of the rows were declined. */
HF_MUST hf_status comparison_gate(const comparison *c, const comparison_bars *b);
/* HF_NO naming the first group whose errors, or share inside, are worse than in an earlier answer (JSON), beyond rounding. */
HF_MUST hf_status comparison_not_worse(const comparison *c, const json *earlier, const char *where);

const case_group *comparison_group(const comparison *c, case_metric m, const char *by, const char *name);
#endif
