/* Several devices in an engine: layers divided in any way give the bits of one device; experts on a device where the layer is not at home give what they
 * give at home, but for the order of sums; one that is lost costs no request; what each needs is told, and refused, by its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "executor/devices.h"
#include "executor/serve.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 5, MAX_OUT = 10, CHUNK = 12, CONTEXT = 64, VOCAB = 512 };
static const int prompt_len[REQUESTS] = {3, 40, 17, 30, 9};
static const int out_len[REQUESTS] = {10, 4, 5, 6, 3};

static model *m;

static engine_options options(int devices, int depth, double percent) {
  engine_options o = {.depth = depth,
                      .max_seqs = 3,
                      .context = CONTEXT,
                      .page_tokens = 8,
                      .n_pages = 3 * CONTEXT / 8,
                      .max_tok = CHUNK + 3,
                      .max_logits = CHUNK + 3,
                      .threads = 2,
                      .kv_type = KV_F16,
                      .mla = ENGINE_MLA_ABSORBED,
                      .device_bytes = 64 << 20,
                      .more_devices = devices - 1,
                      .more_bytes = {40 << 20, 90 << 20},
                      .experts_on_gpu_percent = percent};
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  return o;
}

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][48], out[REQUESTS][MAX_OUT];
  uint64_t logits;             /* of all prompts, whatever the order of steps */
  float last[REQUESTS][VOCAB]; /* of a prompt's last token */
  int on_device[ENGINE_DEVICES], wrong_order, losses;
  int most_dexp; /* records of resident experts in a layer of a step */
  engine *e;
} run;

static void on_logits(void *user, serve_request *q, int position, const float *logits) {
  run *r = user;
  const size_t bytes = sizeof *logits * (size_t)model_get_config(m)->vocab_size;
  r->logits += hash_logits(q - r->req, position, logits, model_get_config(m)->vocab_size);
  if (position + 1 == q->n_ids) memcpy(r->last[q - r->req], logits, bytes);
}

/* Every stage is told of the device that it ran on, each layer after the one before it. */
static void on_step(void *user, const dev_step *s, const sched_step *what, int64_t index) {
  run *r = user;
  (void)what, (void)index;
  int64_t end_ns[64] = {0};
  int dexp[64] = {0}, began[64] = {0};
  for (int i = 0; i < s->n_trace; i++) {
    const dev_trace *t = &s->trace[i];
    r->on_device[t->device]++;
    if (t->stage == DEV_STAGE_ATTN && t->device != r->e->home[t->layer]) r->wrong_order++;
    if (t->stage == DEV_STAGE_ATTN) end_ns[t->layer] = t->end_ns;
    if (t->stage != DEV_STAGE_DEXP) continue;
    dexp[t->layer]++;
    began[t->layer] += !t->more;
  }
  for (int l = 0; l < r->e->c.n_layers; l++) { /* on however many devices, it is one stage */
    r->wrong_order += dexp[l] > 0 && began[l] != 1;
    if (dexp[l] > r->most_dexp) r->most_dexp = dexp[l];
  }
  for (int l = 1; l < r->e->c.n_layers; l++) r->wrong_order += end_ns[l] <= end_ns[l - 1];
  r->wrong_order += s->launched_ns > end_ns[0] || s->finished_ns < end_ns[r->e->c.n_layers - 1];
}

static void on_loss(void *user, const serve_loss *l) {
  run *r = user;
  r->losses++;
  assert_true(l->why[0] != 0);
}

static void fill(run *r, bool logits) {
  const int vocab = model_get_config(m)->vocab_size;
  memset(r, 0, sizeof *r);
  for (int i = 0; i < REQUESTS; i++) {
    fill_ids(r->ids[i], prompt_len[i], i, vocab);
    r->req[i] = (serve_request){.ids = r->ids[i],
                                .n_ids = prompt_len[i],
                                .max_tokens = out_len[i],
                                .ignore_eos = true,
                                .all_logits = logits,
                                .out = r->out[i]};
  }
}

static hf_status try_serve(const engine_options *o, bool logits, run *r, serve_stats *st) {
  fill(r, logits);
  serve_options so = {
      .sample = {.top_p = 1}, .chunk_tokens = CHUNK, .users = 3, .user = r, .on_step = on_step, .on_loss = on_loss};
  if (logits) so.on_logits = on_logits;
  memset(st, 0, sizeof *st);
  HF_TRY(engine_open(m, o, &r->e));
  const hf_status s = serve_run(r->e, r->req, REQUESTS, &so, st);
  engine_close(r->e);
  return s;
}

static void serve(const engine_options *o, bool logits, run *r) {
  serve_stats st;
  if (try_serve(o, logits, r, &st) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(st.pages_lost, 0);
  serve_stats_free(&st);
}

static void expect_same(const run *got, const run *want, const char *what) {
  for (int i = 0; i < REQUESTS; i++) {
    if (got->req[i].n_out != out_len[i]) fail_msg("%s: request %d: %d tokens", what, i, got->req[i].n_out);
    if (memcmp(got->out[i], want->out[i], (size_t)out_len[i] * sizeof(int32_t)))
      fail_msg("%s: request %d: other tokens", what, i);
  }
  if (got->logits != want->logits) fail_msg("%s: other logits", what);
  if (got->wrong_order) fail_msg("%s: %d records of stages are wrong", what, got->wrong_order);
}

static void open_named(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "tests/golden/%s", name);
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
}

static void layers_over_devices_give_the_same_bits(void **state) {
  (void)state;
  static const char *const name[] = {"deepseek_v3", "gpt_oss_mxfp4", "qwen2_moe"};
  for (size_t k = 0; k < sizeof name / sizeof *name; k++) {
    open_named(name[k]);
    for (int percent = 0; percent <= 100; percent += 50) {
      run want, got;
      engine_options o = options(1, 1, percent);
      serve(&o, true, &want);
      for (int n = 2; n <= 3; n++)
        for (int depth = 1; depth <= 3; depth++) {
          char what[96];
          snprintf(what, sizeof what, "%s, %d %% on %d devices, depth %d", name[k], percent, n, depth);
          o = options(n, depth, percent);
          serve(&o, true, &got);
          expect_same(&got, &want, what);
          assert_true((got.on_device[0] > 0) + (got.on_device[1] > 0) + (got.on_device[2] > 0) >= 2); /* two layers on three */
        }
    }
    model_close(m);
  }
}

static void uploads_go_to_the_home_of_the_layer(void **state) {
  (void)state;
  run want, got;
  open_named("deepseek_v3");
  engine_options o = options(1, 1, 50);
  serve(&o, true, &want);
  for (int depth = 1; depth <= 3; depth++) {
    o = options(2, depth, 50);
    o.upload_tokens = 8;
    o.upload_slots = 2 + depth;
    serve(&o, true, &got);
    expect_same(&got, &want, "uploads to two devices");
  }
  model_close(m);
}

typedef enum { AT_HOME, ANYWHERE, NOT_AT_HOME } placing;

static int device_of(placing w, int devices, int l, int x) {
  const int home = l % devices;
  if (w == AT_HOME) return x % 2 ? home : -1;
  if (w == ANYWHERE) return (x + l) % (devices + 1) - 1;
  return x % 4 == 3 ? -1 : (home + 1 + x % (devices - 1)) % devices;
}

/* Homes in turn; expert x of layer l on the CPU or on a device, by rule. */
static plan *plan_of(int devices, placing w) {
  const model_config *c = model_get_config(m);
  plan *p = NULL;
  assert_int_equal(plan_new(c->n_layers, &p), HF_OK);
  p->n_experts = c->n_experts;
  p->n_devices = devices;
  for (int l = 0; l < c->n_layers; l++) {
    plan_layer *y = &p->layer[l];
    y->home = l % devices;
    y->moe = c->layer_is_moe[l];
    snprintf(y->prefill, sizeof y->prefill, "upload");
    if (!y->moe) continue;
    y->n_experts = c->n_experts;
    assert_int_equal(hf_alloc(&y->device, (size_t)c->n_experts, sizeof *y->device, "placement"), HF_OK);
    for (int x = 0; x < c->n_experts; x++) y->device[x] = (int16_t)device_of(w, devices, l, x);
  }
  return p;
}

static void layers_may_go_back_and_forth(void **state) {
  (void)state;
  run want, got;
  open_named("gpt_oss_mxfp4");
  engine_options o = options(1, 1, 0);
  plan *p = plan_of(1, AT_HOME);
  o.placement = p;
  serve(&o, true, &want);
  plan_free(p);
  p = plan_of(2, AT_HOME);
  for (int depth = 1; depth <= 3; depth++) {
    o = options(2, depth, 0);
    o.placement = p;
    serve(&o, true, &got);
    expect_same(&got, &want, "layers in turn");
  }
  plan_free(p);
  model_close(m);
}

static double farthest(const run *a, const run *b) {
  double most = 0;
  for (int i = 0; i < REQUESTS; i++)
    for (int v = 0; v < model_get_config(m)->vocab_size; v++)
      most = fmax(most, fabs((double)a->last[i][v] - (double)b->last[i][v]));
  return most;
}

/* Sums are taken in another order than at home: unrounded activations, and the tolerance of tests/golden/README.md. At any depth, whether prompts upload or
 * not, they are the same bits again: a layer adds what the CPU gave or was sent, then the guests' sum. */
static void experts_anywhere_give_the_same_answers(void **state) {
  (void)state;
  static const char *const name[] = {"deepseek_v3", "gpt_oss", "qwen2_moe"};
  for (size_t k = 0; k < sizeof name / sizeof *name; k++) {
    open_named(name[k]);
    run want, first, got;
    engine_options o = options(1, 1, 0);
    o.exact = true;
    serve(&o, true, &want);
    for (int n = 2; n <= 3; n++) {
      for (placing w = ANYWHERE; w <= NOT_AT_HOME; w++) {
        plan *p = plan_of(n, w);
        for (int depth = 1; depth <= 3; depth++) {
          o = options(n, depth, 0);
          o.exact = true;
          o.placement = p;
          serve(&o, true, &got);
          if (depth == 1) first = got;
          expect_same(&got, &first, w == ANYWHERE ? "experts anywhere" : "experts anywhere but at home");
          assert_int_equal(got.most_dexp, w == ANYWHERE ? n : n - 1);
          const double far = farthest(&got, &want);
          if (!(far < 2e-3)) fail_msg("%s, %d devices, depth %d: logits %g apart", name[k], n, depth, far);
          o.upload_tokens = 8;
          o.upload_slots = 3;
          serve(&o, true, &got);
          expect_same(&got, &first, "uploads beside guests");
        }
        plan_free(p);
      }
    }
    model_close(m);
  }
}

static void one_that_is_lost_costs_no_request(void **state) {
  (void)state;
  static const dev_fault_kind kind[] = {DEV_FAULT_ERROR, DEV_FAULT_HANG, DEV_FAULT_SIGNAL, DEV_FAULT_WRONG};
  run want, got;
  int lost = 0;
  open_named("deepseek_v3");
  engine_options o = options(1, 1, 0);
  serve(&o, false, &want);
  for (int i = 0; i < 32; i++) {
    char what[64];
    serve_stats st;
    o = options(2 + i % 2, 1 + i % 3, 0);
    o.fault = (dev_fault){.kind = kind[i / 2 % 4], .at = 1 + i * i * 3, .factor = 1};
    o.fault_device = i % (2 + i % 2);
    o.deadline_ns = 150000000;
    if (o.fault.kind == DEV_FAULT_WRONG) o.check_every_ns = 1;
    snprintf(what, sizeof what, "fault %d at %d of gpu%d of %d", (int)o.fault.kind, (int)o.fault.at, o.fault_device,
             1 + o.more_devices);
    if (try_serve(&o, false, &got, &st) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
    lost += st.n_losses;
    assert_int_equal(st.pages_lost, 0);
    for (int q = 0; q < REQUESTS; q++) {
      const bool right = !memcmp(got.out[q], want.out[q], (size_t)out_len[q] * sizeof(int32_t));
      if (got.req[q].n_out != out_len[q] || !(right || got.req[q].suspect || o.fault.kind == DEV_FAULT_WRONG))
        fail_msg("%s: request %d: other tokens", what, q);
    }
    char name[GPU_NAME];
    gpu_name(o.fault_device, name);
    const char *says = o.fault.kind == DEV_FAULT_WRONG ? "one of " : name; /* which one computed wrongly nobody knows */
    if (st.n_losses > 0 && strncmp(st.loss[0].why, says, strlen(says)) != 0) fail_msg("%s: it says %s", what, st.loss[0].why);
    serve_stats_free(&st);
  }
  assert_true(lost > 16);
  model_close(m);
}

/* The same while it computes experts for another device's layer. */
static void a_guest_that_is_lost_costs_no_request(void **state) {
  (void)state;
  static const dev_fault_kind kind[] = {DEV_FAULT_ERROR, DEV_FAULT_HANG};
  int lost = 0;
  run want, got;
  open_named("qwen2_moe");
  engine_options o = options(1, 1, 0);
  o.exact = true;
  serve(&o, false, &want);
  for (int i = 0; i < 24; i++) {
    const int n = 2 + i % 2; /* with three, two guests at a time */
    plan *p = plan_of(n, i % 4 < 2 ? ANYWHERE : NOT_AT_HOME);
    serve_stats st;
    char name[GPU_NAME], what[64];
    o = options(n, 1 + i % 3, 0);
    o.exact = true;
    o.placement = p;
    o.fault = (dev_fault){.kind = kind[i / 2 % 2], .at = 1 + i * 37};
    o.fault_device = i / 4 % n;
    o.deadline_ns = 150000000;
    gpu_name(o.fault_device, name);
    snprintf(what, sizeof what, "fault %d at %d of %s of %d", (int)o.fault.kind, (int)o.fault.at, name, n);
    if (try_serve(&o, false, &got, &st) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
    expect_same(&got, &want, what);
    if (st.n_losses > 0 && strncmp(st.loss[0].why, name, 4) != 0) fail_msg("%s: it says %s", what, st.loss[0].why);
    lost += st.n_losses;
    serve_stats_free(&st);
    plan_free(p);
  }
  assert_true(lost > 12);
  model_close(m);
}

/* As a plan made for the others would have it: homes and experts on those alone. */
static plan *plan_without(int devices, int lost) {
  plan *p = plan_of(devices - 1, ANYWHERE);
  for (int l = 0; l < p->n_layers; l++) {
    plan_layer *y = &p->layer[l];
    y->home += y->home >= lost;
    for (int x = 0; y->device && x < y->n_experts; x++) y->device[x] = (int16_t)(y->device[x] + (y->device[x] >= lost));
  }
  p->n_devices = devices;
  return p;
}

/* Faults at random points of each of two or three devices, one after the other: those that are left keep what they have, or have what the plan without the
 * first says, and nobody gets another token. */
static void the_others_stay(void **state) {
  (void)state;
  static const dev_fault_kind kind[] = {DEV_FAULT_ERROR, DEV_FAULT_ERROR, DEV_FAULT_HANG, DEV_FAULT_ERROR, DEV_FAULT_SIGNAL};
  const char *how_many = getenv("HF_FAULTS"), *from = getenv("HF_FAULT_SEED");
  const int runs = how_many ? atoi(how_many) : 40;
  uint32_t seed = from ? (uint32_t)atoi(from) : 3;
  run want, got;
  int planned = 0, kept = 0, all_gone = 0;
  open_named("qwen2_moe");
  engine_options o = options(1, 1, 0);
  o.exact = true;
  serve(&o, false, &want);
  for (int i = 0; i < runs; i++) {
    const int n = 2 + i % 2, most = i % 3 == 2 ? n : 1; /* how many of them are lost, at most */
    plan *p = i % 4 == 3 ? NULL : plan_of(n, i % 4 == 0 ? AT_HOME : ANYWHERE), *without[3] = {NULL};
    serve_stats st;
    char what[64];
    o = options(n, 1 + (int)(next(&seed) % 3), 50);
    o.exact = true;
    o.placement = p;
    o.deadline_ns = 150000000;
    if (next(&seed) % 3 == 0) o.check_every_ns = 1000000;
    if (next(&seed) % 3 == 0) o.upload_tokens = 8, o.upload_slots = 3;
    for (int k = 0; k < n && i / 2 % 2 == 0; k++) o.without[k] = without[k] = plan_without(n, k);
    fill(&got, false);
    const serve_options so = {
        .sample = {.top_p = 1}, .chunk_tokens = CHUNK, .users = 3, .user = &got, .on_step = on_step, .on_loss = on_loss};
    if (engine_open(m, &o, &got.e) != HF_OK) fail_msg("%s", hf_error_line());
    const int first = (int)(next(&seed) % (uint32_t)n);
    for (int k = 0; k < most; k++) {
      const dev_fault f = {.kind = kind[next(&seed) % 5], .at = 1 + next(&seed) % 900, .factor = 1};
      assert_int_equal(dev_inject(got.e->device[(first + k) % n].d, &f), HF_OK);
    }
    snprintf(what, sizeof what, "run %d, %d devices, depth %d", i, n, o.depth);
    if (serve_run(got.e, got.req, REQUESTS, &so, &st) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
    expect_same(&got, &want, what);
    assert_int_equal(st.pages_lost, 0);
    if (st.n_losses > 0) assert_int_equal(st.loss[st.n_losses - 1].devices_left, engine_devices_left(got.e));
    assert_true(engine_devices_left(got.e) >= n - most);
    all_gone += engine_devices_left(got.e) == 0;
    planned += st.n_losses > 0 && engine_opts(got.e)->placement == without[first];
    kept += st.n_losses > 0 && engine_devices_left(got.e) > 0 && engine_opts(got.e)->placement == p;
    for (int k = 0; k < n; k++) { /* what stayed is accounted for: not above what was asked of it */
      const dev *d = k < got.e->n_devices ? got.e->device[k].d : NULL;
      if (d && !dev_is_host(d)) assert_true(dev_mem_used(d) <= device_size(&o, k));
    }
    serve_stats_free(&st);
    engine_close(got.e);
    plan_free(p);
    for (int k = 0; k < 3; k++) plan_free(without[k]);
  }
  if (!how_many) assert_true(planned >= 5 && kept >= 5 && all_gone >= 1);
  model_close(m);
}

/* A part of another micro-batch that takes long, behind which a guest waits in turn: no device is hung. What guests themselves take is known to be little. */
static void a_guest_that_waits_in_turn_is_not_lost(void **state) {
  (void)state;
  run got;
  serve_stats st = {0};
  open_named("qwen2_moe");
  plan *p = plan_of(2, NOT_AT_HOME);
  engine_options o = options(2, 2, 0);
  o.placement = p;
  o.fault = (dev_fault){.kind = DEV_FAULT_SLOW, .at = 1, .factor = 1200};
  o.fault_device = 1;
  fill(&got, false);
  const serve_options so = {
      .sample = {.top_p = 1}, .chunk_tokens = CHUNK, .users = 3, .user = &got, .on_step = on_step, .on_loss = on_loss};
  if (engine_open(m, &o, &got.e) != HF_OK) fail_msg("%s", hf_error_line());
  got.e->guest_watch.limit_ns = 200000000; /* a part of the slow device takes longer */
  if (serve_run(got.e, got.req, 2, &so, &st) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(got.losses, 0);
  engine_close(got.e);
  serve_stats_free(&st);
  plan_free(p);
  model_close(m);
}

static void lack_of_memory_is_an_error(void **state) {
  (void)state;
  open_named("qwen2_moe");
  plan *p = plan_of(2, ANYWHERE);
  int failed = 0;
  for (int n = 1;; n += 1 + n / 6) {
    engine_options o = options(2, 2, 0);
    engine *e = NULL;
    o.placement = p;
    hf_fail_alloc_at(n);
    const hf_status st = engine_open(m, &o, &e);
    hf_fail_alloc_at(0);
    if (st == HF_OK) {
      engine_close(e);
      break;
    }
    hf_clear_error();
    assert_null(e);
    failed++;
  }
  assert_true(failed > 8);
  plan_free(p);
  model_close(m);
}

static int64_t sum_of(const plan_budget *rows, int n, const char *where) {
  int64_t sum = 0;
  for (int i = 0; i < n; i++) sum += strcmp(rows[i].where, where) ? 0 : rows[i].bytes;
  return sum;
}

static void each_device_has_its_budget(void **state) {
  (void)state;
  plan_budget rows[PLAN_MAX_BUDGET];
  int n;
  bool fits;
  open_named("deepseek_v3");
  for (int anywhere = 0; anywhere < 2; anywhere++) {
    plan *p = plan_of(2, anywhere == 1 ? ANYWHERE : AT_HOME);
    engine_options o = options(2, 2, 0);
    engine *e = NULL;
    o.placement = p;
    assert_int_equal(engine_budget(m, &o, rows, PLAN_MAX_BUDGET, &n, &fits), HF_OK);
    assert_true(fits);
    const int64_t sum[2] = {sum_of(rows, n, "gpu0"), sum_of(rows, n, "gpu1")};
    o.device_bytes = sum[0];
    o.more_bytes[0] = sum[1];
    if (engine_open(m, &o, &e) != HF_OK) fail_msg("%s", hf_error_line());
    for (int k = 0; k < 2; k++) {
      const int64_t used = dev_mem_used(e->device[k].d);
      if (!(used <= sum[k] && used > sum[k] - sum[k] / 10))
        fail_msg("gpu%d uses %lld of %lld", k, (long long)used, (long long)sum[k]);
    }
    engine_close(e);
    o.more_bytes[0]--;
    assert_int_equal(engine_open(m, &o, &e), HF_NO);
    assert_non_null(strstr(hf_error_line(), "gpu1 needs"));
    hf_clear_error();
    plan_free(p);
  }
  model_close(m);
}

/* Memory has room for what one of three had, not for what two had: an error, after which the engine can be closed. So it is when memory is refused on the way. */
static void a_second_loss_without_room_is_an_error(void **state) {
  (void)state;
  plan_budget rows[PLAN_MAX_BUDGET];
  serve_stats st;
  run got;
  int n, failed = 0;
  bool fits;
  open_named("qwen2_moe");
  engine_options o = options(3, 1, 50);
  o.lost_devices = 1 << 2;
  assert_int_equal(engine_budget(m, &o, rows, PLAN_MAX_BUDGET, &n, &fits), HF_OK);
  const int64_t room = sum_of(rows, n, "ram");
  o.lost_devices = 0;
  for (int at = 0;; at += 1 + at / 8) {
    o.ram_limit_bytes = at == 0 ? room : 0;
    if (engine_open(m, &o, &got.e) != HF_OK) fail_msg("%s", hf_error_line());
    engine *e = got.e;
    hf_status s = HF_OK;
    for (int k = 2; k >= 0; k -= 2) { /* those that have layers */
      const serve_options so = {.sample = {.top_p = 1}, .chunk_tokens = CHUNK, .users = 3, .user = &got};
      fill(&got, false);
      dev_give_up(e->device[k].d, "rehearsed");
      if (k == 0) hf_fail_alloc_at(at);
      s = serve_run(e, got.req, REQUESTS, &so, &st);
      hf_fail_alloc_at(0);
      if (k == 2) assert_int_equal(s, HF_OK);
      if (at == 0 || s == HF_OK) assert_int_equal(st.n_losses, 1);
      serve_stats_free(&st);
    }
    engine_close(e);
    hf_clear_error();
    if (s == HF_OK) break;
    assert_int_equal(s, at == 0 ? HF_NO : HF_MACHINE);
    failed++;
  }
  assert_true(failed > 8);
  model_close(m);
}

static void plans_for_other_devices_are_refused(void **state) {
  (void)state;
  engine *e = NULL;
  open_named("qwen2_moe");
  plan *p = plan_of(3, ANYWHERE);
  engine_options o = options(2, 1, 0);
  o.placement = p;
  p->layer[1].home = 2;
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "there are 2 devices"));
  hf_clear_error();
  plan *home = plan_of(2, AT_HOME); /* for two: with one every layer would silently be at home there */
  for (int x = 0; x < home->n_experts; x++) home->layer[1].device[x] = -1;
  o = options(1, 1, 0);
  o.placement = home;
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "layers[1].home: gpu1, but there is one device"));
  hf_clear_error();
  plan_free(home);
  o = options(2, 1, 0);
  o.placement = p;
  p->layer[1].home = 1;
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT); /* an expert on the third */
  hf_clear_error();
  o = options(2, 1, 0);
  o.more_devices = ENGINE_DEVICES;
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT);
  hf_clear_error();
  plan_free(p);
  model_close(m);
}

int main(void) {
  if (kern_init(NULL) != HF_OK) return 1;
  const struct CMUnitTest tests[] = {cmocka_unit_test(layers_over_devices_give_the_same_bits),
                                     cmocka_unit_test(uploads_go_to_the_home_of_the_layer),
                                     cmocka_unit_test(layers_may_go_back_and_forth),
                                     cmocka_unit_test(experts_anywhere_give_the_same_answers),
                                     cmocka_unit_test(one_that_is_lost_costs_no_request),
                                     cmocka_unit_test(a_guest_that_is_lost_costs_no_request),
                                     cmocka_unit_test(the_others_stay),
                                     cmocka_unit_test(a_guest_that_waits_in_turn_is_not_lost),
                                     cmocka_unit_test(lack_of_memory_is_an_error),
                                     cmocka_unit_test(each_device_has_its_budget),
                                     cmocka_unit_test(a_second_loss_without_room_is_an_error),
                                     cmocka_unit_test(plans_for_other_devices_are_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
