/* Where a file of tests/golden is: in the source tree, or in LAMELLA_TEST_GOLDEN for a program that runs on another machine than
 * the one that built it. */
#ifndef LAMELLA_TESTS_GOLDEN_FILE_H
#define LAMELLA_TESTS_GOLDEN_FILE_H

#include <stdio.h>
#include <stdlib.h>

static inline void golden_file(char path[1024], const char *name) {
    const char *folder = getenv("LAMELLA_TEST_GOLDEN");
    snprintf(path, 1024, "%s/%s", folder ? folder : LAM_TEST_GOLDEN, name);
}

#endif
