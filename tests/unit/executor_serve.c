/* Serving: every request gets its tokens, the same ones, at every depth, page size, chunk length and placement; pages come back; a stop ends it
 * cleanly; what the engine was not opened for is refused; the budget is what is used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/engine_int.h"
#include "executor/serve.h"

enum { REQUESTS = 7, MAX_OUT = 6 };
static const int prompt_len[REQUESTS] = {1, 9, 17, 4, 33, 2, 12};
static const int out_len[REQUESTS] = {6, 1, 5, 6, 3, 2, 4};

static model *m;

static engine_options options(int depth, int users, int chunk, int page_tokens) {
  engine_options o = {.depth = depth,
                      .max_seqs = users,
                      .context = 48,
                      .page_tokens = page_tokens,
                      .max_tok = chunk + users,
                      .max_logits = users,
                      .threads = 2,
                      .kv_type = KV_F16};
  o.n_pages = users * ((o.context + page_tokens - 1) / page_tokens);
  snprintf(o.gpu, sizeof o.gpu, "none");
  return o;
}

static engine_options on_device(engine_options o, double percent) {
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  o.device_bytes = 64 << 20;
  o.experts_on_gpu_percent = percent;
  return o;
}

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][40], out[REQUESTS][MAX_OUT];
  int tokens, finished, steps;
  volatile sig_atomic_t stop;
  int stop_after; /* tokens; 0 = never */
  engine *e;
  int wrong;
} run;

static void fill(run *r) {
  int vocab = model_get_config(m)->vocab_size;
  memset(r, 0, sizeof *r);
  for (int i = 0; i < REQUESTS; i++) {
    for (int k = 0; k < prompt_len[i]; k++) r->ids[i][k] = (i * 31 + k * 17 + 5) % vocab;
    r->req[i] =
        (serve_request){.ids = r->ids[i], .n_ids = prompt_len[i], .max_tokens = out_len[i], .ignore_eos = true, .out = r->out[i]};
    snprintf(r->req[i].ext_id, sizeof r->req[i].ext_id, "%d", i);
  }
}

static void on_token(void *user, serve_request *q, int32_t id) {
  run *r = user;
  r->tokens++;
  r->wrong += q->out[q->n_out - 1] != id;
  if (r->stop_after && r->tokens >= r->stop_after) r->stop = 1;
}

static void on_finish(void *user, serve_request *q) {
  run *r = user;
  r->finished++;
  r->wrong += !q->finish[0];
}

static void on_step(void *user, const dev_step *s, const sched_step *what, int64_t index) {
  run *r = user;
  r->wrong += index != r->steps++ || s->n_tok != what->n_tokens || s->n_tok > s->max_tok;
}

static serve_options serving(run *r, int users, int chunk) {
  return (serve_options){.sample = {.top_p = 1},
                         .chunk_tokens = chunk,
                         .users = users,
                         .user = r,
                         .on_token = on_token,
                         .on_finish = on_finish,
                         .on_step = on_step,
                         .stop = &r->stop};
}

static void serve_all(const engine_options *o, int users, int chunk, run *r, serve_stats *st) {
  serve_options so = serving(r, users, chunk);
  if (engine_open(m, o, &r->e) != HF_OK) fail_msg("%s", hf_error_line());
  if (serve_run(r->e, r->req, REQUESTS, &so, st) != HF_OK) fail_msg("%s", hf_error_line());
  engine_close(r->e);
}

static void check_complete(const run *r, const serve_stats *st) {
  int prompts = 0, outputs = 0;
  for (int i = 0; i < REQUESTS; i++) {
    const serve_request *q = &r->req[i];
    prompts += prompt_len[i];
    outputs += out_len[i];
    assert_int_equal(q->n_out, out_len[i]);
    assert_string_equal(q->finish, "length");
    assert_true(q->first_token_s > 0 && q->end_s >= q->first_token_s && q->end_s <= st->wall_s);
  }
  assert_int_equal(r->wrong, 0);
  assert_int_equal(r->finished, REQUESTS);
  assert_int_equal(r->tokens, outputs);
  assert_int_equal(r->steps, st->steps);
  assert_int_equal(st->prompt_tokens, prompts);
  assert_int_equal(st->output_tokens, outputs);
}

/* Each token passes each MoE layer once and chooses top_k experts: prompt tokens, and output tokens but the last of each request. */
static void check_counts(const serve_stats *st, const model_config *c) {
  int64_t want[2] = {0, 0};
  for (int i = 0; i < REQUESTS; i++) {
    want[0] += prompt_len[i];
    want[1] += out_len[i] - 1;
  }
  for (int ph = 0; ph < 2; ph++) {
    for (int l = 0; l < c->n_layers; l++) {
      int64_t sum = 0, steps = 0;
      for (int e = 0; e < c->n_experts; e++)
        sum += st->routing[((size_t)ph * (size_t)c->n_layers + (size_t)l) * (size_t)c->n_experts + (size_t)e];
      for (int t = 0; t <= st->max_tok; t++) {
        size_t at = ((size_t)ph * (size_t)c->n_layers + (size_t)l) * ((size_t)st->max_tok + 1) + (size_t)t;
        steps += st->distinct_steps[at];
        assert_true(st->distinct_sum[at] <= st->distinct_steps[at] * c->n_experts);
        assert_true(st->distinct_sum[at] >= st->distinct_steps[at] * c->top_k || t == 0);
      }
      assert_int_equal(sum, c->layer_is_moe[l] ? want[ph] * c->top_k : 0);
      if (c->layer_is_moe[l]) assert_int_equal(steps, ph ? st->decode_steps : st->steps - st->decode_steps);
    }
  }
}

static void every_request_gets_the_same_tokens_in_every_way(void **state) {
  (void)state;
  static const int users_of[] = {3, 7}, chunk_of[] = {1, 5, 64}, page_of[] = {1, 8, 64};
  run want, *got = malloc(sizeof *got);
  serve_stats st;
  int n = 0;
  assert_non_null(got);
  fill(&want);
  engine_options o = options(1, 1, 64, 64);
  serve_all(&o, 1, 64, &want, &st);
  check_complete(&want, &st);
  check_counts(&st, model_get_config(m));
  serve_stats_free(&st);
  for (int depth = 1; depth <= 4; depth++)
    for (int u = 0; u < 2; u++)
      for (int c = 0; c < 3; c++)
        for (int p = 0; p < 3; p++, n++) {
          o = options(depth, users_of[u], chunk_of[c], page_of[p]);
          if (n % 3) o = on_device(o, n % 3 == 1 ? 50 : 100);
          fill(got);
          serve_all(&o, users_of[u], chunk_of[c], got, &st);
          check_complete(got, &st);
          check_counts(&st, model_get_config(m));
          for (int i = 0; i < REQUESTS; i++) {
            if (memcmp(got->out[i], want.out[i], (size_t)out_len[i] * sizeof(int32_t)))
              fail_msg("request %d: other tokens at depth %d, %d users, chunks of %d, pages of %d, device %s", i, depth,
                       users_of[u], chunk_of[c], page_of[p], o.gpu);
          }
          serve_stats_free(&st);
        }
  free(got);
}

/* Fewer pages than all sequences together want: requests wait for pages, and get them. */
static void pages_come_back(void **state) {
  (void)state;
  run r;
  serve_stats st;
  for (int depth = 1; depth <= 3; depth++) {
    engine_options o = on_device(options(depth, 5, 8, 4), 25);
    o.n_pages = 12; /* one request of 48 tokens, or several short ones */
    fill(&r);
    serve_all(&o, 5, 8, &r, &st);
    check_complete(&r, &st);
    serve_stats_free(&st);
  }
}

static void one_engine_serves_again_and_again(void **state) {
  (void)state;
  run r;
  serve_stats st;
  int32_t first[REQUESTS][MAX_OUT];
  engine_options o = on_device(options(2, 4, 8, 8), 50);
  engine *e = NULL;
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  fill(&r);
  serve_options so = serving(&r, 4, 8);
  for (int i = 0; i < 3; i++) {
    r.tokens = r.finished = r.steps = 0;
    assert_int_equal(serve_run(e, r.req, REQUESTS, &so, &st), HF_OK);
    check_complete(&r, &st);
    if (i == 0) memcpy(first, r.out, sizeof first);
    else assert_memory_equal(first, r.out, sizeof first);
    serve_stats_free(&st);
  }
  engine_close(e);
}

static void a_stop_ends_everything_cleanly(void **state) {
  (void)state;
  for (int after = 1; after <= 20; after += 3) {
    for (int depth = 1; depth <= 3; depth++) {
      run r;
      serve_stats st;
      engine_options o = on_device(options(depth, 3, 4, 8), 50);
      fill(&r);
      r.stop_after = after;
      r.req[6].arrival_s = 1e6; /* never comes */
      serve_all(&o, 3, 4, &r, &st);
      int tokens = 0;
      for (int i = 0; i < REQUESTS; i++) {
        const serve_request *q = &r.req[i];
        tokens += q->n_out;
        assert_true(!strcmp(q->finish, "cancelled") || (!strcmp(q->finish, "length") && q->n_out == out_len[i]));
        assert_true(q->end_s >= q->first_token_s && q->end_s >= q->arrival_s);
      }
      assert_string_equal(r.req[6].finish, "cancelled");
      assert_int_equal(r.finished, REQUESTS); /* each told once */
      assert_int_equal(tokens, r.tokens);
      assert_true(tokens >= after && tokens <= after + 3 * SCHED_MAX_DEPTH);
      serve_stats_free(&st);
    }
  }
}

static void a_stop_before_the_start_runs_nothing(void **state) {
  (void)state;
  run r;
  serve_stats st;
  engine_options o = options(1, 2, 4, 8);
  fill(&r);
  r.stop = 1;
  serve_all(&o, 2, 4, &r, &st);
  assert_int_equal(st.steps, 0);
  assert_int_equal(r.finished, REQUESTS);
  serve_stats_free(&st);
}

static void arrivals_are_kept_in_order(void **state) {
  (void)state;
  run r;
  serve_stats st;
  engine_options o = options(1, 1, 64, 8);
  fill(&r);
  for (int i = 0; i < REQUESTS; i++)
    r.req[i].arrival_s = (REQUESTS - 1 - i) / 2 * 0.002; /* from the last to the first, two at a time */
  serve_all(&o, 1, 64, &r, &st);
  check_complete(&r, &st);
  for (int i = 0; i < REQUESTS; i++) assert_true(r.req[i].first_token_s >= r.req[i].arrival_s);
  assert_true(r.req[5].end_s <= r.req[6].first_token_s); /* same moment: the order of the list */
  assert_true(r.req[6].end_s <= r.req[0].first_token_s);
  serve_stats_free(&st);
}

static void what_the_engine_was_not_opened_for_is_refused(void **state) {
  (void)state;
  run r;
  serve_stats st;
  engine_options o = options(1, 2, 8, 8);
  engine *e = NULL;
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  fill(&r);
  serve_options good = serving(&r, 2, 8), so;
  so = good, so.users = 3;
  assert_int_equal(serve_run(e, r.req, REQUESTS, &so, &st), HF_INPUT);
  serve_stats_free(&st);
  so = good, so.chunk_tokens = 9;
  assert_int_equal(serve_run(e, r.req, REQUESTS, &so, &st), HF_INPUT);
  serve_stats_free(&st);
  so = good, so.users = 0;
  assert_int_equal(serve_run(e, r.req, REQUESTS, &so, &st), HF_INPUT);
  serve_stats_free(&st);
  so = good, so.chunk_tokens = 0;
  assert_int_equal(serve_run(e, r.req, REQUESTS, &so, &st), HF_INPUT);
  serve_stats_free(&st);
  r.req[3].all_logits = true; /* rows of logits for every prompt token */
  assert_int_equal(serve_run(e, r.req, REQUESTS, &good, &st), HF_INPUT);
  serve_stats_free(&st);
  r.req[3].all_logits = false;
  r.req[5].max_tokens = 47;
  assert_int_equal(serve_run(e, r.req, REQUESTS, &good, &st), HF_NO);
  assert_non_null(strstr(hf_error_line(), "request 5"));
  serve_stats_free(&st);
  engine_close(e);
}

/* Prompts of 30 tokens that begin alike by 0, 8, 17 or 29 tokens. */
static void fill_alike(run *r) {
  int vocab = model_get_config(m)->vocab_size;
  fill(r);
  for (int i = 0; i < REQUESTS; i++) {
    static const int alike[REQUESTS] = {0, 29, 17, 8, 29, 17, 0};
    for (int k = 0; k < 30; k++) r->ids[i][k] = ((k < alike[i] ? 0 : i * 31) + k * 17 + 5) % vocab;
    r->req[i].n_ids = 30;
  }
}

/* Tokens are those of prompts that were computed whole; what is alike is computed once; no page is lost; a second serving computes the last
 * tokens only, and pages that are kept make room where they are wanted. */
static void beginnings_are_shared(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  engine_options o = options(1, 3, 16, 4);
  fill_alike(&want);
  serve_all(&o, 3, 16, &want, &st);
  assert_int_equal(st.prompt_tokens, 30 * REQUESTS);
  assert_int_equal(st.pages_lost, 0);
  serve_stats_free(&st);
  for (int n = 0; n < 12; n++) {
    const int users = n % 3 == 0 ? 1 : n % 3 == 1 ? 3 : 7;
    prefix *known = NULL;
    o = options(1 + n % 4, users, n % 2 ? 5 : 16, 4);
    if (n % 2) o = on_device(o, 50);
    o.n_pages = n < 6 ? 7 * 12 : 12; /* room for all, or for one at its longest */
    fill_alike(&got);
    serve_options so = serving(&got, users, n % 2 ? 5 : 16);
    assert_int_equal(prefix_new(4, o.n_pages, &known), HF_OK);
    so.known = known;
    assert_int_equal(engine_open(m, &o, &got.e), HF_OK);
    for (int again = 0; again < 2; again++) {
      if (serve_run(got.e, got.req, REQUESTS, &so, &st) != HF_OK) fail_msg("%s", hf_error_line());
      assert_int_equal(st.prompt_tokens + st.shared_tokens, 30 * REQUESTS);
      assert_int_equal(st.pages_lost, 0);
      /* of 30, 28 in whole pages: 28 + 28, 16 + 16, 8 or none, whoever comes first */
      if (n < 6 && !again) assert_int_equal(st.shared_tokens, 28 + 16 + 8 + 28 + 16);
      if (n < 6 && again) assert_int_equal(st.shared_tokens, 28 * REQUESTS);
      for (int i = 0; i < REQUESTS; i++) assert_memory_equal(got.out[i], want.out[i], (size_t)out_len[i] * sizeof(int32_t));
      serve_stats_free(&st);
    }
    engine_close(got.e);
    prefix_free(known);
  }
}

/* Requests that nobody waits for: one waits, one is in its prompt, two have begun to answer. */
static bool nobody_waits(void *user, const serve_request *q) {
  const run *r = user;
  const int i = (int)(q - r->req);
  return (i == 6 && r->tokens >= 1) || (i == 4 && r->tokens >= 2) || (i == 0 && q->n_out >= 3) || (i == 2 && q->n_out >= 1);
}

static void no_page_is_held_by_nobody(void *user, const sched *s) {
  run *r = user;
  int held = 0;
  for (int32_t p = 0; p < engine_opts(r->e)->n_pages; p++) held += sched_holders(s, p) > 0;
  /* at depth 1 no step is in flight now: whoever is gone has left */
  r->wrong += engine_opts(r->e)->depth == 1 && sched_running(s) + sched_waiting(s) != REQUESTS - r->finished;
  r->wrong += !sched_check(s) || held + sched_pages_free(s) != engine_opts(r->e)->n_pages;
}

/* They end once, keep what they have, cost the others nothing, and hold no page. */
static void whoever_is_gone_leaves(void **state) {
  (void)state;
  run want, r;
  serve_stats st;
  engine_options o = options(1, 3, 4, 4);
  fill_alike(&want);
  serve_all(&o, 3, 4, &want, &st);
  serve_stats_free(&st);
  for (int n = 0; n < 6; n++) {
    prefix *known = NULL;
    o = options(1 + n % 3, 3, 4, 4);
    if (n >= 3) o = on_device(o, 50);
    fill_alike(&r);
    serve_options so = serving(&r, 3, 4);
    so.gone = nobody_waits;
    so.on_sched = no_page_is_held_by_nobody;
    assert_int_equal(prefix_new(4, o.n_pages, &known), HF_OK);
    if (n % 2) so.known = known;
    assert_int_equal(engine_open(m, &o, &r.e), HF_OK);
    if (serve_run(r.e, r.req, REQUESTS, &so, &st) != HF_OK) fail_msg("%s", hf_error_line());
    assert_int_equal(st.pages_lost, 0);
    assert_int_equal(r.wrong, 0);
    assert_int_equal(r.finished, REQUESTS);
    assert_string_equal(r.req[0].finish, "cancelled");
    assert_int_equal(r.req[0].n_out, 3);
    assert_string_equal(r.req[6].finish, "cancelled");
    for (int i = 0; i < REQUESTS; i++) {
      const serve_request *q = &r.req[i];
      if (strcmp(q->finish, "cancelled")) assert_int_equal(q->n_out, out_len[i]);
      assert_memory_equal(r.out[i], want.out[i], (size_t)q->n_out * sizeof(int32_t));
    }
    serve_stats_free(&st);
    engine_close(r.e);
    prefix_free(known);
  }
}

/* The answer, too, is a beginning: of the next turn of a conversation. */
static void a_conversation_goes_on_where_it_was(void **state) {
  (void)state;
  engine_options o = options(1, 1, 16, 4);
  engine *e = NULL;
  prefix *known = NULL;
  serve_stats st;
  run r;
  fill(&r);
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  assert_int_equal(prefix_new(4, o.n_pages, &known), HF_OK);
  serve_options so = serving(&r, 1, 16);
  so.known = known;
  r.req[0].n_ids = 9, r.req[0].max_tokens = 6;
  for (int k = 0; k < 9; k++) r.ids[0][k] = k + 3;
  assert_int_equal(serve_run(e, r.req, 1, &so, &st), HF_OK);
  assert_int_equal(st.shared_tokens, 0);
  serve_stats_free(&st);
  for (int k = 0; k < 6; k++) r.ids[0][9 + k] = r.out[0][k];
  r.ids[0][15] = 77;
  r.req[0].n_ids = 16;
  assert_int_equal(serve_run(e, r.req, 1, &so, &st), HF_OK);
  assert_int_equal(st.shared_tokens, 12); /* 14 of 15 tokens had been written to the cache */
  assert_int_equal(st.prompt_tokens, 4);
  int32_t with[6], without[6];
  memcpy(with, r.out[0], sizeof with);
  serve_stats_free(&st);
  so.known = NULL; /* this serving may overwrite every page: the tree must not be used again */
  assert_int_equal(serve_run(e, r.req, 1, &so, &st), HF_OK);
  memcpy(without, r.out[0], sizeof without);
  assert_memory_equal(with, without, sizeof with);
  serve_stats_free(&st);
  prefix_free(known);
  engine_close(e);
}

/* A failure in the middle, with steps in flight on the device: nothing that they use goes before they are done. */
static void lack_of_memory_while_serving_is_an_error(void **state) {
  (void)state;
  engine_options o = on_device(options(3, 4, 4, 8), 50);
  engine *e = NULL;
  run r;
  serve_stats st;
  int failed = 0;
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  for (int n = 1;; n++) {
    fill(&r);
    for (int i = 0; i < REQUESTS; i++) r.req[i].arrival_s = i * 0.0005;
    serve_options so = serving(&r, 4, 4);
    hf_fail_alloc_at(n);
    hf_status s = serve_run(e, r.req, REQUESTS, &so, &st);
    hf_fail_alloc_at(0);
    serve_stats_free(&st);
    if (s == HF_OK) break;
    assert_int_equal(s, HF_MACHINE);
    failed++;
  }
  assert_true(failed >= REQUESTS);
  engine_close(e);
}

static void engine_options_are_checked(void **state) {
  (void)state;
  engine *e = NULL;
  engine_options good = options(2, 2, 8, 8), o;
  struct {
    int *at;
    int value;
  } bad[] = {{&o.depth, 0},       {&o.depth, SCHED_MAX_DEPTH + 1},
             {&o.max_seqs, 0},    {&o.max_seqs, 65},
             {&o.context, 0},     {&o.page_tokens, 0},
             {&o.page_tokens, 3}, {&o.page_tokens, -8},
             {&o.n_pages, 0},     {&o.max_tok, 0},
             {&o.max_logits, 0},  {&o.max_logits, -1}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    o = good;
    *bad[i].at = bad[i].value;
    if (engine_open(m, &o, &e) != HF_INPUT) fail_msg("option %zu was accepted", i);
    assert_null(e);
  }
}

/* The device's memory is used up to the byte of the budget or less, never more: what fits by the table loads. */
static void the_budget_holds(void **state) {
  (void)state;
  for (int percent = 0; percent <= 100; percent += 25) {
    plan_budget rows[16];
    int n;
    bool fits;
    int64_t sum = 0;
    engine *e = NULL;
    engine_options o = on_device(options(2, 3, 8, 8), percent);
    assert_int_equal(engine_budget(m, &o, rows, 16, &n, &fits), HF_OK);
    assert_true(fits);
    for (int i = 0; i < n; i++) sum += strcmp(rows[i].where, "gpu0") ? 0 : rows[i].bytes;
    o.device_bytes = sum;
    if (engine_open(m, &o, &e) != HF_OK) fail_msg("%d %%: %s", percent, hf_error_line());
    assert_true(dev_mem_used(e->device[0].d) <= sum);
    assert_true(dev_mem_used(e->device[0].d) > sum - sum / 20); /* and it is no guess */
    engine_close(e);
    e = NULL;
    o.device_bytes = sum - 1;
    assert_int_equal(engine_open(m, &o, &e), HF_NO);
    assert_null(e);
  }
}

static void lack_of_memory_while_opening_is_an_error(void **state) {
  (void)state;
  engine_options o = on_device(options(2, 2, 4, 8), 50);
  int failed = 0;
  for (int n = 1;; n += n < 40 ? 1 : 13, failed++) { /* later ones are weights, all alike */
    engine *e = NULL;
    hf_fail_alloc_at(n);
    hf_status st = engine_open(m, &o, &e);
    hf_fail_alloc_at(0);
    if (st == HF_OK) {
      engine_close(e);
      break;
    }
    assert_int_equal(st, HF_MACHINE);
    assert_null(e);
  }
  assert_true(failed > 50);
}

static int set_up(void **state) {
  (void)state;
  return model_open("tests/golden/deepseek_v3", &m) != HF_OK;
}

static int tear_down(void **state) {
  (void)state;
  model_close(m);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_request_gets_the_same_tokens_in_every_way),
      cmocka_unit_test(pages_come_back),
      cmocka_unit_test(one_engine_serves_again_and_again),
      cmocka_unit_test(a_stop_ends_everything_cleanly),
      cmocka_unit_test(a_stop_before_the_start_runs_nothing),
      cmocka_unit_test(arrivals_are_kept_in_order),
      cmocka_unit_test(what_the_engine_was_not_opened_for_is_refused),
      cmocka_unit_test(beginnings_are_shared),
      cmocka_unit_test(whoever_is_gone_leaves),
      cmocka_unit_test(a_conversation_goes_on_where_it_was),
      cmocka_unit_test(lack_of_memory_while_serving_is_an_error),
      cmocka_unit_test(engine_options_are_checked),
      cmocka_unit_test(the_budget_holds),
      cmocka_unit_test(lack_of_memory_while_opening_is_an_error),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
