/* cli_help.h: the --help page. Private to base. */
#ifndef HF_BASE_CLI_HELP_H
#define HF_BASE_CLI_HELP_H

#include "base/cli.h"

/* Prints NAME, SYNOPSIS, DESCRIPTION, OPTIONS, EXIT STATUS, ENVIRONMENT and EXAMPLES on standard output, at most 80 columns
 * wide (a word that is longer stands alone). options: the command's own and the common ones, n of them. */
HF_MUST hf_status cli_print_help(const cli_spec *spec, const cli_option *options, int n);

#endif
