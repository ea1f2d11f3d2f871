/* check_amx.c: the AMX kernels under the model of the tile instructions: like every other product against sums in double, and the integer ones bit
 * for bit against those of AVX-512, whose sums they share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amx_model.h"

enum { AVX2 = KERN_ISA_AVX2, AVX512 = AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI };

#define MODEL(f, name, act, multiple)                                                                                   \
  {"amx model, AVX2: " #name, AVX2, f, act, KL_TILE16, 0, multiple, amx_model_##name##_avx2}, {                         \
    "amx model, AVX-512: " #name, AVX512 | (act == KA_BF16 ? KERN_ISA_AVX512_BF16 | KERN_ISA_AVX512_VBMI : 0u), f, act, \
        KL_TILE16, 0, multiple, amx_model_##name##_avx512                                                               \
  }

static const kern_mm_candidate models[] = {
    MODEL(KF_Q8_0, q8_0, KA_Q8B32, 32),  MODEL(KF_Q4_0, q4_0, KA_Q8B32, 32),      MODEL(KF_Q4_1, q4_1, KA_Q8B32, 32),
    MODEL(KF_Q5_0, q5_0, KA_Q8B32, 32),  MODEL(KF_Q5_1, q5_1, KA_Q8B32, 32),      MODEL(KF_IQ4_NL, iq4_nl, KA_Q8B32, 32),
    MODEL(KF_INT4, int4, KA_Q8B32, 32),  MODEL(KF_MXFP4, mxfp4, KA_Q8B32, 32),    MODEL(KF_Q4_K, q4_k, KA_Q8B32, 256),
    MODEL(KF_Q5_K, q5_k, KA_Q8B32, 256), MODEL(KF_Q6_K, q6_k, KA_Q8B32, 256),     MODEL(KF_Q3_K, q3_k, KA_Q8B32, 256),
    MODEL(KF_Q2_K, q2_k, KA_Q8B32, 256), MODEL(KF_IQ4_XS, iq4_xs, KA_Q8B32, 256), MODEL(KF_BF16, bf16, KA_BF16, 32),
    MODEL(KF_FP8, fp8, KA_BF16, 32),
};

/* The integer product of AVX-512 has the same sums in the same order. */
static void same_as_avx512(const kern_mm_candidate *c, unsigned have) {
  const kern_mm_candidate *all[24];
  char name[64];
  int n = kern_mm_candidates(have, c->format, c->act, all, 24);
  snprintf(name, sizeof name, "%s.tile.avx512vnni", kern_format_name(c->format));
  for (int i = 0; i < n && i < 24; i++)
    if (strcmp(all[i]->name, name) == 0) check_same_bits(c, all[i]);
}

void check_amx(unsigned have, const char *only) {
  for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
    const kern_mm_candidate *c = &models[i];
    int before = checks_failed();
    if (only && !strstr(c->name, only)) continue;
    if (c->isa & ~have) {
      printf("  %-34s NOT RUN, this machine has no such instructions\n", c->name);
      continue;
    }
    check_candidate(c);
    if (c->act == KA_Q8B32) same_as_avx512(c, have);
    printf("  %-34s %s\n", c->name, checks_failed() == before ? "ok" : "DIFFERS");
  }
}
