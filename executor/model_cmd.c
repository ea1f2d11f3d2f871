/* model_cmd.c: the verbs of hf-run model, and what they share. */
#include "executor/model_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/text.h"
#include "db/catalog.h"

static const struct {
  const char *name;
  hf_status (*run)(int, char **);
} verbs[] = {{"inspect", cmd_model_inspect},
             {"verify", cmd_model_verify},
             {"quantise", cmd_model_quantise},
             {"generate", cmd_model_generate}};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

hf_status model_operands(const char *verb, int n, char **rest, int want, const char *names) {
  if (n < want) return hf_fail(HF_INPUT, "%s needs %s; see hf-run model %s --help", verb, names, verb);
  if (n > want) return hf_fail(HF_INPUT, "unexpected argument '%s'; see hf-run model %s --help", rest[want], verb);
  return HF_OK;
}

hf_status model_pool(int64_t n, topology **topo, pool **out) {
  HF_TRY(hf_alloc(topo, 1, sizeof **topo, "topology"));
  hf_status st = topo_get(*topo);
  if (st == HF_OK) st = pool_new(*topo, (int)n, out);
  if (st == HF_OK) return HF_OK;
  free(*topo);
  *topo = NULL;
  return st;
}

const char *model_bytes_text(int64_t bytes, char buf[32]) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double v = (double)bytes;
  int u = 0;
  while (v >= 1024 && u < 4) v /= 1024, u++;
  snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
  return buf;
}

int64_t model_peak_rss(void) {
  struct rusage u;
  return getrusage(RUSAGE_SELF, &u) ? 0 : (int64_t)u.ru_maxrss * 1024;
}

static hf_status unknown(const char *word) {
  int best = 0, least = HF_EDIT_FAR;
  for (int i = 0; i < N_VERBS; i++) {
    int d = hf_edit_distance(word, strlen(word), verbs[i].name);
    if (d < least) best = i, least = d;
  }
  return hf_fail(HF_INPUT,
                 "model: '%.60s' is no verb; is %s meant? (inspect, verify, quantise, generate; see hf-run model --help)", word,
                 verbs[best].name);
}

static hf_status no_verb(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {.program = "hf-run",
                         .verb = "model",
                         .synopsis = "(inspect | verify | quantise | generate) ...",
                         .description = "Looks at model files, checks them, writes them in other weight formats.\n\n"
                                        "   inspect   parts, weight formats, bytes, what this build executes\n"
                                        "   verify    every byte: headers, sizes, shapes, numbers that are none\n"
                                        "   quantise  a Hugging Face folder or GGUF as one GGUF file in other formats\n"
                                        "   generate  weights from a seed, as a file\n\n"
                                        "Each verb has its own page: hf-run model VERB --help.",
                         .examples = "  hf-run model inspect examples/tiny-moe\n"
                                     "      What is in it, and what one token reads of it.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  if (argc > 1 && argv[1][0] != '-') return unknown(argv[1]);
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  return stop ? HF_OK
              : hf_fail(HF_INPUT, "model: say what to do: inspect, verify, quantise or generate; see hf-run model --help");
}

hf_status cmd_model(int argc, char **argv) {
  model_set_catalog_hook(catalog_model_config, NULL);
  for (int i = 0; argc > 1 && i < N_VERBS; i++)
    if (!strcmp(argv[1], verbs[i].name)) return verbs[i].run(argc - 1, argv + 1);
  if (argc > 1 && !strcmp(argv[1], "quantize")) return cmd_model_quantise(argc - 1, argv + 1);
  return no_verb(argc, argv);
}

hf_status cmd_model_generate(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {
      .program = "hf-run",
      .verb = "model generate",
      .synopsis = "synth:CONFIG[,key=value...] OUT",
      .description =
          "Writes a synthetic model: weights from a seed, spread so that activations stay finite and routing is not degenerate. "
          "OUT is "
          "a GGUF file when its name ends in .gguf, else a safetensors folder.\n\n"
          "CONFIG is a config.json, a folder with one, or a model of the catalog. Keys: layers=N and experts=N (of the "
          "config's), seed=N, format=F (any format that hf-run executes; q8_0 in GGUF by default).",
      .examples = "  hf-run model generate synth:tests/bench/moe-700m.json,format=q8_0,seed=1 /tmp/moe-700m.gguf\n"
                  "      A model of 700 MB for benchmarks.\n"
                  "  hf-run model generate synth:deepseek-r1,layers=4,experts=16,format=q4_k /tmp/r1-4.gguf\n"
                  "      Four layers of DeepSeek-R1 with 16 of its experts.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(model_operands("generate", n, rest, 2, "synth:CONFIG,... and OUT"));
  HF_TRY(model_synth_export(rest[0], rest[1]));
  if (!common.json) return HF_OK;
  json *o = json_new_object();
  json_add_str(json_add_array(o, "files"), NULL, rest[1]);
  return json_show(o);
}
