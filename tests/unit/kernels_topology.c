/* Nodes, cores and memory: this machine's, and machines that are described in a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/mem/topology.h"

static topology *topo;

static hf_status read_fake(const char *text) {
  char path[] = "/tmp/hf_topology_XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  setenv("HF_TOPOLOGY", path, 1);
  hf_status st = topo_get(topo);
  unsetenv("HF_TOPOLOGY");
  unlink(path);
  return st;
}

/* Together the third-level caches hold a whole number of times what the first CPU's holds, at most one per CPU. */
static void caches_are_added_up(void **state) {
  (void)state;
  long kib = 0;
  FILE *f = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
  if (f && fscanf(f, "%ldK", &kib) != 1) kib = 0;
  if (f) fclose(f);
  if (kib <= 0) skip(); /* no such cache, or a system that does not tell */
  assert_int_equal(topo_get(topo), HF_OK);
  int cpus = 0;
  for (int n = 0; n < topo->n_nodes; n++) cpus += topo->node[n].n_cpus;
  assert_true(topo->l3_bytes >= kib << 10 && topo->l3_bytes <= cpus * (kib << 10));
  assert_int_equal(topo->l3_bytes % (kib << 10), 0);
}

static void this_machine_has_a_core(void **state) {
  (void)state;
  unsetenv("HF_TOPOLOGY");
  assert_int_equal(topo_get(topo), HF_OK);
  assert_false(topo->fake);
  assert_true(topo->n_nodes >= 1 && topo->n_nodes <= TOPO_MAX_NODES);
  int cores = 0, cpus = 0;
  int64_t mem = 0;
  for (int n = 0; n < topo->n_nodes; n++) {
    assert_true(topo->node[n].n_cores <= topo->node[n].n_cpus);
    cores += topo->node[n].n_cores;
    cpus += topo->node[n].n_cpus;
    mem += topo->node[n].mem_bytes;
    for (int i = 0; i < topo->node[n].n_cpus; i++) {
      for (int k = 0; k < i; k++) assert_int_not_equal(topo->node[n].cpus[i], topo->node[n].cpus[k]);
    }
  }
  assert_true(cores >= 1 && cpus >= cores);
  assert_true(cpus <= sysconf(_SC_NPROCESSORS_CONF));
  assert_true(mem > 0);
  assert_true(strlen(topo->cpu_name) > 0);
}

static void a_file_describes_nodes_that_are_not_there(void **state) {
  (void)state;
  assert_int_equal(read_fake("{\"nodes\":[{\"cpus\":2,\"mem_bytes\":1000000,\"dram_bytes_per_s\":1.5e10},{\"cpus\":3}]}"), HF_OK);
  assert_true(topo->fake);
  assert_int_equal(topo->n_nodes, 2);
  assert_int_equal(topo->node[0].n_cores, 2);
  assert_int_equal(topo->node[0].mem_bytes, 1000000);
  assert_true(topo->node[0].dram_bytes_per_s == 1.5e10);
  assert_int_equal(topo->node[1].n_cpus, 3);
  assert_int_equal(topo->node[1].cpus[0], 2);
  assert_int_equal(topo->node[1].cpus[2], 4);
  assert_true(topo->node[1].dram_bytes_per_s == 0);
}

static void a_bad_file_is_named(void **state) {
  (void)state;
  static const struct {
    const char *text, *says;
  } bad[] = {
      {"{\"nodes\":[]}", "nodes"},
      {"{}", "nodes"},
      {"{\"nodes\":5}", "nodes"},
      {"{\"nodes\":[{\"cpus\":0}]}", "cpus"},
      {"{\"nodes\":[{\"cpus\":2},{}]}", "nodes[1]"},
      {"{\"nodes\":[{\"cpus\":2,\"mem_bytes\":-1}]}", "mem_bytes"},
      {"{\"nodes\":[{\"cpus\":2,\"dram_bytes_per_s\":\"fast\"}]}", "dram_bytes_per_s"},
      {"{\"nodes\":[7]}", "nodes[0]"},
      {"nodes", "hf_topology"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(read_fake(bad[i].text), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), bad[i].says));
    assert_non_null(strstr(hf_error_line(), "hf_topology_"));
  }
  setenv("HF_TOPOLOGY", "/nonexistent/topology.json", 1);
  assert_int_not_equal(topo_get(topo), HF_OK);
  assert_non_null(strstr(hf_error_line(), "/nonexistent/topology.json"));
  unsetenv("HF_TOPOLOGY");
}

static void memory_is_zero_aligned_and_counted(void **state) {
  (void)state;
  static const size_t sizes[] = {0, 1, 64, 4097, (2 << 20) - 1, 2 << 20, (4 << 20) + 123};
  int64_t before = mem_used_bytes(-1), node_before = mem_used_bytes(1);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    for (int node = -1; node <= 1; node++) {
      void *p = NULL;
      assert_int_equal(mem_alloc(sizes[i], node, "a test", &p), HF_OK);
      assert_non_null(p);
      assert_int_equal((uintptr_t)p % 64, 0);
      if (sizes[i] >= 2 << 20) assert_int_equal((uintptr_t)p % (2 << 20), 0);
      for (size_t k = 0; k < sizes[i]; k += 61) assert_int_equal(((char *)p)[k], 0);
      memset(p, 0x5a, sizes[i]);
      assert_int_equal(mem_used_bytes(-1), before + (int64_t)sizes[i]);
      assert_int_equal(mem_used_bytes(1), node_before + (node == 1 ? (int64_t)sizes[i] : 0));
      mem_free(p, sizes[i], node);
    }
  }
  assert_int_equal(mem_used_bytes(-1), before);
  mem_free(NULL, 100, 0);
}

/* Pieces of all three kinds come and go in any order: zero when they come, and nobody else writes into them. */
static void pieces_do_not_meet(void **state) {
  (void)state;
  enum { PIECES = 40 };
  struct {
    unsigned char *p;
    size_t bytes;
    int node;
  } piece[PIECES] = {0};
  int64_t before = mem_used_bytes(-1);
  uint32_t rng = 1;
  for (int i = 0; i < 1000; i++) {
    rng = rng * 1664525 + 1013904223;
    const int k = (int)(rng >> 16) % PIECES, kind = (int)(rng >> 8) % 8;
    unsigned char *p = piece[k].p;
    for (size_t at = 0; p && at < piece[k].bytes; at += 4093) assert_int_equal(p[at], k + 1);
    if (p) assert_int_equal(p[piece[k].bytes - 1], k + 1);
    mem_free(p, piece[k].bytes, piece[k].node);
    piece[k].bytes = kind == 0 ? 1 + rng % 60000 : kind == 1 ? (2 << 20) + rng % 1000000 : (64 << 10) + rng % 1900000;
    piece[k].node = (int)(rng >> 28) % 3 - 1;
    assert_int_equal(mem_alloc(piece[k].bytes, piece[k].node, "a piece", (void **)&piece[k].p), HF_OK);
    p = piece[k].p;
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t at = 0; at < piece[k].bytes; at += 61) assert_int_equal(p[at], 0);
    memset(p, k + 1, piece[k].bytes);
  }
  for (int k = 0; k < PIECES; k++) mem_free(piece[k].p, piece[k].bytes, piece[k].node);
  assert_int_equal(mem_used_bytes(-1), before);
}

static void too_much_is_refused_with_its_name(void **state) {
  (void)state;
  void *p = NULL;
  int64_t before = mem_used_bytes(-1);
  assert_int_equal(mem_alloc(SIZE_MAX - 5, 0, "the impossible", &p), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "the impossible"));
  assert_int_equal(mem_alloc((size_t)1 << 60, 0, "the impossible", &p), HF_MACHINE);
  hf_fail_alloc_at(1);
  assert_int_equal(mem_alloc(100, 0, "an injected failure", &p), HF_MACHINE);
  hf_fail_alloc_at(0);
  assert_null(p);
  assert_int_equal(mem_used_bytes(-1), before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(this_machine_has_a_core),
      cmocka_unit_test(caches_are_added_up),
      cmocka_unit_test(a_file_describes_nodes_that_are_not_there),
      cmocka_unit_test(a_bad_file_is_named),
      cmocka_unit_test(memory_is_zero_aligned_and_counted),
      cmocka_unit_test(pieces_do_not_meet),
      cmocka_unit_test(too_much_is_refused_with_its_name),
  };
  topo = calloc(1, sizeof *topo);
  if (!topo) return 1;
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  free(topo);
  return failed;
}
