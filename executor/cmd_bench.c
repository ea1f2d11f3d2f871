/* cmd_bench.c: hf-run --bench: decode and prefill speed over users and prompt lengths, random tokens in every sequence (so that
 * sequences choose different experts), with the read bandwidth probed beside each cell. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "executor/ask.h"
#include "executor/beside.h"
#include "executor/commands.h"
#include "executor/drift.h"
#include "executor/prompts.h"
#include "executor/record.h"

typedef struct {
  int users, prompt_tokens;
  double prefill_tok_per_s, decode_tok_per_s, dram_bytes_per_token, dram_bytes_per_s, bandwidth_fraction, predicted,
      corrected /* for drift */, other_cpu_share;
  drift drift;
} cell;

typedef struct {
  const run_options *r;
  model *m;
  db *d;
  char db_path[4096];
  plan *fixed; /* the one of --plan */
  topology *topo;
  record_failure unlogged;
} bench;

/* Weight bytes that a decode step reads beside the routed experts: all dense parts once, embedding rows aside. */
static hf_status dense_bytes(const model *m, const engine_options *o, int64_t *out) {
  const model_config *c = model_get_config(m);
  int64_t sum = 0;
  model_tensor_info i;
  bool converted;
  for (int l = -1; l < c->n_layers; l++) {
    for (int id = MT_OUT_NORM; id < MT_N; id++) {
      bool expert = model_tensor_is_expert((model_tensor_id)id);
      bool global = id == MT_OUT_NORM || id == MT_OUTPUT;
      if (expert || global != (l < 0) || !model_has_tensor(m, (model_tensor_id)id, l)) continue;
      HF_TRY(loaded_tensor(m, o, (model_tensor_id)id, l, -1, &i, &converted));
      sum += (int64_t)i.bytes;
    }
  }
  *out = sum;
  return HF_OK;
}

/* What hf-plan says of this cell, for memory as it was measured and as it is now; 0 when it cannot say (no profile yet). */
static void predict(const bench *b, int output, int depth, cell *c) {
  plan_question q = {.db_path = b->db_path,
                     .model = b->r->model,
                     .gpu = b->r->gpu,
                     .machine = b->r->machine,
                     .kv_type = b->r->kv_type                      ? b->r->kv_type
                                : b->fixed && b->fixed->kv_type[0] ? b->fixed->kv_type
                                                                   : NULL,
                     .users = c->users,
                     .context = c->prompt_tokens + output,
                     .prompt_tokens = c->prompt_tokens,
                     .output_tokens = output,
                     .depth = depth,
                     .threads = b->r->threads};
  c->predicted = ask_decode_rate(&q);
  c->corrected = c->predicted / drift_slows(&c->drift, &q, c->predicted);
}

/* At depth 1 nothing is at work between steps; deeper, other micro-batches are. */
static void look(void *user, const sched *s) {
  (void)s;
  drift_look(user);
}

/* A database that fails (a full disk) ends no table: it is told below it. */
static hf_status log_cell(bench *b, const engine *e, const prompt_list *l, const serve_stats *st, const cell *c) {
  rec_run n = {.users = c->users,
               .depth = engine_opts(e)->depth,
               .threads = engine_threads(e),
               .dram_bytes_per_s = c->dram_bytes_per_s,
               .other_cpu_share = c->other_cpu_share,
               .predicted_decode_tok_per_s = c->predicted,
               .plan_id = b->fixed ? b->fixed->id : 0};
  snprintf(n.model, sizeof n.model, "%s", b->r->model);
  snprintf(n.format, sizeof n.format, "%s", fmt_get(model_get_config(b->m)->default_format)->name);
  snprintf(n.gpu, sizeof n.gpu, "%.95s", engine_opts(e)->gpu);
  snprintf(n.kind, sizeof n.kind, "bench");
  snprintf(n.status, sizeof n.status, "done");
  HF_TRY(record_figures(&n, l->req, l->n, st));
  if (b->unlogged.st == HF_OK) record_failed(&b->unlogged, record_run(b->d, &n, l->req, l->n, st));
  return HF_OK;
}

static hf_status run_cell(bench *b, cell *c) {
  const run_options *r = b->r;
  hf_status st;
  engine *e = NULL;
  engine_options o;
  stage_table *pace = NULL;
  prompt_list list = {0};
  serve_stats stats = {0};
  int out = r->output_tokens ? (int)r->output_tokens : 32;
  int64_t dense;
  prompt_options po = {.max_tokens = out, .ignore_eos = true};
  HF_TRY(prompts_random(c->users, c->prompt_tokens, model_get_config(b->m)->vocab_size, (uint64_t)r->seed, &po, &list));
  int depth = r->depth ? (int)r->depth : b->fixed ? b->fixed->depth : 1;
  HF_GO(end, engine_options_for(r, b->db_path, b->m, b->fixed, c->users, c->prompt_tokens + out, depth, &o, &pace));
  HF_GO(end, dense_bytes(b->m, &o, &dense));
  HF_GO(end, open_engine_or_explain(r, b->m, &o, &e));
  drift_begin(b->topo, engine_threads(e), &c->drift);
  drift_profile(&c->drift, b->d, b->fixed ? b->fixed->machine_id : 0);
  serve_options so = {
      .chunk_tokens = o.max_tok - o.max_seqs, .users = c->users, .user = &c->drift, .on_sched = depth == 1 ? look : NULL};
  beside_mark from = beside_now();
  HF_GO(end, serve_run(e, list.req, list.n, &so, &stats));
  HF_GO(end, device_stayed(&o, e));
  beside_mark to = beside_now();
  c->other_cpu_share = beside_share(&from, &to);
  c->dram_bytes_per_s = drift_bytes_per_s(&c->drift);
  c->decode_tok_per_s = serve_decode_rate(&stats);
  c->prefill_tok_per_s = stats.prefill_s > 0 ? stats.prefill_tokens / stats.prefill_s : 0;
  double distinct = 0; /* mean bytes of the experts that a decode step reads, all layers */
  int64_t steps = stats.decode_steps > 0 ? stats.decode_steps : 1;
  const model_config *mc = model_get_config(b->m);
  for (int l = 0; l < mc->n_layers; l++) {
    if (!mc->layer_is_moe[l]) continue;
    model_tensor_info g, d;
    bool converted;
    HF_GO(end, loaded_tensor(b->m, &o, MT_EXP_GATE, l, 0, &g, &converted));
    HF_GO(end, loaded_tensor(b->m, &o, MT_EXP_DOWN, l, 0, &d, &converted));
    double sum = 0;
    for (int t = 0; t <= stats.max_tok; t++)
      sum += (double)stats.distinct_sum[((size_t)mc->n_layers + (size_t)l) * ((size_t)stats.max_tok + 1) + (size_t)t];
    distinct += sum / (double)steps * (double)(2 * g.bytes + d.bytes);
  }
  double per_step = (double)dense + distinct;
  c->dram_bytes_per_token = per_step * depth / c->users; /* a step of a micro-batch gives users / depth tokens */
  c->bandwidth_fraction = c->dram_bytes_per_s > 0 ? c->dram_bytes_per_token * c->decode_tok_per_s / c->dram_bytes_per_s : 0;
  predict(b, out, depth, c);
  if (!r->no_log) st = log_cell(b, e, &list, &stats, c);
end:
  drift_end(&c->drift);
  serve_stats_free(&stats);
  prompts_free(&list);
  engine_close(e);
  stage_table_free(pace);
  return st;
}

static hf_status print_json(const cell *c, int n) {
  json *doc = json_new_object(), *list = json_add_array(doc, "results");
  for (int i = 0; i < n; i++) {
    json *o = json_add_object(list, NULL);
    json_add_int(o, "users", c[i].users);
    json_add_int(o, "prompt_tokens", c[i].prompt_tokens);
    json_add_num(o, "prefill_tok_per_s", c[i].prefill_tok_per_s);
    json_add_num(o, "decode_tok_per_s", c[i].decode_tok_per_s);
    json_add_num(o, "dram_bytes_per_token", c[i].dram_bytes_per_token);
    json_add_num(o, "dram_bytes_per_s", c[i].dram_bytes_per_s);
    if (c[i].other_cpu_share >= 0) json_add_num(o, "other_cpu_share", c[i].other_cpu_share);
    json_add_num(o, "bandwidth_fraction", c[i].bandwidth_fraction);
    drift_json(&c[i].drift, o);
    if (c[i].predicted > 0) {
      json_add_num(o, "predicted_decode_tok_per_s", c[i].predicted);
      json_add_num(o, "signed_error", (c[i].predicted - c[i].decode_tok_per_s) / c[i].decode_tok_per_s);
      json_add_num(o, "drift_corrected_decode_tok_per_s", c[i].corrected);
      json_add_num(o, "drift_corrected_signed_error", (c[i].corrected - c[i].decode_tok_per_s) / c[i].decode_tok_per_s);
    } else {
      json_add_null(o, "predicted_decode_tok_per_s");
    }
  }
  return json_show(doc);
}

static void print_cell(const cell *c, bool first) {
  if (first)
    printf("%6s %7s %12s %12s %12s %10s %12s %8s %14s\n", "users", "prompt", "prefill t/s", "decode t/s", "MB/token", "of DRAM",
           "predicted", "error", "but for drift");
  printf("%6d %7d %12.1f %12.2f %12.2f %9.0f%%", c->users, c->prompt_tokens, c->prefill_tok_per_s, c->decode_tok_per_s,
         c->dram_bytes_per_token / 1e6, 100 * c->bandwidth_fraction);
  if (c->predicted > 0)
    printf(" %12.2f %+7.1f%% %+13.1f%%\n", c->predicted, 100 * (c->predicted - c->decode_tok_per_s) / c->decode_tok_per_s,
           100 * (c->corrected - c->decode_tok_per_s) / c->decode_tok_per_s);
  else printf(" %12s %8s\n", "-", "-");
  fflush(stdout);
}

static hf_status run_cells(bench *b) {
  const run_options *r = b->r;
  cli_int_list users = r->users.n ? r->users : (cli_int_list){.n = 1, .v = {1}};
  cli_int_list prompts = r->prompt_tokens.n ? r->prompt_tokens : (cli_int_list){.n = 1, .v = {16}};
  cell *cells;
  int n = 0;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&cells, (size_t)(users.n * prompts.n), sizeof *cells, "results"));
  for (int p = 0; p < prompts.n && st == HF_OK; p++) {
    for (int u = 0; u < users.n && st == HF_OK; u++) {
      cells[n] = (cell){.users = (int)users.v[u], .prompt_tokens = (int)prompts.v[p]};
      st = run_cell(b, &cells[n]);
      if (st == HF_OK && !r->common.json) print_cell(&cells[n], n == 0);
      n++;
    }
  }
  if (st == HF_OK && r->common.json) st = print_json(cells, n);
  free(cells);
  if (st == HF_OK && b->unlogged.st != HF_OK)
    return hf_fail(b->unlogged.st, "%s; runs are not recorded from then on", b->unlogged.why);
  return st;
}

hf_status cmd_bench(const run_options *r) {
  hf_status st;
  bench b = {.r = r};
  HF_TRY(db_default_path(r->common.db_path, b.db_path, sizeof b.db_path));
  HF_TRY(open_model_to_run(r->model, &b.m));
  HF_GO(end, db_open(b.db_path, true, &b.d));
  HF_GO(end, plan_open(r, b.d, &b.fixed));
  HF_GO(end, hf_alloc(&b.topo, 1, sizeof *b.topo, "topology"));
  HF_GO(end, topo_get(b.topo));
  if (b.fixed && !r->no_log) HF_GO(end, plan_adopt(b.d, b.fixed));
  st = run_cells(&b);
end:
  free(b.topo);
  plan_free(b.fixed);
  if (b.d) db_close(b.d);
  model_close(b.m);
  return st;
}
