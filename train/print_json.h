/* Results of a command for programs (--json), on standard output. */
#ifndef LAMELLA_TRAIN_PRINT_JSON_H
#define LAMELLA_TRAIN_PRINT_JSON_H

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One line, or indented; frees `json` in every case. */
lam_status lam_print_json(lam_json *json, bool indented);

#ifdef __cplusplus
}
#endif
#endif
