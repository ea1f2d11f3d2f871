/* encode.c: see encode.h. A task is some rows of one matrix, read, turned into numbers row by row, encoded, compared and written. */
#include "executor/encode.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernels/kernels.h"

enum { PIECE = 4 << 20 }; /* bytes of the larger of source and result in one task */

typedef struct {
  int tensor, mat;
  int64_t row0, row1;
  double diff2, sum2; /* of this task, so that sums do not depend on who did it when */
} task;

typedef struct {
  const model_export *e;
  int fd;
  const char *path;
  const volatile sig_atomic_t *stop;
  task *tasks;
  int n;
  atomic_int next;
  atomic_bool failed;
  atomic_llong done; /* bytes written */
  hf_progress bar;
  pthread_mutex_t lock; /* of st and error */
  hf_status st;
  char error[1024];
} job;

typedef struct {
  uint8_t *raw, *out;
  float *x, *y;
  size_t raw_cap, out_cap, row_cap;
} buffers;

static bool is_kernel_format(fmt f, kern_format *out) {
  return kern_format_parse(fmt_get(f)->name, out);
}

hf_status encode_check(const model_export *e) {
  for (int i = 0; i < model_export_count(e); i++) {
    const export_tensor *t = model_export_at(e, i);
    kern_format from, to;
    if (t->from == t->to) continue;
    if (!is_kernel_format(t->from, &from))
      return hf_fail(HF_UNSUPPORTED, "tensor %s: %s cannot be turned into numbers here; take the model in another format",
                     t->name, fmt_get(t->from)->name);
    if (!is_kernel_format(t->to, &to) || !kern_can_encode(to))
      return hf_fail(
          HF_UNSUPPORTED,
          "tensor %s: %s cannot be written; known: f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q3_k, q2_k, iq4_nl, q5_1, q5_0, "
          "q4_1, q4_0, and what "
          "the source already has",
          t->name, fmt_get(t->to)->name);
    if (t->cols > INT32_MAX / 4) return hf_fail(HF_UNSUPPORTED, "tensor %s: rows of %lld values", t->name, (long long)t->cols);
  }
  return HF_OK;
}

/* Rows of one task: whole groups, at least one. */
static int64_t rows_of(const export_tensor *t) {
  size_t in = fmt_row_bytes(t->from, t->cols), out = fmt_row_bytes(t->to, t->cols);
  int64_t n = (int64_t)(PIECE / (in > out ? in : out)) / t->row_group * t->row_group;
  return t->whole ? t->rows : n > t->row_group ? n : t->row_group;
}

int64_t encode_buffer_bytes(const model_export *e, int threads) {
  int64_t most = 0;
  for (int i = 0; i < model_export_count(e); i++) {
    const export_tensor *t = model_export_at(e, i);
    int64_t rows = rows_of(t) < t->rows ? rows_of(t) : t->rows;
    int64_t need =
        rows * (int64_t)(fmt_row_bytes(t->from, t->cols) * (t->whole ? 2 : 1) + fmt_row_bytes(t->to, t->cols)) + 8 * t->cols;
    if (need > most) most = need;
  }
  return most * threads;
}

static hf_status list_tasks(job *j) {
  int64_t n = 0;
  for (int pass = 0; pass < 2; pass++) {
    int64_t k = 0;
    for (int i = 0; i < model_export_count(j->e); i++) {
      const export_tensor *t = model_export_at(j->e, i);
      int64_t step = rows_of(t);
      for (int mat = 0; mat < t->n_mats; mat++)
        for (int64_t r = 0; r < t->rows; r += step, k++)
          if (pass) j->tasks[k] = (task){i, mat, r, r + step < t->rows ? r + step : t->rows, 0, 0};
    }
    if (pass) break;
    n = k;
    if (n > INT32_MAX / 2) return hf_fail(HF_UNSUPPORTED, "%lld pieces", (long long)n);
    HF_TRY(hf_alloc(&j->tasks, (size_t)n, sizeof *j->tasks, "list of pieces"));
  }
  j->n = (int)n;
  return HF_OK;
}

static hf_status grow(void *ptr, size_t *cap, size_t bytes) {
  if (bytes <= *cap) return HF_OK;
  HF_TRY(hf_realloc(ptr, bytes, 1, "rows to encode"));
  *cap = bytes;
  return HF_OK;
}

static hf_status make_room(buffers *b, const export_tensor *t, int64_t rows) {
  HF_TRY(grow(&b->raw, &b->raw_cap, (size_t)rows * fmt_row_bytes(t->from, t->cols)));
  HF_TRY(grow(&b->out, &b->out_cap, (size_t)rows * fmt_row_bytes(t->to, t->cols)));
  size_t row = (size_t)t->cols * sizeof(float);
  if (row <= b->row_cap) return HF_OK;
  HF_TRY(hf_realloc(&b->x, row, 1, "a row"));
  HF_TRY(hf_realloc(&b->y, row, 1, "a row"));
  b->row_cap = row;
  return HF_OK;
}

/* In four lanes, whose sums do not depend on how wide the machine computes. */
static void compare(const float *x, const float *y, int n, double *diff2, double *sum2) {
  double d2[4] = {0}, s2[4] = {0};
  int i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; k++) {
      double v = (double)x[i + k], d = (double)y[i + k] - v;
      d2[k] += d * d;
      s2[k] += v * v;
    }
  for (; i < n; i++) {
    double v = (double)x[i], d = (double)y[i] - v;
    d2[0] += d * d;
    s2[0] += v * v;
  }
  *diff2 += (d2[0] + d2[1]) + (d2[2] + d2[3]);
  *sum2 += (s2[0] + s2[1]) + (s2[2] + s2[3]);
}

static hf_status encode_rows(const job *j, task *k, const export_tensor *t, buffers *b) {
  kern_format from, to;
  if (!is_kernel_format(t->from, &from) || !is_kernel_format(t->to, &to)) return hf_fail(HF_UNSUPPORTED, "tensor %s", t->name);
  size_t in = fmt_row_bytes(t->from, t->cols), out = fmt_row_bytes(t->to, t->cols);
  int n = (int)t->cols;
  for (int64_t r = k->row0; r < k->row1; r++) {
    uint8_t *row = b->out + (size_t)(model_export_place(j->e, k->tensor, r) - k->row0) * out;
    kern_dequant_row(from, b->raw + (size_t)(r - k->row0) * in, n, b->x);
    kern_encode_row(to, b->x, n, row);
    kern_dequant_row(to, row, n, b->y);
    compare(b->x, b->y, n, &k->diff2, &k->sum2);
  }
  if (!isfinite(k->sum2))
    return hf_fail(HF_INPUT, "tensor %s: holds a value that is no number; hf-run model verify finds it", t->name);
  if (!isfinite(k->diff2)) return hf_fail(HF_INPUT, "tensor %s: holds a value too large for %s", t->name, fmt_get(t->to)->name);
  return HF_OK;
}

static hf_status do_task(const job *j, task *k, buffers *b) {
  const export_tensor *t = model_export_at(j->e, k->tensor);
  size_t row = fmt_row_bytes(t->to, t->cols), n = (size_t)(k->row1 - k->row0) * row;
  HF_TRY(make_room(b, t, k->row1 - k->row0));
  HF_TRY(model_export_read(j->e, k->tensor, k->mat, k->row0, k->row1, b->raw));
  const uint8_t *bytes = b->raw;
  if (t->from != t->to || t->row_group > 1) {
    bytes = b->out;
    if (t->from != t->to) HF_TRY(encode_rows(j, k, t, b));
    else
      for (int64_t r = k->row0; r < k->row1; r++)
        memcpy(b->out + (size_t)(model_export_place(j->e, k->tensor, r) - k->row0) * row, b->raw + (size_t)(r - k->row0) * row,
               row);
  }
  uint64_t at = t->offset + ((uint64_t)k->mat * (uint64_t)t->rows + (uint64_t)k->row0) * row;
  if (!hf_pwrite_all(j->fd, bytes, n, (off_t)at))
    return hf_fail(HF_MACHINE, "%s: cannot be written: %s", j->path, strerror(errno));
  return HF_OK;
}

static void fail(job *j, hf_status st) {
  pthread_mutex_lock(&j->lock);
  if (j->st == HF_OK) {
    j->st = st;
    snprintf(j->error, sizeof j->error, "%s", hf_error_line());
  }
  pthread_mutex_unlock(&j->lock);
  atomic_store(&j->failed, true);
}

static void work(void *arg, int thread, int n_threads) {
  job *j = arg;
  buffers b = {0};
  int64_t shown = 0;
  (void)n_threads;
  for (int i; !atomic_load(&j->failed) && (i = pool_claim(&j->next, j->n, 1)) >= 0;) {
    task *k = &j->tasks[i];
    const export_tensor *t = model_export_at(j->e, k->tensor);
    hf_status st = j->stop && *j->stop ? hf_fail(HF_MACHINE, "interrupted") : do_task(j, k, &b);
    if (st != HF_OK) fail(j, st);
    int64_t bytes = (k->row1 - k->row0) * (int64_t)fmt_row_bytes(t->to, t->cols);
    int64_t all = atomic_fetch_add(&j->done, bytes) + bytes;
    if (thread == 0) {
      hf_progress_add(&j->bar, all - shown);
      shown = all;
    }
  }
  free(b.raw);
  free(b.out);
  free(b.x);
  free(b.y);
}

hf_status encode_run(const model_export *e, pool *p, int fd, const char *path, const volatile sig_atomic_t *stop,
                     encode_error *err) {
  job j = {.e = e, .fd = fd, .path = path, .stop = stop, .lock = PTHREAD_MUTEX_INITIALIZER};
  int64_t total = (int64_t)(model_export_bytes(e) - model_export_header(e)->len);
  HF_TRY(encode_check(e));
  HF_TRY(list_tasks(&j));
  hf_progress_begin(&j.bar, "writing", "B", total);
  pool_run(p, work, &j);
  hf_progress_end(&j.bar);
  for (int i = 0; i < model_export_count(e); i++) {
    const export_tensor *t = model_export_at(e, i);
    err[i] = (encode_error){.copied = t->from == t->to};
  }
  for (int i = 0; i < j.n; i++) {
    err[j.tasks[i].tensor].diff2 += j.tasks[i].diff2;
    err[j.tasks[i].tensor].sum2 += j.tasks[i].sum2;
  }
  free(j.tasks);
  return j.st == HF_OK ? HF_OK : hf_fail(j.st, "%s", j.error);
}
