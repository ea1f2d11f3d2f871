# network_common.sh: two machines on this one, that is two network namespaces with a link between them; sourced after ranks_common.sh, by a test that has
# put itself into a namespace of its own (unshare -n), so that nothing of the real network is touched.
# shellcheck shell=bash

network_names=()
network_end() {
  local name
  for name in "${network_names[@]}"; do ip netns del "$name" 2>/dev/null || true; done
  finish_test
}

# network [RATE [DELAY]]: a link of that rate each way (100mbit; netem or tbf) and of that delay (50us; netem only). Sets $rank_on_net, which starts a
# rank in its namespace, $over_net, options of mpirun, and $shaped: what the link has of the two ("", rate, rate+delay).
network() {
  local at side address=1
  command -v ip >/dev/null || skip "no ip (iproute2)"
  trap network_end EXIT
  for side in a b; do
    at=hf$$$side
    ip netns add "$at" 2>/dev/null || skip "no network namespaces here (ip netns add)"
    network_names+=("$at")
  done
  ip link add hfbr type bridge 2>/dev/null || skip "no network bridges here"
  ip addr add 10.213.7.254/24 dev hfbr
  ip link set hfbr up
  ip link set lo up
  shaped=
  for side in a b; do
    at=hf$$$side
    ip link add "v$side" type veth peer name "p$side" 2>/dev/null || skip "no veth here"
    ip link set "p$side" master hfbr up
    ip link set "v$side" netns "$at"
    ip -n "$at" addr add "10.213.7.$address/24" dev "v$side"
    ip -n "$at" link set "v$side" up
    ip -n "$at" link set lo up
    address=$((address + 1))
    if [ $# -gt 1 ] && ip netns exec "$at" tc qdisc add dev "v$side" root netem rate "$1" delay "$2" 2>/dev/null; then
      shaped=rate+delay
    elif [ $# -gt 0 ] && ip netns exec "$at" tc qdisc add dev "v$side" root tbf rate "$1" burst 32kb latency 400ms 2>/dev/null; then
      shaped=rate
    fi
  done
  cat >"$tmp/rank_on_net" <<SH
#!/bin/bash
case \$OMPI_COMM_WORLD_RANK in 0) at=hf$$a ;; *) at=hf$$b ;; esac
exec ip netns exec \$at "\$@"
SH
  chmod +x "$tmp/rank_on_net"
  # shellcheck disable=SC2034
  rank_on_net=$tmp/rank_on_net
  export PMIX_MCA_ptl_tcp_if_include=hfbr PMIX_MCA_ptl_tcp_remote_connections=1 # ranks reach mpirun from where they are
  # shellcheck disable=SC2034
  over_net=(--mca btl tcp,self --mca btl_tcp_if_include 10.213.7.0/24)
}
