#include "base/yaml_parts.h"

#include <stdbool.h>
#include <string.h>

static size_t line_of(const char *text, size_t size, size_t offset) {
    size_t line = 1;
    for (size_t i = 0; i < size && i < offset; i++) line += text[i] == '\n';
    return line;
}

/* libyaml resolves aliases and merges documents silently, so what is not plain is refused while its events pass. */
static lam_status refuse_fancy(const char *text, size_t size, const char *name) {
    yaml_parser_t parser;
    LAM_REQUIRE(yaml_parser_initialize(&parser), LAM_ERROR_MEMORY, "out of memory: %s could not be parsed",
                name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    lam_status status = LAM_OK;
    int documents = 0;
    for (bool over = false; !over && status == LAM_OK;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            const char *problem = parser.problem ? parser.problem : "it cannot be parsed";
            size_t line =
                (parser.problem_mark.line ? parser.problem_mark.line : parser.context_mark.line) + 1;
            if (parser.error == YAML_READER_ERROR) line = line_of(text, size, parser.problem_offset);
            bool tab = strstr(problem, "cannot start any token") && memchr(text, '\t', size);
            status = lam_fail(LAM_ERROR_CONFIG, __FILE__, __LINE__, "%s:%zu: not valid YAML: %s%s", name,
                              line, problem, tab ? " (a tab: indent with spaces)" : "");
            break;
        }
        size_t line = event.start_mark.line + 1;
        const unsigned char *anchor = NULL, *tag = NULL;
        switch (event.type) {
        case YAML_SCALAR_EVENT: anchor = event.data.scalar.anchor, tag = event.data.scalar.tag; break;
        case YAML_MAPPING_START_EVENT:
            anchor = event.data.mapping_start.anchor, tag = event.data.mapping_start.tag;
            break;
        case YAML_SEQUENCE_START_EVENT:
            anchor = event.data.sequence_start.anchor, tag = event.data.sequence_start.tag;
            break;
        case YAML_ALIAS_EVENT: anchor = event.data.alias.anchor; break;
        case YAML_DOCUMENT_START_EVENT: documents++; break;
        case YAML_STREAM_END_EVENT: over = true; break;
        default: break;
        }
        if (anchor)
            status = lam_fail(LAM_ERROR_CONFIG, __FILE__, __LINE__,
                              "%s:%zu: '%s' is an anchor or alias: write the value out", name, line,
                              (const char *)anchor);
        else if (tag)
            status = lam_fail(LAM_ERROR_CONFIG, __FILE__, __LINE__,
                              "%s:%zu: '%s' is a tag: write a plain value", name, line, (const char *)tag);
        else if (documents > 1)
            status = lam_fail(LAM_ERROR_CONFIG, __FILE__, __LINE__,
                              "%s:%zu: a second document begins: one is allowed", name, line);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

lam_status lam_yaml_load(yaml_document_t *document, const char *text, size_t size, const char *name) {
    LAM_TRY(refuse_fancy(text, size, name));
    yaml_parser_t parser;
    LAM_REQUIRE(yaml_parser_initialize(&parser), LAM_ERROR_MEMORY, "out of memory: %s could not be parsed",
                name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    lam_status status = LAM_OK;
    if (!yaml_parser_load(&parser, document)) {
        status = lam_fail(LAM_ERROR_CONFIG, __FILE__, __LINE__, "%s:%zu: not valid YAML: %s", name,
                          parser.problem_mark.line + 1, parser.problem ? parser.problem : "out of memory");
    } else if (!yaml_document_get_root_node(document)) {
        yaml_document_delete(document);
        status = lam_fail(LAM_ERROR_CONFIG, __FILE__, __LINE__,
                          "%s: the file is empty: a config has sections of keys", name);
    }
    yaml_parser_delete(&parser);
    return status;
}

const yaml_node_t *lam_yaml_same_key_before(yaml_document_t *document, const yaml_node_t *mapping,
                                            const yaml_node_pair_t *pair) {
    const yaml_node_t *key = yaml_document_get_node(document, pair->key);
    for (const yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < pair; p++) {
        const yaml_node_t *other = yaml_document_get_node(document, p->key);
        if (!strcmp((const char *)other->data.scalar.value, (const char *)key->data.scalar.value))
            return other;
    }
    return NULL;
}
