/* KV beside the engine's pages: a lost device's comes back from the mirror, sessions park and go on, and every page and slot is accounted for. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/engine_int.h"
#include "executor/serve.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 6, MAX_OUT = 12, CONTEXT = 64, PAGE = 8, FAULTS = 60 };
static const int prompt_len[REQUESTS] = {3, 20, 17, 30, 9, 20};
static const int out_len[REQUESTS] = {12, 8, 1, 10, 6, 12};
static const char FILE_NAME[] = "test_executor_standby.kv";

#define FAR_NS INT64_C(20000000000)

static model *latent, *heads, *m;

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
                      .mla = ENGINE_MLA_ABSORBED,
                      .device_bytes = 64 << 20,
                      .experts_on_gpu_percent = percent,
                      .deadline_ns = FAR_NS};
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  return o;
}

static engine_options on_cpu(int users) {
  engine_options o = options(1, users, 0);
  snprintf(o.gpu, sizeof o.gpu, "none");
  return o;
}

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][32], out[REQUESTS][MAX_OUT];
  float margin[REQUESTS][MAX_OUT];
  int told[REQUESTS];
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

static void on_retract(void *user, serve_request *q, int n) {
  run *r = user;
  r->told[q - r->req] -= n;
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
                                .out = r->out[i]};
    snprintf(r->req[i].ext_id, sizeof r->req[i].ext_id, "%d", i);
  }
}

/* slots 0: no mirror. */
static hf_status serve_all(const engine_options *o, const char *path, int slots, run *r, serve_stats *st, standby_stats *beside) {
  engine *e = NULL;
  standby *sb = NULL;
  fill(r);
  memset(beside, 0, sizeof *beside);
  if (engine_open(m, o, &e) != HF_OK) fail_msg("%s", hf_error_line());
  if (slots && standby_open(e, path, slots, &sb) != HF_OK) fail_msg("%s", hf_error_line());
  const serve_options so = {.sample = {.top_p = 1},
                            .chunk_tokens = 8,
                            .users = o->max_seqs,
                            .user = r,
                            .on_token = on_token,
                            .on_logits = on_logits,
                            .on_retract = on_retract,
                            .standby = sb,
                            .known = sb ? standby_known(sb) : NULL};
  const hf_status s = serve_run(e, r->req, REQUESTS, &so, st);
  if (s == HF_OK) {
    assert_int_equal(st->pages_lost, 0);
    assert_int_equal(st->slots_lost, 0);
  }
  if (sb) standby_get_stats(sb, beside);
  standby_close(sb);
  engine_close(e);
  return s;
}

static void expect_same(const run *got, const run *want, const char *what) {
  for (int i = 0; i < REQUESTS; i++) {
    int k = 0;
    assert_string_equal(got->req[i].finish, "length");
    assert_int_equal(got->req[i].n_out, out_len[i]);
    while (k < out_len[i] && got->out[i][k] == want->out[i][k]) k++;
    if (k < out_len[i] && want->margin[i][k] >= NEAR_TIE)
      fail_msg("%s: request %d: token %d is %d for %d, which leads by %g", what, i, k, got->out[i][k], want->out[i][k],
               (double)want->margin[i][k]);
  }
  assert_false(got->twice);
}

/* Pages whose tokens lie apart, and those whose heads lie in groups of tokens. */
static const struct {
  kern_kv_type type;
  int page_tokens;
} kinds[] = {{KV_F16, PAGE}, {KV_F16, 2 * PAGE}, {KV_BF16, 2 * PAGE}, {KV_Q8_0, 2 * PAGE}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void take_kind(engine_options *o, int k) {
  o->kv_type = kinds[k].type;
  o->n_pages = o->n_pages * o->page_tokens / kinds[k].page_tokens;
  o->page_tokens = kinds[k].page_tokens;
}

/* Copies count as operations: faults fall into them, too. */
static void a_lost_device_comes_back_from_the_mirror(void **state) {
  (void)state;
  const char *how_many = getenv("HF_FAULTS"), *from = getenv("HF_FAULT_SEED");
  const int faults = how_many ? atoi(how_many) : FAULTS;
  uint32_t seed = from ? (uint32_t)atoi(from) : 1;
  run want, got;
  serve_stats st;
  standby_stats beside;
  int64_t restored[KINDS] = {0}, again[KINDS] = {0};
  int losses = 0;
  for (int k = 0; k < 2 * KINDS; k++) {
    m = k % 2 ? heads : latent;
    engine_options o = options(1, 3, 50);
    take_kind(&o, k / 2);
    assert_int_equal(serve_all(&o, NULL, 0, &want, &st, &beside), HF_OK);
    serve_stats_free(&st);
    for (int i = 0; i < faults / (2 * KINDS); i++) {
      o.depth = 1 + (int)(next(&seed) % 3);
      o.deadline_ns = i % 3 == 1 ? 60000000 : FAR_NS;
      o.fault = (dev_fault){.kind = (dev_fault_kind)(DEV_FAULT_ERROR + i % 3), .at = 1 + next(&seed) % 2000};
      if (o.fault.kind == DEV_FAULT_SIGNAL) o.deadline_ns = 60000000;
      const char *path = next(&seed) % 2 ? FILE_NAME : NULL;
      char what[96];
      snprintf(what, sizeof what, "model %d, fault %d of kind %d at %lld, depth %d", k, i, (int)o.fault.kind,
               (long long)o.fault.at, o.depth);
      assert_int_equal(serve_all(&o, path, o.n_pages + 4, &got, &st, &beside), HF_OK);
      expect_same(&got, &want, what);
      losses += st.n_losses;
      for (int l = 0; l < st.n_losses; l++) restored[k / 2] += st.loss[l].restored, again[k / 2] += st.loss[l].tokens;
      assert_true(access(FILE_NAME, F_OK) != 0);
      serve_stats_free(&st);
    }
  }
  for (int k = 0; k < KINDS; k++)
    printf("KV in %s, pages of %d: %lld tokens restored, %lld computed again\n", kern_kv_name(kinds[k].type),
           kinds[k].page_tokens, (long long)restored[k], (long long)again[k]);
  assert_true(losses > faults / 2);
  assert_true(restored[0] > 5 * again[0]);
  for (int k = 1; k < KINDS; k++)
    assert_true(restored[k] > again[k]); /* of up to 16 tokens that lie in one another, none before the last is written */
}

/* What a device that computes wrongly has written is no better in the mirror. */
static void wrong_pages_are_not_restored(void **state) {
  (void)state;
  uint32_t seed = 3;
  run want, got;
  serve_stats st;
  standby_stats beside;
  int64_t restored = 0;
  m = heads;
  engine_options o = options(1, 3, 50);
  assert_int_equal(serve_all(&o, NULL, 0, &want, &st, &beside), HF_OK);
  serve_stats_free(&st);
  for (int i = 0; i < 20; i++) {
    o.depth = 1 + i % 3;
    o.check_every_ns = 1;
    o.fault = (dev_fault){.kind = DEV_FAULT_WRONG, .at = 150 + next(&seed) % 900};
    assert_int_equal(serve_all(&o, NULL, o.n_pages + 4, &got, &st, &beside), HF_OK);
    expect_same(&got, &want, "wrong device");
    assert_int_equal(st.n_losses, 1);
    restored += st.loss[0].restored;
    serve_stats_free(&st);
  }
  printf("%lld tokens restored after devices that computed wrongly\n", (long long)restored);
  assert_true(restored > 0);
}

/* A file that cannot grow costs the mirror, not the requests: what it has is still good. */
static void a_full_file_costs_the_mirror_alone(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  standby_stats beside;
  m = heads;
  engine_options o = options(1, 3, 50);
  assert_int_equal(serve_all(&o, NULL, 0, &want, &st, &beside), HF_OK);
  serve_stats_free(&st);
  const int64_t page = engine_kv_page_bytes(model_get_config(m), &o);
  struct rlimit was;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
  for (int i = 0; i < 6; i++) {
    o.fault = i % 2 ? (dev_fault){.kind = DEV_FAULT_ERROR, .at = 600} : (dev_fault){0};
    const struct rlimit small = {.rlim_cur = (rlim_t)(page * (i / 2) * 3 + page / 3), .rlim_max = was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const hf_status s = serve_all(&o, FILE_NAME, o.n_pages + 4, &got, &st, &beside);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(s, HF_OK);
    assert_int_equal(st.n_losses, i % 2);
    assert_non_null(strstr(beside.failed, "cannot be written"));
    expect_same(&got, &want, "full file");
    serve_stats_free(&st);
  }
}

/* ---- a file system that does not answer ---- */

static sem_t answers;
static _Atomic int n_calls, hangs_at, hanging; /* the call with this number waits until it is let go */

static void hang(void) {
  if (++n_calls != hangs_at) return;
  hanging++;
  sem_wait(&answers); /* ends: let_go */
  hanging--;
}

static ssize_t write_or_hang(int fd, const void *from, size_t n, off_t at) {
  hang();
  return pwrite(fd, from, n, at);
}

static ssize_t read_or_hang(int fd, void *to, size_t n, off_t at) {
  hang();
  return pread(fd, to, n, at);
}

/* The thread that was left behind frees what it has. */
static void let_go(void) {
  for (int i = hanging; i > 0; i--) sem_post(&answers);
  while (hanging > 0) usleep(1000); /* ends: each has been told */
  usleep(20000);
}

/* It costs the mirror, and no more time than one call may take: losses, sessions and the end wait no longer for it. */
static void a_file_that_does_not_answer_is_given_up(void **state) {
  (void)state;
  enum { LIMIT_MS = 60 };
  const mirror_file_ops writes = {write_or_hang, pread, LIMIT_MS * 1000000LL},
                        reads = {pwrite, read_or_hang, LIMIT_MS * 1000000LL};
  run want, got;
  serve_stats st;
  standby_stats beside;
  m = heads;
  sem_init(&answers, 0, 0);
  engine_options o = options(1, 3, 50);
  assert_int_equal(serve_all(&o, NULL, 0, &want, &st, &beside), HF_OK);
  serve_stats_free(&st);
  for (int i = 0; i < 12; i++) {
    const bool reading = i % 3 == 2;
    o.depth = 1 + i % 2;
    o.fault = i % 3 > 0 ? (dev_fault){.kind = DEV_FAULT_ERROR, .at = 900} : (dev_fault){0};
    n_calls = 0;
    hangs_at = 1 + 5 * (i / 3);
    mirror_set_file_ops(reading ? &reads : &writes);
    const int64_t start = hf_now_ns();
    const hf_status s = serve_all(&o, FILE_NAME, o.n_pages + 4, &got, &st, &beside);
    const int64_t took = hf_now_ns() - start;
    assert_int_equal(s, HF_OK);
    expect_same(&got, &want, "a file that hangs");
    if (hanging > 0) assert_non_null(strstr(beside.failed, "did not answer within 0.06 s"));
    else assert_true(n_calls < hangs_at); /* a device that is lost early leaves little to read */
    assert_true(reading || beside.failed[0]);
    assert_true(took < 20 * LIMIT_MS * 1000000LL);
    let_go();
    serve_stats_free(&st);
  }
  mirror_set_file_ops(NULL);
  sem_destroy(&answers);
}

/* With what memory has left for neither: the mirror goes, requests go on. */
static void a_mirror_without_room_after_a_loss_is_given_up(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  standby_stats beside;
  plan_budget rows[16];
  int n;
  bool fits;
  int64_t need = 0;
  m = heads;
  engine_options o = options(1, 3, 50), alone = on_cpu(3);
  assert_int_equal(serve_all(&o, NULL, 0, &want, &st, &beside), HF_OK);
  serve_stats_free(&st);
  assert_int_equal(engine_budget(m, &alone, rows, 16, &n, &fits), HF_OK);
  for (int i = 0; i < n; i++) need += rows[i].bytes;
  o.fault = (dev_fault){.kind = DEV_FAULT_ERROR, .at = 900};
  o.standby_bytes = (o.n_pages + 4) * engine_kv_page_bytes(model_get_config(m), &o);
  for (int i = 0; i < 2; i++) {
    o.ram_limit_bytes = need + (i ? o.standby_bytes : o.standby_bytes - 1);
    assert_int_equal(serve_all(&o, NULL, o.n_pages + 4, &got, &st, &beside), HF_OK);
    expect_same(&got, &want, "no room");
    assert_int_equal(st.n_losses, 1);
    assert_int_equal(beside.failed[0] != 0, i == 0);
    assert_int_equal(st.loss[0].restored > 0, i == 1);
    serve_stats_free(&st);
  }
  o.ram_limit_bytes = o.standby_bytes; /* the budget has it as a row, and refuses before anything is loaded */
  engine *e = NULL;
  assert_int_equal(engine_budget(m, &o, rows, 16, &n, &fits), HF_OK);
  bool named = false;
  for (int i = 0; i < n; i++) named = named || (!strcmp(rows[i].what, "KV mirror") && rows[i].bytes == o.standby_bytes);
  assert_true(named && !fits);
  assert_int_equal(engine_open(m, &o, &e), HF_NO);
}

/* Of two devices the second is lost while the first loss is being mended, with room for the mirror beside one of them only. */
static void a_second_loss_may_take_its_room(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  plan_budget rows[PLAN_MAX_BUDGET];
  int n, while_mended = 0;
  bool fits;
  model *tiny = NULL;
  assert_int_equal(model_open("examples/tiny-moe", &tiny), HF_OK);
  m = tiny;
  engine_options o = options(1, 3, 100), alone = on_cpu(3);
  assert_int_equal(serve_all(&alone, NULL, 0, &want, &st, &(standby_stats){0}), HF_OK);
  serve_stats_free(&st);
  o.more_devices = 1;
  o.more_bytes[0] = 64 << 20;
  o.standby_bytes = (o.n_pages + 4) * engine_kv_page_bytes(model_get_config(m), &o);
  o.check_every_ns = FAR_NS;
  assert_int_equal(engine_budget(m, &alone, rows, PLAN_MAX_BUDGET, &n, &fits), HF_OK);
  for (int i = 0; i < n; i++) o.ram_limit_bytes += rows[i].bytes;
  o.ram_limit_bytes += o.standby_bytes / 2;
  o.lost_devices = 1 << 1;
  assert_int_equal(engine_budget(m, &o, rows, PLAN_MAX_BUDGET, &n, &fits), HF_OK);
  assert_true(fits);
  o.lost_devices = 0;
  for (int at = 200; at < 1400 && while_mended < 3; at += 15) {
    engine *e = NULL;
    standby *sb = NULL;
    standby_stats beside;
    fill(&got);
    o.fault = (dev_fault){.kind = DEV_FAULT_ERROR, .at = at};
    if (engine_open(m, &o, &e) != HF_OK) fail_msg("%s", hf_error_line());
    if (standby_open(e, NULL, o.n_pages + 4, &sb) != HF_OK) fail_msg("%s", hf_error_line());
    if (engine_devices_left(e) == 2) dev_give_up(e->device[1].d, "rehearsed");
    const serve_options so = {
        .sample = {.top_p = 1}, .chunk_tokens = 8, .users = o.max_seqs, .user = &got, .standby = sb, .known = standby_known(sb)};
    if (serve_run(e, got.req, REQUESTS, &so, &st) != HF_OK) fail_msg("at %d: %s", at, hf_error_line());
    standby_get_stats(sb, &beside);
    if (engine_devices_left(e) == 0 && st.n_losses > 0) assert_true(beside.failed[0] != 0);
    while_mended += st.n_losses == 1 && engine_devices_left(e) == 0;
    for (int i = 0; i < REQUESTS; i++) assert_int_equal(got.req[i].n_out, out_len[i]);
    serve_stats_free(&st);
    standby_close(sb);
    engine_close(e);
  }
  assert_true(while_mended > 0);
  model_close(tiny);
}

static void lack_of_memory_is_an_error(void **state) {
  (void)state;
  m = heads;
  engine_options o = options(1, 3, 50);
  engine *e = NULL;
  int failed = 0;
  run r;
  serve_stats st;
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  for (int n = 1;; n++, failed++) {
    standby *sb = NULL;
    fill(&r);
    hf_fail_alloc_at(n);
    hf_status s = standby_open(e, n % 2 ? FILE_NAME : NULL, 30, &sb);
    const serve_options so = {
        .sample = {.top_p = 1}, .chunk_tokens = 8, .users = 3, .user = &r, .standby = sb, .known = sb ? standby_known(sb) : NULL};
    if (s == HF_OK) {
      s = serve_run(e, r.req, REQUESTS, &so, &st);
      hf_fail_alloc_at(0);
      serve_stats_free(&st);
    }
    hf_fail_alloc_at(0);
    assert_true(access(FILE_NAME, F_OK) != 0);
    standby_close(sb);
    if (s == HF_OK) break;
    assert_int_equal(s, HF_MACHINE);
  }
  assert_true(failed > 20);
  engine_close(e);
}

/* Fewer slots than pages: what there is no room for is computed again, and nothing else happens. */
static void a_small_mirror_holds_what_it_can(void **state) {
  (void)state;
  run want, got;
  serve_stats st;
  standby_stats beside;
  int64_t left_out = 0;
  m = heads;
  engine_options o = options(2, 3, 50);
  assert_int_equal(serve_all(&o, NULL, 0, &want, &st, &beside), HF_OK);
  serve_stats_free(&st);
  for (int slots = 1; slots < 12; slots += 2) {
    o.fault = (dev_fault){.kind = DEV_FAULT_ERROR, .at = 500 + 90 * slots};
    assert_int_equal(serve_all(&o, NULL, slots, &got, &st, &beside), HF_OK);
    expect_same(&got, &want, "small mirror");
    left_out += beside.left_out_pages;
    serve_stats_free(&st);
  }
  assert_true(left_out > 0);
}

enum { SESSIONS = 24, TURNS = 3, ANSWER = 6, ADDED = 3, TEXT = 40 };

/* Sessions that all have a turn, then all the next one. */
typedef struct {
  serve_request req[SESSIONS];
  int32_t ids[SESSIONS][TEXT], out[SESSIONS][ANSWER];
  char name[SESSIONS][8];
  uint64_t bits[TURNS][SESSIONS]; /* of all logits */
  int turn;
} talk;

static void on_bits(void *user, serve_request *q, int position, const float *logits) {
  talk *t = user;
  uint64_t *h = &t->bits[t->turn][q - t->req];
  const unsigned char *b = (const unsigned char *)logits;
  (void)position;
  for (size_t i = 0; i < (size_t)model_get_config(m)->vocab_size * sizeof *logits; i++) *h = (*h ^ b[i]) * 0x100000001b3u;
}

static void begin_talk(talk *t) {
  const int vocab = model_get_config(m)->vocab_size;
  memset(t, 0, sizeof *t);
  for (int i = 0; i < SESSIONS; i++) {
    const int n = 9 + i % 5;
    for (int k = 0; k < n; k++) t->ids[i][k] = (k < 4 ? k : i * 31 + k * 17 + 5) % vocab; /* they begin alike */
    snprintf(t->name[i], sizeof t->name[i], "%d", i);
    t->req[i] = (serve_request){
        .ids = t->ids[i], .n_ids = n, .max_tokens = ANSWER, .ignore_eos = true, .out = t->out[i], .session = t->name[i]};
    snprintf(t->req[i].ext_id, sizeof t->req[i].ext_id, "%d", i);
  }
}

static void next_turn(talk *t) {
  const int vocab = model_get_config(m)->vocab_size;
  for (int i = 0; i < SESSIONS; i++) {
    serve_request *r = &t->req[i];
    for (int k = 0; k < ANSWER; k++) t->ids[i][r->n_ids++] = t->out[i][k];
    for (int k = 0; k < ADDED; k++) t->ids[i][r->n_ids++] = (i * 7 + k * 5 + t->turn) % vocab;
  }
  t->turn++;
}

/* With a mirror of `slots`: after the first turn only what is new is computed. */
static void talk_all(const engine_options *o, const char *path, int slots, talk *t) {
  engine *e = NULL;
  standby *sb = NULL;
  serve_stats st;
  standby_stats beside;
  begin_talk(t);
  if (engine_open(m, o, &e) != HF_OK) fail_msg("%s", hf_error_line());
  if (slots && standby_open(e, path, slots, &sb) != HF_OK) fail_msg("%s", hf_error_line());
  const serve_options so = {.sample = {.top_p = 1},
                            .chunk_tokens = 8,
                            .users = o->max_seqs,
                            .user = t,
                            .on_logits = on_bits,
                            .standby = sb,
                            .known = sb ? standby_known(sb) : NULL};
  for (;;) {
    if (serve_run(e, t->req, SESSIONS, &so, &st) != HF_OK) fail_msg("%s", hf_error_line());
    assert_int_equal(st.pages_lost, 0);
    assert_int_equal(st.slots_lost, 0);
    if (slots && t->turn > 0) assert_int_equal(st.prompt_tokens, SESSIONS * (ADDED + 1));
    if (slots && t->turn > 0) assert_true(st.restored_tokens > SESSIONS * 8 && st.parked_tokens > 0);
    serve_stats_free(&st);
    if (t->turn == TURNS - 1) break;
    next_turn(t);
  }
  if (sb) {
    standby_get_stats(sb, &beside);
    assert_int_equal(beside.left_out_pages, 0);
    assert_true(prefix_slots(standby_known(sb)) > o->n_pages); /* more is parked than the engine has pages */
    prefix_clear(standby_known(sb));
    standby_get_stats(sb, &beside);
    assert_int_equal(beside.slots_lost, 0);
    assert_int_equal(prefix_slots(standby_known(sb)), 0);
  }
  standby_close(sb);
  engine_close(e);
}

static void sessions_park_and_go_on(void **state) {
  (void)state;
  static talk want, got;
  for (int k = 0; k < 4 * KINDS; k++) {
    m = k % 2 ? heads : latent;
    engine_options o = k / 2 % 2 ? options(2, 4, 50) : on_cpu(4);
    take_kind(&o, k / 4);
    talk_all(&o, NULL, 0, &want);
    for (int i = 0; i < 2; i++) {
      talk_all(&o, i ? FILE_NAME : NULL, SESSIONS * CONTEXT / o.page_tokens, &got);
      assert_memory_equal(got.out, want.out, sizeof got.out);
      assert_memory_equal(got.bits, want.bits, sizeof got.bits);
    }
  }
}

/* ---- stopped in the middle ---- */

typedef struct {
  talk *t;
  volatile sig_atomic_t *stop;
  int left; /* tokens until then */
} stopper;

static void stop_on_token(void *user, serve_request *q, int32_t id) {
  stopper *k = user;
  (void)q;
  (void)id;
  if (k->left-- == 0) *k->stop = 1;
}

/* Ctrl-C at any token of any turn: pages and slots are accounted for, and sessions go on from what there is, to the same answers. */
static void stopped_servings_leave_everything_in_order(void **state) {
  (void)state;
  static talk want, got;
  uint32_t seed = 5;
  m = heads;
  for (int k = 0; k < 8; k++) {
    const engine_options o = k % 2 ? options(1 + k / 2 % 2, 4, 50) : on_cpu(4);
    talk_all(&o, NULL, 0, &want);
    for (int i = 0; i < 4; i++) {
      engine *e = NULL;
      standby *sb = NULL;
      serve_stats st;
      standby_stats beside;
      volatile sig_atomic_t stop = 0;
      stopper by = {&got, &stop, 0};
      begin_talk(&got);
      assert_int_equal(engine_open(m, &o, &e), HF_OK);
      assert_int_equal(standby_open(e, i % 2 ? FILE_NAME : NULL, SESSIONS * CONTEXT / o.page_tokens, &sb), HF_OK);
      const serve_options so = {.sample = {.top_p = 1},
                                .chunk_tokens = 8,
                                .users = o.max_seqs,
                                .user = &by,
                                .on_token = stop_on_token,
                                .standby = sb,
                                .known = standby_known(sb),
                                .stop = &stop};
      for (;;) {
        int cancelled = 0;
        stop = 0;
        by.left = (int)(next(&seed) % (SESSIONS * ANSWER));
        assert_int_equal(serve_run(e, got.req, SESSIONS, &so, &st), HF_OK);
        for (int r = 0; r < SESSIONS; r++) cancelled += !strcmp(got.req[r].finish, "cancelled");
        assert_true(cancelled > 0);
        assert_int_equal(st.slots_lost, 0);
        serve_stats_free(&st);
        by.left = -1;
        stop = 0;
        assert_int_equal(serve_run(e, got.req, SESSIONS, &so, &st), HF_OK); /* all of them again, what is known is not computed */
        assert_int_equal(st.pages_lost, 0);
        assert_int_equal(st.slots_lost, 0);
        serve_stats_free(&st);
        if (got.turn == TURNS - 1) break;
        next_turn(&got);
      }
      assert_memory_equal(got.out, want.out, sizeof got.out);
      prefix_clear(standby_known(sb));
      standby_get_stats(sb, &beside);
      assert_int_equal(beside.slots_lost, 0);
      standby_close(sb);
      engine_close(e);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sessions_park_and_go_on),
      cmocka_unit_test(a_lost_device_comes_back_from_the_mirror),
      cmocka_unit_test(wrong_pages_are_not_restored),
      cmocka_unit_test(a_full_file_costs_the_mirror_alone),
      cmocka_unit_test(a_file_that_does_not_answer_is_given_up),
      cmocka_unit_test(stopped_servings_leave_everything_in_order),
      cmocka_unit_test(a_mirror_without_room_after_a_loss_is_given_up),
      cmocka_unit_test(a_second_loss_may_take_its_room),
      cmocka_unit_test(a_small_mirror_holds_what_it_can),
      cmocka_unit_test(lack_of_memory_is_an_error),
  };
  (void)unlink(FILE_NAME);
  if (kern_init(NULL) != HF_OK || model_open("tests/golden/deepseek_v3", &latent) != HF_OK ||
      model_open("tests/golden/qwen3_moe", &heads) != HF_OK)
    return 1;
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  model_close(latent);
  model_close(heads);
  return failed;
}
