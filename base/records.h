/* Results as records: a JSON array of objects with the same keys, so that --json and the CSV beside it say the same.
 *
 *     lam_json *records = lam_json_array(), *one = lam_json_object();
 *     lam_json_append(records, one);
 *     lam_json_set_text(one, "source", "CORUM");
 *     lam_json_set_float(one, "recall_0.05_0.95", 0.25);
 *     LAM_TRY(lam_records_write(records, "out", "scores.csv"));
 *     LAM_TRY(lam_records_print(records, false));                // where --json is given
 */
#ifndef LAMELLA_BASE_RECORDS_H
#define LAMELLA_BASE_RECORDS_H

#include <stdbool.h>

#include "base/json.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* FOLDER/NAME, a table whose columns are the keys of the first record in their order. Numbers are written so that they read
 * back as the same double (%.17g), null (not finite) as an empty cell, true and false as 1 and 0; a key that a record lacks is
 * an empty cell. No record: LAM_ERROR_INTERNAL, for then nobody knows the columns. */
lam_status lam_records_write(const lam_json *records, const char *folder, const char *name);
/* The records, or any other JSON, on standard output: one line, or indented. */
lam_status lam_records_print(const lam_json *records, bool indented);

#ifdef __cplusplus
}
#endif
#endif
