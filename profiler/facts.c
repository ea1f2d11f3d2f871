/* facts.c: what this machine is: for people and reports, and the device rows. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/mem/topology.h"
#include "profiler/profile.h"
#include "profiler/smbios.h"

static void add_isa(json *root) {
  static const struct {
    unsigned bit;
    const char *name;
  } names[] = {{KERN_ISA_AVX2, "avx2"},
               {KERN_ISA_AVX512, "avx512"},
               {KERN_ISA_AVX512_VNNI, "avx512_vnni"},
               {KERN_ISA_AVX512_BF16, "avx512_bf16"},
               {KERN_ISA_AMX_INT8, "amx_int8"},
               {KERN_ISA_AMX_BF16, "amx_bf16"}};
  json *list = json_add_array(root, "isa");
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (kern_isa_detected() & names[i].bit) json_add_str(list, NULL, names[i].name);
  }
  json_add_str(root, "isa_used", kern_get()->isa_name);
  json_add_str(root, "library", kern_library_state());
  json_add_str(root, "amx", kern_amx_state());
}

static void read_modules(dimm_list *l, const char **why) {
  char *cpuinfo = NULL;
  size_t n = 0;
  if (hf_read_file("/proc/cpuinfo", 4 << 20, &cpuinfo, &n) != HF_OK) hf_clear_error();
  smbios_read(smbios_path, cpuinfo && smbios_is_xeon6_p(cpuinfo), l, why);
  free(cpuinfo);
}

static void add_memory(json *root) {
  dimm_list *l = malloc(sizeof *l);
  const char *why = "out of memory";
  if (l) read_modules(l, &why);
  if (l && l->n > 0) {
    json_add_int(root, "dimm_slots", l->n_slots);
    if (l->n_channels > 0) json_add_int(root, "channels", l->n_channels);
    else json_add_str(root, "channels", "unknown");
    if (l->n_channels > 0) json_add_int(root, "channels_empty", l->empty_channels);
    if (l->n_channels > 0) json_add_int(root, "channels_with_two", l->crowded_channels);
    smbios_to_json(l, json_add_array(root, "dimms"));
    smbios_remarks(l, json_add_array(root, "memory_remarks"));
    if (smbios_bytes_per_s(l) > 0) json_add_num(root, "dram_theoretical_bytes_per_s", smbios_bytes_per_s(l));
  } else {
    json_add_str(root, "dimms", "unknown");
    json_add_str(root, "dimms_why", why);
  }
  free(l);
}

/* From the facts, for they are read once. */
hf_status prof_add_theoretical(profile *p, const char *facts) {
  json *root = NULL;
  HF_TRY(json_parse(facts, strlen(facts), "facts", &root));
  double rate = json_number(json_get(root, "dram_theoretical_bytes_per_s"), 0);
  json_free(root);
  if (!(rate > 0) || p->topo->fake) return HF_OK;
  stats s = {.median = rate, .low = rate, .high = rate};
  HF_TRY(prof_add_figure(p, "cpu", "dram_theoretical_bytes_per_s", "", "B/s", &s,
                         "SMBIOS: filled channels, configured speed, width"));
  p->figure[p->n_figure - 1].tag = TAG_SPEC;
  return HF_OK;
}

hf_status prof_facts(const topology *t, char *out, size_t n) {
  json *root = json_new_object();
  json_add_str(root, "cpu", t->cpu_name);
  int cores = 0, cpus = 0;
  int64_t memory = 0;
  for (int i = 0; i < t->n_nodes; i++) {
    cores += t->node[i].n_cores;
    cpus += t->node[i].n_cpus;
    memory += t->node[i].mem_bytes;
  }
  json_add_int(root, "cores", cores);
  json_add_int(root, "hardware_threads", cpus);
  json_add_int(root, "numa_nodes", t->n_nodes);
  if (t->fake) json_add_bool(root, "fake_topology", true);
  json_add_int(root, "mem_bytes", memory);
  json_add_int(root, "l1d_bytes", t->l1d_bytes);
  json_add_int(root, "l2_bytes", t->l2_bytes);
  json_add_int(root, "l3_bytes", t->l3_bytes);
  json_add_int(root, "huge_page_bytes", t->huge_page_bytes);
  add_isa(root);
  add_memory(root);
  json_add_str(root, "gpu", "no device");
  char *text = NULL;
  hf_status st = json_print(root, false, &text);
  json_free(root);
  if (st != HF_OK) return st;
  if (strlen(text) >= n)
    st = hf_fail(HF_MACHINE, "the machine's facts take %zu bytes, over the limit of %zu", strlen(text), n - 1);
  else memcpy(out, text, strlen(text) + 1);
  free(text);
  return st;
}

int prof_devices(const topology *t, rec_device *out, int max) {
  int n = 0;
  for (int i = 0; i < t->n_nodes && n < max; i++) {
    rec_device *d = &out[n++];
    *d = (rec_device){.kind = "cpu", .cores = t->node[i].n_cores, .mem_bytes = t->node[i].mem_bytes};
    snprintf(d->device, sizeof d->device, "cpu%d", i);
    snprintf(d->name, sizeof d->name, "%.95s", t->cpu_name);
  }
  return n;
}
