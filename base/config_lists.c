#include "base/config_lists.h"

#include <string.h>

#include "base/files.h"
#include "base/yaml_parts.h"

typedef struct reading {
    lam_config_lists *lists;
    yaml_document_t *document;
    const char *name;
} reading;

static lam_status text_of(const reading *r, const yaml_node_t *node, const char **out) {
    const char *text = (const char *)node->data.scalar.value;
    char *copy;
    LAM_REQUIRE(node->type == YAML_SCALAR_NODE && strlen(text) == node->data.scalar.length, LAM_ERROR_CONFIG,
                "%s:%zu: a key or value must be plain text, or a list of such", r->name,
                node->start_mark.line + 1);
    LAM_TRY(lam_arena_text(&r->lists->arena, &copy, text, strlen(text)));
    *out = copy;
    return LAM_OK;
}

/* One text, or a list of texts that belong together. */
static lam_status value_of(const reading *r, yaml_node_t *node, lam_config_value *out) {
    bool list = node->type == YAML_SEQUENCE_NODE;
    yaml_node_item_t *items = list ? node->data.sequence.items.start : NULL;
    int64_t count = list ? node->data.sequence.items.top - items : 1;
    LAM_REQUIRE(count > 0, LAM_ERROR_CONFIG, "%s:%zu: an empty list", r->name, node->start_mark.line + 1);
    LAM_TRY(lam_arena_alloc(&r->lists->arena, (void **)&out->texts, (size_t)count * sizeof *out->texts));
    out->count = (int)count;
    for (int64_t i = 0; i < count; i++)
        LAM_TRY(text_of(r, list ? yaml_document_get_node(r->document, items[i]) : node, &out->texts[i]));
    return LAM_OK;
}

static lam_status add_list(const reading *r, const char *section, const char *key, yaml_node_t *node,
                           size_t line) {
    lam_config_lists *lists = r->lists;
    LAM_TRY(lam_grow((void **)&lists->items, (size_t)lists->count * sizeof *lists->items,
                     (size_t)(lists->count + 1) * sizeof *lists->items));
    lam_config_list *one = &lists->items[lists->count++];
    bool list = node->type == YAML_SEQUENCE_NODE;
    yaml_node_item_t *items = list ? node->data.sequence.items.start : NULL;
    int64_t count = list ? node->data.sequence.items.top - items : 1;
    *one = (lam_config_list){.section = section, .key = key, .line = line, .count = (int)count};
    LAM_REQUIRE(count > 0, LAM_ERROR_CONFIG, "%s:%zu: %s is an empty list", r->name, line, key);
    LAM_TRY(lam_arena_alloc(&lists->arena, (void **)&one->values, (size_t)count * sizeof *one->values));
    for (int64_t i = 0; i < count; i++)
        LAM_TRY(value_of(r, list ? yaml_document_get_node(r->document, items[i]) : node, &one->values[i]));
    return LAM_OK;
}

static lam_status walk(const reading *r, yaml_node_t *node, const char *section) {
    LAM_REQUIRE(node->type == YAML_MAPPING_NODE, LAM_ERROR_CONFIG,
                "%s:%zu: %s is no section: write 'section: {key: value}'", r->name, node->start_mark.line + 1,
                *section ? section : "the file");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        yaml_node_t *key = yaml_document_get_node(r->document, pair->key),
                    *child = yaml_document_get_node(r->document, pair->value);
        const char *name = NULL;
        LAM_TRY(text_of(r, key, &name));
        const yaml_node_t *before = lam_yaml_same_key_before(r->document, node, pair);
        LAM_REQUIRE(!before, LAM_ERROR_CONFIG, "%s:%zu: duplicate key %s: it stands in line %zu already",
                    r->name, key->start_mark.line + 1, name, before->start_mark.line + 1);
        if (!*section && child->type == YAML_MAPPING_NODE)
            LAM_TRY(walk(r, child, name));
        else
            LAM_TRY(add_list(r, section, name, child, key->start_mark.line + 1));
    }
    return LAM_OK;
}

lam_status lam_config_lists_parse(lam_config_lists **out, const char *text, size_t size, const char *name) {
    *out = NULL;
    yaml_document_t document;
    lam_config_lists *lists;
    LAM_TRY(lam_alloc((void **)&lists, sizeof *lists));
    lam_status status = lam_yaml_load(&document, text, size, name);
    if (status == LAM_OK) {
        reading r = {lists, &document, name};
        status = walk(&r, yaml_document_get_root_node(&document), "");
        yaml_document_delete(&document);
    }
    if (status != LAM_OK)
        lam_config_lists_free(lists);
    else
        *out = lists;
    return status;
}

lam_status lam_config_lists_read(lam_config_lists **out, const char *path) {
    char *text;
    size_t size;
    LAM_TRY(lam_file_read(path, &text, &size));
    lam_status status = lam_config_lists_parse(out, text, size, path);
    lam_free(text);
    return status;
}

void lam_config_lists_free(lam_config_lists *lists) {
    if (!lists) return;
    lam_free(lists->items);
    lam_arena_free(&lists->arena);
    lam_free(lists);
}
