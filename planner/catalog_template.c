/* catalog_template.c: examples of catalog entries to start one's own from. JSON has no comments: what each member means stands in its source, to
 * be replaced by who says so. Each is accepted by hf-plan catalog check (tests/cli/catalog.sh). */
#include "planner/catalog_template.h"

#include <string.h>

static const char gpu[] =
    "{\n"
    "  \"name\": \"my-card\",\n"
    "  \"title\": \"Maker and full name of the card\",\n"
    "  \"aliases\": [],\n"
    "  \"form\": \"PCIe card\",\n"
    "  \"source\": \"who says so: the data sheet\",\n"
    "  \"date\": \"2026-01-31\",\n"
    "  \"mem_bytes\": {\"value\": 34359738368, \"unit\": \"B\", \"source\": \"bytes of its memory\"},\n"
    "  \"mem_bytes_per_s\": {\"value\": 1792000000000, \"unit\": \"B/s\", \"source\": \"bandwidth of its memory by the data "
    "sheet\"},\n"
    "  \"flops_bf16\": {\"value\": 209500000000000, \"unit\": \"FLOP/s\", \"source\": \"tensor cores, dense, 32-bit "
    "accumulation\"},\n"
    "  \"flops_fp8\": {\"value\": 419000000000000, \"unit\": \"FLOP/s\", \"source\": \"likewise; leave the member out where "
    "there is none\"},\n"
    "  \"flops_int8\": {\"value\": 838000000000000, \"unit\": \"OP/s\", \"source\": \"likewise, operations\"},\n"
    "  \"pcie_gen\": {\"value\": 5, \"unit\": \"1\", \"source\": \"generation of its link\"},\n"
    "  \"pcie_lanes\": {\"value\": 16, \"unit\": \"1\", \"source\": \"lanes of its link\"},\n"
    "  \"power_idle_w\": {\"value\": 30, \"unit\": \"W\", \"source\": \"weights resident, nothing to do\", \"tag\": "
    "\"assumed\"},\n"
    "  \"power_active_w\": {\"value\": 575, \"unit\": \"W\", \"source\": \"board power\"},\n"
    "  \"price_usd\": {\"value\": 2600, \"low\": 2000, \"high\": 3600, \"unit\": \"USD\", \"source\": \"an offer; low and high "
    "may be left out\"}\n"
    "}\n";

static const char cpu[] =
    "{\n"
    "  \"name\": \"my-cpu\",\n"
    "  \"title\": \"Maker and full name of the CPU\",\n"
    "  \"aliases\": [],\n"
    "  \"class\": \"server\",\n"
    "  \"source\": \"who says so: the data sheet; class is desktop, workstation or server\",\n"
    "  \"date\": \"2026-01-31\",\n"
    "  \"cores\": {\"value\": 32, \"unit\": \"1\", \"source\": \"cores of a socket, not threads\"},\n"
    "  \"base_clock_hz\": {\"value\": 2400000000, \"unit\": \"Hz\", \"source\": \"base clock\"},\n"
    "  \"isa\": [\"avx2\", \"avx512f\", \"avx512_vnni\"],\n"
    "  \"memory_channels\": {\"value\": 12, \"unit\": \"1\", \"source\": \"channels of a socket\"},\n"
    "  \"memory_speeds\": [{\"type\": \"ddr5\", \"dimms_per_channel\": 1, \"transfers_per_s\": {\"value\": 6400000000, \"unit\": "
    "\"1/s\", "
    "\"source\": \"what it drives with so many modules; not listed is refused\"}}],\n"
    "  \"max_sockets\": {\"value\": 2, \"unit\": \"1\", \"source\": \"sockets it works in\"},\n"
    "  \"pcie_gen\": {\"value\": 5, \"unit\": \"1\", \"source\": \"generation of its links\"},\n"
    "  \"pcie_lanes\": {\"value\": 128, \"unit\": \"1\", \"source\": \"lanes of a socket\"},\n"
    "  \"power_idle_w\": {\"value\": 80, \"unit\": \"W\", \"source\": \"idle\", \"tag\": \"assumed\"},\n"
    "  \"power_active_w\": {\"value\": 300, \"unit\": \"W\", \"source\": \"sustained power limit\"},\n"
    "  \"flops_per_cycle\": {\"f32\": {\"value\": 64, \"unit\": \"FLOP\"}, \"bf16\": {\"value\": 128, \"unit\": \"FLOP\"}, "
    "\"int8\": "
    "{\"value\": 256, \"unit\": \"OP\"}, \"source\": \"of a core, a multiplication and an addition counted as two\"},\n"
    "  \"price_usd\": {\"value\": 3000, \"unit\": \"USD\", \"source\": \"an offer; left out, the CPU is never recommended\"}\n"
    "}\n";

static const char memory[] =
    "{\n"
    "  \"name\": \"my-memory\",\n"
    "  \"title\": \"DDR5-6400 RDIMM of a dealer\",\n"
    "  \"aliases\": [],\n"
    "  \"type\": \"ddr5\",\n"
    "  \"source\": \"who says so; type is ddr4, ddr5, ddr4-udimm, ddr5-udimm or mrdimm\",\n"
    "  \"date\": \"2026-01-31\",\n"
    "  \"transfers_per_s\": {\"value\": 6400000000, \"unit\": \"1/s\", \"source\": \"rate of the module\"},\n"
    "  \"bytes_per_transfer\": {\"value\": 8, \"unit\": \"B\", \"source\": \"of a channel\"},\n"
    "  \"price_usd_per_gib\": {\"value\": 24, \"low\": 15, \"high\": 35, \"unit\": \"USD/GiB\", \"source\": \"an offer\"},\n"
    "  \"power_active_w_per_dimm\": {\"value\": 10, \"unit\": \"W\", \"source\": \"of a module at work\", \"tag\": "
    "\"assumed\"},\n"
    "  \"dimm_bytes_max\": {\"value\": 274877906944, \"unit\": \"B\", \"source\": \"largest module on sale\"},\n"
    "  \"dimm_bytes_sold\": {\"value\": [34359738368, 68719476736, 274877906944], \"source\": \"sizes on sale; left out, any "
    "size is "
    "taken\"}\n"
    "}\n";

static const char machine[] = "{\n"
                              "  \"name\": \"my-machine\",\n"
                              "  \"title\": \"Two sockets, one card\",\n"
                              "  \"aliases\": [],\n"
                              "  \"source\": \"what was offered or built; cpu, memory.kind and gpus are names of the catalog\",\n"
                              "  \"date\": \"2026-01-31\",\n"
                              "  \"cpu\": \"xeon-6787p\",\n"
                              "  \"sockets\": 2,\n"
                              "  \"memory\": {\"kind\": \"mrdimm-8000\", \"dimms_per_channel\": 1, \"dimm_bytes\": {\"value\": "
                              "68719476736, \"unit\": \"B\", "
                              "\"source\": \"bytes of a module\"}},\n"
                              "  \"gpus\": [{\"gpu\": \"rtx5090\", \"count\": 1}],\n"
                              "  \"prior\": \"heteroflow\",\n"
                              "  \"assumptions\": [\"A sentence that reports show.\"]\n"
                              "}\n";

static const char model[] =
    "{\n"
    "  \"name\": \"my-model\",\n"
    "  \"title\": \"Full name of the model\",\n"
    "  \"aliases\": [],\n"
    "  \"source\": \"where config.json comes from: its members unchanged\",\n"
    "  \"date\": \"2026-01-31\",\n"
    "  \"default_format\": \"q4_k_m\",\n"
    "  \"params_total\": {\"value\": 30532122624, \"unit\": \"1\", \"source\": \"of all experts, by the model card\"},\n"
    "  \"params_active\": {\"value\": 3352821760, \"unit\": \"1\", \"source\": \"of a token, by the model card\"},\n"
    "  \"config\": {\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", \"hidden_size\": 2048, "
    "\"num_hidden_layers\": 48,\n"
    "    \"num_attention_heads\": 32, \"num_key_value_heads\": 4, \"head_dim\": 128, \"intermediate_size\": 6144, "
    "\"vocab_size\": 151936,\n"
    "    \"num_experts\": 128, \"num_experts_per_tok\": 8, \"moe_intermediate_size\": 768, \"norm_topk_prob\": true, "
    "\"decoder_sparse_step\": 1,\n"
    "    \"mlp_only_layers\": [], \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, "
    "\"rope_scaling\": null,\n"
    "    \"max_position_embeddings\": 40960, \"tie_word_embeddings\": false, \"attention_bias\": false, \"torch_dtype\": "
    "\"bfloat16\"}\n"
    "}\n";

static const struct {
  const char *kind, *folder, *text;
} templates[] = {{"gpu", "gpus", gpu},
                 {"cpu", "cpus", cpu},
                 {"memory", "memory", memory},
                 {"machine", "machines", machine},
                 {"model", "models", model}};

const char *catalog_template(const char *kind, const char **folder) {
  for (size_t i = 0; i < sizeof templates / sizeof templates[0]; i++) {
    if (strcmp(kind, templates[i].kind) != 0 && strcmp(kind, templates[i].folder) != 0) continue;
    *folder = templates[i].folder;
    return templates[i].text;
  }
  return NULL;
}
