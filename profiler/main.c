/* hf-profile: measures this machine into the database. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/end.h"
#include "db/catalog.h"
#include "model/model.h"
#include "profiler/profile.h"
#include "profiler/ranks.h"
#include "profiler/verbs.h"

static const char program[] = "hf-profile";

typedef struct {
  bool quick, restart, ranks;
  int64_t threads;
  const char *only, *model, *name, *isa;
} options;

static const char description[] =
    "Measures this machine into the database. It finds out how fast memory is read by how many threads, how long each kernel "
    "takes "
    "over the number of tokens, per weight format and instruction set, attention over context, and what a layer costs beside its "
    "arithmetic. hf-plan predicts from these figures.\n\n"
    "Every figure is a median with its 10th and 90th percentile. A point whose samples lie far apart, or after which the cores "
    "run slowly, "
    "is measured again. Stop other programs first: what they take is missing from the figures.\n\n"
    "A full profile takes up to five minutes on two cores. One that was interrupted goes on where it was when it is started "
    "again "
    "within a day with the same options.\n\n"
    "hf-profile show prints a machine of the database, compare two of them side by side, export and import hand one to a "
    "colleague who "
    "plans with it; each has its --help.";

static const char examples[] =
    "  hf-profile --quick\n      under 20 seconds on two cores, enough for a first plan\n"
    "  hf-profile\n      all kernels over 1 to 512 tokens, up to five minutes; goes on after an interruption\n"
    "  hf-profile --model examples/tiny-moe\n      the shapes of this model\n"
    "  hf-profile --only dram --json\n      the bandwidth of reading memory alone, for a script\n"
    "  mpirun -n 2 --host here,there hf-profile --ranks\n      the network to another machine, for hf-plan plan --remote "
    "there:measured\n"
    "  hf-profile show\n      the last profile again\n"
    "  hf-profile export --out box.json\n      for a colleague's hf-profile import\n";

/* A database that cannot be written is found out before minutes of measuring. */
static hf_status check_writable(db *d) {
  HF_TRY(db_begin(d));
  db_rollback(d);
  return HF_OK;
}

/* Others at work are the usual reason for figures that nobody can use: ask to go before them where that is permitted. Threads
 * started from here on inherit it. */
static void go_ahead(void) {
  enum { AHEAD = -10 };
  (void)setpriority(PRIO_PROCESS, 0, AHEAD);
}

static void warn_if_busy(void) {
  double load;
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (getloadavg(&load, 1) == 1 && cpus > 0 && load > 0.3 * (double)cpus + 0.2) {
    hf_log(HF_LOG_WARN,
           "other programs are running (load average %.1f on %ld CPUs): figures may be lower than this machine can do", load,
           cpus);
  }
}

/* Everything that rows of one profile have in common. A quick profile keeps none: it is over in seconds. */
static hf_status open_journal(const options *o, const cli_common *common, const char *facts, profile *p) {
  char path[4096], key[4096 + 1024];
  int units = 0;
  if (o->quick) return HF_OK;
  HF_TRY(db_default_path(common->db_path, path, sizeof path));
  snprintf(key, sizeof key, "%s " HF_VERSION " threads=%lld only=%.32s model=%.512s", facts, (long long)o->threads,
           o->only ? o->only : "", o->model ? o->model : "");
  HF_TRY(journal_open(path, key, o->restart, &p->journal, &units));
  if (units > 0)
    hf_log(HF_LOG_INFO, "going on with an interrupted profile: %d parts of it are there (--restart begins anew)", units);
  return HF_OK;
}

static hf_status measure(const options *o, const cli_common *common, profile *p) {
  rec_machine m = {.name = ""};
  char name[128] = "", facts[sizeof m.facts_json];
  db *d = NULL;
  if (o->name) snprintf(name, sizeof name, "%s", o->name);
  else if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') snprintf(name, sizeof name, "this-machine");
  HF_TRY(prof_facts(p->topo, facts, sizeof facts));
  HF_TRY(verb_open_db(common, true, &d));
  hf_status st;
  HF_GO(out, check_writable(d));
  HF_GO(out, open_journal(o, common, facts, p));
  warn_if_busy();
  HF_GO(out, prof_run(p));
  HF_GO(out, prof_add_theoretical(p, facts));
  HF_GO(out, prof_store(d, p, name, facts, &m));
  journal_close(p->journal, true);
  p->journal = NULL;
  hf_log(HF_LOG_INFO, "library for products of many tokens: %s", kern_library_state());
  hf_log(HF_LOG_INFO, "gpu: no device; stored as machine %lld (%s)", (long long)m.id, m.name);
  st = verb_print(d, &m, common->json);
out:
  journal_close(p->journal, false);
  db_close(d);
  return st;
}

/* The error is told before MPI's end, which a lost rank makes the end of this process. */
static hf_status profile_ranks(const options *o, const cli_common *common) {
  net *n = NULL;
  if (!net_started()) return hf_fail(HF_INPUT, "--ranks: measures the way to other ranks; start hf-profile with mpirun -n 2");
  HF_TRY(net_open(&n));
  hf_status st = prof_ranks(n, common, o->name);
  if (st != HF_OK) {
    if (net_rank(n) == 0) hf_log(HF_LOG_ERROR, "%s", hf_error_line());
    net_lose(n); /* the others wait for orders that do not come */
  }
  net_close(n, hf_exit_status(st));
  return st;
}

static hf_status profile_machine(int argc, char **argv) {
  options o = {.threads = 0};
  const cli_option table[] = {
      {"quick", 'q', CLI_FLAG, &o.quick, NULL, "Fewer points and samples: under 20 seconds on two cores.", 0, 0},
      {"threads", 't', CLI_INT, &o.threads, "N", "Workers to measure with. Default: all physical cores.", 1, TOPO_MAX_CPUS},
      {"only", 0, CLI_STR, &o.only, "GROUP",
       "Measure one group: dram, memory, fixed, experts, matmul, attention, norm, dma or peaks.", 0, 0},
      {"model", 'm', CLI_STR, &o.model, "PATH",
       "Take the shapes of this model (folder, GGUF file or synth:...) instead of common ones.", 0, 0},
      {"restart", 0, CLI_FLAG, &o.restart, NULL, "Begin anew where an interrupted profile would go on.", 0, 0},
      {"name", 0, CLI_STR, &o.name, "NAME", "Name of the machine in the database. Default: the host name.", 0, 0},
      {"ranks", 0, CLI_FLAG, &o.ranks, NULL,
       "Under mpirun: measure nothing but how long messages take to the other ranks; rows of the machine that was measured last "
       "here, or of --name.",
       0, 0},
      {"isa", 0, CLI_STR, &o.isa, "MASK",
       "Use no instruction set above: scalar, avx2, avx512, avx512vnni, avx512bf16, amx. Default: $HF_ISA, else all.", 0, 0},
      {NULL},
  };
  const cli_spec spec = {
      program,
      NULL,
      "[--quick] [options]\nshow [ID_OR_NAME]\ncompare A [B]\nexport [ID_OR_NAME] [--out FILE]\nimport FILE [--name NAME]",
      description,
      examples,
      table,
      "HF_ISA\nUse no instruction set above: scalar, avx2, avx512, avx512vnni, avx512bf16, amx.\n"
      "HF_TOPOLOGY\nA JSON file of NUMA nodes to pretend: {\"nodes\":[{\"cpus\":2,\"mem_bytes\":8589934592}]}.\n"};
  cli_common common;
  int n = 0;
  char **operands = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &operands, &stop));
  if (stop) return HF_OK;
  if (n > 0)
    return hf_fail(HF_INPUT, "'%s' is no verb of hf-profile: show, compare, export or import; see hf-profile --help",
                   operands[0]);
  if (o.name && (o.name[0] == '\0' || strlen(o.name) > 127)) return hf_fail(HF_INPUT, "option --name: 1 to 127 bytes are needed");
  if (o.ranks) return profile_ranks(&o, &common);
  HF_TRY(kern_init(o.isa));
  model_set_catalog_hook(catalog_model_config, NULL);
  go_ahead();
  prof_options po = {.quick = o.quick, .threads = (int)o.threads, .only = o.only};
  topology *t = NULL;
  profile *p = NULL;
  hf_status st;
  HF_TRY(hf_alloc(&t, 1, sizeof *t, "topology"));
  HF_GO(out, topo_get(t));
  HF_GO(out, prof_new(&po, t, o.model, &p));
  st = measure(&o, &common, p);
out:
  prof_free(p);
  free(t);
  return st;
}

int main(int argc, char **argv) {
  hf_end_program(program);
  static const struct {
    const char *name;
    hf_status (*run)(int argc, char **argv);
  } verbs[] = {{"show", verb_show}, {"compare", verb_compare}, {"export", verb_export}, {"import", verb_import}};
  for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp(argv[1], verbs[i].name) == 0) return cli_finish(program, verbs[i].run(argc - 1, argv + 1));
  return cli_finish(program, profile_machine(argc, argv));
}
