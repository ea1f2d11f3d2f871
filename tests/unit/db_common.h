/* db_common.h: what the tests of the database share: a folder of their own, a sample of every record, a sample plan. */
#ifndef HF_TESTS_DB_COMMON_H
#define HF_TESTS_DB_COMMON_H
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "db/db.h"

#define CHECK_OK(expr)                                            \
  do {                                                            \
    hf_status check_ok_ = (expr);                                 \
    if (check_ok_ != HF_OK) print_error("%s\n", hf_error_line()); \
    assert_int_equal(check_ok_, HF_OK);                           \
  } while (0)

typedef struct {
  char folder[200], path[256];
} db_place;

/* In memory unless $TMPDIR says otherwise: these tests flush thousands of times. */
static inline void place_make(db_place *p) {
  const char *base = getenv("TMPDIR");
  if (!base || strlen(base) > 150) base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(p->folder, sizeof p->folder, "%s/hf-db-XXXXXX", base);
  assert_non_null(mkdtemp(p->folder));
  snprintf(p->path, sizeof p->path, "%s/t.db", p->folder);
}

static inline void place_remove(db_place *p) {
  DIR *dir = opendir(p->folder);
  for (struct dirent *e; dir && (e = readdir(dir));) {
    char name[600];
    snprintf(name, sizeof name, "%s/%s", p->folder, e->d_name);
    if (e->d_name[0] != '.') unlink(name);
  }
  if (dir) closedir(dir);
  rmdir(p->folder);
}

static inline void read_bytes(const char *path, char **bytes, size_t *n) {
  CHECK_OK(hf_read_file(path, 1 << 28, bytes, n));
}

static inline void write_bytes(const char *path, const void *bytes, size_t n) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  if (n) assert_int_equal(fwrite(bytes, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

/* Samples are compared as bytes, so they are copied as bytes from static memory, whose padding is zero. */
static inline void sample_machine(rec_machine *out) {
  static const rec_machine m = {
      .name = "box", .kind = MACHINE_MEASURED, .created_ns = 1700000000123456789, .facts_json = "{\"isa\":\"avx2\"}"};
  memcpy(out, &m, sizeof m);
}

static inline void sample_run(rec_run *out) {
  static const rec_run r = {.model = "tiny-moe",
                            .format = "q8_0",
                            .gpu = "virtual:8M",
                            .kind = "prompts",
                            .created_ns = 5,
                            .users = 5,
                            .depth = 2,
                            .threads = 2,
                            .prompt_tokens = 100,
                            .output_tokens = 200,
                            .steps = 77,
                            .wall_s = 2.5,
                            .decode_s = 2.0,
                            .decode_tok_per_s = 100,
                            .tok_per_s_wall = 80,
                            .prefill_tok_per_s = 900,
                            .ttft_p50_s = 0.5,
                            .ttft_p90_s = 0.6,
                            .ttft_p99_s = 0.7,
                            .tpot_p50_s = 0.04,
                            .tpot_p90_s = 0.05,
                            .tpot_p99_s = 0.06,
                            .dram_bytes_per_s = 2e10,
                            .other_cpu_share = 0.25,
                            .predicted_decode_tok_per_s = 110,
                            .predicted_low = 90,
                            .predicted_high = 130,
                            .predicted_ttft_p50_s = 0.4,
                            .predicted_tpot_p50_s = 0.04,
                            .status = "running"};
  memcpy(out, &r, sizeof r);
}

/* Layers 0 dense, 1 and 2 MoE of 8 experts; two devices. */
static inline plan *sample_plan(void) {
  plan *p;
  CHECK_OK(plan_new(3, &p));
  p->cost_model_version = 2;
  snprintf(p->inputs_hash, sizeof p->inputs_hash, "%064d", 7);
  strcpy(p->model, "tiny \"moe\" \xc3\xa9");
  strcpy(p->family, "deepseek_v3");
  strcpy(p->format, "q8_0");
  strcpy(p->machine, "box");
  strcpy(p->gpu, "virtual:8M");
  p->users = 5;
  p->context = 4096;
  p->prompt_tokens = 100;
  p->output_tokens = 50;
  p->depth = 2;
  p->n_experts = 8;
  p->n_devices = 2;
  p->device[0] = (plan_device){"virtual", "virtual:8M", 8 << 20};
  p->device[1] = (plan_device){"virtual", "virtual:8M", 8 << 20};
  for (int i = 1; i < 3; i++) {
    plan_layer *l = &p->layer[i];
    l->moe = true;
    l->n_experts = 8;
    CHECK_OK(hf_alloc(&l->device, 8, sizeof *l->device, "placement"));
    for (int e = 0; e < 8; e++) l->device[e] = (int16_t)(e < 3 ? -1 : e < 5 + i ? 0 : e == 7 ? -1 : 1);
    l->cexp_ns = 1e9 / 3;
    l->layer_ns = 0.1 + 0.2;
    strcpy(l->binding, "cpu");
    strcpy(l->prefill, "upload");
  }
  p->layer[0].attn_ns = 12345.678;
  strcpy(p->kv_type, "bf16");
  p->kv_page_tokens = 32;
  p->max_seqs = 64;
  p->chunk_tokens = 256;
  p->threads = 2;
  p->kv_bytes = INT64_C(9007199254740991);
  p->n_kernels = 2;
  p->kernel[0] = (plan_kernel){"expert_ffn", "q8_0", "avx2_vnni", 1, 4};
  p->kernel[1] = (plan_kernel){"expert_ffn", "q8_0", "ref", 5, 512};
  p->ilp.objective_ns = 1234567.25;
  p->ilp.bound_ns = 1234000.5;
  p->ilp.gap = 0.00046;
  p->ilp.seconds = 0.25;
  strcpy(p->ilp.status, "optimal");
  p->decode_tok_per_s = (plan_range){80.5, 100.1, 120};
  p->ttft_s = (plan_percentiles){0.5, 0.75, 1, 0.875};
  p->tpot_s = (plan_percentiles){0.04, 0.05, 0.06};
  strcpy(p->tag, "measured");
  strcpy(p->binding, "dram");
  strcpy(p->popularity, "run 12");
  p->n_budget = 3;
  p->budget[0] = (plan_budget){"gpu0", "resident experts", 4 << 20, 8 << 20};
  p->budget[1] = (plan_budget){"gpu0", "KV cache", 4 << 20, 8 << 20};
  p->budget[2] = (plan_budget){"ram", "CPU experts", 30 << 20, INT64_C(16) << 30};
  p->extra = json_new_object();
  json_add_num(json_add_object(p->extra, "baselines"), "n_cpu_moe", 1.0 / 3);
  json_add_null(json_add_array(p->extra, "advice"), NULL);
  return p;
}

static inline char *plan_text(const plan *p) {
  json *doc;
  char *text = NULL;
  CHECK_OK(plan_to_json(p, &doc));
  CHECK_OK(json_print(doc, true, &text));
  json_free(doc);
  return text;
}
#endif
