/* check_kernels: one program that checks every kernel variant and, with --time, times it.
 *
 *   check_kernels                 all variants under every instruction set of this machine; exit 1 when one differs
 *   check_kernels --only q8_0     products whose name contains the word
 *   check_kernels --time          GB/s and GFLOP/s of each product by shape and tokens, beside the DRAM read bandwidth */
#include <stdio.h>
#include <string.h>

#include "check.h"

static const struct {
  const char *name;
  unsigned mask;
} levels[] = {
    {"scalar", KERN_ISA_SCALAR},
    {"avx2", KERN_ISA_AVX2},
    {"avx512", KERN_ISA_AVX2 | KERN_ISA_AVX512},
    {"avx512+vnni", KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI},
    {"avx512+bf16", KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_BF16},
    {"avx512+vnni+bf16+amx",
     KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI | KERN_ISA_AVX512_BF16 | KERN_ISA_AMX_INT8 | KERN_ISA_AMX_BF16},
};

static void check_masks(void) {
  unsigned have = kern_isa_detected();
  for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
    kern_table t;
    bool supported = (levels[i].mask & ~have) == 0;
    hf_status st = kern_table_for(levels[i].mask, &t);
    expect((st == HF_OK) == supported, "mask %s: status %d, supported %d", levels[i].name, st, supported);
    if (!supported) {
      printf("%s: NOT RUN, this machine has no such instructions\n", levels[i].name);
      continue;
    }
    printf("%s: operations\n", levels[i].name);
    check_operations(levels[i].mask, levels[i].name);
  }
}

static void check_names(void) {
  static const char *const good[] = {"native", "scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512+vnni+bf16", "amx"};
  unsigned mask;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) expect(kern_isa_parse(good[i], &mask) == HF_OK, "name %s", good[i]);
  expect(kern_isa_parse("avx9", &mask) == HF_INPUT && strstr(hf_error_line(), "avx9"), "a wrong name is HF_INPUT and named");
  expect(kern_isa_parse("", &mask) == HF_INPUT, "an empty name is HF_INPUT");
}

static void check_start(void) {
  if (!expect(kern_init(NULL) == HF_OK, "kern_init: %s", hf_error_line())) return;
  expect(kern_self_check() == HF_OK, "self-check: %s", hf_error_line());
  for (int f = 0; f < KF_N; f++) {
    kern_act a = kern_act_of((kern_format)f, false);
    const kern_layout l = kern_best_layout((kern_format)f, a, 4096);
    const kern_mm_candidate *best = kern_mm_pick((kern_format)f, a, l, 4096, 16, NULL), *all[24];
    const int n = kern_mm_candidates(kern_get()->isa, (kern_format)f, a, all, 24);
    int first = 0;
    while (first < n && all[first]->library) first++;
    expect(best && first < n && (best == all[first] || all[first]->isa == KERN_ISA_SCALAR), "pick: the first that accepts");
    char ref[32];
    snprintf(ref, sizeof ref, "%s.ref", kern_format_name((kern_format)f));
    expect(strcmp(kern_mm_pick((kern_format)f, a, KL_ROWS, 4096, 1, ref)->name, ref) == 0, "pick: the preferred one");
    expect(kern_mm_pick((kern_format)f, a, l, 4096, 16, "no.such") == best, "pick: an unknown name gives the best");
  }
}

int main(int argc, char **argv) {
  bool timing = false;
  const char *only = NULL;
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--time") == 0) {
      timing = true;
    } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      fprintf(stderr, "usage: check_kernels [--time] [--only WORD]\n");
      return 2;
    }
  }
  if (timing) {
    time_everything(only);
    return 0;
  }
  check_names();
  check_start();
  if (!only) check_masks();
  printf("products\n");
  check_products(kern_isa_detected(), only);
#ifdef HF_X86
  printf("AMX products under the model of its instructions\n");
  check_amx(kern_isa_detected(), only);
#endif
  printf("%ld checks, %d failed\n", checks_made(), checks_failed());
  return checks_failed() ? 1 : 0;
}
