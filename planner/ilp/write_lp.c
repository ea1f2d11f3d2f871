/* write_lp.c: the two ends of the certificate as CPLEX LP text, for any other solver. Written to a temporary
 * file, then renamed. */
#include "planner/ilp/spread.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Readers of this format take lines of a few hundred characters: a break after this many terms. */
enum { TERMS_PER_LINE = 6 };

static void term(FILE *f, int *n, const char *sign_and_number, const ilp_lay *y, int k) {
  if (++*n % TERMS_PER_LINE == 0) fprintf(f, "\n   ");
  fprintf(f, " + %sz_%d_%d", sign_and_number, y->layer, k);
}

static void write_model(FILE *f, const ilp_depth *d, bool lower, bool binary) {
  char num[48];
  int n = 0;
  fprintf(f, "\\ %s: z_l_k = 1 when k experts of layer l are on the device; depth %d, micro-batches of %d\n",
          lower ? "lower bound on the decode step, ns" : "decode step, ns (form M)", d->depth, d->tokens);
  fprintf(f, "\\ capacity in units of %lld bytes; `one` carries the constant part\n", (long long)d->unit_bytes);
  fprintf(f, "Minimize\n step: %.17g one", d->base_ns);
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    for (int k = y->k_lo; k <= y->k_hi; k++) {
      snprintf(num, sizeof num, "%.17g ", lower ? y->lower[k] : y->upper[k]);
      term(f, &n, num, y, k);
    }
  }
  fprintf(f, "\nSubject To\n");
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    fprintf(f, " pick_%d:", y->layer);
    n = 0;
    for (int k = y->k_lo; k <= y->k_hi; k++) term(f, &n, "", y, k);
    fprintf(f, " = 1\n");
  }
  fprintf(f, " capacity: 0 one");
  n = 0;
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    for (int k = y->k_lo > 0 ? y->k_lo : 1; k <= y->k_hi; k++) {
      snprintf(num, sizeof num, "%lld ", (long long)(y->units * k));
      term(f, &n, num, y, k);
    }
  }
  fprintf(f, " <= %lld\nBounds\n 1 <= one <= 1\n", (long long)d->cap_units);
  if (binary) {
    fprintf(f, "Binaries\n");
    for (int i = 0; i < d->n; i++) {
      const ilp_lay *y = &d->lay[i];
      for (int k = y->k_lo; k <= y->k_hi; k++)
        fprintf(f, "%sz_%d_%d", (k - y->k_lo) % TERMS_PER_LINE == 0 ? "\n " : " ", y->layer, k);
    }
    fprintf(f, "\n");
  }
  fprintf(f, "End\n");
}

/* ---- form P ---- */

typedef struct {
  FILE *f;
  int n;
} line;

/* name_a_b_c_d, as many indices as are not negative. */
static void add(line *l, double value, const char *name, int a, int b, int c, int d) {
  const int index[] = {a, b, c, d};
  if (value == 0) return;
  if (++l->n % TERMS_PER_LINE == 0) fprintf(l->f, "\n   ");
  fprintf(l->f, " %c %.17g %s", value < 0 ? '-' : '+', fabs(value), name);
  for (int i = 0; i < 4 && index[i] >= 0; i++) fprintf(l->f, "_%d", index[i]);
}

/* The rows of service levels: of the step, and of a chunk. */
static void write_limits(FILE *f, const spread_solution *s) {
  const spread *m = s->m;
  line l = {.f = f};
  if (isfinite(m->limit_step)) {
    fprintf(f, " limit_step: %s", m->depth > 1 ? "step" : "0 one");
    for (int i = 0; i < s->n_sets && m->depth == 1; i++) add(&l, spread_way(m, &s->set[i]), "s", s->set[i].group, i, -1, -1);
    fprintf(f, " <= %.17g\n", m->limit_step - (m->depth > 1 ? 0 : m->path0));
  }
  l.n = 0;
  if (!isfinite(m->limit_chunk)) return;
  fprintf(f, " limit_chunk: 0 one");
  for (int i = 0; i < s->n_sets; i++) add(&l, spread_chunk(m, &s->set[i]), "s", s->set[i].group, i, -1, -1);
  fprintf(f, " <= %.17g\n", m->limit_chunk - m->chunk0);
}

/* One integer column per group of layers and set of places known. */
static void write_sets(FILE *f, const spread_solution *s) {
  const spread *m = s->m;
  line l = {.f = f};
  fprintf(f, "\\ decode step%s, ns; depth %d; s_g_i: how many layers of group g place their experts as set i says\n",
          m->weight > 0 ? " and its share of prompts" : "", m->depth);
  fprintf(f, "Minimize\n objective: %.17g one", m->weight * m->chunk0 + (m->depth > 1 ? 0 : m->path0));
  if (m->depth > 1) fprintf(f, " + step");
  for (int i = 0; i < s->n_sets; i++)
    add(&l, m->weight * spread_chunk(m, &s->set[i]) + (m->depth > 1 ? 0 : spread_way(m, &s->set[i])), "s", s->set[i].group, i, -1,
        -1);
  fprintf(f, "\nSubject To\n");
  for (int r = 0; r < m->n_rows; r++) {
    fprintf(f, " resource_%d: step", r);
    l.n = 0;
    for (int i = 0; i < s->n_sets; i++) {
      double v = 0;
      for (int q = 0; q < m->n_places; q++) v += spread_coef(m, &m->row[r], &m->group[s->set[i].group], q) * s->set[i].load[q];
      add(&l, -v, "s", s->set[i].group, i, -1, -1);
    }
    fprintf(f, " >= %.17g\n", m->row0[r]);
  }
  if (m->depth > 1) {
    fprintf(f, " path: step");
    l.n = 0;
    for (int i = 0; i < s->n_sets; i++) add(&l, -spread_way(m, &s->set[i]), "s", s->set[i].group, i, -1, -1);
    fprintf(f, " >= %.17g\n", m->path0);
  }
  write_limits(f, s);
  for (int q = 0; q < m->n_places; q++) {
    if (m->room[q] == INT64_MAX) continue;
    fprintf(f, " bytes_%d: 0 one", q);
    l.n = 0;
    for (int i = 0; i < s->n_sets; i++)
      add(&l, (double)m->group[s->set[i].group].bytes * s->set[i].count[q], "s", s->set[i].group, i, -1, -1);
    fprintf(f, " <= %lld\n", (long long)m->room[q]);
  }
  for (int g = 0; g < m->n_groups; g++) {
    fprintf(f, " pick_%d:", g);
    l.n = 0;
    for (int i = 0; i < s->n_sets; i++)
      if (s->set[i].group == g) add(&l, 1, "s", g, i, -1, -1);
    fprintf(f, " = %d\n", m->group[g].n_same);
  }
  fprintf(f, "Bounds\n 1 <= one <= 1\n");
  for (int i = 0; i < s->n_sets; i++) fprintf(f, " 0 <= s_%d_%d <= %d\n", s->set[i].group, i, m->group[s->set[i].group].n_same);
  fprintf(f, "Generals\n");
  for (int i = 0; i < s->n_sets; i++) fprintf(f, " s_%d_%d\n", s->set[i].group, i);
  fprintf(f, "End\n");
}

static bool is_open(const spread *m, int g, unsigned use, int e, int q) {
  return (m->group[g].open[e] & use) >> q & 1;
}

static void priced_objective(FILE *f, const spread_solution *s) {
  const spread *m = s->m;
  line l = {.f = f};
  fprintf(f, "Minimize\n objective: %.17g one", spread_constant(m, &s->best));
  for (int g = 0; g < m->n_groups; g++) {
    double n = m->group[g].n_same;
    if (m->group[g].whole) add(&l, n * s->whole_price[g], "v", g, 0, -1, -1);
    for (int mode = 0; mode < spread_modes(m, g); mode++) {
      const spread_prices *z = spread_prices_of(m, &s->best, g, mode);
      add(&l, n * z->constant, "v", g, mode, -1, -1);
      for (int q = 0; q < m->n_places; q++) add(&l, n * z->fixed[q], "u", g, mode, q, -1);
      for (int e = 0; e < m->n_experts; e++)
        for (int q = 0; q < m->n_places; q++)
          if (is_open(m, g, z->use, e, q)) add(&l, n * z->cost[e * m->n_places + q], "x", g, mode, e, q);
    }
  }
}

/* A place that must hold an expert is paid for with the mode; places without a fixed part need no variable that says they are used. */
static void must_rows(FILE *f, const spread *m, int g, int mode, const spread_prices *z) {
  for (int q = 0; q < m->n_places; q++) {
    line l = {.f = f};
    if (!(z->must >> q & 1)) continue;
    fprintf(f, " must_%d_%d_%d: - v_%d_%d", g, mode, q, g, mode);
    for (int e = 0; e < m->n_experts; e++)
      if (is_open(m, g, z->use, e, q)) add(&l, 1, "x", g, mode, e, q);
    fprintf(f, " >= 0\n");
  }
}

static void priced_rows(FILE *f, const spread *m, int g, int mode, const spread_prices *z) {
  unsigned use = z->use;
  must_rows(f, m, g, mode, z);
  for (int e = 0; e < m->n_experts; e++) {
    fprintf(f, " place_%d_%d_%d: - v_%d_%d", g, mode, e, g, mode);
    for (int q = 0; q < m->n_places; q++)
      if (is_open(m, g, use, e, q)) fprintf(f, " + x_%d_%d_%d_%d", g, mode, e, q);
    fprintf(f, " = 0\n");
    for (int q = 0; q < m->n_places; q++)
      if (is_open(m, g, use, e, q) && z->fixed[q] > 0)
        fprintf(f, " use_%d_%d_%d_%d: x_%d_%d_%d_%d - u_%d_%d_%d <= 0\n", g, mode, e, q, g, mode, e, q, g, mode, q);
  }
}

/* The whole model once resources, path, bytes and parts of ways are priced: what is left to choose is each expert's place. */
static void write_priced(FILE *f, const spread_solution *s) {
  const spread *m = s->m;
  fprintf(f, "\\ lower bound on the decode step%s, ns; depth %d\n", m->weight > 0 ? " and its share of prompts" : "", m->depth);
  fprintf(f, "\\ v_g_m: layers of group g place their experts in mode m (which places hold any, whether prompts upload);\n"
             "\\ x_g_m_e_q: expert e lives in place q; u: place in use\n");
  fprintf(f, "\\ resources, path, limits, bytes and parts of ways are priced at the multipliers of the certificate: no placement "
             "is below\n");
  priced_objective(f, s);
  fprintf(f, "\nSubject To\n");
  for (int g = 0; g < m->n_groups; g++) {
    fprintf(f, " mode_%d: v_%d_0%s", g, g, spread_modes(m, g) > 1 ? "" : " = 1\n");
    for (int mode = 1; mode < spread_modes(m, g); mode++)
      fprintf(f, " + v_%d_%d%s", g, mode, mode + 1 == spread_modes(m, g) ? " = 1\n" : "");
    for (int mode = 0; mode < spread_modes(m, g); mode++) priced_rows(f, m, g, mode, spread_prices_of(m, &s->best, g, mode));
  }
  fprintf(f, "Bounds\n 1 <= one <= 1\nBinaries\n");
  for (int g = 0; g < m->n_groups; g++)
    for (int mode = 0; mode < spread_modes(m, g); mode++) {
      fprintf(f, " v_%d_%d\n", g, mode);
      for (int q = 0; q < m->n_places; q++) fprintf(f, " u_%d_%d_%d\n", g, mode, q);
    }
  fprintf(f, "End\n");
}

/* ---- files ---- */

typedef enum { MODEL, BOUND } which;

static void write_any(FILE *f, const ilp_result *r, which w) {
  int i = (w == MODEL ? r->depth : r->bound_depth) - 1;
  const ilp_depth *d = r->tables->depth[i];
  const spread_solution *s = r->tables->spread[i];
  if (d != NULL) write_model(f, d, w == BOUND, w == MODEL || d->milp);
  else if (w == MODEL || s->milp) write_sets(f, s);
  else write_priced(f, s);
}

static hf_status write_file(const char *path, const ilp_result *r, which w) {
  size_t n = strlen(path) + 32;
  char *tmp;
  HF_TRY(hf_alloc(&tmp, n, 1, "file name"));
  snprintf(tmp, n, "%s.tmp.%ld", path, (long)getpid());
  hf_status st = HF_OK;
  FILE *f = fopen(tmp, "w");
  if (f == NULL) {
    st = hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
  } else {
    write_any(f, r, w);
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad || rename(tmp, path) != 0) {
      st = hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
      unlink(tmp);
    }
  }
  free(tmp);
  return st;
}

static hf_status has_program(const ilp_result *r) {
  return r->failure[0] == '\0' ? HF_OK : hf_fail(HF_NO, "no program to write, the search ended without one: %s", r->failure);
}

hf_status ilp_write_lp(const ilp_result *r, const char *path) {
  HF_TRY(has_program(r));
  return write_file(path, r, MODEL);
}

hf_status ilp_write_bound_lp(const ilp_result *r, const char *path) {
  HF_TRY(has_program(r));
  return write_file(path, r, BOUND);
}
