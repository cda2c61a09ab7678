/* Any bytes as a NumPy array, plain or packed: parsed or refused; every byte of what is parsed can be read.
 */
#include "base/npy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    lam_npy array;
    if (lam_npy_parse(&array, (const char *)bytes, size, "fuzz") != LAM_OK) {
        if (array.data != NULL) abort();
        return 0;
    }
    int64_t count = 1;
    unsigned sum = 0;
    for (int i = 0; i < array.rank; i++) count *= array.shape[i];
    if (count != array.count) abort();
    const unsigned char *data = array.data;
    for (size_t i = 0; i < (size_t)count * array.item_bytes; i++) sum += data[i];
    volatile unsigned kept = sum;
    (void)kept;
    lam_npy_free(&array);
    return 0;
}
