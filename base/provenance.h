/* What made a file: version, command line, time of the build. Text for uns['lamella'] and first records. */
#ifndef LAMELLA_BASE_PROVENANCE_H
#define LAMELLA_BASE_PROVENANCE_H

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An object with "lamella_version", "command"; the stage adds its own keys. No time, so that files are the same bytes. */
lam_json *lam_provenance(const char *command_line);

#ifdef __cplusplus
}
#endif
#endif
