/* A device that is lost while requests run: none is lost, none gets a wrong token, KV pages are accounted for; and one that fails while it is
 * filled is done without. $HF_FAULTS and $HF_FAULT_SEED: how many faults, from which seed (make soak). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "executor/engine_int.h"
#include "executor/serve.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 6, MAX_OUT = 12, CONTEXT = 48, PAGE = 8, FAULTS = 50 };
static const int prompt_len[REQUESTS] = {3, 20, 17, 30, 9, 20};
static const int out_len[REQUESTS] = {12, 8, 1, 10, 6, 12};

#define FAR_NS INT64_C(20000000000)

static model *m;

static engine_options options(int depth, int users, double percent) {
  engine_options o = {.depth = depth,
                      .max_seqs = users,
                      .context = CONTEXT,
                      .page_tokens = PAGE,
                      .n_pages = users * CONTEXT / PAGE,
                      .max_tok = 8 + users,
                      .max_logits = users,
                      .threads = 2,
                      .kv_type = KV_F16,
                      .device_bytes = 64 << 20,
                      .experts_on_gpu_percent = percent,
                      .deadline_ns = 60000000};
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  return o;
}

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][32], out[REQUESTS][MAX_OUT];
  float margin[REQUESTS][MAX_OUT]; /* of the best token over the second */
  int told[REQUESTS], finished[REQUESTS], losses, retracted;
  bool twice;
} run;

static void on_logits(void *user, serve_request *q, int position, const float *logits) {
  run *r = user;
  const int i = (int)(q - r->req), vocab = model_get_config(m)->vocab_size;
  (void)position;
  if (q->n_out < MAX_OUT) r->margin[i][q->n_out] = margin_of(logits, vocab);
}

static void on_token(void *user, serve_request *q, int32_t id) {
  run *r = user;
  const int i = (int)(q - r->req);
  r->twice = r->twice || q->n_out != ++r->told[i] || q->out[q->n_out - 1] != id;
}

static void on_finish(void *user, serve_request *q) {
  run *r = user;
  const int i = (int)(q - r->req);
  r->twice = r->twice || ++r->finished[i] > 1 || q->n_out != r->told[i];
}

static void on_retract(void *user, serve_request *q, int n) {
  run *r = user;
  const int i = (int)(q - r->req);
  r->retracted += n;
  r->told[i] -= n;
  r->twice = r->twice || q->n_out != r->told[i] || q->finish[0] || r->finished[i] || n <= 0;
}

static void on_loss(void *user, const serve_loss *l) {
  run *r = user;
  r->losses++;
  assert_true(l->why[0] && l->requests >= 0 && l->recovery_ns > 0 && l->tokens >= 0);
}

static void fill(run *r) {
  const int vocab = model_get_config(m)->vocab_size;
  memset(r, 0, sizeof *r);
  for (int i = 0; i < REQUESTS; i++) {
    fill_ids(r->ids[i], prompt_len[i], i == 5 ? 1 : i, vocab); /* two begin alike */
    r->req[i] = (serve_request){.ids = r->ids[i],
                                .n_ids = prompt_len[i],
                                .max_tokens = out_len[i],
                                .ignore_eos = true,
                                .draw = (uint64_t)i,
                                .out = r->out[i],
                                .arrival_s = i > 3 ? 0.002 : 0};
    snprintf(r->req[i].ext_id, sizeof r->req[i].ext_id, "%d", i);
  }
}

static void serve_unsent(const engine_options *o, double temperature, bool share, bool unsent, run *r, serve_stats *st) {
  engine *e = NULL;
  prefix *known = NULL;
  fill(r);
  serve_options so = {.sample = {.top_p = 1, .temperature = temperature, .seed = 7},
                      .chunk_tokens = 8,
                      .users = o->max_seqs,
                      .user = r,
                      .on_token = on_token,
                      .on_logits = on_logits,
                      .on_finish = on_finish,
                      .on_retract = unsent ? on_retract : NULL,
                      .on_loss = on_loss};
  if (engine_open(m, o, &e) != HF_OK) fail_msg("%s", hf_error_line());
  if (share) assert_int_equal(prefix_new(PAGE, o->n_pages, &known), HF_OK);
  so.known = known;
  if (serve_run(e, r->req, REQUESTS, &so, st) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(st->pages_lost, 0);
  assert_int_equal(dev_is_host(e->device[0].d), st->n_losses > 0);
  prefix_free(known);
  for (int i = 0; i < REQUESTS; i++) assert_int_equal(r->finished[i], 1);
  engine_close(e);
}

static void serve_all(const engine_options *o, double temperature, bool share, run *r, serve_stats *st) {
  serve_unsent(o, temperature, share, false, r, st);
}

/* Equal tokens up to a near tie of the greedy choice. */
static void expect_same(const run *got, const run *want, bool greedy, const char *what) {
  for (int i = 0; i < REQUESTS; i++) {
    int k = 0;
    assert_string_equal(got->req[i].finish, "length");
    assert_int_equal(got->req[i].n_out, out_len[i]);
    while (k < out_len[i] && got->out[i][k] == want->out[i][k]) k++;
    if (k < out_len[i] && !(greedy && want->margin[i][k] < NEAR_TIE))
      fail_msg("%s: request %d: token %d is %d for %d, which leads by %g", what, i, k, got->out[i][k], want->out[i][k],
               (double)want->margin[i][k]);
  }
  assert_false(got->twice);
}

static void nothing_is_lost_with_the_device(void **state) {
  (void)state;
  static const double percent[] = {0, 50, 100};
  const char *how_many = getenv("HF_FAULTS"), *from = getenv("HF_FAULT_SEED");
  const int faults = how_many ? atoi(how_many) : FAULTS;
  uint32_t seed = from ? (uint32_t)atoi(from) : 1;
  run want[4], got; /* greedy and sampled, absorbed and plain */
  serve_stats st;
  int losses = 0;
  int64_t longest_ns = 0, tokens = 0;
  for (int k = 0; k < 4; k++) {
    engine_options o = options(1, 3, 50);
    if (k / 2) o.mla = ENGINE_MLA_PLAIN;
    serve_all(&o, k % 2 ? 0.8 : 0, false, &want[k], &st);
    assert_int_equal(st.n_losses, 0);
    serve_stats_free(&st);
  }
  for (int i = 0; i < faults; i++) {
    engine_options o = options(1 + (int)(next(&seed) % 3), 2 + (int)(next(&seed) % 4), percent[next(&seed) % 3]);
    const bool warm = next(&seed) % 4 == 0, plain = next(&seed) % 2, share = !plain && next(&seed) % 2;
    if (plain) o.mla = ENGINE_MLA_PLAIN;
    char what[96];
    o.fault = (dev_fault){.kind = (dev_fault_kind)(DEV_FAULT_ERROR + i % 5), .at = 1 + next(&seed) % 1500, .factor = 3};
    const bool wrong = o.fault.kind == DEV_FAULT_WRONG;
    if (wrong) o.fault.at += 100, o.check_every_ns = 1; /* not before it was found good */
    snprintf(what, sizeof what, "fault %d of kind %d at %lld, depth %d, %d users", i, (int)o.fault.kind, (long long)o.fault.at,
             o.depth, o.max_seqs);
    serve_unsent(&o, warm ? 0.8 : 0, share, wrong, &got, &st);
    expect_same(&got, &want[warm + 2 * plain], !warm, what);
    assert_int_equal(got.losses, st.n_losses);
    if (o.fault.kind == DEV_FAULT_ERROR || o.fault.kind == DEV_FAULT_HANG) assert_int_equal(st.n_losses, 1);
    if (st.n_losses > 0 && st.loss[0].recovery_ns > longest_ns) longest_ns = st.loss[0].recovery_ns;
    losses += st.n_losses;
    tokens += st.output_tokens;
    serve_stats_free(&st);
  }
  printf("%d faults, %d devices lost, %lld tokens, none wrong, no request lost; longest recovery %.0f ms\n", faults, losses,
         (long long)tokens, (double)longest_ns * 1e-6);
  assert_true(losses >= faults / 2);
}

static bool same_tokens(const run *got, const run *want, int i) {
  return !memcmp(got->out[i], want->out[i], (size_t)out_len[i] * sizeof(int32_t));
}

/* Unsent tokens are written again, sent ones are marked; without a check nobody would know. */
static void a_device_that_computes_wrongly_is_found(void **state) {
  (void)state;
  uint32_t seed = 5;
  run want, got;
  serve_stats st;
  int blind = 0, retracted = 0, suspect = 0;
  engine_options o = options(1, 3, 50);
  serve_all(&o, 0, false, &want, &st);
  serve_stats_free(&st);
  for (int i = 0; i < 24; i++) {
    o = options(1 + i % 3, 2 + i % 4, i % 2 ? 50 : 100);
    o.deadline_ns = FAR_NS; /* a busy machine is no silent device here */
    o.fault = (dev_fault){.kind = DEV_FAULT_WRONG, .at = 120 + next(&seed) % 900};
    o.check_every_ns = i % 4 < 2 ? 1 : 1000000000; /* as often as it may, or at the end only */
    if (i % 5 == 4) o.check_every_ns = 0;
    const bool unsent = (i / 3) % 2 == 0;
    serve_unsent(&o, 0, i % 2, unsent, &got, &st);
    assert_int_equal(st.n_losses, o.check_every_ns > 0);
    assert_int_equal(got.losses, st.n_losses);
    int marked = 0;
    for (int k = 0; k < REQUESTS; k++) {
      const bool same = same_tokens(&got, &want, k);
      marked += got.req[k].suspect;
      if (o.check_every_ns == 0) blind += !same;
      else if (!same && !got.req[k].suspect) fail_msg("run %d: request %d has wrong tokens and says nothing", i, k);
    }
    if (unsent && o.check_every_ns > 0) expect_same(&got, &want, true, "unsent tokens");
    if (st.n_losses > 0) assert_int_equal(st.loss[0].suspect, marked);
    if (st.n_losses > 0) assert_int_equal(st.loss[0].retracted, got.retracted);
    assert_true(!unsent || marked == 0);
    retracted += got.retracted;
    suspect += marked;
    serve_stats_free(&st);
  }
  assert_true(blind > 0 && retracted > 0 && suspect > 0); /* else this would show nothing */
}

static void a_good_device_stays(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  engine_options o = options(2, 3, 50);
  serve_all(&o, 0, false, &want, &st);
  serve_stats_free(&st);
  for (int i = 0; i < 4; i++) {
    o.depth = 1 + i;
    o.deadline_ns = FAR_NS;
    o.check_every_ns = i < 2 ? 1 : 1000000;
    o.page_tokens = i % 2 ? 1 : PAGE; /* the check's tokens on two pages, or one */
    o.n_pages = 3 * CONTEXT / o.page_tokens;
    engine *e = NULL;
    fill(&got);
    serve_options so = {.sample = {.top_p = 1},
                        .chunk_tokens = 8,
                        .users = 3,
                        .user = &got,
                        .on_token = on_token,
                        .on_finish = on_finish,
                        .on_retract = on_retract};
    assert_int_equal(engine_open(m, &o, &e), HF_OK);
    assert_int_equal(serve_run(e, got.req, REQUESTS, &so, &st), HF_OK);
    assert_int_equal(st.n_losses, 0);
    expect_same(&got, &want, true, "checked");
    serve_stats_free(&st);
    engine_close(e);
  }
}

static void a_device_without_memory_is_done_without(void **state) {
  (void)state;
  engine_options o = options(2, 3, 50);
  run want, got;
  serve_stats st;
  engine *e = NULL;
  serve_all(&o, 0, false, &want, &st);
  serve_stats_free(&st);
  int n = 0;
  for (int at = 1;; at = at * 3 / 2 + 1) {
    o.fault = (dev_fault){.kind = DEV_FAULT_MEMORY, .at = at};
    assert_int_equal(engine_open(m, &o, &e), HF_OK);
    const bool without = dev_is_host(e->device[0].d);
    assert_string_equal(engine_opts(e)->gpu, without ? "none" : o.gpu);
    engine_close(e);
    if (!without) break; /* more calls than there are */
    n++;
  }
  assert_true(n >= 8);
  o.fault.at = 5;
  fill(&got);
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  serve_options so = {.sample = {.top_p = 1}, .chunk_tokens = 8, .users = 3, .user = &got, .on_token = on_token};
  assert_int_equal(serve_run(e, got.req, REQUESTS, &so, &st), HF_OK);
  expect_same(&got, &want, true, "no device memory");
  serve_stats_free(&st);
  engine_close(e);
}

/* The CPU cannot take what the device held: an error that says so, and nothing more is asked of the engine. */
static void without_room_for_it_the_loss_is_an_error(void **state) {
  (void)state;
  engine_options o = options(1, 3, 100);
  plan_budget rows[16];
  run r;
  serve_stats st;
  engine *e = NULL;
  int n;
  bool fits;
  assert_int_equal(engine_budget(m, &o, rows, 16, &n, &fits), HF_OK);
  for (int i = 0; i < n; i++)
    if (!strcmp(rows[i].where, "ram")) o.ram_limit_bytes += rows[i].bytes;
  o.fault = (dev_fault){.kind = DEV_FAULT_ERROR, .at = 200};
  fill(&r);
  serve_options so = {.sample = {.top_p = 1}, .chunk_tokens = 8, .users = 3, .user = &r, .on_token = on_token};
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  assert_int_equal(serve_run(e, r.req, REQUESTS, &so, &st), HF_NO);
  assert_non_null(strstr(hf_error_line(), "does not fit"));
  assert_int_equal(st.n_losses, 1);
  serve_stats_free(&st);
  engine_close(e);
  o.fault = (dev_fault){.kind = DEV_FAULT_MEMORY, .at = 3};
  e = NULL;
  assert_int_equal(engine_open(m, &o, &e), HF_LOST);
  assert_null(e);
}

/* Memory that runs out while the work moves is an error, and leaves nothing behind. */
static void the_move_survives_lack_of_memory(void **state) {
  (void)state;
  int failed = 0;
  for (int n = 1;; n += 1 + n / 6) {
    engine_options o = options(2, 3, 50);
    run r;
    serve_stats st;
    engine *e = NULL;
    o.fault = (dev_fault){.kind = DEV_FAULT_ERROR, .at = 300};
    fill(&r);
    serve_options so = {.sample = {.top_p = 1}, .chunk_tokens = 8, .users = 3, .user = &r, .on_token = on_token};
    assert_int_equal(engine_open(m, &o, &e), HF_OK);
    hf_fail_alloc_at(n);
    hf_status s = serve_run(e, r.req, REQUESTS, &so, &st);
    hf_fail_alloc_at(0);
    serve_stats_free(&st);
    engine_close(e);
    if (s == HF_OK) break;
    assert_int_equal(s, HF_MACHINE);
    failed++;
  }
  assert_true(failed >= 12);
}

static int open_model(void **state) {
  (void)state;
  return model_open("tests/golden/deepseek_v3", &m) != HF_OK;
}

static int close_model(void **state) {
  (void)state;
  model_close(m);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_lost_with_the_device),
      cmocka_unit_test(a_device_that_computes_wrongly_is_found),
      cmocka_unit_test(a_good_device_stays),
      cmocka_unit_test(a_device_without_memory_is_done_without),
      cmocka_unit_test(without_room_for_it_the_loss_is_an_error),
      cmocka_unit_test(the_move_survives_lack_of_memory),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, open_model, close_model);
}
