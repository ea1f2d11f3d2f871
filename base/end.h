/* end.h: the end of a process that can neither go on nor unwind: its input vanished under a mapped address, or a thread that others wait for is dead or stuck
 * and still uses what they would free. One line on standard error as from main(), exit status 3 (of HF_MACHINE), nothing flushed: whatever was written is whole,
 * as files and the database stand a kill at any time. */
#ifndef HF_BASE_END_H
#define HF_BASE_END_H

/* For main(): whose name the line begins with. The text must stay. */
void hf_end_program(const char *program);

/* "PROGRAM: WHAT: WHY". Safe in signal handlers and from several threads: the first one's line is written. */
_Noreturn void hf_end(const char *what, const char *why);
#endif
