#include "planner/plan_inputs.h"
#include "planner/plan_standby.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db/catalog.h"
#include "model/recipe.h"
#include "planner/cost/remote.h"
#include "planner/ilp/ilp.h"
#include "sched/sched.h"

void plan_use_catalog(void) {
  model_set_catalog_hook(catalog_model_config, NULL);
}

/* ---- model ---- */

static hf_status open_catalog_model(plan_inputs *in) {
  json *doc = NULL;
  const char *name = in->req.model, *format = NULL;
  hf_status st = catalog_get("models", name, &doc);
  if (st != HF_OK) return hf_note(st, "option --model: '%s' is neither a file or folder here nor a known name", name);
  HF_GO(done, model_from_config(json_get(doc, "config"), name, &in->m));
  if (json_opt_str(doc, name, "default_format", &format) != HF_OK) hf_clear_error();
  if (in->format == FMT_DEFAULT && format != NULL) HF_GO(done, fmt_parse(format, &in->format));
done:
  json_free(doc);
  return st;
}

/* The model as if stored by the recipe in --format; FMT_DEFAULT then means it. */
static hf_status by_recipe(plan_inputs *in) {
  model_recipe r;
  model *by = NULL;
  HF_TRY(recipe_parse(in->req.format, model_get_config(in->m), &r));
  HF_TRY(model_with_recipe(in->m, &r, &by));
  if (in->req.opened == NULL) model_close(in->m);
  in->req.opened = NULL; /* the copy is closed with the inputs */
  in->m = by;
  in->format = FMT_DEFAULT;
  return HF_OK;
}

static hf_status open_model(plan_inputs *in) {
  const plan_request *r = &in->req;
  in->format = FMT_DEFAULT;
  if (r->model == NULL && r->opened != NULL) in->req.model = model_get_config(r->opened)->name;
  if (r->model == NULL)
    return hf_fail(HF_INPUT, "option --model: missing; give a folder, a GGUF file, synth:… or a name of hf-plan catalog list");
  bool recipe = r->format != NULL && strchr(r->format, ':') != NULL;
  if (r->format != NULL && !recipe) HF_TRY(hf_note(fmt_parse(r->format, &in->format), "option --format"));
  bool file = strncmp(r->model, "synth:", 6) == 0 || access(r->model, F_OK) == 0;
  if (r->opened != NULL) in->m = r->opened;
  else HF_TRY(file ? model_open(r->model, &in->m) : open_catalog_model(in));
  if (recipe) HF_TRY(hf_note(by_recipe(in), "option --format"));
  in->c = model_get_config(in->m);
  if (in->c->n_layers > PLAN_MAX_LAYERS)
    return hf_fail(HF_UNSUPPORTED, "model %s: %d layers are more than can be planned, %d", in->c->name, in->c->n_layers,
                   (int)PLAN_MAX_LAYERS);
  in->format_name = fmt_get(in->format != FMT_DEFAULT ? in->format : in->c->default_format)->name;
  if (model_get_recipe(in->m) != NULL && in->format == FMT_DEFAULT) in->format_name = model_get_recipe(in->m)->name;
  return HF_OK;
}

/* ---- machine and device ---- */

/* A machine of the catalog, of a file or of parts: in memory only. */
static hf_status compose_machine(const char *name, cost_rows **out) {
  catalog_machine m;
  HF_TRY(catalog_machine_build(name, &m));
  hf_status st = cost_rows_from_arrays(&m.machine, m.device, m.n_device, m.figure, m.n_figure, NULL, 0, m.link, m.n_link, out);
  catalog_machine_free(&m);
  return st;
}

static hf_status stored_machine(const plan_inputs *in, const char *name, cost_rows **out) {
  rec_machine m;
  HF_TRY(name != NULL ? db_machine_find(in->d, name, &m) : db_machine_latest(in->d, MACHINE_MEASURED, &m));
  return cost_rows_load(in->d, &m, in->req.rounded, out);
}

static hf_status open_machine(const plan_inputs *in, const char *option, const char *name, cost_rows **out) {
  if (in->d == NULL) return hf_fail(HF_INPUT, "option %s: needs a database, or the rows of the machine", option);
  if (name == NULL) {
    hf_status st = stored_machine(in, NULL, out);
    if (st != HF_NOT_FOUND) return st;
    return hf_fail(HF_INPUT,
                   "option %s: missing, and no machine was measured here yet: name one of hf-plan catalog list machines, or run "
                   "hf-profile to measure this one",
                   option);
  }
  if (access(name, F_OK) == 0 || catalog_parts_is_text(name)) return hf_note(compose_machine(name, out), "option %s", option);
  json *doc = NULL;
  if (catalog_get("machines", name, &doc) == HF_OK) {
    json_free(doc);
    return hf_note(compose_machine(name, out), "option %s", option);
  }
  char hint[400];
  snprintf(hint, sizeof hint, "%s", hf_error_line());
  hf_status st = stored_machine(in, name, out);
  if (st == HF_NOT_FOUND)
    return hf_fail(HF_NOT_FOUND, "option %s: '%s' is neither a machine of the database nor a file nor in the catalog (%s)",
                   option, name, hint);
  return st;
}

static hf_status open_host(plan_inputs *in) {
  in->host = in->req.host_rows;
  if (in->host != NULL) return HF_OK;
  HF_TRY(open_machine(in, "--machine", in->req.machine, &in->host_owned));
  in->host = in->host_owned;
  return HF_OK;
}

/* The host's rows with the kernel curves of another machine, where the request says so. */
static hf_status scale_host(plan_inputs *in) {
  cost_rows *from = NULL, *scaled = NULL;
  if (in->req.scale_from == NULL) return HF_OK;
  HF_TRY(open_machine(in, "--scale-from", in->req.scale_from, &from));
  hf_status st = hf_note(cost_rows_scaled(in->host, from, &scaled), "option --scale-from");
  cost_rows_free(from);
  HF_TRY(st);
  cost_rows_free(in->host_owned);
  in->host_owned = scaled;
  in->host = scaled;
  return HF_OK;
}

/* The host's rows as they would have been measured with memory at the rate of the request. */
static hf_status drift_host(plan_inputs *in) {
  cost_rows *now = NULL;
  if (!(in->req.dram_bytes_per_s > 0)) return HF_OK;
  HF_TRY(hf_note(cost_rows_at_rate(in->host, in->req.dram_bytes_per_s, &now), "option --dram-rate"));
  cost_rows_free(in->host_owned);
  in->host_owned = now;
  in->host = now;
  return HF_OK;
}

static hf_status device_memory(plan_inputs *in, int d) {
  const gpu_spec *g = &in->gpus.g[d];
  in->device_mem[d] = g->size_bytes;
  if (g->kind == GPU_VIRTUAL) return HF_OK;
  const cost_rows *rows = in->paced != NULL ? in->paced : in->host;
  const rec_device *dev = cost_device(rows, g->device);
  if (dev == NULL)
    return hf_fail(HF_NOT_FOUND,
                   "option --gpu: machine %s has no %s in the database: measure it with hf-profile there, or use --gpu none",
                   rows->machine.name, g->device);
  if (in->device_mem[d] == 0) in->device_mem[d] = dev->mem_bytes;
  if (in->device_mem[d] <= 0)
    return hf_fail(HF_INPUT, "option --gpu: the memory of %s is unknown; give it as %s:SIZE", dev->name, g->text);
  return HF_OK;
}

static hf_status open_devices(plan_inputs *in) {
  if (in->req.gpu != NULL) HF_TRY(gpu_set_parse(in->req.gpu, &in->gpus));
  else HF_TRY(gpu_set_default(in->host, ILP_MAX_DEVICES, &in->gpus));
  if (in->gpus.n > 0) in->gpu = in->gpus.g[0];
  snprintf(in->gpu.text, sizeof in->gpu.text, "%s", in->gpus.text);
  if (in->gpu.kind == GPU_PACED) HF_TRY(open_machine(in, "--gpu", in->gpu.machine, &in->paced));
  for (int d = 0; d < in->gpus.n; d++) HF_TRY(device_memory(in, d));
  in->device_bytes = in->device_mem[0];
  return HF_OK;
}

static hf_status open_remotes(plan_inputs *in) {
  cost_remote_name name[STAGE_MAX_REMOTES];
  int n = 0;
  if (in->req.remotes == NULL) return HF_OK;
  HF_TRY(cost_remote_parse(in->req.remotes, name, &n));
  for (int r = 0; r < n; r++) {
    cost_remote *to = &in->remote[r];
    HF_TRY(open_machine(in, "--remote", name[r].machine, &to->rows));
    to->here = !strcmp(name[r].link, "measured") && in->host->machine.kind == MACHINE_MEASURED &&
               to->rows->machine.id == in->host->machine.id; /* a link of the catalog leads to another machine like this one */
    if (!strcmp(name[r].link, "measured"))
      HF_TRY(hf_note(cost_link_measured(in->host, to->rows->machine.name, &to->bytes_per_s, &to->latency_ns), "option --remote"));
    else HF_TRY(hf_note(cost_link_read(name[r].link, &to->bytes_per_s, &to->latency_ns), "option --remote"));
    snprintf(to->text, sizeof to->text, "%.40s:%.50s", name[r].machine, name[r].link);
    in->n_remotes++;
  }
  return HF_OK;
}

/* Layers over the devices first..last, with the embedding on the first of them and the output on the last. *fits: both have layers, and all that the
 * devices then hold has room. Returns with in->home filled in either way. */
static hf_status split_over(plan_inputs *in, const double *cost, const int64_t *bytes, const double *speed, int first, int last,
                            bool *fits) {
  int64_t limit[STAGE_MAX_DEVICES], left[STAGE_MAX_DEVICES];
  const int n = in->c->n_layers;
  plan_sizes s;
  in->home[0] = (uint8_t)first; /* what has the ends goes by these */
  in->home[n - 1] = (uint8_t)last;
  HF_TRY(plan_sizes_of(in, &s));
  for (int d = first; d <= last; d++) {
    /* what a device holds whatever layers it has; one micro-batch at least */
    const plan_device_sizes *v = &s.device[d];
    left[d] = limit[d] = v->limit - v->head - v->activations - v->rope - v->margin;
  }
  cost_split_layers(cost, bytes, n, speed + first, limit + first, last - first + 1, in->home);
  for (int l = 0; l < n; l++) {
    in->home[l] = (uint8_t)(in->home[l] + first);
    left[in->home[l]] -= bytes[l];
  }
  *fits = in->home[0] == first && in->home[n - 1] == last;
  for (int d = first; d <= last; d++) *fits = *fits && left[d] >= 0;
  return HF_OK;
}

/* --homes: a device for each layer. */
static hf_status read_homes(plan_inputs *in) {
  const char *at = in->req.homes;
  for (int l = 0; l < in->c->n_layers; l++) {
    char *end = NULL;
    long d = strtol(at, &end, 10);
    if (end == at || *end != (l + 1 < in->c->n_layers ? ',' : '\0'))
      return hf_fail(HF_INPUT, "option --homes: not a number for each of %d layers, with commas between", in->c->n_layers);
    if (d < 0 || d >= in->gpus.n)
      return hf_fail(HF_INPUT, "option --homes: layer %d: gpu%ld, but there %s %d device%s (--gpu)", l, d,
                     in->gpus.n == 1 ? "is" : "are", in->gpus.n, in->gpus.n == 1 ? "" : "s");
    in->home[l] = (uint8_t)d;
    at = end + 1;
  }
  return HF_OK;
}

/* Which device is home of which layer: by what a decode step reads of the layer, the devices' bandwidth, and their memory. One at either end that is too
 * small for a layer, or for embedding or output beside it, is left without. */
static hf_status choose_homes(plan_inputs *in) {
  double cost[PLAN_MAX_LAYERS], speed[STAGE_MAX_DEVICES];
  int64_t bytes[PLAN_MAX_LAYERS];
  const int n = in->gpus.n;
  bool fits = false;
  if (in->req.homes != NULL) return read_homes(in);
  if (n < 2) return HF_OK;
  cost_input ci = plan_cost_input(in);
  db_tag ignored = TAG_MEASURED;
  for (int l = 0; l < in->c->n_layers; l++) {
    HF_TRY(plan_layer_bytes(in, l, &bytes[l]));
    cost[l] = (double)bytes[l];
  }
  for (int d = 0; d < n; d++) {
    cost_unit u = cost_device_unit(&ci, d);
    speed[d] = cost_unit_bytes_per_s(&u, (cost_case){0}, &ignored);
  }
  for (int count = n; count > 0; count--)
    for (int first = 0; first + count <= n; first++) {
      HF_TRY(split_over(in, cost, bytes, speed, first, first + count - 1, &fits));
      if (fits) return HF_OK;
    }
  /* Nothing does: fair shares, whose budget tells what is missing where. */
  return split_over(in, cost, bytes, speed, 0, n - 1, &fits);
}

/* ---- numbers ---- */

static hf_status fill_numbers(plan_inputs *in) {
  plan_request *r = &in->req;
  int64_t most = in->c->max_context > 0 ? in->c->max_context : 1 << 20;
  if (r->users == 0) r->users = 1;
  if (r->context == 0) r->context = most < 4096 ? most : 4096;
  if (r->users < 1 || r->users > SCHED_MAX_SEQS)
    return hf_fail(HF_INPUT, "option --users: %lld is not between 1 and %d", (long long)r->users, (int)SCHED_MAX_SEQS);
  if (r->context < 2 || r->context > most)
    return hf_fail(HF_INPUT, "option --context: %lld is not between 2 and the model's %lld", (long long)r->context,
                   (long long)most);
  if (r->depth > r->users)
    return hf_fail(HF_INPUT, "option --depth: %lld micro-batches need at least as many users, not %lld", (long long)r->depth,
                   (long long)r->users);
  if (r->output_tokens == 0) {
    int64_t room = r->prompt_tokens > 0 ? r->context - r->prompt_tokens : r->context / 4;
    r->output_tokens = room < 1 ? 1 : room < 512 ? room : 512;
  }
  if (r->prompt_tokens == 0) r->prompt_tokens = r->context - r->output_tokens > 0 ? r->context - r->output_tokens : 1;
  if (r->prompt_tokens + r->output_tokens > r->context)
    return hf_fail(HF_INPUT, "option --context: %lld tokens are less than prompt %lld plus output %lld", (long long)r->context,
                   (long long)r->prompt_tokens, (long long)r->output_tokens);
  if (!model_kv_type(r->kv_type != NULL ? r->kv_type : "f16", &in->kv))
    return hf_fail(HF_INPUT, "option --kv-type: '%.40s' is none of f16, q8_0, bf16, f32", r->kv_type);
  HF_TRY(plan_standby_check(r));
  in->mean_context = (double)r->prompt_tokens + 0.5 * (double)r->output_tokens;
  return HF_OK;
}

int plan_first_depth(const plan_inputs *in) {
  return in->req.depth > 0 ? (int)in->req.depth : 1;
}

/* The longest chunk worth a thought: not longer than all prompts together, with buffers of at most a fourth of a device. */
hf_status plan_inputs_limit_chunk(plan_inputs *in) {
  const plan_request *r = &in->req;
  in->chunk_tokens = r->chunk_tokens > 0 ? (int)r->chunk_tokens : PLAN_CHUNK_MOST;
  while (r->chunk_tokens == 0 && in->chunk_tokens > PLAN_CHUNK_LEAST && in->chunk_tokens / 2 >= r->users * r->prompt_tokens)
    in->chunk_tokens /= 2;
  while (r->chunk_tokens == 0 && in->device_bytes > 0 && in->chunk_tokens > PLAN_CHUNK_LEAST) {
    plan_sizes s;
    HF_TRY(plan_sizes_of(in, &s));
    int64_t least = in->device_mem[0];
    for (int d = 1; d < in->gpus.n; d++) least = in->device_mem[d] < least ? in->device_mem[d] : least;
    if (4 * s.activations <= least) break;
    in->chunk_tokens /= 2;
  }
  in->chunk_most = in->chunk_tokens;
  return HF_OK;
}

/* The rows of a machine that is not in the database yet, or the number of the one that is. */
static hf_status store_machine(db *d, cost_rows *r) {
  if (r == NULL || r->machine.id != 0) return HF_OK;
  const catalog_machine m = {r->machine, r->device, r->figure, r->link, r->n_device, r->n_figure, r->n_link};
  return catalog_machine_store(d, &m, &r->machine);
}

/* Absurd figures show in the times made of them. */
static hf_status check_figures(const plan_inputs *in) {
  stage_table *t = NULL;
  cost_input ci = plan_cost_input(in);
  HF_TRY(cost_table(&ci, (cost_case){0}, &t));
  stage_table_free(t);
  return HF_OK;
}

hf_status plan_inputs_store(plan_inputs *in) {
  if (in->d == NULL) return HF_OK;
  HF_TRY(store_machine(in->d, in->host_owned));
  HF_TRY(store_machine(in->d, in->paced));
  for (int r = 0; r < in->n_remotes; r++) HF_TRY(store_machine(in->d, in->remote[r].rows));
  return HF_OK;
}

hf_status plan_inputs_open(db *d, const plan_request *r, plan_inputs **out) {
  plan_inputs *in = NULL;
  hf_status st = HF_OK;
  if (d == NULL && r->from_run != 0) return hf_fail(HF_INPUT, "option --from-run: needs a database");
  HF_TRY(hf_alloc(&in, 1, sizeof *in, "planning inputs"));
  in->req = *r;
  in->d = d;
  HF_GO(fail, open_model(in));
  HF_GO(fail, fill_numbers(in));
  HF_GO(fail, open_host(in));
  HF_GO(fail, scale_host(in));
  HF_GO(fail, drift_host(in));
  HF_GO(fail, open_devices(in));
  HF_GO(fail, open_remotes(in));
  HF_GO(fail, plan_inputs_limit_chunk(in));
  HF_GO(fail, choose_homes(in));
  HF_GO(fail, plan_inputs_popularity(in));
  if (d != NULL) HF_GO(fail, check_figures(in));
  *out = in;
  return HF_OK;
fail:
  plan_inputs_close(in);
  return st;
}

void plan_inputs_close(plan_inputs *in) {
  if (in == NULL) return;
  popularity_free(in->pop);
  cost_rows_free(in->host_owned);
  cost_rows_free(in->paced);
  for (int r = 0; r < STAGE_MAX_REMOTES; r++) cost_rows_free(in->remote[r].rows);
  if (in->req.opened == NULL) model_close(in->m);
  free(in);
}

static hf_status popularity_of_run(plan_inputs *in) {
  rec_routing *rows = NULL;
  int n = 0;
  HF_TRY(db_routing_list(in->d, in->req.from_run, &rows, &n));
  hf_status st = popularity_run(in->c, rows, n, in->req.from_run, &in->pop);
  free(rows);
  return st;
}

/* Counts are used as they are, or (--skew zipf-fit) as the power law per layer that fits them best. */
static hf_status counted_popularity(plan_inputs *in, bool fit) {
  const plan_request *r = &in->req;
  if (r->census != NULL) HF_TRY(popularity_census(in->c, r->census, r->census_kind, &in->pop));
  else HF_TRY(popularity_of_run(in));
  return fit ? popularity_zipf_fit(in->c, in->pop) : HF_OK;
}

hf_status plan_inputs_popularity(plan_inputs *in) {
  const plan_request *r = &in->req;
  bool fit = r->skew != NULL && strcmp(r->skew, "zipf-fit") == 0;
  if (in->pop != NULL) return HF_OK;
  if (fit && r->census == NULL && r->from_run == 0)
    return hf_fail(HF_INPUT, "option --skew: zipf-fit needs counts to fit: give --census FILE or --from-run RUN");
  if (fit || r->census != NULL || (r->from_run != 0 && r->skew == NULL)) return counted_popularity(in, fit);
  in->assumed_popularity = true;
  if (r->skew == NULL || strcmp(r->skew, "uniform") == 0) return popularity_uniform(in->c, &in->pop);
  char *end = NULL;
  double s = strncmp(r->skew, "zipf:", 5) == 0 ? strtod(r->skew + 5, &end) : -1;
  if (end == NULL || end == r->skew + 5 || *end != '\0')
    return hf_fail(HF_INPUT, "option --skew: '%s': needs uniform, zipf:S, for example zipf:0.8, or zipf-fit", r->skew);
  return popularity_zipf(in->c, s, &in->pop);
}

cost_input plan_cost_input(const plan_inputs *in) {
  cost_input c = {.m = in->m,
                  .format = in->format,
                  .rows = in->paced != NULL ? in->paced : in->host,
                  .gpus = in->gpus,
                  .home = in->home,
                  .n_remotes = in->n_remotes,
                  .remote = in->remote,
                  .threads = in->paced != NULL ? 0 : (int)in->req.threads,
                  .kv = in->kv};
  c.correlated = in->assumed_popularity && in->req.users > 1;
  return c;
}
