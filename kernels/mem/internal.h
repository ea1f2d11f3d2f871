/* internal.h: what the files of kernels/mem share. */
#ifndef HF_KERNELS_MEM_INTERNAL_H
#define HF_KERNELS_MEM_INTERNAL_H
#include <stddef.h>

/* The operating system's number of the i-th node (numbers may have gaps); -1 when there is no such node. */
int topo_os_node(int node);
int topo_os_node_count(void);
/* CPUs that this process was allowed to use when it started. */
int topo_usable_cpus(void);

/* Zeroed memory for huge pages at a multiple of `align`, itself a multiple of 2 MB as `bytes` is; NULL: there is none. munmap gives it back. */
void *mem_map(size_t bytes, size_t align, int node);
/* Pieces of 64 KB to 2 MB, zeroed, 64-byte aligned; NULL: out of memory. */
void *pieces_get(size_t bytes, int node);
void pieces_give(void *p, size_t bytes);

#endif
