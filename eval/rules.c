#include "eval/rules.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/gemm.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/jobs.h"

/* ---- codes ---- */

typedef struct keyed_row {
    int64_t key, row;
} keyed_row;

static int by_key(const void *a, const void *b) {
    const keyed_row *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

/* Keys become 0..levels-1 in their order. */
static lam_status make_dense(int64_t *codes, int64_t rows, int64_t *levels) {
    keyed_row *order;
    LAM_TRY(lam_alloc_array((void **)&order, rows, sizeof *order));
    int64_t n = 0;
    for (int64_t i = 0; i < rows; i++)
        if (codes[i] >= 0) order[n++] = (keyed_row){codes[i], i};
    qsort(order, (size_t)n, sizeof *order, by_key);
    *levels = 0;
    for (int64_t k = 0; k < n; k++) {
        *levels += !k || order[k].key != order[k - 1].key;
        codes[order[k].row] = *levels - 1;
    }
    lam_free(order);
    return LAM_OK;
}

lam_status lam_rule_codes(const lam_table *table, const int *columns, int count, int64_t **codes,
                          int64_t *levels) {
    int64_t rows = lam_table_rows(table), *all, *one = NULL;
    LAM_TRY(lam_alloc_array((void **)&all, rows, sizeof *all));
    lam_status status = LAM_OK;
    for (int k = 0; k < count; k++) {
        const char **names = NULL;
        int64_t here;
        LAM_TRY_GOTO(lam_table_codes(table, columns[k], &one, &names, &here), done);
        for (int64_t i = 0; i < rows; i++)
            all[i] = all[i] < 0 || !*lam_table_cell(table, i, columns[k]) ? -1 : all[i] * here + one[i];
        lam_free(names);
        lam_free(one);
        one = NULL;
        LAM_TRY_GOTO(make_dense(all, rows, levels), done); /* so that the next product stays below rows^2 */
    }
    *codes = all;
    all = NULL;
done:
    lam_free(one);
    lam_free(all);
    return status;
}

/* ---- rules ---- */

static lam_status blocks_of(lam_rule_blocks *out, const lam_rule *rule, const bool *role) {
    memset(out, 0, sizeof *out);
    out->blocks = rule->same ? 0 : 1;
    for (int64_t i = 0; rule->same && i < rule->rows; i++)
        if (rule->same[i] >= out->blocks) out->blocks = rule->same[i] + 1;
    lam_status status = lam_alloc_array((void **)&out->start, out->blocks + 2, sizeof *out->start);
    if (status == LAM_OK) status = lam_alloc_array((void **)&out->rows, rule->rows, sizeof *out->rows);
    if (status != LAM_OK) {
        lam_rule_blocks_free(out);
        return status;
    }
    /* start[b + 2] counts, start[b + 1] is where b grows, which in the end is where b + 1 begins. */
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < rule->rows; i++) {
            if ((role && !role[i]) || !lam_rule_complete(rule, i)) continue;
            int64_t b = rule->same ? rule->same[i] : 0;
            if (pass)
                out->rows[out->start[b + 1]++] = i;
            else
                out->start[b + 2]++;
        }
        if (!pass)
            for (int64_t b = 2; b < out->blocks + 2; b++) out->start[b] += out->start[b - 1];
    }
    return LAM_OK;
}

lam_status lam_rule_blocks_make(lam_rule_blocks *out, const lam_rule *rule) {
    return blocks_of(out, rule, rule->candidates);
}

void lam_rule_blocks_free(lam_rule_blocks *blocks) {
    lam_free(blocks->start);
    lam_free(blocks->rows);
    memset(blocks, 0, sizeof *blocks);
}

/* ---- the scan ---- */

typedef struct chunk {
    int64_t block, from, count; /* queries */
} chunk;

typedef struct scan {
    const lam_directions *u;
    lam_rule_blocks queries, candidates;
    chunk *chunks;
    int64_t chunk_count;
    lam_rule_visit visit;
    void *context;
    float *asked, *compared,
        *near; /* of one thread: [LAM_RULE_QUERIES, d], [d, LAM_TILE_COLUMNS], the tile */
} scan;

static lam_status make_chunks(scan *s) {
    int64_t most = 0;
    for (int64_t b = 0; b < s->queries.blocks; b++)
        most += (s->queries.start[b + 1] - s->queries.start[b] + LAM_RULE_QUERIES - 1) / LAM_RULE_QUERIES;
    LAM_TRY(lam_alloc_array((void **)&s->chunks, most, sizeof *s->chunks));
    for (int64_t b = 0; b < s->queries.blocks; b++) {
        int64_t end = s->queries.start[b + 1];
        if (s->candidates.start[b] == s->candidates.start[b + 1]) continue;
        for (int64_t from = s->queries.start[b]; from < end; from += LAM_RULE_QUERIES)
            s->chunks[s->chunk_count++] =
                (chunk){b, from, end - from < LAM_RULE_QUERIES ? end - from : LAM_RULE_QUERIES};
    }
    return LAM_OK;
}

/* The product wants its second factor [d, candidates]: eight columns at a time keep the lines that are written near. */
static void turn(const lam_directions *u, const int64_t *rows, int64_t count, float *to) {
    for (int64_t k = 0; k < u->columns; k += 8) {
        int64_t end = k + 8 < u->columns ? k + 8 : u->columns;
        for (int64_t c = 0; c < count; c++)
            for (int64_t j = k; j < end; j++)
                to[j * LAM_TILE_COLUMNS + c] = u->rounded[rows[c] * u->columns + j];
    }
}

static lam_status run_chunk(void *of, int64_t index) {
    const scan *s = of;
    const chunk *one = &s->chunks[index];
    int thread = omp_get_thread_num();
    int64_t d = s->u->columns, end = s->candidates.start[one->block + 1];
    float *asked = s->asked + thread * LAM_RULE_QUERIES * d,
          *compared = s->compared + thread * d * LAM_TILE_COLUMNS,
          *near = s->near + (int64_t)thread * LAM_RULE_QUERIES * LAM_TILE_COLUMNS;
    lam_rule_tile tile = {
        .queries = s->queries.rows + one->from, .query_count = one->count, .near = near, .first = true};
    for (int64_t q = 0; q < one->count; q++)
        memcpy(asked + q * d, s->u->rounded + tile.queries[q] * d, (size_t)d * sizeof *asked);
    for (int64_t from = s->candidates.start[one->block]; from < end; from += LAM_TILE_COLUMNS) {
        tile.candidates = s->candidates.rows + from;
        tile.candidate_count = end - from < LAM_TILE_COLUMNS ? end - from : LAM_TILE_COLUMNS;
        tile.last = from + tile.candidate_count == end;
        turn(s->u, tile.candidates, tile.candidate_count, compared);
        LAM_TRY(lam_gemm_f32(false, false, one->count, tile.candidate_count, d, asked, d, compared,
                             LAM_TILE_COLUMNS, 0.0f, near, LAM_TILE_COLUMNS));
        LAM_TRY(s->visit(s->context, thread, &tile));
        tile.first = false;
    }
    return LAM_OK;
}

lam_status lam_rule_scan(const lam_directions *u, const lam_rule *rule, const char *label,
                         lam_rule_visit visit, void *context) {
    scan s = {.u = u, .visit = visit, .context = context};
    int64_t threads = lam_threads();
    lam_jobs jobs = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(blocks_of(&s.queries, rule, rule->queries), done);
    LAM_TRY_GOTO(blocks_of(&s.candidates, rule, rule->candidates), done);
    LAM_TRY_GOTO(make_chunks(&s), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.asked, threads * LAM_RULE_QUERIES * u->columns, sizeof *s.asked),
                 done);
    LAM_TRY_GOTO(
        lam_alloc_array((void **)&s.compared, threads * LAM_TILE_COLUMNS * u->columns, sizeof *s.compared),
        done);
    LAM_TRY_GOTO(
        lam_alloc_array((void **)&s.near, threads * LAM_RULE_QUERIES * LAM_TILE_COLUMNS, sizeof *s.near),
        done);
    jobs.progress = lam_progress_start(label, s.chunk_count, "blocks");
    status = lam_jobs_run(&jobs, s.chunk_count, 1, run_chunk, &s);
    lam_progress_finish(jobs.progress);
done:
    lam_rule_blocks_free(&s.queries);
    lam_rule_blocks_free(&s.candidates);
    lam_free(s.chunks);
    lam_free(s.asked);
    lam_free(s.compared);
    lam_free(s.near);
    return status;
}
