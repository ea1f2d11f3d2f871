# ranks_common.sh: hf-run under mpirun on this machine; sourced after lib.sh, which gives $bin and $tmp.
# shellcheck shell=bash
command -v mpirun >/dev/null || skip "no mpirun"
ldd "$bin/hf-run" | grep libmpi >/dev/null || skip "hf-run was built without MPI"
if ldd "$bin/hf-run" | grep libtsan >/dev/null; then skip "MPI itself is not built for ThreadSanitizer"; fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"
mpi=(--oversubscribe --bind-to none --mca orte_tmpdir_base "$tmp" --mca plm_rsh_agent false --mca btl_vader_single_copy_mechanism none)
# shellcheck disable=SC2034
memory=(--mca btl vader,self)
# shellcheck disable=SC2034
loopback=(--mca btl tcp,self --mca btl_tcp_if_include lo)
tiny=examples/tiny-moe
# shellcheck disable=SC2034
ask=(--model $tiny --prompts $tiny/prompts.jsonl --limit 5 --max-tokens 24 --ignore-eos --threads 1 --quiet --json)
answers() { jq -c '[.id, .ids]' "$1" | sort; }
