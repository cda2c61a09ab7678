/* Allocation: zeroed and aligned, overflow and injected failure refused, what was there stays; arenas. */
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"

static bool zero(const void *block, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const char *)block)[i]) return false;
    return true;
}

static void zeroed_and_aligned(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *block = NULL;
        assert_int_equal(lam_alloc((void **)&block, sizes[i]), LAM_OK);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_true(zero(block, sizes[i]));
        memset(block, 1, sizes[i]); /* under the address sanitizer: all of it is ours */
        lam_free(block);
    }
    lam_free(NULL);
}

static void overflow(void **state) {
    (void)state;
    void *block = &block;
    assert_int_equal(lam_alloc_array(&block, INT64_MAX, 8), LAM_ERROR_MEMORY);
    assert_int_equal(lam_alloc_array(&block, -1, 8), LAM_ERROR_MEMORY);
    assert_int_equal(lam_alloc(&block, SIZE_MAX), LAM_ERROR_MEMORY);
    assert_int_equal(lam_alloc(&block, SIZE_MAX - 10), LAM_ERROR_MEMORY);
    size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(lam_alloc(&block, memory * 4), LAM_ERROR_MEMORY); /* which Linux may promise */
    assert_null(block);
    assert_non_null(strstr(lam_last_error(), "GiB asked for"));
    assert_int_equal(lam_alloc_array(&block, 3, 5), LAM_OK);
    assert_true(zero(block, 15));
    lam_free(block);
}

static void growth(void **state) {
    (void)state;
    char *block = NULL;
    assert_int_equal(lam_grow((void **)&block, 0, 10), LAM_OK);
    memcpy(block, "123456789", 10);
    assert_int_equal(lam_grow((void **)&block, 10, 1000), LAM_OK);
    assert_string_equal(block, "123456789");
    assert_true(zero(block + 10, 990));
    char *before = block;
    lam_fault_arm(LAM_FAULT_ALLOC, 1);
    assert_int_equal(lam_grow((void **)&block, 1000, 2000), LAM_ERROR_MEMORY);
    assert_ptr_equal(block, before);
    assert_string_equal(block, "123456789");
    assert_int_equal(lam_grow((void **)&block, 1000, 2000), LAM_OK); /* a fault hits once */
    lam_free(block);
}

static void texts(void **state) {
    (void)state;
    char *text = NULL;
    assert_int_equal(lam_text_copy(&text, ""), LAM_OK);
    assert_string_equal(text, "");
    lam_free(text);
    assert_int_equal(lam_text_copy_n(&text, "abcdef", 3), LAM_OK);
    assert_string_equal(text, "abc");
    lam_free(text);
    char longer[3000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(lam_text_format(&text, "%s-%d", longer, 7), LAM_OK);
    assert_int_equal(strlen(text), sizeof longer - 1 + 2);
    assert_string_equal(text + sizeof longer - 1, "-7");
    lam_free(text);
    lam_fault_arm(LAM_FAULT_ALLOC, 1);
    assert_int_equal(lam_text_format(&text, "%d", 1), LAM_ERROR_MEMORY);
    lam_fault_arm(LAM_FAULT_ALLOC, 0);
}

static void places(void **state) {
    (void)state;
    static const struct {
        const char *words;
        char between;
        const char *word;
        int place;
    } cases[] = {{"one|two|three", '|', "one", 0},
                 {"one|two|three", '|', "two", 1},
                 {"one|two|three", '|', "three", 2},
                 {"one|two|three", '|', "tw", -1}, /* no part of a word */
                 {"one|two|three", '|', "wo", -1},
                 {"one|two|three", '|', "one|two", -1}, /* nor two of them */
                 {"one|two|three", '|', "threefold", -1},
                 {"onetwo|two", '|', "two", 1},
                 {"DNA,A|B,RNA", ',', "A|B", 1},
                 {"one", '|', "one", 0},
                 {"one||two", '|', "", -1},
                 {"", '|', "", -1},
                 {"", '|', "one", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(lam_text_place(cases[i].words, cases[i].between, cases[i].word), cases[i].place);
}

static void arenas(void **state) {
    (void)state;
    lam_arena arena = {0};
    lam_arena_free(&arena);
    char *blocks[200];
    for (size_t i = 0; i < 200; i++) {
        size_t bytes = i * i * 7 % 30000;
        assert_int_equal(lam_arena_alloc(&arena, (void **)&blocks[i], bytes), LAM_OK);
        assert_int_equal((uintptr_t)blocks[i] % 64, 0);
        assert_true(zero(blocks[i], bytes));
        memset(blocks[i], (int)(i + 1), bytes);
    }
    for (size_t i = 0; i < 200; i++) /* none reaches into another */
        for (size_t b = 0; b < i * i * 7 % 30000; b++) assert_int_equal((unsigned char)blocks[i][b], i + 1);
    char *text = NULL;
    assert_int_equal(lam_arena_text(&arena, &text, "abcdef", 2), LAM_OK);
    assert_string_equal(text, "ab");
    lam_fault_arm(LAM_FAULT_ALLOC, 1);
    void *huge = NULL;
    assert_int_equal(lam_arena_alloc(&arena, &huge, 1 << 24), LAM_ERROR_MEMORY);
    lam_fault_arm(LAM_FAULT_ALLOC, 0);
    assert_string_equal(text, "ab");
    lam_arena_free(&arena);
    assert_null(arena.blocks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeroed_and_aligned),
        cmocka_unit_test(overflow),
        cmocka_unit_test(growth),
        cmocka_unit_test(texts),
        cmocka_unit_test(places),
        cmocka_unit_test(arenas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
