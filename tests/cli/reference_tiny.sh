# The trained example model, BF16 folder and Q8_0 GGUF, against its references.
. tests/cli/lib.sh
. tests/cli/reference_common.sh

for pair in examples/tiny-moe:reference-bf16.json examples/tiny-moe/tiny-moe-q8_0.gguf:reference-q8_0.json; do
  model=${pair%%:*}
  ref=examples/tiny-moe/${pair##*:}
  for depth in 1 2 3; do
    for batch in 1 5 16; do
      check "$model" "$ref" --depth $depth --batch $batch
      for share in 0 50 100; do check "$model" "$ref" --gpu virtual:1G --experts-on-gpu $share --depth $depth --batch $batch; done
    done
  done
  for isa in $masks; do
    check "$model" "$ref" --isa "$isa"
    check "$model" "$ref" --isa "$isa" --activations fast
  done
done

echo "$n comparisons with known answers"
