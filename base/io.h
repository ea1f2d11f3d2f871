/* io.h: reading and writing files, with hooks that let tests make the n-th read or write fail.
 *
 * Every read of an input file goes through here: hf_read_file and with it all small files, the headers of weight files, tensors that are read, and
 * (as one read each) the mapping of a weight file and of a tensor in it. HF_FAIL_READ=n in the environment, or hf_fail_read_at, makes the
 * n-th of them fail with EIO. Reads through a mapping itself are beyond it, see model_tensor_map. SQLite reads by itself; its faults
 * are made in its own file layer. Thread-safe. */
#ifndef HF_BASE_IO_H
#define HF_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* As read(2) and pread(2). */
ssize_t hf_read(int fd, void *to, size_t n);
ssize_t hf_pread(int fd, void *to, size_t n, off_t offset);
/* Counts one read that is done by other means; true (and errno EIO) when it has to fail. */
bool hf_read_fails(void);

/* The n-th read from now fails (1 = the next); 0 switches it off. */
void hf_fail_read_at(long n);
/* How many reads this process has made so far. */
long hf_read_count(void);

/* Writes all n bytes at the offset; false with errno when it cannot. HF_FAIL_WRITE=n in the environment, or hf_fail_write_at, makes the n-th such call
 * fail with ENOSPC. Thread-safe. */
bool hf_pwrite_all(int fd, const void *from, size_t n, off_t offset);
void hf_fail_write_at(long n);
long hf_write_count(void);

#endif
