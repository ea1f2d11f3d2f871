/* topology.c: nodes, cores and caches from /sys (or from HF_TOPOLOGY). Only CPUs that this process may run on count, so that a
 * container or taskset is respected; the set is read once, before any thread of ours narrows its own. */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "kernels/mem/internal.h"
#include "kernels/mem/topology.h"

enum { MAX_FILE_BYTES = 1 << 20 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cpu_set_t allowed;
static int os_node_of[TOPO_MAX_NODES];
static int n_os_nodes;

static int by_number(const void *a, const void *b) {
  return *(const int *)a - *(const int *)b;
}

static void read_process_once(void) {
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
    CPU_ZERO(&allowed);
    for (long i = 0, n = sysconf(_SC_NPROCESSORS_ONLN); i < n && i < CPU_SETSIZE; i++) CPU_SET((int)i, &allowed);
  }
  DIR *dir = opendir("/sys/devices/system/node");
  for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
    int number;
    if (sscanf(e->d_name, "node%d", &number) == 1 && n_os_nodes < TOPO_MAX_NODES) os_node_of[n_os_nodes++] = number;
  }
  if (dir) closedir(dir);
  qsort(os_node_of, (size_t)n_os_nodes, sizeof os_node_of[0], by_number);
}

int topo_os_node(int node) {
  pthread_once(&once, read_process_once);
  return node >= 0 && node < n_os_nodes ? os_node_of[node] : -1;
}

int topo_os_node_count(void) {
  pthread_once(&once, read_process_once);
  return n_os_nodes;
}

int topo_usable_cpus(void) {
  pthread_once(&once, read_process_once);
  return CPU_COUNT(&allowed);
}

/* First line of a small file, without its newline; "" when it cannot be read. */
static void read_line(const char *path, char *out, int cap) {
  FILE *f = fopen(path, "r");
  out[0] = '\0';
  if (!f) return;
  if (!fgets(out, cap, f)) out[0] = '\0';
  fclose(f);
  out[strcspn(out, "\n")] = '\0';
}

/* "32K", "1024K", "32M" or a plain number. */
static int64_t parse_size(const char *s) {
  char *end;
  int64_t v = strtoll(s, &end, 10);
  return *end == 'K' ? v << 10 : *end == 'M' ? v << 20 : *end == 'G' ? v << 30 : v;
}

/* Whether cpu is the lowest one that we may use among those that share something with it, as a file "0-5,96-101" lists them. */
static bool first_of_sharers(int cpu, const char *file) {
  char path[128], list[4096];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, file);
  read_line(path, list, sizeof list);
  for (char *p = list; *p;) {
    char *end;
    long lo = strtol(p, &end, 10), hi = lo;
    if (end == p) break;
    if (*end == '-') hi = strtol(end + 1, &end, 10);
    for (long c = lo; c <= hi && c < CPU_SETSIZE; c++) {
      if (CPU_ISSET((int)c, &allowed)) return c == cpu;
    }
    p = *end == ',' ? end + 1 : end + strlen(end);
  }
  return true;
}

/* The first of the SMT siblings stands for the physical core. */
static bool is_first_sibling(int cpu) {
  return first_of_sharers(cpu, "topology/thread_siblings_list");
}

/* cpulist "0-3,8,10-11" into node: cores first, then their siblings. */
static void add_cpus(topo_node *node, const char *list) {
  int siblings[TOPO_MAX_CPUS], n_siblings = 0;
  for (const char *p = list; *p;) {
    char *end;
    long lo = strtol(p, &end, 10), hi = lo;
    if (end == p) break;
    if (*end == '-') hi = strtol(end + 1, &end, 10);
    for (long c = lo; c <= hi && c < CPU_SETSIZE && node->n_cpus + n_siblings < TOPO_MAX_CPUS; c++) {
      if (!CPU_ISSET((int)c, &allowed)) continue;
      if (is_first_sibling((int)c)) node->cpus[node->n_cpus++] = (int)c;
      else siblings[n_siblings++] = (int)c;
    }
    p = *end == ',' ? end + 1 : end + strlen(end);
  }
  node->n_cores = node->n_cpus;
  for (int i = 0; i < n_siblings; i++) node->cpus[node->n_cpus++] = siblings[i];
}

static int64_t node_mem_bytes(int os_node) {
  char path[96], line[256];
  long long kb = 0;
  snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", os_node);
  read_line(path, line, sizeof line);
  const char *colon = strchr(line, ':');
  if (colon && sscanf(colon + 1, "%lld", &kb) == 1) return (int64_t)kb << 10;
  return 0;
}

/* The kernel's figures per node leave out memory that was plugged in later: shares of what the machine has in all. */
static void spread_memory(topology *t) {
  double all = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE), sum = 0;
  for (int i = 0; i < t->n_nodes; i++) sum += (double)t->node[i].mem_bytes;
  if (sum <= 0 || sum > 0.95 * all) return;
  for (int i = 0; i < t->n_nodes; i++) t->node[i].mem_bytes = (int64_t)((double)t->node[i].mem_bytes / sum * all);
}

static void read_nodes(topology *t) {
  for (int i = 0; i < n_os_nodes; i++) {
    char path[96], list[4096];
    topo_node *node = &t->node[t->n_nodes++];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", os_node_of[i]);
    read_line(path, list, sizeof list);
    add_cpus(node, list);
    node->mem_bytes = node_mem_bytes(os_node_of[i]);
  }
  int n_cpus = 0;
  for (int i = 0; i < t->n_nodes; i++) n_cpus += t->node[i].n_cpus;
  spread_memory(t);
  if (n_cpus > 0) return;
  /* No node folder in /sys (a container may hide it): one node with every CPU that we may use. */
  t->n_nodes = 1;
  char list[32];
  snprintf(list, sizeof list, "0-%d", CPU_SETSIZE - 1);
  add_cpus(&t->node[0], list);
  if (t->node[0].mem_bytes == 0) t->node[0].mem_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

/* Many machines have one third level per few cores: what all of them hold together is what a buffer must exceed to be read from memory. */
static int count_shared(int index) {
  char file[64];
  int n = 0;
  snprintf(file, sizeof file, "cache/index%d/shared_cpu_list", index);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) n += CPU_ISSET(cpu, &allowed) && first_of_sharers(cpu, file);
  return n > 0 ? n : 1;
}

static void read_caches(topology *t) {
  for (int i = 0; i < 8; i++) {
    char path[96], level[16], type[32], size[32];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
    read_line(path, level, sizeof level);
    if (level[0] == '\0') break;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
    read_line(path, type, sizeof type);
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
    read_line(path, size, sizeof size);
    if (strcmp(type, "Instruction") == 0) continue;
    if (level[0] == '1') t->l1d_bytes = parse_size(size);
    if (level[0] == '2') t->l2_bytes = parse_size(size);
    if (level[0] == '3') t->l3_bytes = parse_size(size) * count_shared(i);
  }
}

static void read_cpu_name(topology *t) {
  FILE *f = fopen("/proc/cpuinfo", "r");
  char line[512];
  snprintf(t->cpu_name, sizeof t->cpu_name, "unknown");
  while (f && fgets(line, sizeof line, f)) {
    const char *colon = strchr(line, ':');
    if (!colon || strncmp(line, "model name", 10) != 0) continue;
    colon += strspn(colon, ": \t");
    snprintf(t->cpu_name, sizeof t->cpu_name, "%.*s", (int)strcspn(colon, "\n"), colon);
    break;
  }
  if (f) fclose(f);
}

static void read_huge_pages(topology *t) {
  char mode[64], size[32];
  read_line("/sys/kernel/mm/transparent_hugepage/enabled", mode, sizeof mode);
  read_line("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", size, sizeof size);
  t->huge_page_bytes = mode[0] == '\0' || strstr(mode, "[never]") ? 0 : parse_size(size);
}

static hf_status fake_node(const json *v, const char *path, int i, int *next_cpu, topo_node *node) {
  char where[512];
  int64_t cpus = 0, mem = 0;
  snprintf(where, sizeof where, "%s: nodes[%d]", path, i);
  HF_TRY(json_get_int(v, where, "cpus", 1, TOPO_MAX_CPUS, &cpus));
  HF_TRY(json_opt_int(v, where, "mem_bytes", 0, INT64_C(1) << 50, &mem));
  HF_TRY(json_opt_num(v, where, "dram_bytes_per_s", 0, 1e15, &node->dram_bytes_per_s));
  node->n_cpus = node->n_cores = (int)cpus;
  node->mem_bytes = mem;
  for (int c = 0; c < node->n_cpus; c++) node->cpus[c] = (*next_cpu)++;
  return HF_OK;
}

static hf_status read_fake(const json *root, const char *path, topology *t) {
  const json *nodes = json_get(root, "nodes");
  int n = json_len(nodes), next_cpu = 0;
  if (!nodes || json_type(nodes) != JSON_ARRAY || n < 1 || n > TOPO_MAX_NODES) {
    return hf_fail(HF_INPUT, "%s: field nodes: an array of 1 to %d nodes is needed", path, TOPO_MAX_NODES);
  }
  t->fake = true;
  t->n_nodes = n;
  int i = 0;
  for (const json *v = json_first(nodes); v; v = json_next(v), i++) HF_TRY(fake_node(v, path, i, &next_cpu, &t->node[i]));
  return HF_OK;
}

hf_status topo_get(topology *out) {
  pthread_once(&once, read_process_once);
  memset(out, 0, sizeof *out);
  read_caches(out);
  read_cpu_name(out);
  read_huge_pages(out);
  const char *path = getenv("HF_TOPOLOGY");
  if (!path || !*path) {
    read_nodes(out);
    return HF_OK;
  }
  json *root = NULL;
  HF_TRY(hf_note(json_read_file(path, MAX_FILE_BYTES, &root), "HF_TOPOLOGY"));
  hf_status st = read_fake(root, path, out);
  json_free(root);
  return st;
}
