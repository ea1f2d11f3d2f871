/* Broken, contradictory and hostile weight files: one line that names the file and the field, HF_INPUT, nothing else. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/internal.h"

static char dir[] = "/tmp/hf-hostile-XXXXXX";
static char *gguf_bytes, *st_bytes, *config_bytes;
static size_t gguf_len, st_len, config_len;

static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(dir)) return 1;
  if (hf_read_file("tests/golden/deepseek_v3_gguf/model.gguf", 1 << 24, &gguf_bytes, &gguf_len) != HF_OK) return 1;
  if (hf_read_file("tests/golden/qwen3_moe/model.safetensors", 1 << 24, &st_bytes, &st_len) != HF_OK) return 1;
  return hf_read_file("tests/golden/qwen3_moe/config.json", 1 << 20, &config_bytes, &config_len) != HF_OK;
}

static int tear_down(void **state) {
  (void)state;
  free(gguf_bytes);
  free(st_bytes);
  free(config_bytes);
  char cmd[64];
  snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
  return system(cmd);
}

static const char *put(const char *name, const void *p, size_t n) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(p, 1, n, f), n);
  fclose(f);
  return path;
}

static void expect(const char *path, hf_status want, const char *file, const char *field) {
  model *m = NULL;
  hf_status st = model_open(path, &m);
  if (st == HF_OK) model_close(m);
  const char *line = st ? hf_error_line() : "accepted";
  if (st != want || !strstr(line, file) || !strstr(line, field))
    fail_msg("status %d where %d with '%s' was expected: %s", st, want, field, line);
  if (st && strchr(line, '\n')) fail_msg("more than one line: %s", line);
}

/* ---- GGUF ---- */

static size_t find(const char *what, size_t n) {
  char *p = memmem(gguf_bytes, gguf_len, what, n);
  assert_non_null(p);
  return (size_t)(p - gguf_bytes);
}

/* The file with `n` bytes at `at` replaced. */
static void patched(size_t at, const void *p, size_t n, hf_status want, const char *field) {
  char *copy = malloc(gguf_len);
  memcpy(copy, gguf_bytes, gguf_len);
  memcpy(copy + at, p, n);
  expect(put("x.gguf", copy, gguf_len), want, "x.gguf", field);
  free(copy);
}

static void patch_u32(const char *key, uint32_t v, hf_status want, const char *field) {
  patched(find(key, strlen(key)) + strlen(key) + 4, &v, 4, want, field);
}

static void test_gguf_truncated(void **state) {
  (void)state;
  for (size_t n = 0; n < 200; n++) expect(put("x.gguf", gguf_bytes, n), HF_INPUT, "x.gguf", "");
  for (size_t n = 200; n < 9600; n += 37) expect(put("x.gguf", gguf_bytes, n), HF_INPUT, "x.gguf", "truncated");
  expect(put("x.gguf", gguf_bytes, gguf_len - 1), HF_INPUT, "x.gguf", "tensor blk.2.ffn_down_exps.weight");
  expect(put("x.gguf", gguf_bytes, 20000), HF_INPUT, "x.gguf", "truncated");
}

static void test_gguf_header_only(void **state) {
  (void)state;
  model *m = NULL;
  size_t header = 9695; /* end of the tensor infos; data begins at 9696 */
  if (model_open(put("x.gguf", gguf_bytes, header), &m) != HF_OK) fail_msg("%s", hf_error_line());
  assert_false(model_has_weights(m));
  model *full = NULL;
  assert_int_equal(model_open("tests/golden/deepseek_v3_gguf/model.gguf", &full), HF_OK);
  assert_int_equal(model_total_bytes(m, FMT_DEFAULT), model_total_bytes(full, FMT_DEFAULT));
  model_tensor_info t;
  assert_int_equal(model_tensor(m, MT_EMBED, -1, -1, &t), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "header only"));
  model_close(full);
  model_close(m);
}

static void test_gguf_fields(void **state) {
  (void)state;
  uint64_t big = UINT64_MAX, one = 1, huge = (uint64_t)1 << 60;
  patched(0, "GGML", 4, HF_INPUT, "not a GGUF file");
  patched(4, "\4\0\0\0", 4, HF_UNSUPPORTED, "version 4");
  patched(4, "\0\0\0\3", 4, HF_UNSUPPORTED, "little-endian");
  patched(8, &big, 8, HF_INPUT, "tensors");
  patched(16, &big, 8, HF_INPUT, "metadata");
  patched(24, &huge, 8, HF_INPUT, "metadata key");
  patch_u32("deepseek2.block_count", 0, HF_INPUT, "deepseek2.block_count");
  patch_u32("deepseek2.block_count", 0xffffffff, HF_INPUT, "deepseek2.block_count");
  patch_u32("deepseek2.block_count", 4, HF_INPUT, "blk.3.");
  patch_u32("deepseek2.embedding_length", 65, HF_INPUT, "token_embd.weight");
  patch_u32("deepseek2.vocab_size", 289, HF_INPUT, "token_embd.weight");
  patch_u32("deepseek2.expert_count", 15, HF_INPUT, "experts");
  patch_u32("deepseek2.expert_count", 20, HF_INPUT, "shape");
  patch_u32("deepseek2.expert_used_count", 17, HF_INPUT, "17");
  patch_u32("deepseek2.attention.key_length_mla", 16, HF_INPUT, "key_length_mla");
  patch_u32("deepseek2.rope.scaling.factor", 0x7fc00000, HF_INPUT, "rope.scaling.factor"); /* NaN */
  patch_u32("tokenizer.ggml.bos_token_id", 288, HF_INPUT, "bos_token_id");
  /* a type where another is expected: u32 -> u8 shifts everything after it */
  patched(find("deepseek2.block_count", 21) + 21, "\x0f\0\0\0", 4, HF_INPUT, "deepseek2.block_count");
  patched(find("deepseek2.expert_weights_norm", 29) + 33, "\2", 1, HF_INPUT, "expert_weights_norm");
  /* tensor infos: name, dimensions, type, offset */
  size_t info = find("output.weight", 13) + 13;
  patched(info, "\0\0\0\0", 4, HF_INPUT, "output.weight");
  patched(info, "\5\0\0\0", 4, HF_INPUT, "output.weight");
  patched(info + 4, &big, 8, HF_INPUT, "output.weight");
  patched(info + 4, &one, 8, HF_INPUT, "output.weight");
  patched(info + 20, "\x63\0\0\0", 4, HF_UNSUPPORTED, "ggml type 99");
  patched(info + 20, "\x1a\0\0\0", 4, HF_INPUT, "output.weight"); /* I32 */
  patched(info + 24, &one, 8, HF_INPUT, "alignment");
  uint64_t zero = 0, far = (uint64_t)1 << 40, wrap = UINT64_MAX - 31;
  patched(info + 24, &zero, 8, HF_INPUT, "overlap");
  patched(info + 24, &far, 8, HF_INPUT, "output.weight");
  patched(info + 24, &wrap, 8, HF_INPUT, "output.weight");
  patched(find("blk.2.attn_q_a.weight", 21), "blk.1.attn_q_a.weight", 21, HF_INPUT, "twice");
  patched(find("blk.2.attn_q_a.weight", 21), "blk.2.attn_q_x.weight", 21, HF_INPUT, "blk.2.attn_q_a.weight is missing");
  patched(find("deepseek2.expert_group_used_count", 33), "deepseek2.expert_group_count\0\0\0\0\0", 33, HF_INPUT, "metadata key");
  patched(find("tokenizer.ggml.bos_token_id", 27), "tokenizer.ggml.eos_token_id", 27, HF_INPUT, "eos_token_id appears twice");
}

/* A key given twice contradicts itself, among thousands of keys too. */
static void test_gguf_many_keys(void **state) {
  (void)state;
  enum { KEYS = 6000, ENTRY = 8 + 5 + 4 + 1 };
  size_t n = 24 + (size_t)KEYS * ENTRY;
  char *file = calloc(1, n), *at = file + 24;
  memcpy(file, "GGUF\3", 5);
  file[16] = (char)(KEYS & 255), file[17] = (char)(KEYS >> 8);
  for (int i = 0; i < KEYS; i++, at += ENTRY) {
    char key[16];
    snprintf(key, sizeof key, "k%04d", i == KEYS - 1 ? 17 : i);
    at[0] = 5;
    memcpy(at + 8, key, 5); /* type 0: u8 */
  }
  expect(put("x.gguf", file, n), HF_INPUT, "x.gguf", "k0017 appears twice");
  free(file);
}

/* Layers may hold their experts in different formats; the model's format is that of the first, for every asker. */
static void test_gguf_mixed_layers(void **state) {
  (void)state;
  model *m = NULL;
  char *copy = malloc(gguf_len);
  memcpy(copy, gguf_bytes, gguf_len);
  size_t type = find("blk.2.ffn_gate_exps.weight", 26) + 26 + 4 + 3 * 8;
  assert_int_equal(copy[type], 1); /* F16; BF16 takes as many bytes */
  copy[type] = 30;
  if (model_open(put("x.gguf", copy, gguf_len), &m) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(model_get_config(m)->default_format, FMT_F16);
  model_layer_parts as_stored, asked;
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 2, &as_stored), HF_OK);
  assert_int_equal(model_layer_parts_of(m, model_get_config(m)->default_format, 2, &asked), HF_OK);
  assert_memory_equal(&asked, &as_stored, sizeof asked);
  model_close(m);
  free(copy);
}

static void test_gguf_shrinks(void **state) {
  (void)state;
  model *m = NULL;
  const char *path = put("x.gguf", gguf_bytes, gguf_len);
  assert_int_equal(model_open(path, &m), HF_OK);
  assert_int_equal(truncate(path, 12000), 0);
  model_tensor_info t;
  assert_int_equal(model_tensor(m, MT_EXP_DOWN, 2, 15, &t), HF_OK);
  char *buf = malloc(t.bytes);
  const void *map;
  assert_int_equal(model_tensor_read(m, MT_EXP_DOWN, 2, 15, buf, t.bytes), HF_MACHINE);
  assert_int_equal(model_tensor_map(m, MT_EXP_DOWN, 2, 15, &map), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "x.gguf"));
  free(buf);
  model_close(m);
}

/* ---- split GGUF: made from the golden file by giving each half a header of its own ---- */

static void append(hf_buf *b, const void *p, size_t n) {
  assert_int_equal(hf_buf_add(b, p, n), HF_OK);
}

static void append_kv(hf_buf *b, const char *key, uint32_t type, uint64_t v, int bytes) {
  uint64_t n = strlen(key);
  append(b, &n, 8);
  append(b, key, n);
  append(b, &type, 4);
  append(b, &v, (size_t)bytes);
}

/* Part 1: all metadata, no tensor. Part 2: all tensors. That is a valid split. */
static void write_split(uint64_t part2_no, uint64_t count) {
  enum { N_KV = 45, N_T = 52 };
  size_t kv_end = find("token_embd.weight", 17) - 8, header_end = 9695;
  hf_buf b;
  uint64_t n_t = 0, n_kv = N_KV + 3;
  hf_buf_init(&b, 1 << 20);
  append(&b, "GGUF\3\0\0\0", 8);
  append(&b, &n_t, 8);
  append(&b, &n_kv, 8);
  append_kv(&b, "split.no", 2, 0, 2);
  append_kv(&b, "split.count", 2, count, 2);
  append_kv(&b, "split.tensors.count", 5, N_T, 4);
  append(&b, gguf_bytes + 24, kv_end - 24);
  put("s-00001-of-00002.gguf", b.data, b.len);
  hf_buf_free(&b);
  n_t = N_T;
  n_kv = 2;
  hf_buf_init(&b, 1 << 20);
  append(&b, "GGUF\3\0\0\0", 8);
  append(&b, &n_t, 8);
  append(&b, &n_kv, 8);
  append_kv(&b, "split.no", 2, part2_no, 2);
  append_kv(&b, "split.count", 2, count, 2);
  append(&b, gguf_bytes + kv_end, header_end - kv_end);
  while (b.len % 32) append(&b, "", 1);
  append(&b, gguf_bytes + 9696, gguf_len - 9696);
  put("s-00002-of-00002.gguf", b.data, b.len);
  hf_buf_free(&b);
}

static void test_gguf_split(void **state) {
  (void)state;
  char first[128], second[128];
  snprintf(first, sizeof first, "%s/s-00001-of-00002.gguf", dir);
  snprintf(second, sizeof second, "%s/s-00002-of-00002.gguf", dir);
  write_split(1, 2);
  model *m = NULL, *whole = NULL;
  if (model_open(first, &m) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(model_open("tests/golden/deepseek_v3_gguf/model.gguf", &whole), HF_OK);
  assert_true(model_has_weights(m));
  assert_null(config_differ(&m->c, &whole->c));
  const void *a, *b;
  model_tensor_info t;
  assert_int_equal(model_tensor(m, MT_EXP_UP, 1, 7, &t), HF_OK);
  assert_int_equal(model_tensor_map(m, MT_EXP_UP, 1, 7, &a), HF_OK);
  assert_int_equal(model_tensor_map(whole, MT_EXP_UP, 1, 7, &b), HF_OK);
  assert_memory_equal(a, b, t.bytes);
  model_close(m);
  model_close(whole);
  expect(second, HF_INPUT, "s-00002-of-00002.gguf", "name the first file");
  write_split(0, 2);
  expect(first, HF_INPUT, "s-00002-of-00002.gguf", "split.no");
  write_split(1, 3);
  expect(first, HF_INPUT, "s-00001-of-00002.gguf", "-00001-of-00003.gguf");
  write_split(1, 2);
  unlink(second);
  assert_int_equal(model_open(first, &m), HF_OK); /* enough to plan */
  assert_false(model_has_weights(m));
  assert_int_equal(model_tensor(m, MT_EMBED, -1, -1, &t), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "s-00002-of-00002.gguf"));
  model_close(m);
}

/* ---- safetensors ---- */

/* A folder with the golden config and one safetensors file of the given header and data size. */
static void st_case(const char *header, size_t data, hf_status want, const char *field) {
  size_t n = strlen(header);
  char *p = calloc(1, 8 + n + data);
  for (int i = 0; i < 8; i++) p[i] = (char)(n >> 8 * i);
  memcpy(p + 8, header, n);
  put("model.safetensors", p, 8 + n + data);
  free(p);
  expect(dir, want, "model.safetensors", field);
}

static void test_safetensors(void **state) {
  (void)state;
  put("config.json", config_bytes, config_len);
  for (size_t n = 0; n < 64; n++) {
    put("model.safetensors", st_bytes, n);
    expect(dir, HF_INPUT, "model.safetensors", "");
  }
  put("model.safetensors", st_bytes, st_len - 1);
  expect(dir, HF_INPUT, "model.safetensors", "truncated");
  char *longer = calloc(1, st_len + 8);
  memcpy(longer, st_bytes, st_len);
  put("model.safetensors", longer, st_len + 8);
  free(longer);
  expect(dir, HF_INPUT, "model.safetensors", "longer");
  put("model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
  expect(dir, HF_INPUT, "model.safetensors", "header length");
  st_case("{\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[9007199254740992,1024,0],\"data_offsets\":[0,0]}}", 0,
          HF_INPUT, "shape times");
  char fifo[64];
  snprintf(fifo, sizeof fifo, "%s/model.safetensors", dir);
  assert_int_equal(unlink(fifo), 0);
  assert_int_equal(mkfifo(fifo, 0600), 0); /* nobody writes: a plain open would wait for ever */
  expect(dir, HF_INPUT, "model.safetensors", "not a regular file");
  assert_int_equal(unlink(fifo), 0);
  st_case("[]", 0, HF_INPUT, "object");
  st_case("{\"a\":1}", 0, HF_INPUT, "a");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},}", 4, HF_INPUT, "line");
  st_case("{\"a\":{\"dtype\":\"Q9\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, HF_UNSUPPORTED, "Q9");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, HF_INPUT, "shape");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, HF_INPUT, "shape");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, HF_INPUT, "shape");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, HF_INPUT, "shape times F32");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, HF_INPUT, "shape times");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, HF_INPUT, "data_offsets");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, HF_INPUT, "data_offsets");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, HF_INPUT, "data_offsets");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
          "offsets\":[2,6]}}",
          6, HF_INPUT, "overlap");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
          "offsets\":[8,12]}}",
          12, HF_INPUT, "no tensor");
  st_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
          "offsets\":[4,8]}}",
          8, HF_INPUT, "twice");
  char path[128];
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  unlink(path);
  mkdir(path, 0777);
  expect(dir, HF_INPUT, "model.safetensors", "regular");
  rmdir(path);
}

static void test_index(void **state) {
  (void)state;
  static const char *const bad[][2] = {
      {"{}", "weight_map"},
      {"{\"weight_map\":{}}", "weight_map"},
      {"{\"weight_map\":{\"a\":7}}", "weight_map"},
      {"{\"weight_map\":{\"a\":\"../evil\"}}", "weight_map"},
      {"{\"weight_map\":{\"a\":\"model.safetensors\"}}", "tensor a"},
  };
  put("config.json", config_bytes, config_len);
  put("model.safetensors", st_bytes, st_len);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    put("model.safetensors.index.json", bad[i][0], strlen(bad[i][0]));
    expect(dir, HF_INPUT, "index.json", bad[i][1]);
  }
  static const char missing[] = "{\"weight_map\":{\"a\":\"model-00001-of-00009.safetensors\"}}";
  put("model.safetensors.index.json", missing, sizeof missing - 1);
  model *m = NULL;
  assert_int_equal(model_open(dir, &m), HF_OK); /* not downloaded yet: enough to plan */
  assert_false(model_has_weights(m));
  const void *p;
  assert_int_equal(model_tensor_map(m, MT_EMBED, -1, -1, &p), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "model-00001-of-00009"));
  model_close(m);
  char path[128];
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
  unlink(path);
}

static void test_contradicting_config(void **state) {
  (void)state;
  put("model.safetensors", st_bytes, st_len);
  static const char *const change[][3] = {
      {"\"num_experts\": 16", "\"num_experts\": 17", "mlp.gate.weight"},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2."},
      {"\"head_dim\": 24", "\"head_dim\": 22", "q_proj"},
      {"\"vocab_size\": 320", "\"vocab_size\": 321", "embed_tokens"},
      {"\"moe_intermediate_size\": 24", "\"moe_intermediate_size\": 25", "experts.0."},
  };
  for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
    char *text = malloc(config_len + 1), *at;
    memcpy(text, config_bytes, config_len);
    text[config_len] = 0;
    at = strstr(text, change[i][0]);
    assert_non_null(at);
    assert_int_equal(strlen(change[i][0]), strlen(change[i][1]));
    memcpy(at, change[i][1], strlen(change[i][1]));
    put("config.json", text, config_len);
    free(text);
    expect(dir, HF_INPUT, dir, change[i][2]);
  }
}

static void test_paths(void **state) {
  (void)state;
  expect("no-such-thing", HF_NOT_FOUND, "no-such-thing", "");
  expect("tests", HF_NOT_FOUND, "tests", "config.json is missing");
  expect("tests/golden/README.md", HF_INPUT, "README.md", "neither");
  expect("tests/golden/tokenizers/gpt-2/gpt-2.gguf.none", HF_NOT_FOUND, "gpt-2", "");
}

/* Every allocation of an opening may fail. */
static void test_allocation_failures(void **state) {
  (void)state;
  static const char *const paths[] = {"tests/golden/deepseek_v3", "tests/golden/deepseek_v3_gguf/model.gguf",
                                      "synth:tests/golden/qwen3_moe,seed=3"};
  for (int p = 0; p < 3; p++) {
    int failures = 0;
    for (long n = 1; n < 2000; n++) {
      model *m = NULL;
      hf_fail_alloc_at(n);
      hf_status st = model_open(paths[p], &m);
      hf_fail_alloc_at(0);
      if (st == HF_OK) {
        model_close(m);
        break;
      }
      assert_int_equal(st, HF_MACHINE);
      failures++;
    }
    assert_true(failures > 3);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gguf_truncated), cmocka_unit_test(test_gguf_header_only),
      cmocka_unit_test(test_gguf_fields),    cmocka_unit_test(test_gguf_shrinks),
      cmocka_unit_test(test_gguf_many_keys), cmocka_unit_test(test_gguf_mixed_layers),
      cmocka_unit_test(test_gguf_split),     cmocka_unit_test(test_safetensors),
      cmocka_unit_test(test_index),          cmocka_unit_test(test_contradicting_config),
      cmocka_unit_test(test_paths),          cmocka_unit_test(test_allocation_failures),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
