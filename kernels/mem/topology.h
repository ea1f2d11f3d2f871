/* topology.h: NUMA nodes, cores, caches; memory on a node. numa.h appears in kernels/mem only; without libnuma or
 * on one node everything falls back to plain memory. HF_TOPOLOGY=FILE (JSON: {"nodes":[{"cpus":2,"mem_bytes":…,
 * "dram_bytes_per_s":…},…]}) describes nodes that are not there: threads and memory then carry the fake node's number, and
 * nothing is really bound. */
#ifndef HF_KERNELS_TOPOLOGY_H
#define HF_KERNELS_TOPOLOGY_H
#include "base/status.h"
enum { TOPO_MAX_NODES = 32, TOPO_MAX_CPUS = 1024 };
typedef struct {
  int n_cpus;
  int cpus[TOPO_MAX_CPUS]; /* OS numbers, one per physical core first, then SMT siblings */
  int n_cores;             /* physical cores */
  int64_t mem_bytes;
  double dram_bytes_per_s; /* fake topologies only, else 0 */
} topo_node;
typedef struct {
  bool fake;
  int n_nodes;
  topo_node node[TOPO_MAX_NODES];
  int64_t l1d_bytes, l2_bytes; /* of one core */
  int64_t l3_bytes;            /* of all CPUs that we may use, all their third-level caches together */
  int64_t huge_page_bytes;     /* 0 = none */
  char cpu_name[128];
} topology;
HF_MUST hf_status topo_get(topology *out); /* reads /sys or HF_TOPOLOGY; HF_INPUT for a bad file. Large: not on small stacks */

/* Memory for weights and buffers. 64-byte aligned at least; huge pages by madvise where bytes >= 2 MB; node -1 = anywhere.
 * Zeroed. HF_MACHINE "out of memory" otherwise. Counts bytes per node (mem_used_bytes). */
HF_MUST hf_status mem_alloc(size_t bytes, int node, const char *what, void **out);
void mem_free(void *p, size_t bytes, int node);
int64_t mem_used_bytes(int node); /* -1: all */
/* Part of memory from mem_alloc (node -1) that nobody has touched yet, before anybody does: the huge pages that begin in it go to this node. Of blocks
 * below 2 MB, without libnuma, on one node and under a fake topology nothing happens. */
void mem_prefer(void *block, size_t block_bytes, size_t first, size_t bytes, int node);
#endif
