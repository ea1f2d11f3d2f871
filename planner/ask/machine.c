#include "planner/ask/machine.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "planner/ask/machine_int.h"

void ask_machine_free(ask_machine *m) {
  if (m == NULL) return;
  cost_rows_free(m->rows);
  free(m);
}

const ask_machine_facts *ask_machine_facts_of(const ask_machine *m) {
  return &m->f;
}

const cost_rows *ask_machine_rows(const ask_machine *m) {
  return m->rows;
}

void ask_note(ask_machine *m, const char *format, ...) {
  va_list args;
  if (m->f.n_notes == ASK_MAX_NOTES) return;
  va_start(args, format);
  vsnprintf(m->f.note[m->f.n_notes++], ASK_NOTE, format, args);
  va_end(args);
}

/* ---- what the rows say ---- */

static void read_totals(ask_machine *m) {
  cost_figure f, g;
  m->f.has_price = cost_find(m->rows, "", "price_usd", &f);
  if (m->f.has_price) {
    m->f.price[0] = f.low;
    m->f.price[1] = f.likely;
    m->f.price[2] = f.high;
  }
  m->f.has_power = cost_find(m->rows, "", "power_idle_w", &f) && cost_find(m->rows, "", "power_active_w", &g);
  if (m->f.has_power) {
    m->f.idle_w = f.likely;
    m->f.active_w = g.likely;
  }
}

/* Names for people where no parts are known: those of the devices. */
static void read_devices(ask_machine *m) {
  const cost_rows *r = m->rows;
  const char *gpu = "none";
  int cpus = 0;
  m->f.memory_bytes = 0;
  m->f.n_gpus = 0;
  for (int i = 0; i < r->n_device; i++) {
    const rec_device *d = &r->device[i];
    if (strcmp(d->kind, "cpu") == 0) {
      m->f.memory_bytes += d->mem_bytes;
      if (cpus++ == 0) snprintf(m->f.cpu, sizeof m->f.cpu, "%s", d->name);
    } else if (m->f.n_gpus++ == 0) {
      gpu = d->name;
    }
  }
  m->f.sockets = cpus;
  if (m->f.n_gpus > 1) snprintf(m->f.gpus, sizeof m->f.gpus, "%d x %.80s", m->f.n_gpus, gpu);
  else snprintf(m->f.gpus, sizeof m->f.gpus, "%.95s", gpu);
  snprintf(m->f.name, sizeof m->f.name, "%s", r->machine.name);
}

static void parts_text(const catalog_parts *p, ask_machine_facts *f) {
  size_t used = 0;
  snprintf(f->cpu, sizeof f->cpu, "%s", p->cpu);
  snprintf(f->memory, sizeof f->memory, "%s", p->memory);
  f->sockets = p->sockets;
  snprintf(f->gpus, sizeof f->gpus, "none");
  for (int i = 0; i < p->n_gpu_kinds && used < sizeof f->gpus; i++) {
    char count[16] = "";
    if (p->gpu[i].count > 1) snprintf(count, sizeof count, "%d x ", p->gpu[i].count);
    used += (size_t)snprintf(f->gpus + used, sizeof f->gpus - used, "%s%s%s", i > 0 ? " + " : "", count, p->gpu[i].gpu);
  }
}

static hf_status from_arrays(const catalog_machine *c, cost_rows **out) {
  return cost_rows_from_arrays(&c->machine, c->device, c->n_device, c->figure, c->n_figure, NULL, 0, c->link, c->n_link, out);
}

/* ---- opening ---- */

static hf_status compose(ask_machine *m, const catalog_machine *c) {
  HF_TRY(from_arrays(c, &m->rows));
  read_devices(m);
  read_totals(m);
  if (m->has_parts) parts_text(&m->parts, &m->f);
  return HF_OK;
}

/* Parts where the entry has no stated rows, which parts cannot say. */
static hf_status open_catalog(const char *name, ask_machine *m) {
  catalog_machine c;
  hf_status st = catalog_parts_is_text(name) ? catalog_parts_parse(name, &m->parts) : catalog_parts_of(name, &m->parts);
  m->has_parts = st == HF_OK;
  if (st == HF_UNSUPPORTED) hf_clear_error();
  else HF_TRY(st);
  HF_TRY(m->has_parts ? catalog_compose(&m->parts, &c) : catalog_machine_build(name, &c));
  st = compose(m, &c);
  catalog_machine_free(&c);
  return st;
}

hf_status ask_machine_from_parts(const catalog_parts *p, ask_machine **out) {
  catalog_machine c;
  ask_machine *m = NULL;
  HF_TRY(catalog_compose(p, &c));
  hf_status st = hf_alloc(&m, 1, sizeof *m, "a machine");
  if (st == HF_OK) {
    m->has_parts = true;
    m->parts = *p;
    st = compose(m, &c);
  }
  catalog_machine_free(&c);
  if (st == HF_OK) *out = m;
  else ask_machine_free(m);
  return st;
}

static hf_status open_database(db *d, const char *name, ask_machine *m) {
  rec_machine row;
  HF_TRY(name != NULL ? db_machine_find(d, name, &row) : db_machine_latest(d, MACHINE_MEASURED, &row));
  HF_TRY(cost_rows_load(d, &row, false, &m->rows));
  m->f.measured = row.kind == MACHINE_MEASURED;
  read_devices(m);
  read_totals(m);
  return HF_OK;
}

static hf_status open_any(db *d, const char *name, ask_machine *m) {
  if (name == NULL) {
    if (d == NULL) return hf_fail(HF_INPUT, "option --machine: missing");
    return hf_note(open_database(d, NULL, m), "option --machine: missing, so the machine measured last is meant");
  }
  if (catalog_parts_is_text(name) || access(name, F_OK) == 0) return hf_note(open_catalog(name, m), "option --machine");
  hf_status st = open_catalog(name, m);
  if (st != HF_NOT_FOUND || d == NULL) return hf_note(st, "option --machine");
  char hint[600];
  snprintf(hint, sizeof hint, "%.599s", hf_error_line());
  st = open_database(d, name, m);
  if (st != HF_NOT_FOUND) return st;
  return hf_fail(HF_NOT_FOUND, "option --machine: '%s' is neither a machine of the database nor a file, and %s", name, hint);
}

hf_status ask_machine_open(db *d, const char *name, ask_machine **out) {
  ask_machine *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "a machine"));
  hf_status st = open_any(d, name, m);
  if (st == HF_OK) *out = m;
  else ask_machine_free(m);
  return st;
}

/* ---- changing parts ---- */

/* "2xrtx4090" and "rtx4090*2" alike, joined by +; the catalog's way is NAME*COUNT. */
static hf_status catalog_gpus(const char *text, char out[128]) {
  size_t used = 0;
  for (const char *at = text;; at++) {
    size_t n = strcspn(at, "+"), digits = strspn(at, "0123456789");
    const char *name = at;
    int count = 0;
    if (digits > 0 && digits < 3 && digits + 1 < n && (at[digits] == 'x' || at[digits] == 'X' || at[digits] == '*')) {
      count = atoi(at);
      name = at + digits + 1;
    }
    size_t left = n - (size_t)(name - at);
    int wrote = count > 0 ? snprintf(out + used, 128 - used, "%s%.*s*%d", used > 0 ? "+" : "", (int)left, name, count)
                          : snprintf(out + used, 128 - used, "%s%.*s", used > 0 ? "+" : "", (int)left, name);
    if (left == 0 || used + (size_t)wrote >= 128)
      return hf_fail(HF_INPUT, "gpu=%s: is no list such as rtx4090, 2xrtx5090 or rtx5090+l40s", text);
    used += (size_t)wrote;
    at += n;
    if (*at == '\0') return HF_OK;
  }
}

static hf_status set_part(ask_machine *m, const ask_change *c) {
  static const char *const key[ASK_N_MACHINE_KEYS] = {
      [ASK_CPU] = "cpu",        [ASK_SOCKETS] = "sockets",       [ASK_DIMM] = "memory",
      [ASK_DIMM_SIZE] = "dimm", [ASK_DIMMS_PER_CHANNEL] = "dpc", [ASK_GPU] = "gpu",
      [ASK_PRIOR] = "prior"};
  char gpus[128];
  const char *value = c->value;
  if (c->key == ASK_GPU) {
    HF_TRY(catalog_gpus(c->value, gpus));
    value = gpus;
  }
  m->parts.note[0] = '\0';
  HF_TRY(hf_note(catalog_parts_set(&m->parts, key[c->key], value), "%s=%s", ask_key_name(c->key), c->value));
  if (m->parts.note[0] != '\0') ask_note(m, "%s.", m->parts.note);
  return HF_OK;
}

/* ---- changing rows ---- */

static hf_status no_rule(const ask_machine *m, const ask_change *c, const char *instead) {
  return hf_fail(HF_UNSUPPORTED, "%s=%s: %s is known by its %s, and no rule says what another %s would do there; %s",
                 ask_key_name(c->key), c->value, m->f.name, m->f.measured ? "measurements" : "stated figures",
                 ask_key_name(c->key), instead);
}

static hf_status change_memory_kind(ask_machine *m, const ask_change *c) {
  catalog_value v;
  HF_TRY(hf_note(catalog_fact("memory", c->value, "transfers_per_s", &v), "%s=%s", ask_key_name(c->key), c->value));
  double now = ask_memory_speed(m);
  if (!(now > 0))
    return no_rule(m, c, "its present memory speed is unknown: give the bandwidth as dram=xFACTOR or dram=BYTES_PER_S");
  snprintf(m->f.memory, sizeof m->f.memory, "%s", c->value);
  ask_note(m, "Modules at %.0f instead of %.0f MT/s; that the CPU drives them is taken for granted.", v.likely / 1e6, now / 1e6);
  ask_scale_dram(m, v.likely / now);
  return HF_OK;
}

static hf_status change_row(ask_machine *m, const ask_change *c) {
  char gpus[128];
  switch (c->key) {
    case ASK_GPU: HF_TRY(catalog_gpus(c->value, gpus)); return hf_note(ask_put_gpus(m, gpus), "gpu=%s", c->value);
    case ASK_DIMM: return change_memory_kind(m, c);
    case ASK_CPU:
    case ASK_SOCKETS: return no_rule(m, c, "name a machine of the catalog, or one of parts: machine=cpu=NAME,sockets=2,gpu=NAME");
    case ASK_PRIOR: return no_rule(m, c, "its own figures stand for the engine that was measured");
    default: return no_rule(m, c, "name a machine of the catalog");
  }
}

/* ---- changes for both kinds ---- */

static hf_status change_dram(ask_machine *m, const ask_change *c) {
  cost_figure f;
  if (!cost_find(m->rows, "cpu", "dram_read_bytes_per_s", &f) || !(f.likely > 0))
    return hf_fail(HF_INPUT, "dram=%s: the bandwidth of %s is unknown", c->value, m->f.name);
  ask_scale_dram(m, c->number < 0 ? -c->number : c->number / f.likely);
  return HF_OK;
}

/* One lane and direction in generation 3 carries 8 GT/s; each generation doubles it. Line codes are alike but for 6, whose packets take 242 of 256
 * bytes where the others take 128 of 130 bits. */
static double lane_rate(int gen) {
  return ldexp(8e9 / 8, gen - 3) * (gen == 6 ? 242.0 / 256 : 128.0 / 130);
}

static hf_status change_pcie(ask_machine *m, const ask_change *c) {
  cost_figure f;
  if (m->f.n_gpus == 0) return hf_fail(HF_INPUT, "pcie=%s: %s has no GPU", c->value, m->f.name);
  if (!cost_find(m->rows, "gpu0", "pcie_theoretical_bytes_per_s", &f))
    return hf_fail(HF_UNSUPPORTED, "pcie=%s: the generation of %s's slots is unknown", c->value, m->f.name);
  /* Sixteen lanes, or as few as the present rate needs. */
  double lanes = 16, now = 0;
  for (; lanes >= 1 && now == 0; lanes /= 2)
    for (int g = 3; g <= 6; g++)
      if (fabs(lane_rate(g) * lanes / f.likely - 1) < 0.01) now = lane_rate(g);
  if (now == 0)
    return hf_fail(HF_UNSUPPORTED, "pcie=%s: %.3g GB/s of %s's slots is no generation's rate", c->value, f.likely / 1e9,
                   m->f.name);
  ask_scale_links(m, lane_rate((int)c->number) / now);
  return HF_OK;
}

static hf_status change_lost(ask_machine *m, const ask_change *c) {
  const char *v = c->value;
  size_t n = strlen(v);
  bool gpu = strncasecmp(v, "gpu", 3) == 0, cpu = strncasecmp(v, "cpu", 3) == 0;
  if ((!gpu && !cpu) || n < 4 || n > 6 || strspn(v + 3, "0123456789") != n - 3)
    return hf_fail(HF_INPUT, "lost=%s: is no device such as gpu0 or cpu1", v);
  int index = atoi(v + 3);
  return gpu ? ask_drop_gpu(m, index) : ask_drop_node(m, index);
}

void ask_machine_plays(ask_machine *m, const char *gpu) {
  m->plays_gpu = gpu != NULL && m->f.n_gpus == 0 && (strncmp(gpu, "virtual:", 8) == 0 || strncmp(gpu, "paced:", 6) == 0);
}

static hf_status copy_machine(const ask_machine *base, ask_machine *m) {
  const cost_rows *r = base->rows;
  m->plays_gpu = base->plays_gpu;
  m->f = base->f;
  m->has_parts = base->has_parts;
  m->parts = base->parts;
  return cost_rows_from_arrays(&r->machine, r->device, r->n_device, r->figure, r->n_figure, r->kernel, r->n_kernel, r->link,
                               r->n_link, &m->rows);
}

/* The CPU, not the module, may decide how fast memory runs. */
static void note_slow_memory(ask_machine *m) {
  catalog_value v;
  double runs = ask_memory_speed(m);
  if (catalog_fact("memory", m->parts.memory, "transfers_per_s", &v) != HF_OK) {
    hf_clear_error();
    return;
  }
  if (runs > 0 && runs < 0.999 * v.likely) {
    ask_note(m, "%s runs %s at %.0f MT/s.", m->parts.cpu, m->parts.memory, runs / 1e6);
    snprintf(m->f.memory_limit, sizeof m->f.memory_limit, "%.60s drives these modules at %.0f MT/s, not at their %.0f",
             m->parts.cpu, runs / 1e6, v.likely / 1e6);
  }
}

/* The links of the dies may read less than the channels give: then modules make no difference. */
static void note_dies(ask_machine *m) {
  catalog_value dies;
  cost_figure f;
  if (catalog_fact("cpus", m->parts.cpu, "die_read_bytes_per_s", &dies) != HF_OK) {
    hf_clear_error();
    return;
  }
  if (!cost_find(m->rows, "cpu0", "dram_theoretical_bytes_per_s", &f) || f.likely < 0.999 * dies.likely) return;
  ask_note(m, "The dies of %s read at most %.0f GB/s, whatever the modules give.", m->parts.cpu, dies.likely / 1e9);
  snprintf(m->f.memory_limit, sizeof m->f.memory_limit, "the dies of %.60s read at most %.0f GB/s, whatever the modules give",
           m->parts.cpu, dies.likely / 1e9);
}

static hf_status recompose(ask_machine *m) {
  catalog_machine c;
  HF_TRY(catalog_compose(&m->parts, &c));
  cost_rows_free(m->rows);
  m->rows = NULL;
  hf_status st = compose(m, &c);
  catalog_machine_free(&c);
  return st;
}

/* Parts first, in the order of the keys, so that "cpu" comes before what must fit it; then what is scaled; then what is lost. */
static hf_status apply(ask_machine *m, const ask_changes *c) {
  bool parts = false;
  for (int k = ASK_CPU; k <= ASK_PRIOR; k++) {
    const ask_change *x = ask_find_change(c, (ask_key)k);
    if (x == NULL || k == ASK_PCIE) continue;
    HF_TRY(m->has_parts ? set_part(m, x) : change_row(m, x));
    parts = parts || m->has_parts;
  }
  if (parts) HF_TRY(recompose(m));
  if (parts && ask_find_change(c, ASK_DIMM) != NULL) {
    note_slow_memory(m);
    note_dies(m);
  }
  const ask_change *dram = ask_find_change(c, ASK_DRAM), *pcie = ask_find_change(c, ASK_PCIE),
                   *lost = ask_find_change(c, ASK_LOST);
  if (pcie != NULL) HF_TRY(change_pcie(m, pcie));
  if (dram != NULL) HF_TRY(change_dram(m, dram));
  if (lost != NULL) HF_TRY(change_lost(m, lost));
  read_totals(m);
  return HF_OK;
}

hf_status ask_apply(const ask_changes *c, const ask_machine *m, plan_request *r) {
  const ask_change *lost = ask_find_change(c, ASK_LOST), *kv = ask_find_change(c, ASK_KV);
  fmt type;
  if (kv != NULL && !model_kv_type(kv->value, &type))
    return hf_fail(HF_INPUT, "kv=%.40s: is none of f16, q8_0, bf16, f32", kv->value);
  ask_apply_load(c, r);
  if (ask_find_change(c, ASK_MODEL) != NULL) {
    r->opened = NULL;
    if (ask_find_change(c, ASK_FORMAT) == NULL) r->format = NULL;
  }
  if (ask_find_change(c, ASK_GPU) != NULL || ask_find_change(c, ASK_MACHINE) != NULL ||
      (lost != NULL && strncasecmp(lost->value, "gpu", 3) == 0))
    r->gpu = NULL;
  if (m->f.n_gpus == 0 && r->gpu == NULL) r->gpu = "none";
  return HF_OK;
}

hf_status ask_machine_change(db *d, const ask_machine *base, const ask_changes *c, ask_machine **out) {
  ask_machine *m = NULL;
  const ask_change *other = ask_find_change(c, ASK_MACHINE);
  hf_status st = HF_OK;
  if (other != NULL) {
    HF_TRY(ask_machine_open(d, other->value, &m));
  } else {
    HF_TRY(hf_alloc(&m, 1, sizeof *m, "a machine"));
    HF_GO(fail, copy_machine(base, m));
  }
  HF_GO(fail, apply(m, c));
  *out = m;
  return HF_OK;
fail:
  ask_machine_free(m);
  return st;
}
