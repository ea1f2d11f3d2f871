#include "executor/ask.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "sched/gpus.h"

extern char **environ;

/* Far above any question that hf-run asks; the hardest placements known take half a minute. */
enum { MAX_ANSWER = 256 << 20, MAX_ARGS = 64, ANSWER_S = 900 };

/* hf-plan in the folder of this program. */
static hf_status find_hf_plan(char *out, size_t n) {
  char self[4096];
  ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
  if (len < 0) return hf_fail(HF_MACHINE, "cannot read /proc/self/exe: %s", strerror(errno));
  self[len] = 0;
  char *slash = strrchr(self, '/');
  if (!slash) return hf_fail(HF_MACHINE, "cannot tell the folder of this program");
  *slash = 0;
  if (snprintf(out, n, "%s/hf-plan", self) >= (int)n) return hf_fail(HF_MACHINE, "path of hf-plan is too long");
  if (access(out, X_OK)) return hf_fail(HF_NOT_FOUND, "%s is not there; build or install hf-plan beside this program", out);
  return HF_OK;
}

/* Reads both pipes until they close. HF_TIMEOUT: nothing came for so many looks of a second (looks, as this process may have been stopped), or *stop. */
static hf_status drain(int out_fd, int err_fd, atomic_bool *stop, hf_buf *out, hf_buf *err) {
  const int looks_per_s = stop ? 20 : 1;
  struct pollfd p[2] = {{out_fd, POLLIN, 0}, {err_fd, POLLIN, 0}};
  hf_buf *to[2] = {out, err};
  char chunk[65536];
  int looks = 0;
  while (p[0].fd >= 0 || p[1].fd >= 0) {
    const int ready = poll(p, 2, 1000 / looks_per_s);
    if (stop && atomic_load(stop)) return hf_fail(HF_TIMEOUT, "hf-plan was not waited for");
    if (ready < 0 && errno != EINTR) return hf_fail(HF_MACHINE, "poll: %s", strerror(errno));
    if (ready <= 0) p[0].revents = p[1].revents = 0;
    looks = ready == 0 ? looks + 1 : 0;
    if (looks == ANSWER_S * looks_per_s) return hf_fail(HF_TIMEOUT, "hf-plan gave no answer in %d s", ANSWER_S);
    for (int i = 0; i < 2; i++) {
      if (p[i].fd < 0 || !p[i].revents) continue;
      ssize_t n = read(p[i].fd, chunk, sizeof chunk);
      if (n > 0) HF_TRY(hf_buf_add(to[i], chunk, (size_t)n));
      else if (n == 0 || errno != EINTR) p[i].fd = -1;
    }
  }
  return HF_OK;
}

static const char *last_line(hf_buf *err) {
  if (!err->data) return "no message";
  while (err->len && err->data[err->len - 1] == '\n') err->data[--err->len] = 0;
  const char *nl = strrchr(err->data, '\n');
  return nl ? nl + 1 : err->data;
}

static hf_status judge_exit(int status, hf_buf *err) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return HF_OK;
  hf_status code = !WIFEXITED(status)         ? HF_MACHINE
                   : WEXITSTATUS(status) == 1 ? HF_NO
                   : WEXITSTATUS(status) == 2 ? HF_INPUT
                                              : HF_MACHINE;
  return hf_fail(code, "%s", last_line(err));
}

/* vfork: what a model takes of memory must not be gone through for a child that begins another program at once. It ends with whoever asks. */
static hf_status start(const char *path, char **argv, int out_fd, int err_fd, pid_t *pid) {
  volatile int failed = 0;
  const pid_t child = vfork();
  if (child == 0) {
    const int null = open("/dev/null", O_RDONLY);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (null >= 0 && dup2(null, 0) == 0 && dup2(out_fd, 1) == 1 && dup2(err_fd, 2) == 2) (void)execve(path, argv, environ);
    failed = errno;
    _exit(127);
  }
  if (child < 0) return hf_fail(HF_MACHINE, "cannot start %s: %s", path, strerror(errno));
  if (failed) {
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {} /* ends: it has called _exit */
    return hf_fail(HF_MACHINE, "cannot start %s: %s", path, strerror(failed));
  }
  *pid = child;
  return HF_OK;
}

hf_status ask_hf_plan(const char *const *args, json **out) {
  return ask_hf_plan_until(args, NULL, out);
}

hf_status ask_hf_plan_until(const char *const *args, atomic_bool *stop, json **out) {
  char path[4200];
  char *argv[MAX_ARGS + 2] = {path};
  int n = 1, po[2] = {-1, -1}, pe[2] = {-1, -1}, status = 0;
  pid_t pid = -1;
  hf_buf text, err;
  hf_status st;
  hf_buf_init(&text, MAX_ANSWER);
  hf_buf_init(&err, 1 << 20);
  HF_TRY(find_hf_plan(path, sizeof path));
  for (; args[n - 1] && n < MAX_ARGS; n++) argv[n] = (char *)(uintptr_t)args[n - 1];
  if (pipe2(po, 02000000) || pipe2(pe, 02000000)) { /* O_CLOEXEC */
    st = hf_fail(HF_MACHINE, "pipe: %s", strerror(errno));
    goto end;
  }
  HF_GO(end, start(path, argv, po[1], pe[1], &pid));
  close(po[1]);
  close(pe[1]);
  po[1] = pe[1] = -1;
  st = drain(po[0], pe[0], stop, &text, &err);
  close(po[0]); /* before waiting: after a failure the child may still be writing, and must not wait for a reader */
  close(pe[0]);
  po[0] = pe[0] = -1;
  if (st != HF_OK) (void)kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {} /* ends: both its pipes are closed, or it was killed */
  if (st == HF_OK) st = judge_exit(status, &err);
  if (st == HF_OK) st = json_parse(text.data ? text.data : "", text.len, "answer of hf-plan", out);
end:
  for (int i = 0; i < 2; i++) {
    if (po[i] >= 0) close(po[i]);
    if (pe[i] >= 0) close(pe[i]);
  }
  hf_buf_free(&text);
  hf_buf_free(&err);
  return st;
}

enum { NUMBERS = 7 };

/* Options of the question's numbers that are not 0; text keeps them. Returns how many words. */
static int add_numbers(const plan_question *q, const char **argv, char text[NUMBERS][24]) {
  const char *const name[NUMBERS] = {"--users", "--context",      "--prompt-tokens", "--output-tokens",
                                     "--depth", "--chunk-tokens", "--threads"};
  const int64_t value[NUMBERS] = {q->users, q->context,      q->prompt_tokens, q->output_tokens,
                                  q->depth, q->chunk_tokens, q->threads};
  int n = 0;
  for (int i = 0; i < NUMBERS; i++) {
    if (value[i] == 0) continue;
    snprintf(text[i], 24, "%lld", (long long)value[i]);
    argv[n++] = name[i], argv[n++] = text[i];
  }
  return n;
}

hf_status ask_plan(const plan_question *q, json **out) {
  char text[NUMBERS][24], rate[32];
  const char *argv[32] = {
      "plan", "--json", "--quiet", "--db", q->db_path, "--model", q->model, "--gpu", q->gpu ? q->gpu : "none"};
  int n = 9;
  n += add_numbers(q, argv + n, text);
  if (q->machine) argv[n++] = "--machine", argv[n++] = q->machine;
  if (q->kv_type) argv[n++] = "--kv-type", argv[n++] = q->kv_type;
  if (q->dram_bytes_per_s > 0) {
    snprintf(rate, sizeof rate, "%.6g", q->dram_bytes_per_s);
    argv[n++] = "--dram-rate", argv[n++] = rate;
  }
  if (!q->store) argv[n++] = "--no-store";
  return ask_hf_plan(argv, out);
}

double ask_decode_rate(const plan_question *q) {
  json *doc = NULL;
  if (ask_plan(q, &doc) != HF_OK) {
    hf_log(HF_LOG_DEBUG, "no prediction: %s", hf_error_line());
    hf_clear_error();
    return 0;
  }
  double v = json_number(json_get(json_get(json_get(doc, "predicted"), "decode_tok_per_s"), "likely"), 0);
  json_free(doc);
  return v;
}

/* Devices of a plan's layers as --homes takes them; "" where there is no plan, or it is for more devices than gpu names: who executes it says so. */
static void homes_of(const plan *p, const char *gpu, char *to, size_t room) {
  gpu_set devices;
  size_t used = 0;
  to[0] = 0;
  if (gpu_set_parse(gpu, &devices) != HF_OK) {
    hf_clear_error(); /* whoever is asked says what is wrong */
    return;
  }
  for (int l = 0; p && devices.n > 1 && l < p->n_layers; l++) {
    if (p->layer[l].home < 0 || p->layer[l].home >= devices.n || used + 16 > room) {
      to[0] = 0;
      return;
    }
    used += (size_t)snprintf(to + used, room - used, "%s%d", l ? "," : "", p->layer[l].home);
  }
}

hf_status ask_stages(const plan_question *q, const char *machine, stage_table **out) {
  char text[NUMBERS][24];
  char homes[3 * PLAN_MAX_LAYERS + 16];
  const char *argv[34] = {"stages", "--db", q->db_path,  "--model",  q->model, "--machine", machine,
                          "--gpu",  q->gpu, "--kv-type", q->kv_type, "--json", "--quiet"};
  json *doc = NULL;
  int n = 13 + add_numbers(q, argv + 13, text);
  homes_of(q->plan, q->gpu, homes, sizeof homes);
  if (homes[0]) argv[n++] = "--homes", argv[n++] = homes;
  HF_TRY(hf_note(ask_hf_plan(argv, &doc), "asking hf-plan for the stage times of %s", machine));
  const json *inner = json_get(doc, "stages");
  hf_status st = stage_table_from_json(inner ? inner : doc, "answer of hf-plan stages", out);
  json_free(doc);
  return st;
}
