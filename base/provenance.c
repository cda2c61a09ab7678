#include "base/provenance.h"

#include "base/cli.h"

const char lam_version[] = LAM_VERSION;

lam_json *lam_provenance(const char *command_line) {
    lam_json *object = lam_json_object();
    lam_json_set_text(object, "lamella_version", lam_version);
    lam_json_set_text(object, "command", command_line);
    return object;
}
