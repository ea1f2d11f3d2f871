/* internal.h: what the files of kernels/mem share. */
#ifndef HF_KERNELS_MEM_INTERNAL_H
#define HF_KERNELS_MEM_INTERNAL_H

/* The operating system's number of the i-th node (numbers may have gaps); -1 when there is no such node. */
int topo_os_node(int node);
int topo_os_node_count(void);
/* CPUs that this process was allowed to use when it started. */
int topo_usable_cpus(void);

#endif
