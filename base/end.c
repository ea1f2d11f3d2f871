#include "base/end.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_MACHINE = 3 }; /* of HF_MACHINE */

static const char *program_name = "heteroflow";
static atomic_flag told = ATOMIC_FLAG_INIT;

void hf_end_program(const char *program) {
  program_name = program;
}

static void say(const char *text) {
  size_t n = strlen(text);
  while (n > 0) {
    ssize_t done = write(STDERR_FILENO, text, n);
    if (done <= 0) return;
    text += done;
    n -= (size_t)done;
  }
}

void hf_end(const char *what, const char *why) {
  while (atomic_flag_test_and_set(&told)) pause(); /* another thread ends the process */
  const char *const line[] = {program_name, ": ", what, ": ", why, "\n"};
  for (size_t i = 0; i < sizeof line / sizeof *line; i++) say(line[i]);
  _exit(EXIT_MACHINE);
}
