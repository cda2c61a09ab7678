/* 16-bit grey PNG out. base/picture.h writes the RGB pictures of figures; this one writes pixels that are
 * data. */
#ifndef LAMELLA_DATA_PNG_WRITE_H
#define LAMELLA_DATA_PNG_WRITE_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes pixels [height, width]. Not synced to the disk one by one, for there are thousands: whoever writes
 * many puts the table that names them in place last. LAM_ERROR_IO names the path. */
lam_status lam_png_write_grey16(const char *path, int64_t height, int64_t width, const uint16_t *pixels);

#ifdef __cplusplus
}
#endif
#endif
