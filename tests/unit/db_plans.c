/* plan.json and plan rows: round trips, and every contradiction refused by name. */
#include <math.h>

#include "tests/unit/db_common.h"

static hf_status read_text(const char *text, plan **out) {
  json *doc;
  HF_TRY(json_parse(text, strlen(text), "p.json", &doc));
  hf_status st = plan_read_json(doc, "p.json", out);
  json_free(doc);
  return st;
}

static char *compact_text(const plan *p) {
  json *doc;
  char *text = NULL;
  CHECK_OK(plan_to_json(p, &doc));
  CHECK_OK(json_print(doc, false, &text));
  json_free(doc);
  return text;
}

static void assert_same_plan(const plan *a, const plan *b) {
  plan x = *a, y = *b;
  assert_int_equal(x.n_layers, y.n_layers);
  for (int i = 0; i < x.n_layers; i++) {
    plan_layer l = x.layer[i], m = y.layer[i];
    assert_int_equal(l.n_experts, m.n_experts);
    if (l.n_experts) assert_memory_equal(l.device, m.device, sizeof *l.device * (size_t)l.n_experts);
    assert_int_equal(l.index, m.index);
    assert_int_equal(l.moe, m.moe);
    assert_memory_equal(&l.attn_ns, &m.attn_ns, sizeof(double[6]));
    assert_string_equal(l.binding, m.binding);
    assert_string_equal(l.prefill, m.prefill);
  }
  assert_memory_equal(x.device, y.device, sizeof x.device);
  assert_memory_equal(x.budget, y.budget, sizeof x.budget);
  assert_memory_equal(x.kernel, y.kernel, sizeof x.kernel);
  assert_memory_equal(&x.ilp, &y.ilp, sizeof x.ilp);
  assert_memory_equal(&x.decode_tok_per_s, &y.decode_tok_per_s, sizeof(plan_range) + 2 * sizeof(plan_percentiles));
  /* What is left are scalars and texts without padding between them that matters: the text of both tells. */
  char *s = compact_text(a), *t = compact_text(b);
  assert_string_equal(s, t);
  free(s);
  free(t);
}

static void round_trip(void **state) {
  (void)state;
  plan *p = sample_plan(), *q;
  char *first = plan_text(p);
  CHECK_OK(read_text(first, &q));
  assert_same_plan(p, q);
  assert_true(p->users == q->users && p->context == q->context && p->prompt_tokens == q->prompt_tokens);
  assert_true(p->output_tokens == q->output_tokens && p->depth == q->depth && p->threads == q->threads);
  assert_true(p->max_seqs == q->max_seqs && p->chunk_tokens == q->chunk_tokens && p->kv_page_tokens == q->kv_page_tokens);
  assert_true(p->kv_bytes == q->kv_bytes && p->cost_model_version == q->cost_model_version);
  assert_string_equal(p->model, q->model);
  assert_string_equal(p->inputs_hash, q->inputs_hash);
  assert_string_equal(p->popularity, q->popularity);
  assert_string_equal(p->tag, q->tag);
  char *second = plan_text(q);
  assert_string_equal(first, second);
  free(first);
  free(second);
  plan_free(p);
  plan_free(q);
}

static void contract_members(void **state) {
  (void)state;
  plan *p = sample_plan();
  json *doc;
  CHECK_OK(plan_to_json(p, &doc));
  static const char *const keys[] = {"plan_id", "model",     "machine", "users",  "context",   "depth", "placement",
                                     "ilp",     "predicted", "binding", "budget", "baselines", "advice"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) assert_non_null(json_get(doc, keys[i]));
  const json *runs = json_at(json_get(doc, "placement"), 1);
  assert_int_equal(json_len(json_at(json_get(doc, "placement"), 0)), 0);
  assert_int_equal(json_len(runs), 4);
  assert_true(json_number(json_first(json_first(runs)), 0) == 3);
  assert_true(json_number(json_at(json_first(runs), 1), 0) == -1);
  const json *predicted = json_get(doc, "predicted");
  assert_true(json_number(json_get(json_get(predicted, "decode_tok_per_s"), "likely"), 0) == 100.1);
  assert_true(json_number(json_get(json_get(predicted, "tpot_s"), "p99"), 0) == 0.06);
  assert_true(json_number(json_get(json_get(predicted, "ttft_s"), "p95"), 0) == 0.875);
  assert_null(json_get(json_get(predicted, "tpot_s"), "p95")); /* not stated: left out, and may be missing when read */
  assert_string_equal(json_string(json_get(json_at(json_get(doc, "budget"), 2), "where")), "ram");
  json_free(doc);
  plan_free(p);
}

/* Someone's own placement, one device per expert. */
static void plain_placement(void **state) {
  (void)state;
  plan *p = sample_plan(), *q;
  char *text = compact_text(p), changed[8192];
  char *at = strstr(text, "\"placement\":"), *end = strstr(text, ",\"layers\"");
  snprintf(changed, sizeof changed, "%.*s\"placement\":[[],[1,1,1,1,-1,-1,0,0],[[4,0],-1,[3,1]]]%s", (int)(at - text), text, end);
  CHECK_OK(read_text(changed, &q));
  assert_int_equal(q->layer[1].device[3], 1);
  assert_int_equal(q->layer[1].device[5], -1);
  assert_int_equal(q->layer[2].device[3], 0);
  assert_int_equal(q->layer[2].device[4], -1);
  assert_int_equal(q->layer[2].device[7], 1);
  plan_free(p);
  plan_free(q);
  free(text);
}

typedef struct {
  const char *from, *to, *error;
} edit;

static const edit edits[] = {
    {"\"users\":5", "\"users\":0", "users"},
    {"\"users\":5", "\"users\":-5", "users"},
    {"\"users\":5", "\"users\":5.5", "users"},
    {"\"users\":5", "\"users\":1e300", "users"},
    {"\"users\":5", "\"users\":\"5\"", "users"},
    {"\"users\":5", "\"users\":null", "users"},
    {"\"users\":5,", "", "users"},
    {"\"users\":5", "\"users\":5,\"users\":6", "users"},
    {"\"context\":4096", "\"context\":0", "context"},
    {"\"context\":4096", "\"context\":99999999999", "context"},
    {"\"depth\":2", "\"depth\":0", "depth"},
    {"\"depth\":2", "\"depth\":9", "depth"},
    {"\"schema_version\":1", "\"schema_version\":2", "schema_version"},
    {"\"schema_version\":1", "\"schema_version\":0", "schema_version"},
    {"\"n_layers\":3", "\"n_layers\":4", "n_layers"},
    {"\"n_layers\":3", "\"n_layers\":1000000000", "n_layers"},
    {"\"n_experts\":8", "\"n_experts\":9", "n_experts"},
    {"\"n_experts\":8", "\"n_experts\":100000", "n_experts"},
    {"\"placement\":[[],", "\"placement\":[", "placement"},
    {"\"placement\":[[]", "\"placement\":[[[8,0]]", "placement[0]"},
    {"[[3,-1]", "[[2,-1]", "placement[1]"},
    {"[[3,-1]", "[[4,-1]", "placement[1]"},
    {"[[3,-1]", "[[4000,-1]", "placement[1][0]"},
    {"[[3,-1]", "[[0,-1]", "placement[1][0]"},
    {"[[3,-1]", "[[-3,-1]", "placement[1][0]"},
    {"[[3,-1]", "[[3,-2]", "placement[1][0]"},
    {"[[3,-1]", "[[3,2]", "placement[1][0]"},
    {"[[3,-1]", "[[3]", "placement[1][0]"},
    {"[[3,-1]", "[[3,-1,0]", "placement[1][0]"},
    {"[[3,-1]", "[[3,\"gpu\"]", "placement[1][0]"},
    {"[[3,-1]", "[\"cpu\"", "placement[1][0]"},
    {"[[3,-1]", "[[3,0.5]", "placement[1][0]"},
    {"\"placement\":[[],", "\"placement\":[{},", "placement[0]"},
    {"\"layer\":1,", "\"layer\":0,", "layers[1]"},
    {"\"layer\":2,", "\"layer\":1,", "layers[2]"},
    {"\"layer\":2,", "\"layer\":-2,", "layers[2]"},
    {"\"layer\":1,\"moe\":true", "\"layer\":1,\"moe\":false", "layers[1]"},
    {"\"layer\":1,\"moe\":true,\"n_experts\":8", "\"layer\":1,\"moe\":true,\"n_experts\":7", "placement[1]"},
    {"\"layer\":1,\"moe\":true,\"n_experts\":8", "\"layer\":1,\"moe\":true,\"n_experts\":-8", "layers[1]"},
    {"\"layer\":0,\"moe\":false", "\"layer\":0,\"moe\":true", "layers[0]"},
    {"\"attn_ns\":12345.678", "\"attn_ns\":-1", "attn_ns"},
    {"\"attn_ns\":12345.678", "\"attn_ns\":null", "attn_ns"},
    {"\"binding\":\"cpu\"", "\"binding\":\"gremlins\"", "binding"},
    {"\"binding\":\"cpu\"", "\"binding\":\"npu\"", "binding"},
    {"\"prefill\":\"upload\"", "\"prefill\":\"wish\"", "prefill"},
    {"\"spec\":\"virtual:8M\",\"mem_bytes\":8388608},",
     "\"spec\":\"cuda:0\",\"mem_bytes\":1},{\"name\":\"a\",\"spec\":\"cuda:0:1G\",\"mem_bytes\":1},", "cuda:0"},
    {"\"mem_bytes\":8388608", "\"mem_bytes\":-8388608", "mem_bytes"},
    {"\"devices\":[", "\"devices\":[1,", "devices[0]"},
    {"\"gap\":0.00046", "\"gap\":-0.1", "gap"},
    {"\"bound_ns\":1234000.5", "\"bound_ns\":9e9", "bound_ns"},
    {"\"objective_ns\":1234567.25", "\"objective_ns\":1e308,\"objective_ms\":1e400", "too large"},
    {"\"low\":80.5", "\"low\":180.5", "decode_tok_per_s"},
    {"\"p99\":1}", "\"p99\":0.1}", "ttft_s"},
    {"\"p95\":0.875", "\"p95\":1.5", "ttft_s"},
    {"\"tag\":\"measured\"", "\"tag\":\"hoped\"", "tag"},
    {"\"bytes\":4194304,", "\"bytes\":4194305,", "gpu0"},
    {"\"bytes\":4194304,", "\"bytes\":-1,", "budget[0]"},
    {"\"what\":\"KV cache\"", "\"what\":\"resident experts\"", "budget[1]"},
    {"\"limit_bytes\":8388608}", "\"limit_bytes\":9388608}", "limit"},
    {"\"tokens_lo\":5", "\"tokens_lo\":4", "kernels"},
    {"\"tokens_hi\":512", "\"tokens_hi\":1", "kernels"},
    {"\"kv\":{", "\"kv\":[],\"kw\":{", "kv"},
    {"\"type\":\"bf16\"", "\"type\":\"a very long type\"", "type"},
    {"\"family\":\"", "\"family\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "family"},
    {"\"threads\":2", "\"threads\":70000", "threads"},
    {"\"model\":\"tiny", "\"model\":\"\",\"was\":\"tiny", "model"},
};

static void contradictions(void **state) {
  (void)state;
  plan *p = sample_plan(), *q = NULL;
  char *text = compact_text(p);
  for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
    char changed[8192];
    const char *at = strstr(text, edits[i].from);
    if (!at) fail_msg("edit %zu: no %s in the text", i, edits[i].from);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, edits[i].to, at + strlen(edits[i].from));
    hf_status st = read_text(changed, &q);
    if (st != HF_INPUT || !strstr(hf_error_line(), edits[i].error) || !strstr(hf_error_line(), "p.json")) {
      fail_msg("edit %zu (%s): status %d, error '%s'", i, edits[i].to, st, st ? hf_error_line() : "");
    }
  }
  free(text);
  plan_free(p);
}

static void cut_anywhere(void **state) {
  (void)state;
  plan *p = sample_plan(), *q = NULL;
  char *text = compact_text(p);
  size_t n = strlen(text);
  for (size_t i = 0; i < n; i++) {
    json *doc;
    if (json_parse(text, i, "p.json", &doc) == HF_OK) {
      assert_int_equal(plan_read_json(doc, "p.json", &q), HF_INPUT);
      json_free(doc);
    }
  }
  free(text);
  plan_free(p);
}

static void bad_structs(void **state) {
  (void)state;
  plan *p = sample_plan(), *none;
  json *doc;
  p->ilp.gap = NAN;
  assert_int_equal(plan_to_json(p, &doc), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "gap"));
  p->ilp.gap = 0;
  p->layer[1].device[7] = 2;
  assert_int_equal(plan_to_json(p, &doc), HF_INPUT);
  p->layer[1].device[7] = 0;
  char spec[sizeof p->device[1].spec];
  memcpy(spec, p->device[1].spec, sizeof spec);
  const int devices = p->n_devices;
  p->n_devices = 2;
  strcpy(p->device[1].spec, "remote:far");
  const int homes[] = {-1, 2, 1}; /* the last is another machine */
  for (int i = 0; i < 3; i++) {
    p->layer[1].home = homes[i];
    assert_int_equal(plan_check(p, "x"), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), "layers[1]: field home"));
  }
  memcpy(p->device[1].spec, spec, sizeof spec);
  p->layer[1].home = 0;
  CHECK_OK(plan_check(p, "x"));
  p->n_devices = devices;
  json_add_num(p->extra, "users", 3);
  assert_int_equal(plan_to_json(p, &doc), HF_INPUT);
  json_free(p->extra);
  p->extra = NULL;
  /* A plan that does not fit can be shown but is not accepted. */
  p->budget[0].bytes = INT64_C(1) << 40;
  CHECK_OK(plan_to_json(p, &doc));
  assert_int_equal(plan_check(p, "x"), HF_INPUT);
  assert_int_equal(plan_read_json(doc, "x", &none), HF_INPUT);
  json_free(doc);
  plan_free(p);
  assert_int_equal(plan_new(0, &none), HF_INPUT);
  assert_int_equal(plan_new(PLAN_MAX_LAYERS + 1, &none), HF_INPUT);
  plan_free(NULL);
}

static void in_the_database(void **state) {
  (void)state;
  db_place place;
  db *d;
  rec_machine m;
  rec_run r;
  plan *p = sample_plan(), *q;
  int n;
  place_make(&place);
  CHECK_OK(db_open(place.path, true, &d));
  rec_plan_head *heads;
  CHECK_OK(db_plan_heads(d, &heads, &n));
  assert_int_equal(n, 0);
  assert_null(heads);
  sample_machine(&m);
  sample_run(&r);
  CHECK_OK(db_machine_put(d, &m));
  CHECK_OK(db_run_put(d, &r));
  p->machine_id = m.id;
  p->from_run = r.id;
  CHECK_OK(db_plan_put(d, p));
  assert_true(p->id > 0);
  CHECK_OK(db_plan_get(d, p->id, &q));
  assert_int_equal(q->id, p->id);
  assert_int_equal(q->from_run, r.id);
  assert_same_plan(p, q);
  plan_free(q);
  int64_t first = p->id;
  CHECK_OK(db_plan_put(d, p)); /* again: a new row */
  assert_true(p->id > first);
  CHECK_OK(db_plan_heads(d, &heads, &n));
  assert_int_equal(n, 2);
  assert_int_equal(heads[0].id, p->id);
  assert_int_equal(heads[1].id, first);
  assert_int_equal(heads[1].from_run, r.id);
  assert_string_equal(heads[1].model, p->model);
  assert_true(heads[1].decode_tok_per_s == 100.1 && heads[1].depth == 2);
  free(heads);
  p->machine_id = 4711; /* of another database */
  assert_int_equal(db_plan_put(d, p), HF_INPUT);
  p->machine_id = m.id;
  p->budget[0].bytes = INT64_C(1) << 40;
  assert_int_equal(db_plan_put(d, p), HF_INPUT);
  assert_int_equal(db_plan_get(d, 4711, &q), HF_NOT_FOUND);
  CHECK_OK(db_plan_heads(d, &heads, &n));
  assert_int_equal(n, 2);
  free(heads);
  db_close(d);
  plan_free(p);
  place_remove(&place);
}

/* DeepSeek-R1's shape, worst case for runs: neighbours always elsewhere. */
static void large(void **state) {
  (void)state;
  db_place place;
  db *d;
  plan *p, *q;
  place_make(&place);
  CHECK_OK(plan_new(58, &p));
  strcpy(p->model, "deepseek-r1");
  strcpy(p->tag, "spec");
  p->users = p->context = p->depth = 1;
  p->n_experts = 256;
  p->n_devices = 1;
  strcpy(p->device[0].spec, "catalog:rtx4090");
  for (int i = 0; i < 58; i++) {
    plan_layer *l = &p->layer[i];
    l->index = i + 3;
    l->moe = true;
    l->n_experts = 256;
    CHECK_OK(hf_alloc(&l->device, 256, sizeof *l->device, "placement"));
    for (int e = 0; e < 256; e++) l->device[e] = e % 2 ? 0 : -1;
  }
  CHECK_OK(db_open(place.path, true, &d));
  CHECK_OK(db_plan_put(d, p));
  CHECK_OK(db_plan_get(d, p->id, &q));
  assert_same_plan(p, q);
  db_close(d);
  plan_free(p);
  plan_free(q);
  place_remove(&place);
}

static void from_file(void **state) {
  (void)state;
  db_place place;
  plan *p = sample_plan(), *q;
  char path[300];
  json *doc;
  place_make(&place);
  snprintf(path, sizeof path, "%s/plan.json", place.folder);
  assert_int_equal(plan_read_file(path, &q), HF_NOT_FOUND);
  CHECK_OK(plan_to_json(p, &doc));
  CHECK_OK(json_write_file(doc, path));
  json_free(doc);
  CHECK_OK(plan_read_file(path, &q));
  assert_same_plan(p, q);
  write_bytes(path, "[1,2]", 5);
  plan_free(q);
  assert_int_equal(plan_read_file(path, &q), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), path));
  plan_free(p);
  place_remove(&place);
}

/* Each allocation of writing and reading fails once: an error, no leak (the sanitizer build tells). */
static void allocations(void **state) {
  (void)state;
  plan *p = sample_plan(), *q = NULL;
  for (long n = 1;; n++) {
    json *doc = NULL;
    char *text = NULL;
    hf_fail_alloc_at(n);
    hf_status st = plan_to_json(p, &doc);
    if (st == HF_OK) st = json_print(doc, false, &text);
    json_free(doc);
    if (st == HF_OK) st = read_text(text, &q);
    free(text);
    hf_fail_alloc_at(0);
    if (st == HF_OK) break;
    assert_int_equal(st, HF_MACHINE);
    assert_true(n < 5000);
  }
  assert_same_plan(p, q);
  plan_free(p);
  plan_free(q);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),      cmocka_unit_test(contract_members),
      cmocka_unit_test(plain_placement), cmocka_unit_test(contradictions),
      cmocka_unit_test(cut_anywhere),    cmocka_unit_test(bad_structs),
      cmocka_unit_test(in_the_database), cmocka_unit_test(large),
      cmocka_unit_test(from_file),       cmocka_unit_test(allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
