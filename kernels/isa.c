/* isa.c: which instructions this machine has and the operating system lets us use. Built for baseline x86-64, like everything
 * outside kernels/x86. A feature counts only when the OS saves its registers (XCR0): the CPUID bit alone would fault. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "kernels/isa.h"

#ifdef HF_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t xcr0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

static bool bit(uint32_t reg, int n) {
  return reg >> n & 1u;
}

/* AMD before family 1Ah gathers lane by lane: a gather there costs more than scalar loads. */
static bool slow_gather(void) {
  uint32_t a, b, c, d;
  char vendor[13] = {0};
  if (!__get_cpuid(0, &a, &b, &c, &d)) return true;
  memcpy(vendor, &b, 4);
  memcpy(vendor + 4, &d, 4);
  memcpy(vendor + 8, &c, 4);
  if (strcmp(vendor, "AuthenticAMD") != 0 || !__get_cpuid(1, &a, &b, &c, &d)) return false;
  return (a >> 8 & 15u) + (a >> 20 & 255u) < 0x1a;
}

static const char *amx_state = "absent";

static bool ask_for_amx(void) {
  enum { REQUEST_PERMISSION = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18 /* XFEATURE_XTILEDATA */ };
  bool given = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  amx_state = given ? "present, permitted" : "present, not permitted by the operating system";
  return given;
}

static unsigned detect(void) {
  enum { XCR_AVX = 0x06, XCR_AVX512 = 0xe6, XCR_AMX = 0x60000 };
  uint32_t a, b, c, d, b7, c7, d7, a71;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  if (!bit(c, 27) || !bit(c, 28) || !bit(c, 12) || !bit(c, 29)) return 0; /* OSXSAVE, AVX, FMA, F16C */
  uint64_t os = xcr0();
  if ((os & XCR_AVX) != XCR_AVX || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !bit(b7, 5)) return 0;
  if (!__get_cpuid_count(7, 1, &a71, &b, &c, &d)) a71 = 0;
  unsigned isa = KERN_ISA_AVX2;
  bool f_dq_bw_vl = bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31);
  if ((os & XCR_AVX512) == XCR_AVX512 && f_dq_bw_vl) {
    isa |= KERN_ISA_AVX512;
    if (bit(c7, 11)) isa |= KERN_ISA_AVX512_VNNI;
    if (bit(a71, 5)) isa |= KERN_ISA_AVX512_BF16;
    if (bit(c7, 1)) isa |= KERN_ISA_AVX512_VBMI;
    if ((os & XCR_AMX) == XCR_AMX && bit(d7, 24) && ask_for_amx()) {
      if (bit(d7, 25)) isa |= KERN_ISA_AMX_INT8;
      if (bit(d7, 22)) isa |= KERN_ISA_AMX_BF16;
    }
  }
  return isa | (slow_gather() ? KERN_ISA_SLOW_GATHER : 0u);
}
#else
static const char *const amx_state = "absent";

static unsigned detect(void) {
  return KERN_ISA_SCALAR;
}
#endif

static unsigned detected;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void detect_once(void) {
  detected = detect();
}

unsigned kern_isa_detected(void) {
  pthread_once(&once, detect_once);
  return detected;
}

const char *kern_amx_state(void) {
  (void)kern_isa_detected();
  return amx_state;
}

/* Rising levels; "avx512bf16" includes VNNI because every CPU with the one has the other. */
static const struct {
  const char *name;
  unsigned mask;
} names[] = {
    {"scalar", KERN_ISA_SCALAR},
    {"avx2", KERN_ISA_AVX2},
    {"avx512", KERN_ISA_AVX2 | KERN_ISA_AVX512},
    {"avx512vnni", KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI},
    {"avx512bf16", KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI | KERN_ISA_AVX512_BF16},
    {"amx",
     KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI | KERN_ISA_AVX512_BF16 | KERN_ISA_AMX_INT8 | KERN_ISA_AMX_BF16},
    {"vnni", KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_VNNI},
    {"bf16", KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512_BF16},
};

static hf_status parse_word(const char *name, const char *word, size_t n, unsigned *mask) {
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (strlen(names[i].name) == n && memcmp(names[i].name, word, n) == 0) {
      *mask |= names[i].mask;
      return HF_OK;
    }
  }
  return hf_fail(HF_INPUT,
                 "instruction set \"%s\": \"%.*s\" is unknown; use native, scalar, avx2, avx512, avx512vnni, avx512bf16 or "
                 "amx, joined by +",
                 name, (int)n, word);
}

hf_status kern_isa_parse(const char *name, unsigned *mask) {
  if (strcmp(name, "native") == 0) {
    *mask = kern_isa_detected();
    return HF_OK;
  }
  unsigned m = 0;
  for (const char *p = name;;) {
    size_t n = strcspn(p, "+");
    HF_TRY(parse_word(name, p, n, &m));
    if (p[n] == '\0') break;
    p += n + 1;
  }
  if (m & KERN_ISA_AVX512_BF16) m |= kern_isa_detected() & KERN_ISA_AVX512_VBMI;
  *mask = m | (kern_isa_detected() & KERN_ISA_SLOW_GATHER);
  return HF_OK;
}

void isa_name(unsigned mask, char *out, size_t cap) {
  const char *base = mask & KERN_ISA_AVX512 ? "avx512" : mask & KERN_ISA_AVX2 ? "avx2" : "scalar";
  const bool amx = mask & KERN_ISA_AMX_INT8 && mask & KERN_ISA_AMX_BF16;
  snprintf(out, cap, "%s%s%s%s", base, mask & KERN_ISA_AVX512_VNNI ? "+vnni" : "", mask & KERN_ISA_AVX512_BF16 ? "+bf16" : "",
           amx ? "+amx" : "");
}
