/* check.c: see check.h. */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t state = 0x9e3779b97f4a7c15u;
static int failed;
static long made;

uint32_t rnd(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 32);
}

int rnd_between(int lo, int hi) {
  return lo + (int)(rnd() % (uint32_t)(hi - lo + 1));
}

const char *data_name(data_kind k) {
  static const char *const names[DATA_N] = {"random", "extreme magnitudes", "zeros and -0", "subnormal", "largest"};
  return names[k];
}

float rnd_value(data_kind k) {
  float u = (float)(int32_t)rnd() * 0x1p-31f;
  switch (k) {
    case DATA_EXTREME: return ldexpf(u, rnd_between(-13, 13));
    case DATA_ZERO: return rnd_between(0, 3) ? (rnd() & 1 ? 0.0f : -0.0f) : u;
    case DATA_SUBNORMAL: return rnd() & 1 ? u * 0x1p-127f : u * 0x1p-24f;
    case DATA_LARGEST: return rnd() & 1 ? 1.0f : -1.0f;
    default: return u;
  }
}

static size_t pages_of(size_t n) {
  return (n + 4095) / 4096 * 4096;
}

void *guarded(size_t n) {
  size_t size = pages_of(n ? n : 1);
  char *p = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || mprotect(p + size, 4096, PROT_NONE) != 0) {
    fprintf(stderr, "check_kernels: out of memory\n");
    exit(3);
  }
  return p + size - n;
}

void guarded_free(void *p, size_t n) {
  size_t size = pages_of(n ? n : 1);
  munmap((char *)p + n - size, size + 4096);
}

static float canary_value(int i) {
  return -7.5e20f - (float)i * 1e18f;
}

float *canary_new(int n) {
  float *p = NULL;
  if (posix_memalign((void **)&p, 64, ((size_t)n + 2 * CANARIES) * sizeof *p) != 0) {
    fprintf(stderr, "check_kernels: out of memory\n");
    exit(3);
  }
  for (int i = 0; i < n + 2 * CANARIES; i++) p[i] = canary_value(i);
  return p + CANARIES;
}

bool canary_broken(const float *p, int n) {
  for (int i = 0; i < CANARIES; i++) {
    if (p[i - CANARIES] != canary_value(i) || p[n + i] != canary_value(n + CANARIES + i)) return true;
  }
  return false;
}

void canary_free(float *p) {
  free(p - CANARIES);
}

bool expect(bool ok, const char *fmt, ...) {
  made++;
  if (ok) return true;
  if (failed++ < 40) {
    va_list args;
    va_start(args, fmt);
    fputs("FAILED ", stdout);
    vprintf(fmt, args);
    fputs("\n", stdout);
    va_end(args);
  }
  return false;
}

int checks_failed(void) {
  return failed;
}

long checks_made(void) {
  return made;
}
