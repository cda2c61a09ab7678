/* `lamella retrieve`: do replicates, labels and targets find each other?
 *
 * --by      average_precision.csv: profile, the --by columns, average_precision, positives, negatives; every row but the
 *           controls, empty where there is nothing to rank. scores.csv: the --by columns, rows (ranked), their mean
 *           average precision, chance (the same in random rankings), p, q (Benjamini and Hochberg over the groups); last
 *           a summary: means over the groups, and the shares of groups with p <= 0.05 and q <= 0.05 in place of p and q.
 *           Definitions: eval/average_precision.h, eval/rules.h.
 * --match   matching.csv: profile, label, nearest_profile, nearest_label, cosine, same; confusion.csv: rows the label,
 *           columns that of the nearest. Definitions: eval/matching.h.
 * --pairs   compound_gene.csv: compound, concentration (or max), active and pool (numbers of genes), AP and AUC and those
 *           of random scores, means over the seeds; last the mean and quantiles over compounds, and how far the mean
 *           deviates from seed to seed. Definitions: eval/compound_gene.h. */
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "eval/commands.h"
#include "eval/retrieve_parts.h"
#include "eval/where.h"

static lam_status find_controls(const lam_embeddings *e, const char *text, bool *controls) {
    int64_t count;
    LAM_TRY(lam_where_controls(e->obs, text, controls, &count));
    LAM_REQUIRE(count < e->rows, LAM_ERROR_INPUT, "every row is a control: nothing is left to retrieve");
    return LAM_OK;
}

/* Options that another one brings into play: alone they would do nothing. */
static lam_status check_options(const lam_arguments *a) {
    const char *match = lam_option_text(a, "match"), *passed = lam_option_text(a, "not-same");
    LAM_REQUIRE(!match || !passed || strcmp(match, passed) != 0, LAM_ERROR_USAGE,
                "retrieve: --match and --not-same name the same column '%s': no profile could ever match",
                match);
    static const char *const belongs[][2] = {{"against", "by"},         {"plate", "by"},
                                             {"positive-same", "by"},   {"positive-different", "by"},
                                             {"negative-same", "by"},   {"negative-different", "by"},
                                             {"permutations", "by"},    {"not-same", "match"},
                                             {"match", "not-same"},     {"treatment", "match"},
                                             {"pair-columns", "pairs"}, {"gene", "pairs"},
                                             {"compound", "pairs"},     {"concentration", "pairs"},
                                             {"seeds", "pairs"}};
    LAM_REQUIRE(
        lam_option_given(a, "by") || lam_option_given(a, "match") || lam_option_given(a, "pairs"),
        LAM_ERROR_USAGE,
        "retrieve: --by COLUMN (replicates), --match LABEL or --pairs TABLE is needed: what is retrieved?");
    for (size_t k = 0; k < sizeof belongs / sizeof *belongs; k++)
        LAM_REQUIRE(!lam_option_given(a, belongs[k][0]) || lam_option_given(a, belongs[k][1]),
                    LAM_ERROR_USAGE, "retrieve: --%s needs --%s", belongs[k][0], belongs[k][1]);
    LAM_REQUIRE(!lam_option_given(a, "aggregate") || lam_option_given(a, "treatment") ||
                    lam_option_given(a, "pairs"),
                LAM_ERROR_USAGE, "retrieve: --aggregate needs --treatment or --pairs");
    return LAM_OK;
}

static lam_status run_parts(const lam_retrieve *r) {
    lam_json *result = lam_json_object();
    char *text = NULL;
    lam_status status = LAM_OK;
    if (lam_option_given(r->arguments, "by")) LAM_TRY_GOTO(lam_retrieve_replicates(r, result), done);
    if (lam_option_given(r->arguments, "match")) LAM_TRY_GOTO(lam_retrieve_matching(r, result), done);
    if (lam_option_given(r->arguments, "pairs")) LAM_TRY_GOTO(lam_retrieve_compounds(r, result), done);
    LAM_TRY_GOTO(lam_json_dump(result, false, &text), done);
    LAM_TRY_GOTO(lam_results_write(r->results, lam_option_text(r->arguments, "out")), done);
    if (lam_option_json(r->arguments)) printf("%s\n", text);
done:
    lam_free(text);
    lam_json_free(result);
    return status;
}

static lam_status run(const lam_arguments *a) {
    lam_results results = {.count = 0};
    lam_retrieve r = {.arguments = a,
                      .results = &results,
                      .path = lam_positional(a, 0),
                      .centred = !strcmp(lam_option_text(a, "similarity"), "correlation"),
                      .seed = (uint64_t)lam_option_int(a, "seed")};
    if (!strcmp(lam_option_text(a, "ties"), "positives-first")) r.ties = LAM_TIES_POSITIVES_FIRST;
    LAM_TRY(check_options(a));
    LAM_TRY(lam_require_new_folder(lam_option_text(a, "out"), lam_option_force(a)));
    lam_embeddings *e = NULL;
    bool *controls = NULL;
    const char *text = lam_option_text(a, "controls");
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_embeddings_read(&e, r.path, lam_option_text(a, "key"), lam_option_text(a, "features")),
                 done);
    LAM_REQUIRE_GOTO(e->rows > 0 && e->columns > 0, done, LAM_ERROR_INPUT, "%s: has no rows or no features",
                     r.path);
    LAM_TRY_GOTO(lam_alloc_array((void **)&controls, e->rows, sizeof *controls), done);
    if (text) LAM_TRY_GOTO(find_controls(e, text, controls), done);
    r.e = e;
    r.controls = controls;
    status = run_parts(&r);
done:
    lam_results_free(&results);
    lam_free(controls);
    lam_embeddings_free(e);
    return status;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "DIR", NULL, "folder for the tables of what is asked for", 0, 0, true},
    {"by", LAM_OPTION_TEXT, "COLUMN[,COLUMN...]", NULL,
     "mean average precision of the rows of a value (gene, or compound,dose): average_precision.csv, scores.csv",
     0, 0, false},
    {"controls", LAM_OPTION_TEXT, "COLUMN=VALUE", NULL,
     "rows that are retrieved by nobody, and are the negatives with --against controls", 0, 0, false},
    {"against", LAM_OPTION_CHOICE, "controls|others", NULL,
     "negatives: controls, or rows of other --by values (default: controls where they are named)", 0, 0,
     false},
    {"plate", LAM_OPTION_TEXT, "COLUMN", NULL,
     "positives lie on another plate, controls on the same; without it plates do not matter", 0, 0, false},
    {"positive-same", LAM_OPTION_TEXT, "COLUMNS", NULL, "positives agree in these (default: --by)", 0, 0,
     false},
    {"positive-different", LAM_OPTION_TEXT, "COLUMNS", NULL, "and differ in each of these (default: --plate)",
     0, 0, false},
    {"negative-same", LAM_OPTION_TEXT, "COLUMNS", NULL,
     "negatives agree in these (default: --plate against controls, else none)", 0, 0, false},
    {"negative-different", LAM_OPTION_TEXT, "COLUMNS", NULL,
     "and differ in each of these (default: --by against others, else none)", 0, 0, false},
    {"ties", LAM_OPTION_CHOICE, "negatives-first|positives-first", "negatives-first",
     "order of equal cosines; positives-first is what copairs does", 0, 0, false},
    {"permutations", LAM_OPTION_INT, "P", "10000", "random rankings behind p", 1, 10000000, false},
    {"match", LAM_OPTION_TEXT, "LABEL", NULL,
     "does the nearest profile share this column? matching.csv, confusion.csv", 0, 0, false},
    {"not-same", LAM_OPTION_TEXT, "COLUMNS", NULL,
     "with --match, profiles that are the same in any of these are passed over: compound (NSC), compound,batch (NSCB)",
     0, 0, false},
    {"treatment", LAM_OPTION_TEXT, "COLUMNS", NULL,
     "with --match, rows that agree in these become one profile first, e.g. compound,concentration", 0, 0,
     false},
    {"aggregate", LAM_OPTION_CHOICE, "mean|median", "mean", "of the rows that become one", 0, 0, false},
    {"pairs", LAM_OPTION_TEXT, "TABLE", NULL,
     "known activities of compounds on genes: rank the genes of each compound; compound_gene.csv", 0, 0,
     false},
    {"pair-columns", LAM_OPTION_TEXT, "COMPOUND,GENE,VALUE", "treatment,gene_symbol,nM_value",
     "columns of TABLE; values in nM, active up to 1000, left out up to 10000", 0, 0, false},
    {"compound", LAM_OPTION_TEXT, "COLUMN", "compound", "of EMB, with --pairs", 0, 0, false},
    {"gene", LAM_OPTION_TEXT, "COLUMN", "gene", "of EMB, with --pairs", 0, 0, false},
    {"concentration", LAM_OPTION_TEXT, "COLUMN", "concentration", "of EMB, with --pairs", 0, 0, false},
    {"seeds", LAM_OPTION_INT, "N", "100", "draws of negative genes, with --pairs", 1, 1000, false},
    {"similarity", LAM_OPTION_CHOICE, "cosine|correlation", "cosine", "of two rows", 0, 0, false},
    {"seed", LAM_OPTION_INT, "N", "0", "of random rankings and negative genes", 0, 9e15, false},
    {"key", LAM_OPTION_TEXT, "NAME", NULL, "matrix of the .h5ad: X (default), a layer or an obsm", 0, 0,
     false},
    {"features", LAM_OPTION_TEXT, "GLOB", NULL,
     "columns of a table that are features (default: d0, d1, ..., else every numeric one)", 0, 0, false},
    {0}};

const lam_command lam_command_retrieve = {
    "retrieve",
    "average precision of replicates, matching of labels, ranking of targets",
    "EMB",
    1,
    1,
    options,
    "lamella retrieve embeddings.h5ad --by gene --controls gene=non-targeting --plate plate --out retrieve",
    run};
