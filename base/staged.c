#include "base/staged.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

enum { MOST_FILES = 8 };

struct lam_staged {
    char *folder;
    int count;
    struct {
        char *written, *final;
        lam_partial entry;
    } file[MOST_FILES];
};

lam_status lam_staged_open(lam_staged **out, const char *folder) {
    *out = NULL;
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    lam_status status = lam_text_copy(&(*out)->folder, folder);
    if (status != LAM_OK) lam_staged_close(out);
    return status;
}

lam_status lam_staged_add(lam_staged *s, const char *name, const char **path) {
    char *final = NULL, *written = NULL;
    LAM_REQUIRE(s->count < MOST_FILES, LAM_ERROR_INTERNAL, "%s: more than %d files at once", s->folder,
                MOST_FILES);
    lam_status status = lam_path_join(&final, s->folder, name);
    if (status == LAM_OK) status = lam_text_format(&written, "%s.new-%ld", final, (long)getpid());
    if (status != LAM_OK) {
        lam_free(final);
        return status;
    }
    unlink(written); /* of a process of this number that was killed */
    *path = written;
    s->file[s->count].final = final;
    s->file[s->count].written = written;
    s->file[s->count].entry.path = written;
    lam_partial_add(&s->file[s->count++].entry);
    return LAM_OK;
}

lam_status lam_staged_commit(lam_staged *s) {
    for (int i = 0; i < s->count; i++) { /* a rename onto a folder would fail behind others that did not */
        struct stat info;
        LAM_REQUIRE(lstat(s->file[i].final, &info) != 0 || !S_ISDIR(info.st_mode), LAM_ERROR_IO,
                    "%s: is a folder: move it away", s->file[i].final);
    }
    for (int i = 0; i < s->count; i++) {
        struct stat info;
        if (lstat(s->file[i].written, &info) != 0) continue;
        int failed =
            lam_fault_hit(LAM_FAULT_WRITE) ? (errno = EIO, -1) : rename(s->file[i].written, s->file[i].final);
        LAM_REQUIRE(failed == 0, LAM_ERROR_IO, "%s: cannot be put in place: %s", s->file[i].final,
                    lam_why(errno));
    }
    lam_sync_folder(s->folder);
    return LAM_OK;
}

void lam_staged_close(lam_staged **staged) {
    lam_staged *s = *staged;
    if (!s) return;
    for (int i = 0; i < s->count; i++) {
        lam_partial_drop(&s->file[i].entry);
        unlink(s->file[i].written); /* after commit there is none */
        lam_free(s->file[i].written);
        lam_free(s->file[i].final);
    }
    lam_free(s->folder);
    lam_free(s);
    *staged = NULL;
}
