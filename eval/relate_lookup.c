#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "eval/nearest.h"
#include "eval/relate_parts.h"

lam_status lam_relate_neighbours(const char *out, const lam_scored_map *m, const char *const *entities,
                                 const lam_names *names, const char *const *queries, int query_count,
                                 int64_t top) {
    lam_nearest *found = NULL;
    lam_json *records = lam_json_array();
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&found, top, sizeof *found), done);
    for (int q = 0; q < query_count; q++) {
        int64_t row = lam_names_find(names, queries[q]);
        int64_t count = lam_directions_nearest(&m->directions, row, top, found);
        for (int64_t k = 0; k < count; k++) {
            lam_json *record = lam_json_object();
            lam_json_append(records, record);
            lam_json_set_text(record, "query", queries[q]);
            lam_json_set_int(record, "rank", k + 1);
            lam_json_set_text(record, "neighbour", entities[found[k].row]);
            lam_json_set_float(record, "cosine", found[k].cosine);
        }
        lam_log_info("relate: nearest to %s: %s (%.3f)", queries[q], entities[found[0].row], found[0].cosine);
    }
    status = lam_records_write(records, out, "neighbours.csv");
done:
    lam_json_free(records);
    lam_free(found);
    return status;
}
