/* standalone.c: drives a fuzz target without a fuzzing engine.
 *
 *   fuzz_ROOM_topic [--mutations N] [--seed S] [--write FILE] FILE_OR_FOLDER...
 *
 * Every file is given to the target as it is, then N mutations of it: bits flipped, bytes replaced by values that parsers trip
 * over, the end cut off, a piece removed, doubled, zeroed or filled with ones, one to four changes at a time. They depend on the
 * seed and the file alone, so a crash is found again; --write FILE stores each input before the call, so the one that crashed
 * is left there. Exit status 1: an input could not be read, or there was none (an empty corpus tests nothing). */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_MAX = 64 << 20 };

static long n_files, n_inputs, n_mutations;
static uint64_t seed = 1;
static const char *write_path;

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* The target gets a copy of exactly the right size, so that a sanitizer sees every read behind its end. */
static void give(const uint8_t *data, size_t n) {
  uint8_t *copy = malloc(n ? n : 1);
  if (!copy) abort();
  if (n) memcpy(copy, data, n);
  if (write_path) {
    FILE *f = fopen(write_path, "wb");
    if (f) {
      fwrite(copy, 1, n, f);
      fclose(f);
    }
  }
  LLVMFuzzerTestOneInput(copy, n);
  n_inputs++;
  free(copy);
}

/* One change to data[0..n), whose buffer has room for 2n bytes; returns the new size. */
static size_t change(uint8_t *data, size_t n, uint64_t *random) {
  static const uint8_t sharp[] = {0x00, 0xff, 0x7f, 0x80, '"', '\\', '{', '}', '[', ']', ',', '-', '9', 'e', '\n', 0xed};
  if (n == 0) return 0;
  size_t at = next_random(random) % n, length = 1 + next_random(random) % (n - at);
  if (length > 64 && next_random(random) % 4) length = 1 + length % 64;
  switch (next_random(random) % 7) {
    case 0: data[at] ^= (uint8_t)(1u << (next_random(random) % 8)); return n;
    case 1: data[at] = sharp[next_random(random) % sizeof sharp]; return n;
    case 2: return at; /* truncated */
    case 3: memmove(data + at, data + at + length, n - at - length); return n - length;
    case 4: memmove(data + at + length, data + at, n - at); return n + length; /* a piece twice in a row */
    case 5: memset(data + at, 0, length < 8 ? length : 8); return n;
    default: memset(data + at, 0xff, length < 8 ? length : 8); return n; /* huge counts and offsets */
  }
}

static void run_file(const uint8_t *data, size_t n) {
  give(data, n);
  n_files++;
  uint64_t random = seed;
  for (size_t i = 0; i < n; i++) random = (random ^ data[i]) * 0x100000001b3u;
  uint8_t *copy = malloc(16 * n + 16);
  if (!copy) abort();
  for (long m = 0; m < n_mutations; m++) {
    memcpy(copy, data, n);
    size_t size = n;
    for (uint64_t changes = 1 + next_random(&random) % 4; changes > 0; changes--) size = change(copy, size, &random);
    give(copy, size);
  }
  free(copy);
}

static int run_path(const char *path);

static int run_folder(const char *path) {
  struct dirent **entries;
  int n = scandir(path, &entries, NULL, alphasort), failed = 0;
  if (n < 0) {
    perror(path);
    return 1;
  }
  for (int i = 0; i < n; i++) {
    char *inner = NULL;
    if (entries[i]->d_name[0] != '.' && asprintf(&inner, "%s/%s", path, entries[i]->d_name) >= 0) failed |= run_path(inner);
    free(inner);
    free(entries[i]);
  }
  free(entries);
  return failed;
}

static int run_path(const char *path) {
  struct stat s;
  if (stat(path, &s) != 0) {
    perror(path);
    return 1;
  }
  if (S_ISDIR(s.st_mode)) return run_folder(path);
  FILE *f = s.st_size <= FILE_MAX ? fopen(path, "rb") : NULL;
  uint8_t *data = malloc((size_t)s.st_size + 1);
  size_t n = f && data ? fread(data, 1, (size_t)s.st_size, f) : 0;
  int failed = !f || !data || n != (size_t)s.st_size;
  if (f) fclose(f);
  if (failed) fprintf(stderr, "%s: cannot be read, or is longer than %d bytes\n", path, FILE_MAX);
  else run_file(data, n);
  free(data);
  return failed;
}

int main(int argc, char **argv) {
  int failed = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--mutations") == 0 && i + 1 < argc) n_mutations = strtol(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) seed = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--write") == 0 && i + 1 < argc) write_path = argv[++i];
    else failed |= run_path(argv[i]);
  }
  printf("%ld files, %ld inputs\n", n_files, n_inputs);
  if (n_files == 0) fprintf(stderr, "no input: an empty corpus tests nothing\n");
  return failed || n_files == 0;
}
