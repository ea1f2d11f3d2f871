/* write_lp.c: the two ends of the certificate as CPLEX LP text, for any other solver. Written to a temporary
 * file, then renamed. */
#include "planner/ilp/ilp_int.h"

#include <errno.h>
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

static hf_status write_file(const char *path, const ilp_depth *d, bool lower, bool binary) {
  size_t n = strlen(path) + 32;
  char *tmp;
  HF_TRY(hf_alloc(&tmp, n, 1, "file name"));
  snprintf(tmp, n, "%s.tmp.%ld", path, (long)getpid());
  hf_status st = HF_OK;
  FILE *f = fopen(tmp, "w");
  if (f == NULL) {
    st = hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
  } else {
    write_model(f, d, lower, binary);
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad || rename(tmp, path) != 0) {
      st = hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
      unlink(tmp);
    }
  }
  free(tmp);
  return st;
}

hf_status ilp_write_lp(const ilp_result *r, const char *path) {
  return write_file(path, r->tables->depth[r->depth - 1], false, true);
}

hf_status ilp_write_bound_lp(const ilp_result *r, const char *path) {
  const ilp_depth *d = r->tables->depth[r->bound_depth - 1];
  return write_file(path, d, true, d->milp);
}
