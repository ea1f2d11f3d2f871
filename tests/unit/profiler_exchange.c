/* A profile as a document and back, its storing, two of them side by side, with allocations that fail at every place; and small parts of the
 * measuring: counters of throttling, the clock, pretended nodes. */
#include "profiler/exchange.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "profiler/compare.h"
#include "profiler/memory.h"
#include "profiler/watch.h"

static rec_device devices[] = {{.device = "cpu0", .kind = "cpu", .name = "a CPU", .cores = 2, .mem_bytes = 1 << 30},
                               {.device = "gpu0", .kind = "gpu", .name = "a GPU", .cores = 128, .mem_bytes = 1 << 30}};
static rec_figure figures[] = {
    {.device = "cpu",
     .what = "dram_read_bytes_per_s",
     .params = "threads=1",
     .unit = "B/s",
     .low = 19e9,
     .likely = 20e9,
     .high = 21e9,
     .n = 9},
    {.device = "cpu",
     .what = "dram_read_bytes_per_s",
     .params = "threads=2",
     .unit = "B/s",
     .low = 30e9,
     .likely = 30.5e9,
     .high = 31e9},
    {.device = "cpu", .what = "barrier_ns", .params = "threads=2", .unit = "ns", .low = 280, .likely = 300, .high = 330},
    {.device = "cpu", .what = "cpu_throttle_events", .unit = "1", .low = 0, .likely = 0, .high = 0},
};
static rec_kernel_point points[] = {
    {.device = "cpu",
     .kernel = "expert_ffn",
     .candidate = "slow",
     .format = "q8_0",
     .act = "q8b32",
     .n_out = 768,
     .n_in = 2048,
     .tokens = 1,
     .threads = 2,
     .ns_low = 290,
     .ns = 300,
     .ns_high = 310,
     .bytes = 5013504,
     .n = 5},
    {.device = "cpu",
     .kernel = "expert_ffn",
     .candidate = "fast",
     .format = "q8_0",
     .act = "q8b32",
     .n_out = 768,
     .n_in = 2048,
     .tokens = 1,
     .threads = 2,
     .ns_low = 190,
     .ns = 200,
     .ns_high = 210,
     .bytes = 5013504,
     .n = 5},
    {.device = "cpu",
     .kernel = "expert_ffn",
     .candidate = "fast",
     .format = "q8_0",
     .act = "q8b32",
     .n_out = 768,
     .n_in = 2048,
     .tokens = 4,
     .threads = 2,
     .ns_low = 390,
     .ns = 400,
     .ns_high = 410,
     .bytes = 5013504,
     .n = 5},
};
static rec_link_point links[] = {
    {.src = "host", .dst = "gpu0", .pinned = true, .bytes = 4096, .ns_low = 1, .ns = 2, .ns_high = 3, .n = 4, .measurement = 5}};

static prof_view view(void) {
  prof_view v = {
      .machine = {.name = "box", .created_ns = 1764500000LL * 1000000000, .facts_json = "{\"cpu\":\"a CPU\",\"cores\":2}"},
      .device = devices,
      .figure = figures,
      .point = points,
      .link = links,
      .n_device = 2,
      .n_figure = 4,
      .n_point = 3,
      .n_link = 1};
  return v;
}

static void there_and_back(void **state) {
  (void)state;
  prof_view v = view(), w;
  json *doc = NULL;
  assert_int_equal(exchange_write(&v, &doc), HF_OK);
  assert_int_equal(exchange_read(doc, "doc", &w), HF_OK);
  json_free(doc);
  assert_string_equal(w.machine.name, "box");
  assert_true(w.machine.created_ns == v.machine.created_ns && w.machine.kind == MACHINE_MEASURED && w.machine.id == 0);
  assert_true(w.n_device == 2 && w.n_figure == 4 && w.n_point == 3 && w.n_link == 1);
  for (int i = 0; i < 4; i++) assert_memory_equal(&w.figure[i], &figures[i], sizeof figures[i]);
  for (int i = 0; i < 3; i++) assert_memory_equal(&w.point[i], &points[i], sizeof points[i]);
  assert_true(w.link[0].pinned && w.link[0].ns_high == 3 && w.link[0].measurement == 5 && w.device[1].cores == 128);
  prof_view_free(&w);
}

/* Files of earlier versions do not say which points of a link were measured together; any other field must be there. */
static void without_what_came_later(void **state) {
  (void)state;
  static const struct {
    const char *field;
    hf_status want;
  } lacks[] = {{"\"measurement\":5", HF_OK}, {"\"pinned\":true,", HF_INPUT}};
  for (int i = 0; i < 2; i++) {
    prof_view v = view(), w;
    json *doc = NULL;
    char *text = NULL;
    assert_int_equal(exchange_write(&v, &doc), HF_OK);
    assert_int_equal(json_print(doc, false, &text), HF_OK);
    json_free(doc);
    char *at = strstr(text, lacks[i].field);
    assert_non_null(at);
    memmove(at, at + strlen(lacks[i].field), strlen(at + strlen(lacks[i].field)) + 1);
    if (i == 0 && at[-1] == ',') memmove(at - 1, at, strlen(at) + 1);
    hf_status st = json_parse(text, strlen(text), "older", &doc);
    if (st == HF_OK) st = exchange_read(doc, "older", &w);
    assert_int_equal(st, lacks[i].want);
    if (st == HF_OK) {
      assert_true(w.n_link == 1 && w.link[0].ns == 2 && w.link[0].measurement == 0);
      prof_view_free(&w);
    }
    json_free(doc);
    free(text);
  }
}

/* Reading says out of memory and leaves nothing, wherever it strikes. */
static void no_memory_to_read(void **state) {
  (void)state;
  prof_view v = view(), w;
  json *doc = NULL;
  assert_int_equal(exchange_write(&v, &doc), HF_OK);
  hf_status st = HF_MACHINE;
  for (long n = 1; st != HF_OK; n++) {
    assert_true(n < 1000);
    hf_fail_alloc_at(n);
    st = exchange_read(doc, "doc", &w);
    hf_fail_alloc_at(0);
    assert_true(st == HF_OK || st == HF_MACHINE);
  }
  prof_view_free(&w);
  json_free(doc);
}

/* A store that fails half way leaves the database as it was. */
static void no_memory_to_store(void **state) {
  (void)state;
  char path[64];
  snprintf(path, sizeof path, "/tmp/hf-exchange-%d.db", (int)getpid());
  hf_status st = HF_MACHINE;
  db *d = NULL;
  rec_machine m, *list = NULL;
  assert_int_equal(db_open(path, true, &d), HF_OK);
  for (long n = 1; st != HF_OK; n++) {
    int machines = -1;
    prof_view v = view();
    assert_true(n < 2000);
    hf_fail_alloc_at(n);
    st = exchange_store(d, &v, "lab", "/some/where/box.json");
    hf_fail_alloc_at(0);
    assert_int_equal(db_machine_list(d, &list, &machines), HF_OK);
    assert_int_equal(machines, st == HF_OK ? 1 : 0);
    free(list);
  }
  assert_int_equal(db_machine_find(d, "lab", &m), HF_OK);
  json *facts = NULL;
  assert_int_equal(json_parse(m.facts_json, strlen(m.facts_json), "facts", &facts), HF_OK);
  assert_string_equal(json_string(json_get(facts, "imported")), "box.json");
  assert_string_equal(json_string(json_get(facts, "cpu")), "a CPU");
  json_free(facts);
  assert_int_equal(db_machine_latest(d, MACHINE_MEASURED, &m), HF_NOT_FOUND); /* nobody's own machine */
  prof_view v = view();
  assert_int_equal(exchange_store(d, &v, "lab", "again.json"), HF_INPUT);
  assert_int_equal(exchange_store(d, &v, "12", "again.json"), HF_INPUT);
  assert_int_equal(exchange_store(d, &v, "", "again.json"), HF_INPUT);
  assert_int_equal(exchange_store(d, &v, "a\033[2J", "again.json"), HF_INPUT);
  db_close(d);
  static const char *const ends[] = {"", "-wal", "-shm"};
  for (int i = 0; i < 3; i++) {
    char file[80];
    snprintf(file, sizeof file, "%s%s", path, ends[i]);
    (void)unlink(file);
  }
}

/* b: twice the bandwidth on 16 threads, half of the barrier, its only candidate as fast as a's best one at 1 token and twice at 4. */
static void side_by_side(void **state) {
  (void)state;
  rec_figure bf[4];
  rec_kernel_point bp[2] = {points[1], points[2]};
  prof_view a = view(), b = view();
  comparison *c = NULL;
  memcpy(bf, figures, sizeof bf);
  bf[1].low *= 2, bf[1].likely *= 2, bf[1].high *= 2;
  bf[2].low /= 2, bf[2].likely /= 2, bf[2].high /= 2;
  snprintf(bf[1].params, sizeof bf[1].params, "threads=16");
  snprintf(bf[2].params, sizeof bf[2].params, "threads=16");
  bp[1].ns_low /= 2, bp[1].ns /= 2, bp[1].ns_high /= 2;
  bp[0].threads = bp[1].threads = 16;
  b.figure = bf, b.point = bp, b.n_point = 2;
  assert_int_equal(compare_profiles(&a, &b, &c), HF_OK);
  assert_int_equal(c->n_figure, 4);
  assert_int_equal(c->only_a + c->only_b, 0);
  assert_string_equal(c->figure[0].verdict, "same"); /* one thread */
  assert_float_equal(c->figure[0].r.likely, 1, 1e-12);
  /* ends by hand: the distances 19/20 and 21/20 of both, root of the sum of squares of their logarithms */
  assert_float_equal(log(c->figure[0].r.high), hypot(log(21.0 / 20), log(20.0 / 19)), 1e-12);
  assert_float_equal(log(c->figure[0].r.low), -hypot(log(20.0 / 19), log(21.0 / 20)), 1e-12);
  assert_float_equal(c->figure[1].r.likely, 2, 1e-12); /* all threads with all threads */
  assert_string_equal(c->figure[1].verdict, "faster");
  assert_float_equal(c->figure[2].r.likely, 2, 1e-12); /* half of the time is twice as fast */
  assert_string_equal(c->figure[2].verdict, "faster");
  assert_string_equal(c->figure[3].verdict, ""); /* a count, zero in both */
  assert_int_equal(c->n_kernel, 1);
  assert_int_equal(c->kernel[0].n, 2);
  assert_string_equal(c->kernel[0].a->candidate, "fast");
  assert_float_equal(c->kernel[0].r.likely, sqrt(2), 1e-12);
  assert_float_equal(c->kernel[0].least, 1, 1e-12);
  assert_float_equal(c->kernel[0].most, 2, 1e-12);
  compare_free(c);
  /* the other way round: the inverse, ends too */
  assert_int_equal(compare_profiles(&b, &a, &c), HF_OK);
  assert_string_equal(c->figure[1].verdict, "slower");
  assert_float_equal(c->kernel[0].r.likely, 1 / sqrt(2), 1e-12);
  compare_free(c);
  b.n_figure = 1;
  assert_int_equal(compare_profiles(&a, &b, &c), HF_OK);
  assert_int_equal(c->only_a, 3);
  compare_free(c);
  for (long n = 1; n < 4; n++) {
    hf_fail_alloc_at(n);
    assert_int_equal(compare_profiles(&a, &b, &c), HF_MACHINE);
  }
  hf_fail_alloc_at(0);
}

static void put(const char *folder, const char *file, const char *text) {
  char path[160];
  snprintf(path, sizeof path, "%s/%s", folder, file);
  assert_int_equal(hf_write_file(path, text, strlen(text)), HF_OK);
}

static void throttling_counters(void **state) {
  (void)state;
  static const char *const made[] = {"cpu0", "cpu0/thermal_throttle", "cpu1", "cpu1/thermal_throttle"};
  static const char *const files[] = {"cpu0/thermal_throttle/core_throttle_count", "cpu0/thermal_throttle/package_throttle_count",
                                      "cpu1/thermal_throttle/core_throttle_count"};
  char root[64] = "/tmp/hf-watch-XXXXXX", path[160];
  assert_non_null(mkdtemp(root));
  assert_int_equal(watch_counters(root), -1); /* a machine without them */
  for (int i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/%s", root, made[i]);
    assert_int_equal(mkdir(path, 0700), 0);
  }
  put(root, files[0], "3\n");
  put(root, files[1], "40\n");
  put(root, files[2], "500\n");
  assert_int_equal(watch_counters(root), 543);
  put(root, files[1], "rubbish\n");
  assert_int_equal(watch_counters(root), 503);
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s/%s", root, files[i]);
    (void)unlink(path);
  }
  for (int i = 3; i >= 0; i--) {
    snprintf(path, sizeof path, "%s/%s", root, made[i]);
    (void)rmdir(path);
  }
  (void)rmdir(root);
}

/* Two nodes of one core: a buffer in halves takes as long as the slower half; what is not pretended costs nothing. */
static void pretended_nodes(void **state) {
  (void)state;
  topology *t = calloc(1, sizeof *t);
  double bytes[2] = {4e9, 1e9};
  t->n_nodes = 2;
  t->node[0].dram_bytes_per_s = 10e9;
  assert_false(memory_is_pretended(t));
  assert_true(memory_pretended_ns(t, bytes) == 0); /* a real machine's file says nothing */
  t->fake = true;
  assert_true(memory_is_pretended(t));
  assert_float_equal(memory_pretended_ns(t, bytes), 0.4e9, 1);
  t->node[1].dram_bytes_per_s = 2e9;
  assert_float_equal(memory_pretended_ns(t, bytes), 0.5e9, 1);
  free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(there_and_back),    cmocka_unit_test(without_what_came_later),
      cmocka_unit_test(no_memory_to_read), cmocka_unit_test(no_memory_to_store),
      cmocka_unit_test(side_by_side),      cmocka_unit_test(throttling_counters),
      cmocka_unit_test(pretended_nodes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
