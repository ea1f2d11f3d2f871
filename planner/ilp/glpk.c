/* glpk.c: the only file that knows GLPK. Solves the multiple-choice knapsack of form M.
 *
 * GLPK ends the process on any misuse or failed allocation. Here its error hook jumps back instead, the thread's GLPK
 * environment
 * is thrown away, and the caller gets HF_MACHINE. Whatever GLPK wants to print is swallowed; the last line is kept for the
 * message.
 *
 * Settings are from measurements on this kind of problem: dual simplex with the flip ratio test, no LP presolve (100 times
 * slower), no scaling, no advanced basis, no cuts. GLPK does not see times but reduced costs at the given multiplier: cost +
 * theta * units, less the least of its group, and a column for the slack of the capacity row at price theta. That is the same
 * objective, base + sum, but its size is the gap in question instead of the whole step, so that GLPK's tolerances (1e-7) are
 * shares of the gap. */
#include "planner/ilp/ilp_int.h"

#include <glpk.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* After an abort the environment is thrown away, and with it every program that this thread had in GLPK. */
static _Thread_local uint64_t environment;
static _Thread_local int abort_in;

void ilp_lp_abort_in(int solves) {
  abort_in = solves;
}

typedef struct {
  const ilp_mckp *m;
  ilp_mckp_result *out;
  ilp_counters *count;
  glp_prob *lp;
  double *x;    /* [columns + 2] the injected solution */
  double base;  /* dual value at theta */
  double scale; /* GLPK's objective = (cost - base) / scale */
  double bound; /* best known, in GLPK's cost */
  int nodes;
  bool stopped_good, injected;
  jmp_buf back;
  char message[160];
} solve;

static void on_error(void *info) {
  solve *s = info;
  longjmp(s->back, 1);
}

static int on_text(void *info, const char *text) {
  solve *s = info;
  snprintf(s->message, sizeof s->message, "%s", text);
  s->message[strcspn(s->message, "\n")] = 0;
  return 1; /* swallowed */
}

static double unscaled(const solve *s, double v) {
  return s->base + v * s->scale;
}

static void on_tree(glp_tree *tree, void *info) {
  solve *s = info;
  int active = 0, present = 0, total = 0;
  glp_ios_tree_size(tree, &active, &present, &total);
  s->nodes = total;
  int best = glp_ios_best_node(tree);
  if (best > 0) s->bound = fmax(s->bound, glp_ios_node_bound(tree, best));
  if (glp_ios_reason(tree) == GLP_IHEUR && !s->injected) {
    s->injected = true;
    glp_ios_heur_sol(tree, s->x);
  }
  bool have = glp_mip_status(s->lp) == GLP_FEAS || glp_mip_status(s->lp) == GLP_OPT;
  bool good = unscaled(s, s->bound) >= s->m->stop_bound || (have && unscaled(s, glp_mip_obj_val(s->lp)) <= s->m->stop_value);
  if (good) s->stopped_good = true;
  double work = (double)glp_get_it_cnt(s->lp) * glp_get_num_cols(s->lp);
  if (good || total > s->m->max_nodes || work > s->m->max_work) glp_ios_terminate(tree);
}

static double reduced(const ilp_mckp *m, int j) {
  return m->cost[j] + m->theta * (double)m->units[j];
}

static double least_reduced(const ilp_mckp *m, int group) {
  double least = INFINITY;
  for (int j = m->first[group]; j < m->first[group + 1]; j++) least = fmin(least, reduced(m, j));
  return least;
}

/* Sets base and scale; returns the unit of the capacity row: a power of two, so that whole numbers stay exact. */
static double set_scale(solve *s) {
  const ilp_mckp *m = s->m;
  double spread = 0, unit = 1;
  s->base = -m->theta * (double)m->cap;
  for (int i = 0; i < m->n_groups; i++) {
    double least = least_reduced(m, i);
    s->base += least;
    spread = fmax(spread, reduced(m, m->start[i]) - least);
    for (int j = m->first[i]; j < m->first[i + 1]; j++)
      while ((double)m->units[j] / unit > 4096) unit *= 2;
  }
  s->scale = spread > 0 ? spread : 1;
  return unit;
}

static void build(solve *s) {
  const ilp_mckp *m = s->m;
  int n = m->first[m->n_groups], cap_row = m->n_groups + 1;
  double unit = set_scale(s);
  glp_add_rows(s->lp, cap_row);
  glp_add_cols(s->lp, n + 1);
  int64_t used = 0;
  for (int i = 0; i < m->n_groups; i++) {
    double least = least_reduced(m, i);
    glp_set_row_bnds(s->lp, i + 1, GLP_FX, 1, 1);
    for (int j = m->first[i]; j < m->first[i + 1]; j++) {
      int row[3] = {0, i + 1, cap_row};
      double val[3] = {0, 1, (double)m->units[j] / unit};
      glp_set_mat_col(s->lp, j + 1, m->units[j] != 0 ? 2 : 1, row, val);
      glp_set_obj_coef(s->lp, j + 1, (reduced(m, j) - least) / s->scale);
      glp_set_col_kind(s->lp, j + 1, GLP_BV);
    }
    s->x[m->start[i] + 1] = 1;
    used += m->units[m->start[i]];
  }
  int row[2] = {0, cap_row};
  double one[2] = {0, 1};
  glp_set_row_bnds(s->lp, cap_row, GLP_FX, (double)m->cap / unit, (double)m->cap / unit);
  glp_set_mat_col(s->lp, n + 1, 1, row, one);
  glp_set_obj_coef(s->lp, n + 1, m->theta * unit / s->scale);
  glp_set_col_bnds(s->lp, n + 1, GLP_LO, 0, 0);
  s->x[n + 1] = (double)(m->cap - used) / unit;
}

/* The integer solution, checked again in whole units: GLPK's rows hold to 1e-7 only. */
static void read_solution(solve *s) {
  const ilp_mckp *m = s->m;
  ilp_mckp_result *out = s->out;
  double value = 0, start = 0;
  int64_t used = 0;
  memcpy(out->choice, m->start, (size_t)m->n_groups * sizeof *out->choice);
  for (int i = 0; i < m->n_groups; i++) start += m->cost[m->start[i]];
  out->value = start;
  int status = glp_mip_status(s->lp);
  if (status != GLP_OPT && status != GLP_FEAS) return;
  for (int i = 0; i < m->n_groups; i++) {
    for (int j = m->first[i]; j < m->first[i + 1]; j++)
      if (glp_mip_col_val(s->lp, j + 1) > 0.5) out->choice[i] = j;
    value += m->cost[out->choice[i]];
    used += m->units[out->choice[i]];
  }
  if (used <= m->cap && value < start) out->value = value;
  else memcpy(out->choice, m->start, (size_t)m->n_groups * sizeof *out->choice);
}

static hf_status run(solve *s) {
  glp_smcp lp;
  glp_iocp mip;
  glp_set_obj_dir(s->lp, GLP_MIN);
  build(s);
  glp_init_smcp(&lp);
  lp.meth = GLP_DUALP;
  lp.r_test = GLP_RT_FLIP;
  lp.msg_lev = GLP_MSG_OFF;
  lp.it_lim = (int)(s->m->max_work / glp_get_num_cols(s->lp)) + 1;
  int rc = glp_simplex(s->lp, &lp);
  s->count->lp_iterations += glp_get_it_cnt(s->lp);
  if (rc == GLP_EITLIM) {
    s->out->bound = s->base; /* reduced costs are not negative */
    read_solution(s);
    return HF_OK;
  }
  if (rc != 0 || glp_get_status(s->lp) != GLP_OPT)
    return hf_fail(HF_MACHINE, "GLPK: the LP relaxation was not solved (code %d, status %d)", rc, glp_get_status(s->lp));
  s->bound = glp_get_obj_val(s->lp);
  int before = glp_get_it_cnt(s->lp);
  glp_init_iocp(&mip);
  mip.msg_lev = GLP_MSG_OFF;
  mip.mip_gap = 0;
  mip.tol_obj = 1e-10;
  mip.cb_func = on_tree;
  mip.cb_info = s;
  rc = glp_intopt(s->lp, &mip);
  s->count->lp_iterations += glp_get_it_cnt(s->lp) - before;
  s->count->nodes += s->nodes;
  if (rc != 0 && rc != GLP_ESTOP && rc != GLP_EMIPGAP) return hf_fail(HF_MACHINE, "GLPK: branch and bound failed (code %d)", rc);
  bool optimal = rc == 0 && glp_mip_status(s->lp) == GLP_OPT;
  if (optimal) s->bound = fmax(s->bound, glp_mip_obj_val(s->lp));
  s->out->finished = optimal || s->stopped_good;
  s->out->bound = unscaled(s, s->bound);
  read_solution(s);
  return HF_OK;
}

hf_status ilp_mckp_solve(const ilp_mckp *m, ilp_counters *count, ilp_mckp_result *out) {
  solve *s;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "GLPK solve"));
  hf_status st = hf_alloc(&s->x, (size_t)m->first[m->n_groups] + 2, sizeof *s->x, "GLPK start solution");
  if (st != HF_OK) {
    free(s);
    return st;
  }
  s->m = m;
  s->out = out;
  out->finished = false;
  s->count = count;
  count->glpk_solves++;
  if (setjmp(s->back) == 0) {
    glp_term_hook(on_text, s);
    glp_error_hook(on_error, s);
    s->lp = glp_create_prob();
    st = run(s);
    glp_delete_prob(s->lp);
    glp_error_hook(NULL, NULL);
    glp_term_hook(NULL, NULL);
  } else {
    /* After an abort GLPK's environment is unusable; it owns all its memory, so nothing leaks. */
    st = hf_fail(HF_MACHINE, "GLPK gave up: %s", s->message);
    glp_error_hook(NULL, NULL);
    glp_term_hook(NULL, NULL);
    glp_free_env();
    environment++;
  }
  free(s->x);
  free(s);
  return st;
}

/* ---- programs that grow by columns ---- */

struct ilp_lp {
  glp_prob *p;
  uint64_t environment; /* of which the program is */
  bool dead;
  int nodes;
  double bound, stop, max_work;
  int max_nodes;
  const double *start;
  bool injected, stopped;
  jmp_buf back;
  char message[160];
};

static void lp_on_error(void *info) {
  ilp_lp *lp = info;
  longjmp(lp->back, 1);
}

static int lp_on_text(void *info, const char *text) {
  ilp_lp *lp = info;
  snprintf(lp->message, sizeof lp->message, "%s", text);
  lp->message[strcspn(lp->message, "\n")] = 0;
  return 1;
}

static void lp_hooks(ilp_lp *lp) {
  glp_term_hook(lp != NULL ? lp_on_text : NULL, lp);
  glp_error_hook(lp != NULL ? lp_on_error : NULL, lp);
}

static hf_status lp_died(ilp_lp *lp) {
  lp->dead = true;
  lp_hooks(NULL);
  glp_free_env();
  environment++;
  return hf_fail(HF_MACHINE, "GLPK gave up: %s", lp->message);
}

static hf_status lp_alive(const ilp_lp *lp) {
  bool gone = lp->dead || lp->environment != environment;
  return gone ? hf_fail(HF_MACHINE, "GLPK gave up: %s", lp->dead ? lp->message : "on another program") : HF_OK;
}

static int lp_kind(double lo, double hi) {
  if (lo == hi) return GLP_FX;
  return isinf(lo) && isinf(hi) ? GLP_FR : isinf(lo) ? GLP_UP : isinf(hi) ? GLP_LO : GLP_DB;
}

hf_status ilp_lp_new(int n_rows, const double *lo, const double *hi, ilp_lp **out) {
  ilp_lp *lp;
  HF_TRY(hf_alloc(&lp, 1, sizeof *lp, "linear program"));
  if (setjmp(lp->back) != 0) {
    hf_status st = lp_died(lp);
    free(lp);
    return st;
  }
  lp_hooks(lp);
  lp->environment = environment;
  lp->p = glp_create_prob();
  glp_set_obj_dir(lp->p, GLP_MIN);
  lp_hooks(NULL);
  int first;
  hf_status st = ilp_lp_rows(lp, n_rows, lo, hi, &first);
  if (st == HF_OK) *out = lp;
  else ilp_lp_free(lp);
  return st;
}

hf_status ilp_lp_rows(ilp_lp *lp, int n, const double *lo, const double *hi, int *first) {
  HF_TRY(lp_alive(lp));
  *first = 0;
  if (n == 0) return HF_OK;
  if (setjmp(lp->back) != 0) return lp_died(lp);
  lp_hooks(lp);
  int at = glp_add_rows(lp->p, n);
  for (int i = 0; i < n; i++)
    glp_set_row_bnds(lp->p, at + i, lp_kind(lo[i], hi[i]), isinf(lo[i]) ? 0 : lo[i], isinf(hi[i]) ? 0 : hi[i]);
  lp_hooks(NULL);
  *first = at - 1;
  return HF_OK;
}

hf_status ilp_lp_column(ilp_lp *lp, double cost, double lo, double hi, bool integer, int n, const int *row, const double *value,
                        int *index) {
  int at[128];
  double val[128];
  HF_TRY(lp_alive(lp));
  if (n > 127) return hf_fail(HF_MACHINE, "linear program: a column of %d entries", n);
  for (int i = 0; i < n; i++) {
    at[i + 1] = row[i] + 1;
    val[i + 1] = value[i];
  }
  if (setjmp(lp->back) != 0) return lp_died(lp);
  lp_hooks(lp);
  int j = glp_add_cols(lp->p, 1);
  glp_set_mat_col(lp->p, j, n, at, val);
  glp_set_obj_coef(lp->p, j, cost);
  glp_set_col_bnds(lp->p, j, lp_kind(lo, hi), isinf(lo) ? 0 : lo, isinf(hi) ? 0 : hi);
  if (integer) glp_set_col_kind(lp->p, j, GLP_IV);
  lp_hooks(NULL);
  if (index != NULL) *index = j - 1;
  return HF_OK;
}

hf_status ilp_lp_bounds(ilp_lp *lp, int column, double lo, double hi) {
  HF_TRY(lp_alive(lp));
  if (setjmp(lp->back) != 0) return lp_died(lp);
  lp_hooks(lp);
  glp_set_col_bnds(lp->p, column + 1, lp_kind(lo, hi), isinf(lo) ? 0 : lo, isinf(hi) ? 0 : hi);
  lp_hooks(NULL);
  return HF_OK;
}

hf_status ilp_lp_solve(ilp_lp *lp, ilp_counters *count) {
  HF_TRY(lp_alive(lp));
  if (setjmp(lp->back) != 0) return lp_died(lp);
  lp_hooks(lp);
  glp_smcp o;
  glp_init_smcp(&o);
  o.msg_lev = GLP_MSG_OFF;
  o.meth = GLP_PRIMAL;                           /* new columns leave the last basis feasible */
  o.it_lim = 4 * glp_get_num_rows(lp->p) + 4000; /* more: it goes round in circles */
  if (abort_in > 0 && --abort_in == 0) o.it_lim = -1000;
  int before = glp_get_it_cnt(lp->p), rc = glp_simplex(lp->p, &o);
  if (rc != 0) { /* a basis gone bad: from scratch */
    glp_std_basis(lp->p);
    o.meth = GLP_DUALP;
    o.it_lim = 200000;
    rc = glp_simplex(lp->p, &o);
  }
  count->lp_iterations += glp_get_it_cnt(lp->p) - before;
  count->glpk_solves++;
  int status = glp_get_status(lp->p);
  lp_hooks(NULL);
  if (rc != 0 || status != GLP_OPT)
    return hf_fail(HF_MACHINE, "GLPK: a relaxation was not solved (code %d, status %d)", rc, status);
  return HF_OK;
}

static void lp_on_tree(glp_tree *tree, void *info) {
  ilp_lp *lp = info;
  int active = 0, present = 0, total = 0;
  glp_ios_tree_size(tree, &active, &present, &total);
  lp->nodes = total;
  int best = glp_ios_best_node(tree);
  if (best > 0) lp->bound = fmax(lp->bound, glp_ios_node_bound(tree, best));
  if (glp_ios_reason(tree) == GLP_IHEUR && !lp->injected && lp->start != NULL) {
    lp->injected = true;
    glp_ios_heur_sol(tree, lp->start - 1); /* GLPK counts from 1 */
  }
  double work = (double)glp_get_it_cnt(lp->p) * glp_get_num_cols(lp->p);
  if (lp->bound >= lp->stop) lp->stopped = true;
  if (lp->stopped || total > lp->max_nodes || work > lp->max_work) glp_ios_terminate(tree);
}

hf_status ilp_lp_integer(ilp_lp *lp, const double *start, double stop, int max_nodes, double max_work, ilp_counters *count,
                         bool *finished, bool *found, double *bound) {
  HF_TRY(lp_alive(lp));
  if (setjmp(lp->back) != 0) return lp_died(lp);
  lp_hooks(lp);
  glp_iocp o;
  glp_init_iocp(&o);
  o.msg_lev = GLP_MSG_OFF;
  o.tol_obj = 1e-10;
  o.cb_func = lp_on_tree;
  o.cb_info = lp;
  int before = glp_get_it_cnt(lp->p);
  lp->bound = glp_get_obj_val(lp->p);
  lp->start = start;
  lp->stop = stop;
  lp->max_nodes = max_nodes;
  lp->max_work = max_work + (double)before * glp_get_num_cols(lp->p);
  lp->injected = lp->stopped = false;
  lp->nodes = 0;
  int rc = glp_intopt(lp->p, &o), status = glp_mip_status(lp->p);
  count->lp_iterations += glp_get_it_cnt(lp->p) - before;
  count->nodes += lp->nodes;
  *found = status == GLP_OPT || status == GLP_FEAS;
  bool optimal = rc == 0 && status == GLP_OPT;
  *finished = optimal || lp->stopped;
  *bound = optimal ? glp_mip_obj_val(lp->p) : lp->bound;
  lp_hooks(NULL);
  if (rc != 0 && rc != GLP_ESTOP && rc != GLP_EMIPGAP) return hf_fail(HF_MACHINE, "GLPK: branch and bound failed (code %d)", rc);
  return HF_OK;
}

double ilp_lp_value(const ilp_lp *lp) {
  return glp_get_obj_val(lp->p);
}
double ilp_lp_dual(const ilp_lp *lp, int row) {
  return glp_get_row_dual(lp->p, row + 1);
}
double ilp_lp_share(const ilp_lp *lp, int column) {
  return glp_get_col_prim(lp->p, column + 1);
}
double ilp_lp_chosen(const ilp_lp *lp, int column) {
  return glp_mip_col_val(lp->p, column + 1);
}

void ilp_lp_free(ilp_lp *lp) {
  if (lp == NULL) return;
  if (!lp->dead && lp->environment == environment) {
    if (setjmp(lp->back) == 0) {
      lp_hooks(lp);
      glp_delete_prob(lp->p);
      lp_hooks(NULL);
    } else {
      (void)lp_died(lp);
      hf_clear_error();
    }
  }
  free(lp);
}

void ilp_thread_end(void) {
  glp_free_env();
}
