/* A model written again as GGUF: tokenizers that say the same, the plan of a file, rows where they belong, faults one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/export.h"
#include "model/gguf_write.h"
#include "model/tokenizer_int.h"

#define GOLDEN "tests/golden/"

static char folder[] = "/tmp/hf-export-XXXXXX";

static model *open_ok(const char *path) {
  model *m = NULL;
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
  return m;
}

/* ---- tokenizers ---- */

/* The tokenizer at `path` through GGUF metadata: what comes back splits and encodes alike. */
static void tokenizer_survives(const char *path) {
  static const char *const texts[] = {
      "",
      " ",
      "To be, or not to be: that is the question.\n\n\t  x",
      "I'm 12345 HelloWorld don't STOP",
      "caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97 \xf0\x9f\x99\x82 \xd0\x9f\xd1\x80\xd0\xb8",
      "<|im_start|> </s> <s>"};
  tokenizer *t = NULL, *back = NULL;
  char file[300];
  if (tokenizer_open(path, &t) != HF_OK) fail_msg("%s", hf_error_line());
  model_config c = {.vocab_size = tokenizer_vocab_size(t) + 3, .bos_id = -1};
  gguf_head kv, infos;
  hf_buf out;
  gguf_head_init(&kv, "test");
  gguf_head_init(&infos, "test");
  if (tok_put_gguf(t, &c, &kv) != HF_OK) fail_msg("%s: %s", path, hf_error_line());
  assert_int_equal(gguf_header(&kv, &infos, &out), HF_OK);
  snprintf(file, sizeof file, "%s/tokenizer.gguf", folder);
  assert_int_equal(hf_write_file(file, out.data, out.len), HF_OK);
  hf_buf_free(&out);
  if (tokenizer_open(file, &back) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(tokenizer_vocab_size(back), c.vocab_size);
  assert_int_equal(tokenizer_bos(back), tokenizer_bos(t));
  assert_int_equal(tokenizer_eos(back), tokenizer_eos(t));
  assert_int_equal(tokenizer_adds_bos(back), tokenizer_adds_bos(t));
  assert_int_equal(tokenizer_chat_template(back) != NULL, tokenizer_chat_template(t) != NULL);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    int32_t *a = NULL, *b = NULL;
    int n_a = 0, n_b = 0;
    for (int special = 0; special < 2; special++) {
      if (tokenizer_encode(t, texts[i], strlen(texts[i]), true, special, &a, &n_a) != HF_OK)
        fail_msg("%s: %s", path, hf_error_line());
      assert_int_equal(tokenizer_encode(back, texts[i], strlen(texts[i]), true, special, &b, &n_b), HF_OK);
      if (n_a != n_b || memcmp(a, b, (size_t)n_a * sizeof *a)) fail_msg("%s: text %zu has other ids", path, i);
      free(a);
      free(b);
    }
  }
  tokenizer_close(t);
  tokenizer_close(back);
  unlink(file);
}

static void tokenizers(void **state) {
  (void)state;
  tokenizer_survives("examples/tiny-moe");
  tokenizer_survives(GOLDEN "tokenizers/ggml-vocab-gpt-2.gguf");
  tokenizer_survives(GOLDEN "tokenizers/ggml-vocab-deepseek-llm.gguf");
  tokenizer_survives(GOLDEN "tokenizers/ggml-vocab-llama-spm.gguf");
}

static void more_tokens_than_rows(void **state) {
  (void)state;
  tokenizer *t = NULL;
  model_config c = {.vocab_size = 100};
  gguf_head kv;
  gguf_head_init(&kv, "test");
  assert_int_equal(tokenizer_open("examples/tiny-moe", &t), HF_OK);
  assert_int_equal(tok_put_gguf(t, &c, &kv), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "4096 tokens, but the model has rows for 100"));
  hf_buf_free(&kv.b);
  tokenizer_close(t);
}

/* tiktoken's way of merging becomes a list of merges: token 259 is spelled ab + c, 258 from bytes. */
static void tiktoken_merges(void **state) {
  (void)state;
  char text[8192];
  size_t n = 0;
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int i = 0; i < 256; i++)
    n += (size_t)snprintf(text + n, sizeof text - n, "%c%c== %d\n", digits[i >> 2], digits[(i & 3) << 4], i);
  n += (size_t)snprintf(text + n, sizeof text - n, "YWI= 256\nYmM= 257\nYWJj 258\n"); /* ab, bc, abc */
  tokenizer *t = NULL;
  if (tokenizer_open_text(TOK_FILE_TIKTOKEN, text, n, "test", &t) != HF_OK) fail_msg("%s", hf_error_line());
  model_config c = {.vocab_size = tokenizer_vocab_size(t), .bos_id = -1};
  gguf_head kv, infos;
  hf_buf out;
  char file[300];
  gguf_head_init(&kv, "test");
  gguf_head_init(&infos, "test");
  if (tok_put_gguf(t, &c, &kv) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(gguf_header(&kv, &infos, &out), HF_OK);
  assert_non_null(memmem(out.data, out.len, "\4\0\0\0\0\0\0\0ab c", 12));
  snprintf(file, sizeof file, "%s/tiktoken.gguf", folder);
  assert_int_equal(hf_write_file(file, out.data, out.len), HF_OK);
  tokenizer *back = NULL;
  if (tokenizer_open(file, &back) != HF_OK) fail_msg("%s", hf_error_line());
  static const char *const words[] = {"abc", "abbc", "xabcab", "bcbc"};
  for (int i = 0; i < 4; i++) {
    int32_t *a = NULL, *b = NULL;
    int n_a = 0, n_b = 0;
    assert_int_equal(tokenizer_encode(t, words[i], strlen(words[i]), false, false, &a, &n_a), HF_OK);
    assert_int_equal(tokenizer_encode(back, words[i], strlen(words[i]), false, false, &b, &n_b), HF_OK);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, (size_t)n_a * sizeof *a);
    free(a);
    free(b);
  }
  hf_buf_free(&out);
  unlink(file);
  tokenizer_close(t);
  tokenizer_close(back);
}

/* ---- plans ---- */

static const export_tensor *find(const model_export *e, const char *name, int *at) {
  for (int i = 0; i < model_export_count(e); i++)
    if (!strcmp(model_export_at(e, i)->name, name)) {
      *at = i;
      return model_export_at(e, i);
    }
  fail_msg("no tensor %s", name);
  return NULL;
}

static model_export *plan_ok(const model *m, const char *recipe) {
  model_recipe r;
  model_export *e = NULL;
  assert_int_equal(recipe_parse(recipe, model_get_config(m), &r), HF_OK);
  if (model_export_plan(m, &r, true, &e) != HF_OK) fail_msg("%s", hf_error_line());
  return e;
}

static void plan_of_a_folder(void **state) {
  (void)state;
  model *m = open_ok(GOLDEN "deepseek_v3");
  model_export *e = plan_ok(m, "q8_0:down=f16@2-2");
  int i;
  const export_tensor *t = find(e, "blk.2.ffn_down_exps.weight", &i);
  assert_int_equal(t->to, FMT_F16);
  assert_int_equal(t->n_mats, model_get_config(m)->n_experts);
  t = find(e, "blk.1.ffn_gate_inp.weight", &i);
  assert_int_equal(t->to, FMT_F32);
  assert_int_equal(t->part, PART_N);
  t = find(e, "blk.1.attn_k_b.weight", &i);
  assert_true(t->whole);
  uint64_t end = model_export_header(e)->len;
  for (i = 0; i < model_export_count(e); i++) {
    t = model_export_at(e, i);
    assert_int_equal(t->offset % 32, 0);
    assert_in_range(t->offset, end, end + 31);
    end = t->offset + t->bytes;
  }
  assert_in_range(model_export_bytes(e), end, end + 31);
  model_export_free(e);
  model_close(m);
}

/* llama.cpp's order of the rows of q and k: what the model room reads back from such a file is the folder's. */
static void rows_change_places(void **state) {
  (void)state;
  model *m = open_ok(GOLDEN "mixtral");
  model_export *e = plan_ok(m, "bf16");
  int i;
  const export_tensor *t = find(e, "blk.0.attn_q.weight", &i);
  int hd = model_get_config(m)->head_dim;
  assert_int_equal(t->row_group, hd);
  assert_int_equal(model_export_place(e, i, 0), 0);
  assert_int_equal(model_export_place(e, i, 1), 2);
  assert_int_equal(model_export_place(e, i, hd / 2), 1);
  assert_int_equal(model_export_place(e, i, hd + hd / 2 + 1), hd + 3);
  t = find(e, "blk.0.attn_v.weight", &i);
  assert_int_equal(t->row_group, 1);
  model_export_free(e);
  model_close(m);
}

/* Rows read in ranges are those read together: FP8 with scales of 128 x 128, stacked experts. */
static void ranges_of_rows(void **state) {
  (void)state;
  static const struct {
    const char *model, *tensor;
    int mat;
  } cases[] = {{GOLDEN "deepseek_v3_fp8", "blk.1.ffn_up_exps.weight", 3},
               {GOLDEN "qwen3_moe", "blk.1.ffn_down_exps.weight", 2},
               {GOLDEN "qwen3_moe_gguf/model.gguf", "blk.1.ffn_down_exps.weight", 5}};
  for (int k = 0; k < 3; k++) {
    model *m = open_ok(cases[k].model);
    model_export *e = plan_ok(m, "f32");
    int i;
    const export_tensor *t = find(e, cases[k].tensor, &i);
    assert_false(t->whole);
    size_t row = fmt_row_bytes(t->from, t->cols);
    char *all = malloc((size_t)t->rows * row), *piece = malloc((size_t)t->rows * row);
    assert_true(all && piece);
    assert_int_equal(model_export_read(e, i, cases[k].mat, 0, t->rows, all), HF_OK);
    for (int64_t r = 0; r + 5 <= t->rows; r += 5) {
      assert_int_equal(model_export_read(e, i, cases[k].mat, r, r + 5, piece), HF_OK);
      assert_memory_equal(piece, all + (size_t)r * row, 5 * row);
    }
    free(all);
    free(piece);
    model_export_free(e);
    model_close(m);
  }
}

static void refused(void **state) {
  (void)state;
  model *m = open_ok("synth:" GOLDEN "qwen3_moe,seed=1");
  model_recipe r;
  model_export *e = NULL;
  recipe_of(FMT_Q8_0, model_get_config(m), &r);
  assert_int_equal(model_export_plan(m, &r, true, &e), HF_INPUT);
  model_close(m);
  m = open_ok(GOLDEN "qwen3_moe");
  recipe_of(FMT_FP8_E4M3, model_get_config(m), &r);
  assert_int_equal(model_export_plan(m, &r, true, &e), HF_UNSUPPORTED);
  assert_non_null(strstr(hf_error_line(), "GGUF has no type for fp8"));
  model_close(m);
}

/* ---- faults ---- */

static void count_fault(void *user, const char *line) {
  assert_true(line[0] != 0);
  (*(int *)user)++;
}

static void faults_one_by_one(void **state) {
  (void)state;
  int n = 0;
  model *m = NULL;
  assert_int_equal(model_open_tolerant(GOLDEN "deepseek_v3", count_fault, &n, &m), HF_OK);
  assert_int_equal(n, 0);
  assert_int_equal(model_stored_count(m), 207);
  model_close(m);
  char *data = NULL, file[300];
  size_t size = 0;
  snprintf(file, sizeof file, "%s/cut.gguf", folder);
  assert_int_equal(hf_read_file(GOLDEN "qwen3_moe_gguf/model.gguf", 1 << 24, &data, &size), HF_OK);
  assert_int_equal(hf_write_file(file, data, size / 2), HF_OK);
  assert_int_equal(model_open(file, &m), HF_INPUT);
  assert_int_equal(model_open_tolerant(file, count_fault, &n, &m), HF_OK);
  assert_true(n > 3);
  int64_t there = 0;
  for (int64_t i = 0; i < model_stored_count(m); i++) there += model_stored(m, i).in_file;
  assert_int_equal(there + n, model_stored_count(m));
  model_close(m);
  free(data);
  unlink(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tokenizers),       cmocka_unit_test(more_tokens_than_rows), cmocka_unit_test(tiktoken_merges),
      cmocka_unit_test(plan_of_a_folder), cmocka_unit_test(rows_change_places),    cmocka_unit_test(ranges_of_rows),
      cmocka_unit_test(refused),          cmocka_unit_test(faults_one_by_one)};
  if (!mkdtemp(folder)) return 1;
  int bad = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(folder);
  return bad;
}
