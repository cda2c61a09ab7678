#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 2048

static _Thread_local char message[MESSAGE_BYTES];

/* One line: control characters (a file name may hold any) would break it. */
static void make_one_line(char *text) {
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
}

lam_status lam_fail(lam_status code, const char *file, int line, const char *format, ...) {
    char text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    make_one_line(text);
    if (getenv("LAMELLA_DEBUG"))
        snprintf(message, sizeof message, "%s:%d: %.*s", file, line, (int)(MESSAGE_BYTES - 256), text);
    else
        memcpy(message, text, sizeof message);
    return code;
}

lam_status lam_fail_context(lam_status code, const char *format, ...) {
    char prefix[MESSAGE_BYTES / 2], text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    make_one_line(prefix);
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
