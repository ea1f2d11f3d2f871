/* model_verify.c: hf-run model verify: headers, sizes, shapes, and every byte of the weights. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/blocks.h"
#include "base/clock.h"
#include "base/log.h"
#include "db/catalog.h"
#include "executor/model_cmd.h"
#include "model/tokenizer.h"

enum { PIECE = 4 << 20, SHOWN = 20, MAX_FAULTS = 100000 };

typedef struct {
  char *what;         /* "FILE: tensor NAME: what is wrong" */
  const char *remedy; /* a constant */
} fault;

typedef struct {
  cli_common common;
  bool fast;
  int64_t threads;
} options;

typedef struct {
  const model *m;
  fault *v;
  int n, cap;
  int64_t more;            /* faults beyond MAX_FAULTS, or that no memory was there for */
  int64_t bytes, unlooked; /* read; of types in which no number can be wrong, or whose blocks are not known here */
  double seconds;
  pthread_mutex_t lock;
} report;

/* What to do, by the words of the line. */
static const char *remedy_of(const char *line) {
  static const struct {
    const char *word, *remedy;
  } known[] = {{"truncated", "download this file again: it is cut short"},
               {"shorter", "download this file again: it is cut short"},
               {"longer than its header", "download this file again"},
               {"is missing", "download the files that are missing; if none is, config.json belongs to another model"},
               {"does not exist", "download the files that are missing"},
               {"shape", "take config.json and weights from the same place: they are of different models"},
               {"the config demands", "take config.json and weights from the same place: they are of different models"},
               {"weight_map", "take model.safetensors.index.json and the files from the same place"},
               {"no finite number", "download this file again; if it stays, the conversion that made it was wrong"},
               {"cannot be read", "the disk or the file system fails: copy the file elsewhere and try again"},
               {"read at", "the disk or the file system fails: copy the file elsewhere and try again"},
               {"overlap", "the writer of this file was wrong: take another conversion"},
               {"appears twice", "the writer of this file was wrong: take another conversion"},
               {"tokenizer", "take the tokenizer files from where the weights are from"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strstr(line, known[i].word)) return known[i].remedy;
  return "download this file again, and compare its checksum with the publisher's";
}

static void add_fault(void *user, const char *line) {
  report *r = user;
  pthread_mutex_lock(&r->lock);
  char *copy = NULL;
  bool ok = r->n < MAX_FAULTS && hf_strdup(&copy, line) == HF_OK;
  if (ok && r->n == r->cap) {
    int cap = r->cap ? 2 * r->cap : 64;
    ok = hf_realloc(&r->v, (size_t)cap, sizeof *r->v, "list of faults") == HF_OK;
    if (ok) r->cap = cap;
  }
  if (ok) r->v[r->n++] = (fault){copy, remedy_of(line)};
  else {
    free(copy);
    r->more++;
  }
  pthread_mutex_unlock(&r->lock);
}

/* ---- numbers ---- */

/* First element that is no finite number, or -1; *known false: nothing is known of this type. */
static int64_t bad_element(const model_stored_tensor *t, const uint8_t *p, int64_t n_bytes, bool *known) {
  *known = true;
  uint32_t worst = 0; /* one pass without branches first: nearly all pieces are good */
  switch (t->format) {
    case FMT_F32:
      for (int64_t i = 0; i < n_bytes / 4; i++) {
        uint32_t u;
        memcpy(&u, p + 4 * i, 4);
        u &= 0x7f800000;
        worst = u > worst ? u : worst;
      }
      if (worst < 0x7f800000) return -1;
      for (int64_t i = 0; i < n_bytes / 4; i++)
        if ((p[4 * i + 3] & 0x7f) == 0x7f && p[4 * i + 2] & 0x80) return i;
      return -1;
    case FMT_F16:
    case FMT_BF16: {
      const uint16_t mask = t->format == FMT_F16 ? 0x7c00 : 0x7f80;
      uint16_t most = 0;
      for (int64_t i = 0; i < n_bytes / 2; i++) {
        uint16_t u;
        memcpy(&u, p + 2 * i, 2);
        u &= mask;
        most = u > most ? u : most;
      }
      for (int64_t i = 0; most == mask && i < n_bytes / 2; i++)
        if (((p[2 * i] | p[2 * i + 1] << 8) & mask) == mask) return i;
      return -1;
    }
    case FMT_FP8_E4M3:
      for (int64_t i = 0; i < n_bytes; i++)
        if ((p[i] & 0x7f) == 0x7f) return i;
      return -1;
    default: break;
  }
  const fmt_info *f = t->format >= 0 ? fmt_get(t->format) : NULL;
  int64_t block = f && f->block_bytes && f->row_bytes == 0 ? hf_block_bad(f->name, p, n_bytes / f->block_bytes * f->block, known)
                                                           : (*known = false, -1);
  return block < 0 ? -1 : block * f->block;
}

/* gpt-oss keeps the exponents of MXFP4 as bytes of their own; 255 stands for no number. */
static bool is_exponents(const model_stored_tensor *t) {
  size_t n = strlen(t->name);
  return t->format == FMT_DEFAULT && !strcmp(t->dtype, "U8") && n > 7 && !strcmp(t->name + n - 7, "_scales");
}

typedef struct {
  report *r;
  int64_t *first; /* [tensors + 1]: number of the first piece */
  int64_t n_tensors;
  atomic_llong next;
  atomic_llong done, unlooked;
  atomic_bool *told; /* [tensors]: one fault of numbers each */
  hf_progress bar;
} scan;

/* Pieces end on blocks, whose sizes all divide this one. */
static uint64_t piece_bytes(const model_stored_tensor *t) {
  int64_t unit = t->format >= 0 ? fmt_get(t->format)->block_bytes : 1;
  return (uint64_t)(PIECE / (unit > 0 ? unit : 1) * (unit > 0 ? unit : 1));
}

static void tell(const scan *s, const model_stored_tensor *t, const char *what) {
  hf_status st = hf_fail(HF_INPUT, "%s: tensor %s: %s", t->file, t->name, what);
  (void)st;
  add_fault(s->r, hf_error_line());
  hf_clear_error();
}

static void look(scan *s, int64_t i, int64_t piece, uint8_t *buf) {
  model_stored_tensor t = model_stored(s->r->m, i);
  uint64_t step = piece_bytes(&t), at = (uint64_t)piece * step, n = t.bytes - at < step ? t.bytes - at : step;
  char what[160];
  if (model_stored_read(s->r->m, i, at, buf, (size_t)n) != HF_OK) {
    snprintf(what, sizeof what, "cannot be read: %.120s", hf_error_line());
    hf_clear_error();
    if (!atomic_exchange(&s->told[i], true)) tell(s, &t, what);
    return;
  }
  bool known;
  int64_t bad = bad_element(&t, buf, (int64_t)n, &known);
  if (is_exponents(&t)) {
    const uint8_t *p = memchr(buf, 255, (size_t)n);
    bad = p ? p - buf : -1;
  } else if (!known) atomic_fetch_add(&s->unlooked, (int64_t)n);
  atomic_fetch_add(&s->done, (int64_t)n);
  if (bad < 0 || atomic_exchange(&s->told[i], true)) return;
  int64_t per = t.format >= 0 ? fmt_get(t.format)->block : 1, bytes = t.format >= 0 ? fmt_get(t.format)->block_bytes : 1;
  snprintf(what, sizeof what, "value %lld is no finite number", (long long)((int64_t)(at / (uint64_t)bytes) * per + bad));
  tell(s, &t, what);
}

static void work(void *arg, int thread, int n_threads) {
  scan *s = arg;
  uint8_t *buf = NULL;
  int64_t total = s->first[s->n_tensors], shown = 0;
  (void)n_threads;
  if (hf_alloc(&buf, PIECE, 1, "pieces of tensors") != HF_OK) {
    add_fault(s->r, hf_error_line());
    return;
  }
  for (int64_t k, i = 0; (k = atomic_fetch_add(&s->next, 1)) < total;) {
    while (s->first[i + 1] <= k) i++; /* numbers rise within a thread */
    look(s, i, k - s->first[i], buf);
    if (thread) continue;
    int64_t done = atomic_load(&s->done);
    hf_progress_add(&s->bar, done - shown);
    shown = done;
  }
  free(buf);
}

static hf_status scan_all(report *r, int64_t threads) {
  const model *m = r->m;
  scan s = {.r = r, .n_tensors = model_stored_count(m)};
  topology *topo = NULL;
  pool *p = NULL;
  int64_t bytes = 0;
  hf_status st;
  HF_GO(end, hf_alloc(&s.first, (size_t)s.n_tensors + 1, sizeof *s.first, "pieces of tensors"));
  HF_GO(end, hf_alloc(&s.told, (size_t)s.n_tensors + 1, sizeof *s.told, "tensors"));
  HF_GO(end, model_pool(threads, &topo, &p));
  for (int64_t i = 0; i < s.n_tensors; i++) {
    model_stored_tensor t = model_stored(m, i);
    uint64_t step = piece_bytes(&t);
    s.first[i + 1] = s.first[i] + (t.in_file ? (int64_t)((t.bytes + step - 1) / step) : 0);
    bytes += t.in_file ? (int64_t)t.bytes : 0;
  }
  hf_progress_begin(&s.bar, "reading", "B", bytes);
  int64_t start = hf_now_ns();
  pool_run(p, work, &s);
  r->seconds = (double)(hf_now_ns() - start) * 1e-9;
  hf_progress_end(&s.bar);
  r->bytes = atomic_load(&s.done);
  r->unlooked = atomic_load(&s.unlooked);
end:
  if (p) pool_free(p);
  free(topo);
  free(s.told);
  free(s.first);
  return st;
}

/* ---- the report ---- */

static int by_text(const void *a, const void *b) {
  return strcmp(((const fault *)a)->what, ((const fault *)b)->what);
}

static void print_people(const report *r, const char *path, bool fast) {
  char buf[32];
  for (int i = 0; i < r->n && i < SHOWN; i++) printf("  %s\n      %s\n", r->v[i].what, r->v[i].remedy);
  int64_t more = r->more + (r->n > SHOWN ? r->n - SHOWN : 0);
  if (more) printf("  and %lld faults more; --json lists them\n", (long long)more);
  printf("%s: %s", path, r->n || r->more ? "BAD" : "good");
  if (r->m) printf(", %d files, %lld tensors", model_file_count(r->m), (long long)model_stored_count(r->m));
  if (r->m && model_missing(r->m)) printf("; weights: %s", model_missing(r->m));
  if (fast) printf("; headers only, no weight was read\n");
  else
    printf("; %s read in %.1f s (%.2f GB/s)\n", model_bytes_text(r->bytes, buf), r->seconds,
           r->seconds > 0 ? (double)r->bytes / r->seconds * 1e-9 : 0);
  if (r->unlooked)
    printf("  %s of types in which every pattern of bits is a number, or whose scales are not known here\n",
           model_bytes_text(r->unlooked, buf));
}

static hf_status print_json(const report *r, const char *path, bool fast) {
  json *o = json_new_object();
  json_add_str(o, "model", path);
  json_add_bool(o, "good", r->n == 0 && r->more == 0);
  json_add_bool(o, "fast", fast);
  json_add_int(o, "files", r->m ? model_file_count(r->m) : 0);
  json_add_int(o, "tensors", r->m ? model_stored_count(r->m) : 0);
  json_add_int(o, "bytes_read", r->bytes);
  json_add_int(o, "bytes_without_check", r->unlooked);
  json_add_num(o, "seconds", r->seconds);
  json_add_int(o, "faults_not_listed", r->more);
  json *list = json_add_array(o, "faults");
  for (int i = 0; i < r->n; i++) {
    const char *w = r->v[i].what, *mark = strstr(w, ": tensor ");
    char file[1024] = "", name[300] = "";
    json *f = json_add_object(list, NULL);
    if (mark) {
      snprintf(file, sizeof file, "%.*s", (int)(mark - w), w);
      snprintf(name, sizeof name, "%.*s", (int)strcspn(mark + 9, ": "), mark + 9);
    } else snprintf(file, sizeof file, "%.*s", (int)strcspn(w, ":"), w);
    json_add_str(f, "file", file);
    json_add_str(f, "tensor", name);
    json_add_str(f, "what", w);
    json_add_str(f, "remedy", r->v[i].remedy);
  }
  return json_show(o);
}

/* A tokenizer that is there must be one; none is no fault. */
static void check_tokenizer(report *r, const char *path) {
  tokenizer *t = NULL;
  hf_status st = tokenizer_open(path, &t);
  if (st == HF_INPUT) add_fault(r, hf_error_line());
  hf_clear_error();
  tokenizer_close(t);
}

static hf_status verify(report *r, const options *o, const char *path) {
  model *m = NULL;
  hf_status st = model_open_tolerant(path, add_fault, r, &m);
  if (st == HF_INPUT) { /* nothing to go on with: that is the fault */
    add_fault(r, hf_error_line());
    hf_clear_error();
    st = HF_OK;
  }
  if (st != HF_OK) return st;
  if (m && model_file_count(m) == 0 && !r->n) {
    model_close(m);
    return hf_fail(HF_INPUT, "%s: no files to verify (a model of the catalog?); name a folder or a GGUF file", path);
  }
  r->m = m;
  if (m && model_missing(m)) add_fault(r, model_missing(m));
  if (m) check_tokenizer(r, path);
  if (m && !o->fast) st = scan_all(r, o->threads);
  if (r->n > 1) qsort(r->v, (size_t)r->n, sizeof *r->v, by_text);
  if (st == HF_OK && o->common.json) st = print_json(r, path, o->fast);
  else if (st == HF_OK) print_people(r, path, o->fast);
  model_close(m);
  r->m = NULL;
  if (st == HF_OK && (r->n || r->more)) st = hf_fail(HF_NO, "%s: %lld faults", path, (long long)(r->n + r->more));
  return st;
}

hf_status cmd_model_verify(int argc, char **argv) {
  options o = {0};
  const cli_option table[] = {{"fast", 0, CLI_FLAG, &o.fast, NULL, "Headers, sizes and shapes only; no weight is read.", 0, 0},
                              {"threads", 't', CLI_INT, &o.threads, "N", "CPU workers; default all cores.", 1, 1024},
                              {0}};
  const cli_spec spec = {.program = "hf-run",
                         .verb = "model verify",
                         .synopsis = "MODEL [--fast] [--json]",
                         .description = "Checks a model's files: headers, offsets, sizes; that every tensor of the family is "
                                        "there in its shape; that a split is complete and "
                                        "the index agrees with the files; and, reading every byte, that no weight or scale is "
                                        "infinite or not a number. Each fault is named "
                                        "with file, tensor and what to do. Exit status 1 when there is any.",
                         .examples = "  hf-run model verify ~/DeepSeek-R1\n      After a long download.\n"
                                     "  hf-run model verify model-00001-of-00009.gguf --fast\n      Is the split complete?\n",
                         .options = table};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &o.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(model_operands("verify", n, rest, 1, "MODEL"));
  if (!strncmp(rest[0], "synth:", 6)) return hf_fail(HF_INPUT, "%s: is made, not read; there is nothing to verify", rest[0]);
  report r = {.lock = PTHREAD_MUTEX_INITIALIZER};
  hf_status st = verify(&r, &o, rest[0]);
  for (int i = 0; i < r.n; i++) free(r.v[i].what);
  free(r.v);
  return st;
}
