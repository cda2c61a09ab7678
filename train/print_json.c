#include "train/print_json.h"

#include <stdio.h>

#include "base/memory.h"

lam_status lam_print_json(lam_json *json, bool indented) {
    char *text = NULL;
    lam_status status = lam_json_dump(json, indented, &text);
    lam_json_free(json);
    LAM_TRY(status);
    puts(text);
    lam_free(text);
    return LAM_OK;
}
