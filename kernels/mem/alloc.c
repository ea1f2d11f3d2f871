/* alloc.c: memory on a node. Large pieces are mapped, aligned to 2 MB and advised to use huge pages (a weight matrix read
 * through 4 KB pages spends its time in the TLB); those from 64 KB on are cut from such memory (pieces.c), small ones come from the heap. Which
 * of the three follows from the size alone, so that mem_free needs no header in front of the block. Sanitizers watch the heap only, so with
 * them it takes all but large pieces. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef HF_HAVE_NUMA
#include <numa.h>
#endif

#include "base/mem.h"
#include "kernels/mem/internal.h"
#include "kernels/mem/topology.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { HUGE_BYTES = 2 << 20, ALIGN_BYTES = 64, PIECE_BYTES = HUGE_BYTES };
#else
enum { HUGE_BYTES = 2 << 20, ALIGN_BYTES = 64, PIECE_BYTES = 64 << 10 };
#endif

static atomic_llong used[TOPO_MAX_NODES + 1]; /* the last counts memory that belongs to no node */

static atomic_llong *counter_of(int node) {
  return &used[node >= 0 && node < TOPO_MAX_NODES ? node : TOPO_MAX_NODES];
}

static size_t mapped_bytes(size_t bytes) {
  return (bytes + HUGE_BYTES - 1) & ~((size_t)HUGE_BYTES - 1);
}

static void bind_to(void *p, size_t bytes, int node) {
#ifdef HF_HAVE_NUMA
  const char *fake = getenv("HF_TOPOLOGY");
  int os_node = topo_os_node(node);
  if ((fake && *fake) || os_node < 0 || topo_os_node_count() < 2 || numa_available() < 0) return;
  numa_tonode_memory(p, bytes, os_node);
#else
  (void)p, (void)bytes, (void)node;
#endif
}

/* Maps more than needed and gives the ends back, which leaves an aligned piece. */
void *mem_map(size_t bytes, size_t align, int node) {
  size_t all = bytes + align;
  char *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  size_t head = (size_t)(-(uintptr_t)p & (align - 1)), tail = all - head - bytes;
  if (head) munmap(p, head);
  if (tail) munmap(p + head + bytes, tail);
  bind_to(p + head, bytes, node);
  (void)madvise(p + head, bytes, MADV_HUGEPAGE);
  return p + head;
}

hf_status mem_alloc(size_t bytes, int node, const char *what, void **out) {
  void *p = NULL, *probe = NULL;
  /* hf_alloc is where tests make the n-th allocation fail; asking it first puts ours under the same counter. */
  HF_TRY(hf_alloc(&probe, 1, 1, what));
  free(probe);
  if (bytes > SIZE_MAX - 2 * (size_t)HUGE_BYTES) return hf_fail(HF_MACHINE, "out of memory: %zu bytes for %s", bytes, what);
  if (bytes >= HUGE_BYTES) {
    p = mem_map(mapped_bytes(bytes), HUGE_BYTES, node);
  } else if (bytes >= PIECE_BYTES) {
    p = pieces_get(bytes, node);
  } else if (posix_memalign(&p, ALIGN_BYTES, bytes ? bytes : 1) == 0) {
    memset(p, 0, bytes ? bytes : 1);
  } else {
    p = NULL;
  }
  if (!p) return hf_fail(HF_MACHINE, "out of memory: %zu bytes for %s", bytes, what);
  atomic_fetch_add_explicit(counter_of(node), (long long)bytes, memory_order_relaxed);
  *out = p;
  return HF_OK;
}

void mem_free(void *p, size_t bytes, int node) {
  if (!p) return;
  if (bytes >= HUGE_BYTES) munmap(p, mapped_bytes(bytes));
  else if (bytes >= PIECE_BYTES) pieces_give(p, bytes);
  else free(p);
  atomic_fetch_sub_explicit(counter_of(node), (long long)bytes, memory_order_relaxed);
}

void mem_prefer(void *block, size_t block_bytes, size_t first, size_t bytes, int node) {
  const size_t from = mapped_bytes(first), to = mapped_bytes(first + bytes);
  if (block_bytes >= HUGE_BYTES && from < to) bind_to((char *)block + from, to - from, node);
}

int64_t mem_used_bytes(int node) {
  if (node >= 0) return node < TOPO_MAX_NODES ? atomic_load_explicit(&used[node], memory_order_relaxed) : 0;
  int64_t sum = 0;
  for (int i = 0; i <= TOPO_MAX_NODES; i++) sum += atomic_load_explicit(&used[i], memory_order_relaxed);
  return sum;
}
