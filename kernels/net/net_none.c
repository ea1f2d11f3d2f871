/* net_none.c: net.h in a build without MPI. */
#include "kernels/net/net.h"

static hf_status none(void) {
  return hf_fail(HF_UNSUPPORTED,
                 "this build has no MPI, so mpirun's ranks cannot speak with each other: install libopenmpi-dev and build again");
}

hf_status net_open(net **out) {
  *out = NULL;
  return none();
}
void net_close(net *n, int status) {
  (void)n;
  (void)status;
}
void net_lose(net *n) {
  (void)n;
}
int net_rank(const net *n) {
  (void)n;
  return 0;
}
int net_size(const net *n) {
  (void)n;
  return 1;
}
hf_status net_send(net *n, int rank, int tag, const void *data, size_t bytes, net_message *out) {
  (void)n, (void)rank, (void)tag, (void)data, (void)bytes, (void)out;
  return none();
}
hf_status net_receive(net *n, int rank, int tag, void *data, size_t room, net_message *out) {
  (void)n, (void)rank, (void)tag, (void)data, (void)room, (void)out;
  return none();
}
hf_status net_test(net *n, net_message *m, bool *done, size_t *bytes) {
  (void)n, (void)m, (void)done, (void)bytes;
  return none();
}
hf_status net_wait(net *n, net_message *m, int64_t timeout_ns, size_t *bytes) {
  (void)n, (void)m, (void)timeout_ns, (void)bytes;
  return none();
}
