/* Files of one folder that are of use only together: written under other names, put in place at the end.
 *
 *     lam_staged *staged;
 *     LAM_TRY(lam_staged_open(&staged, "vit_mae"));
 *     LAM_TRY_GOTO(lam_staged_add(staged, "model.safetensors", &path), done);   // then write to `path`
 *     LAM_TRY_GOTO(lam_staged_add(staged, "config.json", &path), done);
 *     status = lam_staged_commit(staged);
 *     done: lam_staged_close(&staged);
 *
 * Until commit the folder's own files are as they were, so a full disk spoils nothing; what was written goes with
 * lam_staged_close, or where a signal ends the process. Commit renames in the order in which files were added: what others
 * describe comes before its description. */
#ifndef LAMELLA_BASE_STAGED_H
#define LAMELLA_BASE_STAGED_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_staged lam_staged;

lam_status lam_staged_open(lam_staged **out, const char *folder); /* the folder is there */
/* Where the file that becomes folder/name has to be written to; *path lives until close. At most 8. */
lam_status lam_staged_add(lam_staged *staged, const char *name, const char **path);
/* LAM_ERROR_IO where a rename fails: those before it are done. A path that nobody wrote to is passed over. */
lam_status lam_staged_commit(lam_staged *staged);
void lam_staged_close(lam_staged **staged); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
