/* catalog_template.h: examples of catalog entries to start one's own from. */
#ifndef HF_PLANNER_CATALOG_TEMPLATE_H
#define HF_PLANNER_CATALOG_TEMPLATE_H

/* kind: gpu, cpu, memory, machine or model, in plural, too; NULL for any other. *folder: where under $HF_CATALOG such a file belongs. */
const char *catalog_template(const char *kind, const char **folder);
#endif
