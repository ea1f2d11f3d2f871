# A weight file that is cut while hf-run talks: one line that names it, status 3, no signal.
. tests/cli/lib.sh
expect_exit 0 "$bin/hf-run" --model synth:examples/tiny-moe,format=q8_0,seed=1 --write-model "$tmp/m.gguf" --quiet
mkfifo "$tmp/lines"
"$bin/hf-run" --chat --model "$tmp/m.gguf" --max-tokens 4 --gpu none <"$tmp/lines" >"$out" 2>"$err" &
run=$!
exec 3>"$tmp/lines"
echo 'To be' >&3
for _ in $(seq 600); do
  [ -s "$out" ] && break # it is answering
  sleep 0.1
done
truncate -s 4096 "$tmp/m.gguf"
echo 'or not to be' >&3
exec 3>&-
got=0
wait $run || got=$?
[ $got = 3 ] || fail "exit status $got where 3 is expected"
expect_stderr_line '^hf-run: .*m.gguf: (the file )?has become shorter'
