#include "sched/gpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"

void gpu_name(int n, char out[GPU_NAME]) {
  snprintf(out, GPU_NAME, "gpu%d", n);
}

static hf_status size_suffix(const char *text, const char *from, gpu_spec *g) {
  HF_TRY(cli_parse_size(from, "--gpu", &g->size_bytes));
  if (g->size_bytes <= 0) return hf_fail(HF_INPUT, "option --gpu: '%s': the size must be above 0", text);
  return HF_OK;
}

static hf_status copy_machine(const char *text, const char *from, size_t n, gpu_spec *g) {
  if (n == 0 || n >= sizeof g->machine) return hf_fail(HF_INPUT, "option --gpu: '%s': name a machine after paced:", text);
  memcpy(g->machine, from, n);
  g->machine[n] = '\0';
  return HF_OK;
}

static hf_status parse_paced(const char *text, gpu_spec *g) {
  g->kind = GPU_PACED;
  gpu_name(0, g->device);
  const char *colon = strrchr(text + 6, ':');
  int64_t size = 0;
  bool sized = colon != NULL && cli_parse_size(colon + 1, "--gpu", &size) == HF_OK && size > 0;
  if (colon != NULL && !sized) hf_clear_error(); /* a machine file with a colon in its name */
  if (sized) g->size_bytes = size;
  size_t n = sized ? (size_t)(colon - text - 6) : strlen(text + 6), digits = 0;
  while (digits < n && text[6 + n - 1 - digits] >= '0' && text[6 + n - 1 - digits] <= '9') digits++;
  g->numbered = digits > 0 && digits < 3 && n > digits + 1 && text[6 + n - 1 - digits] == '@'; /* MACHINE@N: its GPU N */
  if (g->numbered) {
    gpu_name(atoi(text + 6 + n - digits), g->device);
    n -= digits + 1;
  }
  return copy_machine(text, text + 6, n, g);
}

hf_status gpu_spec_parse(const char *text, gpu_spec *out) {
  gpu_spec g = {0};
  if (strlen(text) >= sizeof g.text) return hf_fail(HF_INPUT, "option --gpu: longer than %zu bytes", sizeof g.text - 1);
  snprintf(g.text, sizeof g.text, "%s", text);
  if (strcmp(text, "none") == 0) {
    g.kind = GPU_NONE;
  } else if (strncmp(text, "virtual:", 8) == 0) {
    g.kind = GPU_VIRTUAL;
    HF_TRY(size_suffix(text, text + 8, &g));
  } else if (strncmp(text, "paced:", 6) == 0) {
    HF_TRY(parse_paced(text, &g));
  } else if (strncmp(text, "cuda:", 5) == 0) {
    g.kind = GPU_CUDA;
    char *end = NULL;
    long n = strtol(text + 5, &end, 10);
    if (end == text + 5 || n < 0 || n > 63 || (*end != '\0' && *end != ':'))
      return hf_fail(HF_INPUT, "option --gpu: '%s': cuda: takes a device number, and a size after a second colon", text);
    gpu_name((int)n, g.device);
    if (*end == ':') HF_TRY(size_suffix(text, end + 1, &g));
  } else {
    return hf_fail(HF_INPUT, "option --gpu: '%s': needs none, virtual:SIZE, paced:MACHINE[:SIZE] or cuda:N[:SIZE]", text);
  }
  *out = g;
  return HF_OK;
}

static hf_status add_spec(const char *text, const char *part, gpu_set *s) {
  gpu_spec g;
  HF_TRY(gpu_spec_parse(part, &g));
  if (g.kind == GPU_NONE || (s->n > 0 && g.kind != s->g[0].kind))
    return hf_fail(HF_INPUT, "option --gpu: '%s': only devices of one kind can be joined by '+'", text);
  if (s->n == STAGE_MAX_DEVICES)
    return hf_fail(HF_INPUT, "option --gpu: '%s': at most %d devices can be planned for", text, (int)STAGE_MAX_DEVICES);
  if (g.kind == GPU_PACED && !g.numbered) gpu_name(s->n, g.device);
  if (g.kind == GPU_PACED && s->n > 0 && strcmp(g.machine, s->g[0].machine) != 0)
    return hf_fail(HF_INPUT, "option --gpu: '%s': paced devices are those of one machine, its first, its second and so on", text);
  for (int i = 0; i < s->n; i++)
    if (g.device[0] != '\0' && strcmp(s->g[i].device, g.device) == 0)
      return hf_fail(HF_INPUT, "option --gpu: '%s': names device %s twice", text, g.device);
  s->g[s->n++] = g;
  return HF_OK;
}

/* Where the next device begins: a '+' before another kind, as names of machines may have one. */
static const char *next_device(const char *text) {
  for (const char *p = strchr(text, '+'); p != NULL; p = strchr(p + 1, '+'))
    if (strncmp(p + 1, "virtual:", 8) == 0 || strncmp(p + 1, "paced:", 6) == 0 || strncmp(p + 1, "cuda:", 5) == 0) return p;
  return NULL;
}

hf_status gpu_set_parse(const char *text, gpu_set *out) {
  gpu_set s = {0};
  if (strlen(text) >= sizeof s.text) return hf_fail(HF_INPUT, "option --gpu: longer than %zu bytes", sizeof s.text - 1);
  snprintf(s.text, sizeof s.text, "%s", text);
  if (next_device(text) == NULL && (strncmp(text, "cuda:", 5) != 0 || strchr(text, '+') == NULL)) {
    HF_TRY(gpu_spec_parse(text, &s.g[0]));
    s.n = s.g[0].kind != GPU_NONE;
    *out = s;
    return HF_OK;
  }
  for (const char *from = text; from != NULL;) {
    char part[GPU_TEXT];
    const char *next = strncmp(from, "cuda:", 5) == 0 ? strchr(from, '+') : next_device(from);
    snprintf(part, sizeof part, "%.*s", next != NULL ? (int)(next - from) : (int)sizeof part - 1, from);
    HF_TRY(add_spec(text, part, &s));
    from = next != NULL ? next + 1 : NULL;
  }
  *out = s;
  return HF_OK;
}

gpu_kind gpu_set_kind(const gpu_set *s) {
  return s->n > 0 ? s->g[0].kind : GPU_NONE;
}
