/* Where genes lie, from every kind of table, and the correction of an arm. */
#include "eval/arms.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"

static char folder[] = "/tmp/lamella_arms_XXXXXX", genes_path[64], centromeres_path[64];

static int enter(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(genes_path, sizeof genes_path, "%s/genes", folder);
    snprintf(centromeres_path, sizeof centromeres_path, "%s/centromeres", folder);
    return 0;
}

static int leave(void **state) {
    (void)state;
    return lam_remove_tree(folder) != LAM_OK;
}

static void put(const char *path, const char *text) {
    assert_int_equal(lam_file_write(path, text, strlen(text)), LAM_OK);
}

/* Centromere of 1 from 100 to 205 (two pieces: midpoint 152.5), of 2 from 10 to 20. */
static void every_kind_of_table(void **state) {
    (void)state;
    static const char
        bed[] = "# genes\ntrack name=x\nchr1\t0\t152\tP\t0\t+\nchr1\t0\t153\tQ\nchr1\t500\t600\tQ\n\n"
                "chr2\t15\t15\tMID\nchr2\t15\t16\tQ2\r\nchr1\t0\t9\tTWO\nchr2\t0\t9\tTWO\n"
                "chrM\t0\t9\tMT\nchr1_alt\t0\t9\tP\n",
        table[] = "gene,chrom,start,end,strand\nP,1,0,152,+\nQ,1,0,153,+\nQ,chr1,500,600,-\nMID,2,15,15,\n"
                  "Q2,2,15,16,\nTWO,1,0,9,\nTWO,2,0,9,\nMT,M,0,9,\nP,1_alt,0,9,\n",
        with_bin[] =
            "585\tchr1\t0\t152\tP\n585\tchr1\t0\t153\tQ\n1\tchr2\t15\t15\tMID\n2\tchr2\t15\t16\tQ2\n";
    static const char *const genes[] = {bed, table, with_bin};
    static const char *const centromeres[] = {
        "chr1\t100\t120\nchr1\t190\t205\nchr2\t10\t20\n",
        "585\tchr1\t100\t120\tx\n585\tchr1\t190\t205\ty\n9\tchr2\t10\t20\tz\n",
        "chromosome\tstart\tend\n1\t190\t205\n1\t100\t120\n2\t10\t20\n",
        "chr1\t0\t100\tp1\tgneg\nchr1\t100\t120\tp11\tacen\nchr1\t120\t205\tq11\tacen\nchr1\t205\t900\tq2\tgpos50\nchr2\t10\t20\tp\tacen\n"};
    for (int g = 0; g < 3; g++)
        for (int c = 0; c < 4; c++) {
            lam_arms *arms;
            put(genes_path, genes[g]);
            put(centromeres_path, centromeres[c]);
            if (lam_arms_read(&arms, genes_path, centromeres_path) != LAM_OK)
                fail_msg("%s", lam_last_error());
            assert_string_equal(lam_arms_of(arms, "P"), "1p"); /* a scaffold does not count against it */
            assert_string_equal(lam_arms_of(arms, "Q"), "1q");
            assert_string_equal(lam_arms_of(arms, "MID"), "2p"); /* not beyond the midpoint */
            assert_string_equal(lam_arms_of(arms, "Q2"), "2q");
            assert_string_equal(lam_arms_of(arms, "TWO"), "");
            assert_string_equal(lam_arms_of(arms, "MT"), "");
            assert_string_equal(lam_arms_of(arms, "no gene"), "");
            lam_arms_free(arms);
        }
    lam_arms *arms;
    put(genes_path, "symbol,arm,chr\nA,p,chrX\nB,Xq,X\nC,,X\nD,q,\n");
    assert_int_equal(lam_arms_read(&arms, genes_path, NULL), LAM_OK);
    assert_string_equal(lam_arms_of(arms, "A"), "Xp");
    assert_string_equal(lam_arms_of(arms, "B"), "Xq");
    assert_string_equal(lam_arms_of(arms, "C"), "");
    lam_arms_free(arms);
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *genes, *centromeres, *message;
        lam_status status;
    } cases[] = {
        {"chr1\t0\t9\tA\n", NULL, "--centromeres", LAM_ERROR_USAGE},
        {"gene,arm\nA,1p\n", "chr1\t0\t9\n", "leave out --centromeres", LAM_ERROR_USAGE},
        {"chr1\t0\t9\n", "chr1\t0\t9\n", "has no genes", LAM_ERROR_INPUT},
        {"gene,chrom,start\nA,1,2\n", "chr1\t0\t9\n", "end", LAM_ERROR_INPUT},
        {"gene,chrom,start,end\nA,1,2,x\n", "chr1\t0\t9\n", "genes:2: start '2' and end 'x'",
         LAM_ERROR_INPUT},
        {"gene,chrom,start,end\nA,1,9,2\n", "chr1\t0\t9\n", "genes:2: start '9' and end '2'",
         LAM_ERROR_INPUT},
        {"chr1\t0\t9\tA\nchr1\tx\t9\tB\n", "chr1\t0\t9\n", "genes:2: chromosome, start and end",
         LAM_ERROR_INPUT},
        {"chr1\t0\t9\tA\nchr1\t7\t3\tB\n", "chr1\t0\t9\n", "genes:2: start '7'", LAM_ERROR_INPUT},
        {"chr1\t0\t9\tA\nchr1\t7\t9999999999999999999\tB\n", "chr1\t0\t9\n", "genes:2", LAM_ERROR_INPUT},
        {"# nothing\n", "chr1\t0\t9\n", "has no rows", LAM_ERROR_INPUT},
        {"gene,chrom,start,end\n", "chr1\t0\t9\n", "has no rows", LAM_ERROR_INPUT},
        {"chr1\t0\t9\tA\n", "gene,arm\nA,1p\n", "of the centromeres are needed", LAM_ERROR_INPUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_arms *arms;
        put(genes_path, cases[i].genes);
        if (cases[i].centromeres) put(centromeres_path, cases[i].centromeres);
        assert_int_equal(lam_arms_read(&arms, genes_path, cases[i].centromeres ? centromeres_path : NULL),
                         cases[i].status);
        if (!strstr(lam_last_error(), cases[i].message)) fail_msg("case %d: %s", (int)i, lam_last_error());
        assert_null(arms);
    }
    put(genes_path, "chr1\t0\t9\tA\nchr1\t3\t9\tB\n");
    put(centromeres_path, "chr1\t0\t9\n");
    for (int kind = LAM_FAULT_ALLOC; kind <= LAM_FAULT_READ; kind++)
        for (int64_t n = 1; n < 30; n++) {
            lam_arms *arms;
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = lam_arms_read(&arms, genes_path, centromeres_path);
            lam_fault_arm((lam_fault_kind)kind, 0);
            assert_int_equal(status == LAM_OK, arms != NULL);
            lam_arms_free(arms);
        }
}

/* Arm 1p has three unexpressed genes of five, 2q one of two; Z has no arm. */
static void correction(void **state) {
    (void)state;
    enum { N = 8 };
    static const char *const genes[N] = {"Z", "A", "B", "C", "D", "E", "F", "G"};
    static const bool unexpressed[N] = {true, true, true, true, false, false, true, false};
    static const double start[N * 2] = {1, 1, 1, 0, 3, 3, 2, 0, 7, 1, 0, 5, 1, 2, 0, 1};
    lam_arms *arms;
    lam_arms_result r;
    put(genes_path, "gene,arm\nA,1p\nB,1p\nC,1p\nD,1p\nE,1p\nF,2q\nG,2q\n");
    assert_int_equal(lam_arms_read(&arms, genes_path, NULL), LAM_OK);
    for (int64_t minimum = 1; minimum <= 3; minimum++) {
        double x[N * 2];
        memcpy(x, start, sizeof x);
        assert_int_equal(lam_arms_correct(arms, x, N, 2, genes, unexpressed, minimum, &r), LAM_OK);
        assert_int_equal(r.genes, 7);
        assert_int_equal(r.arms, 2);
        assert_int_equal(r.corrected, minimum < 3); /* more than the minimum */
        assert_int_equal(r.rows, minimum < 3 ? 5 : 0);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < 2; j++)
                assert_true(x[2 * i + j] == start[2 * i + j] - (minimum < 3 && i >= 1 && i <= 5 ? 2 - j : 0));
        /* Cosines of all pairs, one by one. */
        for (int when = 0; when < 2; when++) {
            const double *v = when ? x : start;
            double within = 0, between = 0;
            int pairs[2] = {0};
            for (int a = 1; a < N; a++)
                for (int b = a + 1; b < N; b++) {
                    double c = (v[2 * a] * v[2 * b] + v[2 * a + 1] * v[2 * b + 1]) /
                               (hypot(v[2 * a], v[2 * a + 1]) * hypot(v[2 * b], v[2 * b + 1]));
                    bool one = (a <= 5) == (b <= 5);
                    *(one ? &within : &between) += c;
                    pairs[one]++;
                }
            assert_true(fabs(r.within[when] - within / pairs[1]) < 1e-12);
            assert_true(fabs(r.between[when] - between / pairs[0]) < 1e-12);
        }
    }
    double x[2] = {1, 1};
    assert_int_equal(lam_arms_correct(arms, x, 1, 2, genes, unexpressed, 20, &r), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "no gene of the map has a chromosome arm"));
    double y[4] = {0, 0, 1, 1}; /* a row without a direction; a single pair of none */
    assert_int_equal(lam_arms_correct(arms, y, 2, 2, genes + 1, unexpressed, 20, &r), LAM_OK);
    assert_true(isnan(r.within[0]) && isnan(r.between[0]));
    lam_arms_free(arms);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind_of_table), cmocka_unit_test(refused),
                                       cmocka_unit_test(correction)};
    return cmocka_run_group_tests(tests, enter, leave);
}
