/* title.h: a machine in the words of titles and sentences. */
#ifndef HF_PLANNER_ASK_TITLE_H
#define HF_PLANNER_ASK_TITLE_H

/* Parts (cpu=xeon-6338,gpu=rtx5070ti*2) become the catalog's titles of them, any other name stays. A text that was cut keeps what is whole of
 * it; one that names nothing of the catalog stays as it is. */
enum { ASK_MACHINE_WORDS = 200 };
void ask_machine_words(const char *machine, char out[ASK_MACHINE_WORDS]);
#endif
