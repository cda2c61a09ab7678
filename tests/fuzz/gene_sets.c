/* Any bytes as gene sets: parsed or refused; what is parsed is in order, without repeats, and, written as GMT, is parsed
 * again as the same. */
#include "eval/gene_sets.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int condition) {
    if (!condition) abort();
}

static char *append(char *at, const char *text, char end) {
    size_t length = strlen(text);
    memcpy(at, text, length);
    at[length] = end;
    return at + length + 1;
}

static char *write_gmt(const lam_gene_set *sets, int64_t count, size_t *size) {
    char *text = NULL;
    size_t room = 1;
    for (int64_t i = 0; i < count; i++) {
        room += strlen(sets[i].name) + 2;
        for (int64_t k = 0; k < sets[i].count; k++) room += strlen(sets[i].genes[k]) + 1;
    }
    require(lam_alloc((void **)&text, room) == LAM_OK);
    char *at = text;
    for (int64_t i = 0; i < count; i++) {
        at = append(at, sets[i].name, '\t');
        for (int64_t k = 0; k < sets[i].count; k++) {
            *at++ = '\t';
            at = append(at, sets[i].genes[k], '\0') - 1;
        }
        *at++ = '\n';
    }
    *size = (size_t)(at - text);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    lam_gene_set *sets = NULL, *again = NULL;
    int64_t count = 0, again_count = 0;
    size_t length = 0;
    const char *name = size > 0 && bytes[0] % 2 ? "fuzz.gmt" : "fuzz.tsv";
    if (size > 0) {
        bytes++;
        size--;
    }
    if (lam_gene_sets_parse((const char *)bytes, size, name, &sets, &count) != LAM_OK) {
        require(sets == NULL && strstr(lam_last_error(), "fuzz.") != NULL);
        return 0;
    }
    require(count > 0);
    for (int64_t i = 0; i < count; i++) {
        require(sets[i].name[0] != '\0' && sets[i].count > 0);
        for (int64_t k = 0; k < sets[i].count; k++) {
            require(sets[i].genes[k][0] != '\0' && strchr(sets[i].genes[k], '\t') == NULL);
            for (int64_t j = k - 1; j >= 0 && j > k - 50; j--)
                require(strcmp(sets[i].genes[j], sets[i].genes[k]) != 0);
        }
    }
    char *text = write_gmt(sets, count, &length);
    /* A name may begin with what marks UTF-8 or a packed file: then the text is another one. */
    if (lam_gene_sets_parse(text, length, "again.gmt", &again, &again_count) == LAM_OK &&
        memcmp(text, "\xef\xbb\xbf", length < 3 ? length : 3) != 0) {
        require(again_count == count);
        for (int64_t i = 0; i < count; i++) {
            require(strcmp(sets[i].name, again[i].name) == 0 && sets[i].count == again[i].count);
            for (int64_t k = 0; k < sets[i].count; k++)
                require(strcmp(sets[i].genes[k], again[i].genes[k]) == 0);
        }
    }
    lam_gene_sets_free(again, again_count);
    lam_gene_sets_free(sets, count);
    lam_free(text);
    return 0;
}
