/* mirror.h: a second home of KV pages, in memory of the host or in a file.
 *
 * It has slots, each for a page of all layers. A thread of its own copies what finished steps have written from the device to the slots, while further
 * steps run: nothing waits for it but who would overwrite a page that it has still to copy (mirror_wait). A slot says how many tokens of it are there, from the
 * page's beginning on (mirror_holds), and of how many the device was found good afterwards (mirror_trust).
 * When the file fails (a full disk), or a call of its file system does not come back within ten seconds, the mirror is over: what it holds is still there as far as the file can
 * be read, nothing more is taken, and mirror_failed says why.
 * Thread rule: the engine's. The engine must outlive it. */
#ifndef HF_EXECUTOR_MIRROR_H
#define HF_EXECUTOR_MIRROR_H

#include <sys/types.h>

#include "executor/engine.h"

typedef struct mirror mirror;

/* path NULL: in memory. A file of that name must not exist: it has no name any more when this returns, and its room is free again when it is closed,
 * whatever ends the process. HF_INPUT when it cannot be made. */
HF_MUST hf_status mirror_open(engine *e, const char *path, int n_slots, mirror **out);
void mirror_close(mirror *m); /* NULL ok; before engine_close */

/* A slot that holds nothing yet, -1: there is none. */
int32_t mirror_take(mirror *m);
void mirror_give(mirror *m, int32_t slot);
int mirror_free_slots(const mirror *m);
int mirror_slots(const mirror *m);

/* The first n tokens of a page are in their place on the device: what the slot does not hold of them is copied soon. */
void mirror_save(mirror *m, int32_t slot, int32_t page, int n);
/* Until nothing will be read from the page any more. */
void mirror_wait(mirror *m, int32_t page);
/* Until everything asked for is copied. */
void mirror_settle(mirror *m);
/* Tokens that the slot holds; with a copy on its way to it, after that. */
int mirror_holds(mirror *m, int32_t slot);
/* Writes the first n tokens of a slot, which holds them, into a page. HF_MACHINE when the file cannot be read: the mirror is over then. */
HF_MUST hf_status mirror_load(mirror *m, int32_t slot, int32_t page, int n);

/* A check of the device begins with what has been asked for until now; it was good. */
void mirror_check(mirror *m);
void mirror_trust(mirror *m);
/* The device is lost: nothing is at its pages when this returns, and what was still to be copied is forgotten. only_checked: so is what it wrote since the
 * last good check. */
void mirror_device_gone(mirror *m, bool only_checked);

/* For tests: what stands for the file system, and how long one call of it may take. NULL: the real one. */
typedef struct {
  ssize_t (*write)(int fd, const void *from, size_t n, off_t at);
  ssize_t (*read)(int fd, void *to, size_t n, off_t at);
  int64_t limit_ns;
} mirror_file_ops;
void mirror_set_file_ops(const mirror_file_ops *ops);

/* Why it is over; NULL while it is not. */
const char *mirror_failed(mirror *m);
typedef struct {
  int64_t tokens, bytes, busy_ns; /* copied from the device, and how long that took */
} mirror_traffic;
mirror_traffic mirror_get_traffic(mirror *m);
#endif
