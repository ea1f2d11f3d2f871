/* pieces.c: memory of 64 KB to 2 MB, cut one behind the other from regions that huge pages back. From the heap such a matrix lies in pages of 4 KB,
 * and reading it once costs a walk through the page tables for each (measured: 1 MB of weights at 11 GB/s instead of 28).
 *
 * Invariants, all under `lock`
 *  1. A region is aligned to its size, so that a piece's region is found from its address; its first line is the header.
 *  2. Pieces of a region end at or before `end`; everything from `dirty` on has never been given away and is zero.
 *  3. A region whose last piece goes is given back to the system. What was cut last can be taken back; other holes stay until then. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/mem/internal.h"
#include "kernels/mem/topology.h"

enum { REGION_BYTES = 8 << 20, LINE_BYTES = 64 };

typedef struct {
  size_t end, dirty; /* from the region's beginning */
  int n_pieces, slot;
} region;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static region *cut_from[TOPO_MAX_NODES + 1]; /* one a node, and one for memory of none */

static int slot_of(int node) {
  return node >= 0 && node < TOPO_MAX_NODES ? node : TOPO_MAX_NODES;
}

static region *new_region(int node) {
  region *r = mem_map(REGION_BYTES, REGION_BYTES, node);
  if (r) *r = (region){.end = LINE_BYTES, .dirty = LINE_BYTES, .slot = slot_of(node)};
  return r;
}

void *pieces_get(size_t bytes, int node) {
  bytes = (bytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
  pthread_mutex_lock(&lock);
  region **from = &cut_from[slot_of(node)];
  if (!*from || (*from)->end + bytes > REGION_BYTES) {
    region *fresh = new_region(node);
    if (!fresh) {
      pthread_mutex_unlock(&lock);
      return NULL;
    }
    *from = fresh; /* the one before lives on by its pieces, of which it has at least one */
  }
  region *r = *from;
  char *p = (char *)r + r->end;
  if (r->end < r->dirty) memset(p, 0, bytes < r->dirty - r->end ? bytes : r->dirty - r->end);
  r->end += bytes;
  if (r->dirty < r->end) r->dirty = r->end;
  r->n_pieces++;
  pthread_mutex_unlock(&lock);
  return p;
}

void pieces_give(void *p, size_t bytes) {
  bytes = (bytes + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
  region *r = (region *)((uintptr_t)p & ~(uintptr_t)(REGION_BYTES - 1));
  pthread_mutex_lock(&lock);
  if ((char *)p + bytes == (char *)r + r->end) r->end -= bytes;
  if (--r->n_pieces == 0) {
    if (cut_from[r->slot] == r) cut_from[r->slot] = NULL;
    munmap(r, REGION_BYTES);
  }
  pthread_mutex_unlock(&lock);
}
