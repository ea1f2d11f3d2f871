/* split.h: how routed experts are cut over NUMA nodes. hf-plan prices and stores it, hf-run lays weights out by it. Pure arithmetic.
 *
 * Of an expert, rows [begin[n], begin[n + 1]) of its intermediate dimension (rows of gate and up, the same columns of down) belong to node n, whole units
 * but for the last: a unit is a block of the weights, and 32 rows at least, what tiles, and packed activations, are cut by. Units go to nodes by
 * their rates; what does not divide goes to another node with the next expert, so that over a layer every node has its share to within a
 * unit: 3 units on two equal nodes are 2 + 1 of one expert and 1 + 2 of the next, and where an expert is one unit, experts take turns. */
#ifndef HF_SCHED_SPLIT_H
#define HF_SCHED_SPLIT_H

enum { SPLIT_MAX_NODES = 32, SPLIT_LEAST_ROWS = 32 };

typedef struct {
  int n_nodes;
  double rate[SPLIT_MAX_NODES]; /* memory's, or any measure of what a node gets done; 0: the node gets nothing. One is above 0 */
  int width, unit;
} split_rule;

/* Of formats with blocks of so many columns: a multiple of it, too. */
int split_unit(int block);
/* Of all experts of a layer: begin[n_experts][n_nodes + 1]. away: NULL or [n_experts], those on a device: nodes are even over the others alone (a placement
 * may leave the CPU every second expert), and then over all, should the device be lost. */
void split_layer(const split_rule *r, int n_experts, const unsigned char *away, int *begin);
/* How much longer the slowest node takes for `active` experts than all nodes would if bytes could be divided at will: the mean over random choices, always
 * the same ones. */
double split_stretch(const split_rule *r, int n_experts, int active);
#endif
