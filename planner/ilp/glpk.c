/* glpk.c: the only file that knows GLPK. Solves the multiple-choice knapsack of form M.
 *
 * GLPK ends the process on any misuse or failed allocation. Here its error hook jumps back instead, the thread's GLPK environment
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
  }
  free(s->x);
  free(s);
  return st;
}
