#include "planner/ask/cause.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ask/command.h"

typedef struct {
  ask_cause *out;
  int n;
} causes;

static void add(causes *all, const char *what, const char *unit, double from, double to, double weight, const char *format, ...)
    HF_PRINTF(7, 8);
static void add(causes *all, const char *what, const char *unit, double from, double to, double weight, const char *format, ...) {
  if (all->n == ASK_MAX_CAUSES) return;
  ask_cause *c = &all->out[all->n++];
  *c = (ask_cause){.what = what, .unit = unit, .from = from, .to = to, .weight = fabs(weight)};
  va_list args;
  va_start(args, format);
  vsnprintf(c->text, sizeof c->text, format, args);
  va_end(args);
}

static bool moved(double a, double b) {
  return fabs(a - b) > 0.002 * fmax(fabs(a), fabs(b));
}

/* "120", "14.8", "1480": never 1.48e+03. */
typedef struct {
  char text[24];
} ms;
static ms ms_of(double ns) {
  ms m;
  snprintf(m.text, sizeof m.text, ns >= 1e8 ? "%.0f" : "%.3g", ns / 1e6);
  return m;
}

static double ratio_log(double a, double b) {
  return a > 0 && b > 0 ? log(b / a) : a > 0 || b > 0 ? 10 : 0;
}

/* "DRAM bandwidth 512→563 GB/s: CPU time 120→109 ms a step (-9 %), which binds" */
static void rate_cause(causes *all, const char *what, const char *words, double from, double to, const char *side, double ns_from,
                       double ns_to, bool binds) {
  char change[24], text[120] = "";
  if (!moved(from, to) || from <= 0 || to <= 0) return;
  ask_change_text(ns_to / ns_from, change);
  if (ns_from > 0 && ns_to > 0)
    snprintf(text, sizeof text, ": %s time %s → %s ms a step (%s)", side, ms_of(ns_from).text, ms_of(ns_to).text, change);
  add(all, what, "B/s", from, to, binds ? ratio_log(ns_from, ns_to) : 0.01 * ratio_log(from, to), "%s %.4g → %.4g GB/s%s%s",
      words, from / 1e9, to / 1e9, text, binds ? "" : "; it does not bind");
}

static bool cpu_binds(const ask_case *c) {
  return c->cpu_ns >= c->device_ns;
}

static void load_causes(causes *all, const ask_case *b, const ask_case *c) {
  double step = ratio_log(b->step_ns, c->step_ns);
  if (b->users != c->users) {
    double times = (double)c->users / (double)b->users;
    add(all, "users", "1", (double)b->users, (double)c->users, step + log(times),
        "users %lld → %lld: a step lasts %s → %s ms for %.3g times the tokens, as tokens share the experts read",
        (long long)b->users, (long long)c->users, ms_of(b->step_ns).text, ms_of(c->step_ns).text, times);
  }
  if (b->context != c->context)
    add(all, "context", "1", (double)b->context, (double)c->context, 0.5 * step,
        "context %lld → %lld: KV cache and attention take more or less of the device; device time %s → %s ms a step",
        (long long)b->context, (long long)c->context, ms_of(b->device_ns).text, ms_of(c->device_ns).text);
  if (strcmp(b->format, c->format) != 0)
    add(all, "format", "", 0, 0, step, "weights %s → %s: CPU time %s → %s ms a step", b->format, c->format, ms_of(b->cpu_ns).text,
        ms_of(c->cpu_ns).text);
  if (b->depth != c->depth) add(all, "depth", "1", b->depth, c->depth, 0.001, "pipeline depth %d → %d", b->depth, c->depth);
  if (b->chunk_tokens != c->chunk_tokens)
    add(all, "chunk_tokens", "1", b->chunk_tokens, c->chunk_tokens, 0.001, "prompts in chunks of %d → %d tokens", b->chunk_tokens,
        c->chunk_tokens);
}

static void machine_causes(causes *all, const ask_case *b, const ask_case *c) {
  bool cpu = cpu_binds(b) || cpu_binds(c), device = !cpu_binds(b) || !cpu_binds(c), same_load = b->users == c->users;
  bool gone = b->gpu_bytes_per_s > 0 && c->gpu_bytes_per_s == 0;
  if (gone)
    add(all, "device_time", "s", b->device_ns / 1e9, 0, ratio_log(b->step_ns, c->step_ns),
        "no GPU: attention and shared experts on the CPU too, its time %s → %s ms a step, and nothing overlaps",
        ms_of(b->cpu_ns).text, ms_of(c->cpu_ns).text);
  else if (same_load && strcmp(b->gpus, c->gpus) != 0)
    add(all, "gpus", "", 0, 0, 0.5 * ratio_log(b->step_ns, c->step_ns), "GPUs %s → %s: a step lasts %s → %s ms", b->gpus, c->gpus,
        ms_of(b->step_ns).text, ms_of(c->step_ns).text);
  rate_cause(all, "dram_bandwidth", "DRAM bandwidth", b->dram_bytes_per_s, c->dram_bytes_per_s, "CPU", same_load ? b->cpu_ns : 0,
             c->cpu_ns, cpu);
  rate_cause(all, "gpu_bandwidth", "GPU memory bandwidth", b->gpu_bytes_per_s, c->gpu_bytes_per_s, "device",
             same_load ? b->device_ns : 0, c->device_ns, device);
  rate_cause(all, "link_bandwidth", "link", b->link_bytes_per_s, c->link_bytes_per_s, "", 0, 0, false);
  if (b->experts_on_gpu != c->experts_on_gpu && !gone)
    add(all, "experts_on_gpu", "1", (double)b->experts_on_gpu, (double)c->experts_on_gpu,
        cpu ? 0.5 * ratio_log(b->cpu_ns, c->cpu_ns) : 0.001, "experts on the GPU %lld → %lld", (long long)b->experts_on_gpu,
        (long long)c->experts_on_gpu);
  if (all->n == 0 && moved(b->cpu_ns, c->cpu_ns))
    add(all, "cpu_time", "s", b->cpu_ns / 1e9, c->cpu_ns / 1e9, ratio_log(b->cpu_ns, c->cpu_ns), "CPU time %s → %s ms a step",
        ms_of(b->cpu_ns).text, ms_of(c->cpu_ns).text);
  if (all->n == 0 && moved(b->device_ns, c->device_ns))
    add(all, "device_time", "s", b->device_ns / 1e9, c->device_ns / 1e9, ratio_log(b->device_ns, c->device_ns),
        "device time %s → %s ms a step", ms_of(b->device_ns).text, ms_of(c->device_ns).text);
}

static int heavier(const void *a, const void *b) {
  const ask_cause *x = a, *y = b;
  if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
  return strcmp(x->what, y->what);
}

int ask_causes(const ask_case *b, const ask_case *c, ask_cause out[ASK_MAX_CAUSES]) {
  causes all = {.out = out};
  if (!c->feasible) {
    add(&all, "fit", "", 0, 0, 10, "%.190s", c->why_not);
    return all.n;
  }
  if (!b->feasible) {
    add(&all, "fit", "", 0, 0, 10, "it fits, which the base does not");
    return all.n;
  }
  load_causes(&all, b, c);
  machine_causes(&all, b, c);
  if (strcmp(b->binding, c->binding) != 0)
    add(&all, "binding", "", 0, 0, 0.0005, "%s bound, now %s does", b->binding, c->binding);
  qsort(out, (size_t)all.n, sizeof *out, heavier);
  if (all.n == 0) add(&all, "binding", "", 0, 0, 0, "what changed does not bind: %s does", c->binding);
  return all.n;
}
