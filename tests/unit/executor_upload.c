/* Experts of the CPU that prompts' steps have sent to the device: the same bits as without, at any depth and number of slots; only what tokens chose is
 * sent; others decode between the chunks; a device lost with a copy in flight costs no token; a paced link takes its time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "executor/engine_int.h"
#include "executor/serve.h"
#include "kernels/dev/cpu_ops.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 5, MAX_OUT = 12, CHUNK = 12, CONTEXT = 64 };
static const int prompt_len[REQUESTS] = {3, 40, 17, 30, 9};
static const int out_len[REQUESTS] = {12, 4, 5, 6, 3};

static model *m;

static engine_options options(int depth, double percent) {
  engine_options o = {.depth = depth,
                      .max_seqs = 3,
                      .context = CONTEXT,
                      .page_tokens = 8,
                      .n_pages = 3 * CONTEXT / 8,
                      .max_tok = CHUNK + 3,
                      .max_logits = CHUNK + 3,
                      .threads = 2,
                      .kv_type = KV_F16,
                      .device_bytes = 64 << 20,
                      .experts_on_gpu_percent = percent};
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  return o;
}

static engine_options uploading(int depth, double percent, int tokens, int slots) {
  engine_options o = options(depth, percent);
  o.upload_tokens = tokens;
  o.upload_slots = slots;
  return o;
}

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][CONTEXT], out[REQUESTS][MAX_OUT];
  uint64_t logits; /* of all prompt positions and tokens, in any order of requests */
  engine *e;
  int upload_steps, mixed_steps, other_steps; /* that uploaded, those of them in which somebody decoded, those that did not */
  int64_t needed_bytes, sent_bytes, unused_bytes, first_unused;
  int64_t longest_ns;
  int overlaps, uploads, late; /* of the trace */
  bool wrong;
} run;

static void on_logits(void *user, serve_request *q, int position, const float *logits) {
  run *r = user;
  r->logits += hash_logits(q - r->req, position, logits, model_get_config(m)->vocab_size);
}

/* Bytes of the host's experts that a step's tokens chose in layers that upload. */
static int64_t chosen_bytes(const engine *e, const dev_step *s) {
  const model_config *c = &e->c;
  int64_t sum = 0;
  for (int l = 0; l < c->n_layers; l++) {
    if (!e->layer[l].uploads) continue;
    for (int x = 0; x < c->n_experts; x++) {
      const moe_expert *h = &e->host_experts[l * c->n_experts + x];
      bool chosen = false;
      for (int i = 0; i < s->n_tok * c->top_k; i++) chosen = chosen || s->route_ids[l * s->max_tok * c->top_k + i] == x;
      if (chosen && h->gate.data) sum += (int64_t)dev_slot_bytes(h, c->d_model, c->d_ff_expert);
    }
  }
  return sum;
}

static void look_at_trace(run *r, const dev_step *s) {
  int64_t end_ns = 0;
  for (int i = 0; i < s->n_trace; i++) {
    const dev_trace *t = &s->trace[i];
    bool begun = false;
    for (int k = 0; k < i; k++) begun = begun || (s->trace[k].stage == t->stage && s->trace[k].layer == t->layer);
    r->wrong = r->wrong || t->end_ns < t->start_ns || t->more != begun;
    if (t->stage == DEV_STAGE_CEXP && r->e->layer[t->layer].uploads) r->wrong = true;
    if (t->stage != DEV_STAGE_UPLOAD) continue;
    r->uploads++;
    r->wrong = r->wrong || t->bytes <= 0 || t->distinct <= 0;
    for (int k = 0; k < s->n_trace; k++) /* this layer's upload began before the layer before it was computed */
      if (s->trace[k].stage == DEV_STAGE_DEXP && s->trace[k].layer < t->layer && s->trace[k].end_ns > t->start_ns) r->overlaps++;
    r->late += t->start_ns < end_ns; /* one link */
    end_ns = t->end_ns;
  }
}

static void on_step(void *user, const dev_step *s, const sched_step *what, int64_t index) {
  run *r = user;
  (void)index;
  const bool prefills = what->n_decode < what->n_tokens,
             want = prefills && r->e->o.upload_tokens > 0 && s->n_tok >= r->e->o.upload_tokens;
  r->wrong = r->wrong || s->upload != want;
  if (!s->upload) {
    r->other_steps++;
    r->wrong = r->wrong || s->sent_bytes != 0;
    return;
  }
  if (r->upload_steps++ == 0) r->first_unused = s->unused_bytes;
  r->mixed_steps += what->n_decode > 0;
  r->needed_bytes += chosen_bytes(r->e, s);
  r->sent_bytes += s->sent_bytes;
  r->unused_bytes += s->unused_bytes;
  if (s->finished_ns - s->launched_ns > r->longest_ns) r->longest_ns = s->finished_ns - s->launched_ns;
  look_at_trace(r, s);
}

static void serve(const engine_options *o, bool logits, run *r, serve_stats *st) {
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
  serve_options so = {.sample = {.top_p = 1}, .chunk_tokens = CHUNK, .users = 3, .user = r, .on_step = on_step};
  if (logits) so.on_logits = on_logits;
  if (engine_open(m, o, &r->e) != HF_OK) fail_msg("%s", hf_error_line());
  if (serve_run(r->e, r->req, REQUESTS, &so, st) != HF_OK) fail_msg("%s", hf_error_line());
  engine_close(r->e);
}

static void expect_same(const run *got, const run *want, const char *what) {
  for (int i = 0; i < REQUESTS; i++) {
    assert_int_equal(got->req[i].n_out, out_len[i]);
    if (memcmp(got->out[i], want->out[i], (size_t)out_len[i] * sizeof(int32_t)))
      fail_msg("%s: request %d: other tokens", what, i);
  }
  if (got->logits != want->logits) fail_msg("%s: other logits", what);
  if (got->wrong) fail_msg("%s: a step is not what it should be", what);
}

static void open_named(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "tests/golden/%s", name);
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
}

static void the_same_bits_as_on_the_cpu(void **state) {
  (void)state;
  static const char *const name[] = {"deepseek_v3", "gpt_oss_mxfp4", "kimi_k2_int4", "qwen2_moe"};
  static const double percent[] = {0, 50};
  for (size_t k = 0; k < sizeof name / sizeof *name; k++) {
    open_named(name[k]);
    for (int p = 0; p < 2; p++) {
      run want, got;
      serve_stats st;
      engine_options o = options(1, percent[p]);
      serve(&o, true, &want, &st);
      assert_true(want.upload_steps == 0 && want.other_steps > 0);
      serve_stats_free(&st);
      for (int depth = 1; depth <= 3; depth++) {
        char what[96];
        const int slots = depth == 1 ? 2 : depth == 2 ? 3 : 16;
        snprintf(what, sizeof what, "%s, %g %% on the device, depth %d, %d slots", name[k], percent[p], depth, slots);
        o = uploading(depth, percent[p], depth == 2 ? 1 : 8, slots);
        serve(&o, true, &got, &st);
        expect_same(&got, &want, what);
        if (!(got.upload_steps > 0 && got.uploads > 0 && got.late == 0))
          fail_msg("%s: %d steps, %d uploads, %d late", what, got.upload_steps, got.uploads, got.late);
        assert_true(depth == 2 || got.other_steps > 0);
        assert_int_equal(got.sent_bytes - got.unused_bytes, got.needed_bytes);
        serve_stats_free(&st);
      }
    }
    model_close(m);
  }
}

/* Nothing is known of a layer before its first routing; then what was chosen last is likely. */
static void only_chosen_experts_are_sent(void **state) {
  (void)state;
  run got;
  serve_stats st;
  open_named("deepseek_v3");
  for (int slots = 2; slots <= 16; slots *= 2) {
    engine_options o = uploading(1, 50, 8, slots);
    serve(&o, false, &got, &st);
    assert_true(got.needed_bytes > 0 && got.sent_bytes - got.unused_bytes == got.needed_bytes);
    assert_int_equal(got.first_unused, 0);
    assert_true(got.unused_bytes < got.needed_bytes && got.overlaps > 0);
    assert_false(got.wrong);
    serve_stats_free(&st);
  }
  model_close(m);
}

/* The plan's choice per layer is obeyed; what every expert of it is on the device or another layer's stays with the CPU. */
static void layers_do_as_the_plan_says(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  open_named("deepseek_v3");
  const model_config *c = model_get_config(m);
  plan p = {.n_layers = c->n_layers, .n_experts = c->n_experts};
  p.layer = calloc((size_t)c->n_layers, sizeof *p.layer);
  assert_non_null(p.layer);
  for (int l = 0; l < c->n_layers; l++) {
    p.layer[l].moe = c->layer_is_moe[l];
    p.layer[l].n_experts = c->layer_is_moe[l] ? c->n_experts : 0;
    p.layer[l].device = calloc((size_t)c->n_experts + 1, sizeof *p.layer[l].device);
    for (int x = 0; x < c->n_experts; x++) p.layer[l].device[x] = x % 3 == 0 ? 0 : -1;
    snprintf(p.layer[l].prefill, sizeof p.layer[l].prefill, "%s", l % 2 ? "upload" : "cpu");
  }
  engine_options o = options(1, 0);
  o.placement = &p;
  serve(&o, true, &want, &st);
  serve_stats_free(&st);
  for (int depth = 1; depth <= 3; depth++) {
    o = uploading(depth, 0, 8, 2);
    o.placement = &p;
    serve(&o, true, &got, &st);
    expect_same(&got, &want, "some layers");
    int layers = 0;
    for (int l = 0; l < c->n_layers; l++) {
      const struct serve_stage *up = &st.stage[(size_t)l * DEV_STAGE_N + DEV_STAGE_UPLOAD];
      const struct serve_stage *dexp = &st.stage[(size_t)l * DEV_STAGE_N + DEV_STAGE_DEXP];
      assert_true((up->steps > 0) == (c->layer_is_moe[l] && l % 2));
      if (up->steps == 0) continue;
      layers++;
      assert_true(up->steps <= got.upload_steps && up->ns > 0 && dexp->distinct >= up->distinct);
    }
    assert_true(layers > 0);
    serve_stats_free(&st);
  }
  for (int l = 0; l < c->n_layers; l++) free(p.layer[l].device);
  free(p.layer);
  model_close(m);
}

static void others_decode_between_chunks(void **state) {
  (void)state;
  run got;
  serve_stats st;
  open_named("deepseek_v3");
  engine_options o = uploading(1, 50, 8, 2);
  serve(&o, false, &got, &st);
  /* the first request decodes while the second's prompt of four chunks is read: a token of it in every step but the first */
  assert_true(got.mixed_steps >= 3);
  serve_stats_free(&st);
  model_close(m);
}

/* Allocations and uploads until an engine is open. */
static int64_t memory_calls(engine_options o) {
  engine *e = NULL;
  o.fault = (dev_fault){.kind = DEV_FAULT_MEMORY, .at = INT64_MAX / 2};
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  const int64_t n = atomic_load(&e->device[0].d->n_memory_calls);
  engine_close(e);
  return n;
}

static void a_loss_during_an_upload_costs_no_token(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  int uploads = 0;
  open_named("deepseek_v3");
  engine_options o = options(1, 50);
  serve(&o, false, &want, &st);
  serve_stats_free(&st);
  for (int i = 0; i < 60; i++) {
    char what[64];
    o = uploading(1 + i % 3, i % 2 ? 50 : 0, 1, 2 + i % 5);
    const bool copy = i % 5 == 4;
    const int64_t at = copy ? memory_calls(o) + 1 + i : 30 + 23 * i;
    o.fault = (dev_fault){.kind = copy ? DEV_FAULT_MEMORY : (dev_fault_kind)(DEV_FAULT_ERROR + i % 4), .at = at, .factor = 3};
    o.deadline_ns = copy ? 0 : 60000000;
    snprintf(what, sizeof what, "fault %d", i);
    serve(&o, false, &got, &st);
    got.wrong = false; /* the trace of a step that ends on another machine is not looked at */
    expect_same(&got, &want, what);
    if (copy) assert_true(st.n_losses == 1 && strstr(st.loss[0].why, "an upload failed"));
    if (st.n_losses > 0 && strstr(st.loss[0].why, "upload")) uploads++;
    if (o.fault.kind == DEV_FAULT_ERROR || o.fault.kind == DEV_FAULT_HANG) assert_int_equal(st.n_losses, 1);
    serve_stats_free(&st);
  }
  assert_true(uploads >= 12);
  model_close(m);
}

static void no_room_for_slots_is_told_before(void **state) {
  (void)state;
  plan_budget rows[16];
  int n, with = 0;
  bool fits;
  int64_t sum = 0;
  engine *e = NULL;
  open_named("deepseek_v3");
  engine_options o = uploading(2, 50, 8, 4);
  assert_int_equal(engine_budget(m, &o, rows, 16, &n, &fits), HF_OK);
  for (int i = 0; i < n; i++) {
    if (strcmp(rows[i].where, "gpu0")) continue;
    sum += rows[i].bytes;
    with += strstr(rows[i].what, "slots") != NULL;
  }
  assert_int_equal(with, 1);
  o.device_bytes = sum;
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  engine_close(e);
  o.device_bytes = sum - 1;
  assert_int_equal(engine_open(m, &o, &e), HF_NO);
  o = uploading(1, 50, 8, 1);
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT);
  o = uploading(1, 50, 8, DEV_MAX_SLOTS + 1);
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT);
  model_close(m);
}

/* Each expert takes its time on the link, one after the other, and the device waits for them. */
static void a_paced_link_takes_its_time(void **state) {
  (void)state;
  enum { UPLOAD_NS = 300000 };
  run got;
  serve_stats st;
  open_named("deepseek_v3");
  const model_config *c = model_get_config(m);
  stage_table *t = pace_of(c);
  assert_non_null(t);
  for (int l = 0; l < c->n_layers; l++) t->layer[l].upload_ns = UPLOAD_NS;
  engine_options o = uploading(1, 0, 8, 2);
  o.pace = t;
  serve(&o, false, &got, &st);
  assert_false(got.wrong);
  int64_t ns = 0, sent = 0;
  for (int l = 0; l < c->n_layers; l++) {
    const struct serve_stage *up = &st.stage[(size_t)l * DEV_STAGE_N + DEV_STAGE_UPLOAD];
    ns += (int64_t)up->ns;
    sent += up->distinct;
  }
  assert_true(sent > 0 && ns >= sent * UPLOAD_NS);
  assert_true(got.longest_ns >= sent / got.upload_steps * UPLOAD_NS); /* the longest has the mean at least */
  serve_stats_free(&st);
  stage_table_free(t);
  model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_same_bits_as_on_the_cpu),
      cmocka_unit_test(only_chosen_experts_are_sent),
      cmocka_unit_test(layers_do_as_the_plan_says),
      cmocka_unit_test(others_decode_between_chunks),
      cmocka_unit_test(a_loss_during_an_upload_costs_no_token),
      cmocka_unit_test(no_room_for_slots_is_told_before),
      cmocka_unit_test(a_paced_link_takes_its_time),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
