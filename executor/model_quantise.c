/* model_quantise.c: hf-run model quantise. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "executor/encode.h"
#include "executor/model_cmd.h"

typedef struct {
  cli_common common;
  const char *format;
  int64_t threads;
  bool force, no_tokenizer;
} options;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
  (void)sig;
  interrupted = 1;
}

/* ---- the report ---- */

/* All tensors of one part that go from one format to another. */
typedef struct {
  recipe_part part;
  fmt from, to;
  int tensors;
  int64_t bytes_in, bytes_out;
  double diff2, sum2;
} line;

enum { MAX_LINES = 128 };

static int lines_of(const model_export *e, const encode_error *err, line *lines) {
  int n = 0;
  for (int p = 0; p <= PART_N; p++)
    for (int i = 0; i < model_export_count(e); i++) {
      const export_tensor *t = model_export_at(e, i);
      if (t->part != (recipe_part)p) continue;
      int k = n;
      while (k > 0 && (lines[k - 1].part != t->part || lines[k - 1].from != t->stored || lines[k - 1].to != t->to)) k--;
      if (k == 0) {
        if (n == MAX_LINES) continue;
        lines[n++] = (line){.part = t->part, .from = t->stored, .to = t->to};
        k = n;
      }
      line *l = &lines[k - 1];
      l->tensors++;
      l->bytes_in += (int64_t)t->n_mats * t->rows * (int64_t)fmt_row_bytes(t->stored, t->cols);
      l->bytes_out += (int64_t)t->bytes;
      l->diff2 += err[i].diff2;
      l->sum2 += err[i].sum2;
    }
  return n;
}

static double relative(double diff2, double sum2) {
  return sum2 > 0 ? sqrt(diff2 / sum2) : 0;
}

typedef struct {
  const char *path, *recipe;
  double seconds;
  int64_t weights, bytes_in, bytes_out, buffer_bytes, peak_rss_bytes;
  bool has_tokenizer;
} summary;

static void print_people(const summary *s, const line *lines, int n) {
  char size[32], rss[32], buf[32];
  printf("%s: %s, %s in %.1f s (%.0f million weights a second)\n", s->path, s->recipe, model_bytes_text(s->bytes_out, size),
         s->seconds, s->seconds > 0 ? (double)s->weights / s->seconds * 1e-6 : 0);
  printf("  %-12s %-7s    %-7s %8s %12s %12s\n", "part", "from", "to", "tensors", "size", "rms error");
  for (int i = 0; i < n; i++) {
    const line *l = &lines[i];
    printf("  %-12s %-7s -> %-7s %8d %12s ", recipe_part_name(l->part), fmt_get(l->from)->name, fmt_get(l->to)->name, l->tensors,
           model_bytes_text(l->bytes_out, buf));
    if (l->from == l->to) printf("%12s\n", "copied");
    else printf("%11.4f %%\n", 100 * relative(l->diff2, l->sum2));
  }
  printf("  rms error: of the weights, relative to their size. No importance matrix is used: every weight counts the same.\n");
  if (!s->has_tokenizer) printf("  no tokenizer: prompts must be given as ids\n");
  printf("  most memory %s, of which buffers %s\n", model_bytes_text(s->peak_rss_bytes, rss),
         model_bytes_text(s->buffer_bytes, buf));
}

static void add_error(json *o, double diff2, double sum2, bool copied) {
  json_add_bool(o, "copied", copied);
  json_add_num(o, "rms_relative_error", relative(diff2, sum2));
}

static hf_status print_json(const summary *s, const line *lines, int n, const model_export *e, const encode_error *err) {
  json *o = json_new_object();
  json_add_str(json_add_array(o, "files"), NULL, s->path);
  json_add_str(o, "format", s->recipe);
  json_add_int(o, "bytes", s->bytes_out);
  json_add_int(o, "weights", s->weights);
  json_add_int(o, "bytes_in", s->bytes_in);
  json_add_num(o, "seconds", s->seconds);
  json_add_bool(o, "importance_matrix", false);
  json_add_bool(o, "tokenizer", s->has_tokenizer);
  json_add_int(o, "buffer_bytes", s->buffer_bytes);
  json_add_int(o, "peak_rss_bytes", s->peak_rss_bytes);
  json *parts = json_add_array(o, "parts");
  for (int i = 0; i < n; i++) {
    json *p = json_add_object(parts, NULL);
    json_add_str(p, "part", recipe_part_name(lines[i].part));
    json_add_str(p, "from", fmt_get(lines[i].from)->name);
    json_add_str(p, "to", fmt_get(lines[i].to)->name);
    json_add_int(p, "tensors", lines[i].tensors);
    json_add_int(p, "bytes", lines[i].bytes_out);
    add_error(p, lines[i].diff2, lines[i].sum2, lines[i].from == lines[i].to);
  }
  json *tensors = json_add_array(o, "tensors");
  for (int i = 0; i < model_export_count(e); i++) {
    const export_tensor *t = model_export_at(e, i);
    json *p = json_add_object(tensors, NULL);
    json_add_str(p, "name", t->name);
    json_add_str(p, "from", fmt_get(t->stored)->name);
    json_add_str(p, "to", fmt_get(t->to)->name);
    json_add_int(p, "bytes", (int64_t)t->bytes);
    add_error(p, err[i].diff2, err[i].sum2, err[i].copied);
  }
  return json_show(o);
}

/* ---- the file ---- */

/* Room for the whole file before an hour of work, where the file system can say so. */
static hf_status reserve(int fd, const char *path, uint64_t bytes) {
  int bad = fallocate(fd, 0, 0, (off_t)bytes) ? errno : 0;
  char size[32];
  if (bad == ENOSPC || bad == EDQUOT)
    return hf_fail(HF_MACHINE, "%s: %s are needed: %s", path, model_bytes_text((int64_t)bytes, size), strerror(bad));
  if (bad && ftruncate(fd, (off_t)bytes) != 0) return hf_fail(HF_MACHINE, "%s: %s", path, strerror(errno));
  return HF_OK;
}

static hf_status write_all(const model_export *e, pool *p, int fd, const char *temporary, encode_error *err) {
  const hf_buf *h = model_export_header(e);
  HF_TRY(reserve(fd, temporary, model_export_bytes(e)));
  if (!hf_pwrite_all(fd, h->data, h->len, 0)) return hf_fail(HF_MACHINE, "%s: cannot be written: %s", temporary, strerror(errno));
  HF_TRY(model_export_check(e, temporary));
  HF_TRY(encode_run(e, p, fd, temporary, &interrupted, err));
  if (fsync(fd) != 0) return hf_fail(HF_MACHINE, "%s: cannot be written: %s", temporary, strerror(errno));
  return HF_OK;
}

/* What was written must open again, with all its tensors, before it gets its name. */
static hf_status opens(const char *path) {
  model *m = NULL;
  HF_TRY(model_open(path, &m));
  model_close(m);
  return HF_OK;
}

static hf_status write_file(const model_export *e, pool *p, const char *path, encode_error *err) {
  char *temporary = NULL;
  size_t len = strlen(path) + 32;
  HF_TRY(hf_alloc(&temporary, len, 1, path));
  snprintf(temporary, len, "%s.%ld.part", path, (long)getpid());
  int fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) {
    hf_status st = hf_fail(HF_INPUT, "%s: cannot be created: %s", path, strerror(errno));
    free(temporary);
    return st;
  }
  struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, old, old_term;
  sigaction(SIGINT, &sa, &old);
  sigaction(SIGTERM, &sa, &old_term);
  hf_status st = write_all(e, p, fd, temporary, err);
  if (close(fd) != 0 && st == HF_OK) st = hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
  if (st == HF_OK) st = opens(temporary);
  if (st == HF_OK && rename(temporary, path) != 0) st = hf_fail(HF_MACHINE, "%s: %s", path, strerror(errno));
  if (st != HF_OK) unlink(temporary);
  sigaction(SIGINT, &old, NULL);
  sigaction(SIGTERM, &old_term, NULL);
  free(temporary);
  return st;
}

/* ---- the verb ---- */

static hf_status check_target(const char *path, bool force) {
  struct stat s;
  size_t n = strlen(path);
  if (n < 6 || strcmp(path + n - 5, ".gguf"))
    return hf_fail(HF_INPUT, "%s: the name of the file to write must end in .gguf", path);
  if (stat(path, &s) != 0) return HF_OK;
  if (!S_ISREG(s.st_mode)) return hf_fail(HF_INPUT, "%s: is no file", path);
  return force ? HF_OK : hf_fail(HF_INPUT, "%s: is there already; --force replaces it", path);
}

static hf_status run(const options *o, const model *m, const char *path) {
  model_recipe r;
  model_export *e = NULL;
  topology *topo = NULL;
  pool *p = NULL;
  encode_error *err = NULL;
  line lines[MAX_LINES];
  hf_status st;
  int64_t start = hf_now_ns();
  HF_TRY(hf_note(recipe_parse(o->format, model_get_config(m), &r), "--format"));
  HF_TRY(model_export_plan(m, &r, !o->no_tokenizer, &e));
  HF_GO(end, encode_check(e));
  HF_GO(end, hf_alloc(&err, (size_t)model_export_count(e), sizeof *err, "errors of tensors"));
  HF_GO(end, model_pool(o->threads, &topo, &p));
  HF_GO(end, write_file(e, p, path, err));
  int n = lines_of(e, err, lines);
  summary s = {.path = path,
               .recipe = r.name,
               .seconds = (double)(hf_now_ns() - start) * 1e-9,
               .bytes_out = (int64_t)model_export_bytes(e),
               .buffer_bytes = encode_buffer_bytes(e, pool_threads(p)),
               .peak_rss_bytes = model_peak_rss(),
               .has_tokenizer = model_export_has_tokenizer(e)};
  for (int i = 0; i < n; i++) s.bytes_in += lines[i].bytes_in;
  for (int i = 0; i < model_export_count(e); i++) {
    const export_tensor *t = model_export_at(e, i);
    s.weights += (int64_t)t->n_mats * t->rows * t->cols;
  }
  if (o->common.json) HF_GO(end, print_json(&s, lines, n, e, err));
  else print_people(&s, lines, n);
end:
  if (p) pool_free(p);
  free(topo);
  free(err);
  model_export_free(e);
  return st;
}

static const char description[] =
    "Writes a model as one GGUF file in other weight formats, for hf-run, llama.cpp and ik_llama.cpp. MODEL is a Hugging Face "
    "folder "
    "(tokenizer and chat template go into the file) or a GGUF, single or the first of a split; OUT.gguf appears complete or not "
    "at all.\n\n"
    "--format takes what hf-plan takes: a type (q8_0, q4_0, q4_k, bf16, ...), a mixture (q4_k_m), with other types for parts and "
    "layers: "
    "q4_k_m:attn=q8_0,down=q6_k@3-20. Parts: q k v kv_a kv_b o dense_in dense_down shared_in shared_down gate_up down embed "
    "output, and attn, "
    "dense, shared, experts, rest for groups. Written are f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q3_k, q2_k, iq4_nl, q5_1, "
    "q5_0, q4_1, "
    "q4_0; a "
    "tensor that has "
    "the wanted type already is copied, whatever it is. Rows that blocks of 256 do not divide get blocks of 32 of at least as "
    "many bits, as in "
    "llama.cpp. Norms, biases and routers are F32.\n\n"
    "No importance matrix is used: every weight counts the same. The error of each part is measured on all of it and printed. "
    "Memory stays at two pieces of 4 MiB for each thread (more where a tensor can only be read whole: kv_b of MLA, MXFP4 "
    "experts).";

hf_status cmd_model_quantise(int argc, char **argv) {
  options o = {0};
  const cli_option table[] = {{"format", 'f', CLI_STR, &o.format, "FORMAT", "Weight format or recipe; needed.", 0, 0},
                              {"threads", 't', CLI_INT, &o.threads, "N", "CPU workers; default all cores.", 1, 1024},
                              {"force", 0, CLI_FLAG, &o.force, NULL, "Replace OUT.gguf when it is there.", 0, 0},
                              {"no-tokenizer", 0, CLI_FLAG, &o.no_tokenizer, NULL, "Leave the folder's tokenizer out.", 0, 0},
                              {0}};
  const cli_spec spec = {.program = "hf-run",
                         .verb = "model quantise",
                         .synopsis = "MODEL OUT.gguf --format FORMAT [options]",
                         .description = description,
                         .examples = "  hf-run model quantise examples/tiny-moe /tmp/tiny.gguf --format q8_0\n"
                                     "      The small model in 8 bits, with its tokenizer.\n"
                                     "  hf-run model quantise ~/Qwen3-30B-A3B qwen3.gguf --format q4_k:attn=q8_0,output=q6_k\n"
                                     "      Experts in 4 bits, attention in 8.\n",
                         .options = table};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &o.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(model_operands("quantise", n, rest, 2, "MODEL and OUT.gguf"));
  if (!o.format)
    return hf_fail(HF_INPUT, "--format is missing: q8_0, q4_k, q4_k_m:attn=q8_0, ...; see hf-run model quantise --help");
  HF_TRY(check_target(rest[1], o.force));
  HF_TRY(kern_init(NULL));
  model *m = NULL;
  HF_TRY(open_model_to_run(rest[0], &m));
  hf_status st = run(&o, m, rest[1]);
  model_close(m);
  return st;
}
