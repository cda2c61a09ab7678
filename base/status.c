#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define MESSAGE_BYTES 2048

static _Thread_local char message[MESSAGE_BYTES];

lam_status lam_fail(lam_status code, const char *file, int line, const char *format, ...) {
    char said[MESSAGE_BYTES], text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(said, sizeof said, format, arguments);
    va_end(arguments);
    lam_utf8_visible(text, sizeof text, said); /* one line */
    if (getenv("LAMELLA_DEBUG"))
        snprintf(message, sizeof message, "%s:%d: %.*s", file, line, (int)(MESSAGE_BYTES - 256), text);
    else
        memcpy(message, text, sizeof message);
    return code;
}

lam_status lam_fail_context(lam_status code, const char *format, ...) {
    char said[MESSAGE_BYTES / 2], prefix[MESSAGE_BYTES / 2], text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(said, sizeof said, format, arguments);
    va_end(arguments);
    lam_utf8_visible(prefix, sizeof prefix, said);
    snprintf(text, sizeof text, "%s: %.*s", prefix, (int)(MESSAGE_BYTES - strlen(prefix) - 3), message);
    memcpy(message, text, sizeof message);
    return code;
}

const char *lam_last_error(void) { return message; }

int lam_exit_code(lam_status status) {
    switch (status) {
    case LAM_OK: return 0;
    case LAM_ERROR_USAGE:
    case LAM_ERROR_CONFIG: return 2;
    case LAM_STOPPED: return 75;
    default: return 1;
    }
}
