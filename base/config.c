#include "base/config.h"

#include "base/cli.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "base/yaml_parts.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KEYS 256

struct lam_config {
    const lam_config_key *keys;
    int count;
    char **values; /* text as given, or NULL */
    size_t *lines; /* where it was given; 0: command line */
    char *name;    /* file */
};

/* ---- values ---- */

static const char *type_words(const lam_config_key *key, char *buffer, size_t size) {
    bool bounded = key->minimum < key->maximum || key->minimum > key->maximum;
    char low[32], high[32];
    switch (key->type) {
    case LAM_CONFIG_INT:
        if (bounded)
            snprintf(buffer, size, "an integer from %.0f to %.0f", key->minimum, key->maximum);
        else
            snprintf(buffer, size, "an integer");
        break;
    case LAM_CONFIG_FLOAT:
        if (bounded)
            snprintf(buffer, size, "a number from %s to %s", lam_number_text(low, key->minimum),
                     lam_number_text(high, key->maximum));
        else
            snprintf(buffer, size, "a number");
        break;
    case LAM_CONFIG_BOOL: snprintf(buffer, size, "true|false"); break;
    case LAM_CONFIG_CHOICE: snprintf(buffer, size, "%s", key->choices); break;
    case LAM_CONFIG_NAMES: snprintf(buffer, size, "a list of names, each once, as A,B"); break;
    default: snprintf(buffer, size, "a text"); break;
    }
    return buffer;
}

static bool in_bounds(const lam_config_key *key, double number) {
    bool bounded = key->minimum < key->maximum || key->minimum > key->maximum;
    return !bounded || (number >= key->minimum && number <= key->maximum);
}

/* No name is empty or there twice. Brackets belong to YAML's lists, which arrive without them; quoted, or on the command line,
 * they would become part of the first and the last name. */
static bool are_names(const char *text) {
    size_t length = strlen(text);
    if (!length) return true;
    if (text[0] == '[' && text[length - 1] == ']') return false;
    for (const char *name = text;; name++) {
        size_t n = strcspn(name, ",");
        if (!n) return false;
        for (const char *other = text; other < name; other += strcspn(other, ",") + 1)
            if (strcspn(other, ",") == n && !strncmp(other, name, n)) return false;
        name += n;
        if (!*name) return true;
    }
}

static bool is_valid(const lam_config_key *key, const char *text) {
    static const char digits[] = "+-0123456789", number_characters[] = "+-.0123456789eE";
    char *end;
    errno = 0;
    switch (key->type) {
    case LAM_CONFIG_INT: {
        if (!*text || strspn(text, digits) != strlen(text)) return false;
        long long value = strtoll(text, &end, 10);
        return !*end && !errno && in_bounds(key, (double)value);
    }
    case LAM_CONFIG_FLOAT: {
        if (!*text || strspn(text, number_characters) != strlen(text)) return false;
        double value = strtod(text, &end);
        return !*end && isfinite(value) && in_bounds(key, value);
    }
    case LAM_CONFIG_BOOL: return !strcmp(text, "true") || !strcmp(text, "false");
    case LAM_CONFIG_CHOICE: return lam_text_place(key->choices, '|', text) >= 0;
    case LAM_CONFIG_NAMES: return are_names(text);
    default: return true;
    }
}

static int find_key(const lam_config *config, const char *path) {
    for (int i = 0; i < config->count; i++)
        if (!strcmp(config->keys[i].path, path)) return i;
    return -1;
}

static const char *last_part(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* A key that is right but for its section is what was meant, however far the sections are from each other. */
static lam_status unknown_key(const lam_config *config, const char *where, const char *path) {
    const char *names[MAX_KEYS], *elsewhere[MAX_KEYS];
    int found = 0;
    for (int i = 0; i < config->count; i++) {
        names[i] = config->keys[i].path;
        if (!strcmp(last_part(names[i]), last_part(path))) elsewhere[found++] = names[i];
    }
    const char *nearest = found == 1 ? elsewhere[0] : lam_nearest_name(path, names, config->count);
    if (!nearest && found) nearest = elsewhere[0];
    LAM_REQUIRE(!nearest, LAM_ERROR_CONFIG, "%s: unknown key %s; did you mean %s?", where, path, nearest);
    LAM_FAIL(LAM_ERROR_CONFIG, "%s: unknown key %s: lamella train --help-config lists the keys", where, path);
}

static lam_status set_value(lam_config *config, const char *where, size_t line, const char *path,
                            const char *text) {
    int i = find_key(config, path);
    if (i < 0) return unknown_key(config, where, path);
    char words[256];
    LAM_REQUIRE(lam_utf8_is_valid(text), LAM_ERROR_CONFIG,
                "%s: %s is not UTF-8, as YAML must be: write it in UTF-8", where, path);
    bool needed = config->keys[i].type == LAM_CONFIG_TEXT && !config->keys[i].default_value;
    LAM_REQUIRE(text[0] || !needed, LAM_ERROR_CONFIG, "%s: %s is empty: %s", where, path,
                config->keys[i].help);
    LAM_REQUIRE(is_valid(&config->keys[i], text), LAM_ERROR_CONFIG, "%s: %s is '%s', allowed is %s", where,
                path, text, type_words(&config->keys[i], words, sizeof words));
    char *copy;
    LAM_TRY(lam_text_copy(&copy, text));
    lam_free(config->values[i]);
    config->values[i] = copy;
    config->lines[i] = line;
    return LAM_OK;
}

/* ---- YAML ---- */

/* Errors of its reader (encoding) have an offset, no line. */
static bool is_section(const lam_config *config, const char *name) {
    size_t length = strlen(name);
    for (int i = 0; i < config->count; i++)
        if (length && !strncmp(config->keys[i].path, name, length) && config->keys[i].path[length] == '.')
            return true;
    return false;
}

/* The names of a sequence with commas between them; NULL where an item is no plain name or there is none. The caller frees. */
static lam_status join_names(yaml_document_t *document, const yaml_node_t *sequence, char **joined) {
    *joined = NULL;
    for (const yaml_node_item_t *item = sequence->data.sequence.items.start;
         item < sequence->data.sequence.items.top; item++) {
        const yaml_node_t *name = yaml_document_get_node(document, *item);
        const char *text = (const char *)name->data.scalar.value;
        bool plain = name->type == YAML_SCALAR_NODE && text[0] && strlen(text) == name->data.scalar.length &&
                     !strchr(text, ',');
        char *longer = NULL;
        lam_status status =
            plain ? lam_text_format(&longer, "%s%s%s", *joined ? *joined : "", *joined ? "," : "", text)
                  : LAM_OK;
        lam_free(*joined);
        *joined = longer;
        if (!longer) return status;
    }
    return LAM_OK;
}

/* libyaml keeps both of two equal keys. NULL: `pair` is the first of its name. */
static lam_status walk(lam_config *config, yaml_document_t *document, yaml_node_t *node, const char *prefix) {
    LAM_REQUIRE(node->type == YAML_MAPPING_NODE, LAM_ERROR_CONFIG,
                "%s:%zu: %s is no section: write 'section: {key: value}'", config->name,
                node->start_mark.line + 1, *prefix ? prefix : "the file");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        yaml_node_t *key = yaml_document_get_node(document, pair->key),
                    *child = yaml_document_get_node(document, pair->value);
        char where[1200], path[512];
        snprintf(where, sizeof where, "%.1000s:%zu", config->name, key->start_mark.line + 1);
        LAM_REQUIRE(key->type == YAML_SCALAR_NODE &&
                        strlen((const char *)key->data.scalar.value) == key->data.scalar.length,
                    LAM_ERROR_CONFIG, "%s: a key must be plain text", where);
        snprintf(path, sizeof path, "%s%s%.200s", prefix, *prefix ? "." : "",
                 (const char *)key->data.scalar.value);
        if (!*prefix && is_section(config, path)) {
            const yaml_node_t *before = lam_yaml_same_key_before(document, node, pair);
            LAM_REQUIRE(!before, LAM_ERROR_CONFIG, "%s: duplicate key %s: it stands in line %zu already",
                        where, path, before->start_mark.line + 1);
            LAM_REQUIRE(child->type == YAML_MAPPING_NODE, LAM_ERROR_CONFIG,
                        "%s: %s is a section, allowed are keys below it", where, path);
            LAM_TRY(walk(config, document, child, path));
            continue;
        }
        /* Its first key is unknown too, but nearer to what was meant. */
        if (!*prefix && *path && child->type == YAML_MAPPING_NODE &&
            child->data.mapping.pairs.start < child->data.mapping.pairs.top)
            return walk(config, document, child, path);
        int i = find_key(config, path);
        if (i < 0) return unknown_key(config, where, path);
        char words[256];
        if (config->keys[i].type == LAM_CONFIG_NAMES && child->type == YAML_SEQUENCE_NODE &&
            !config->values[i]) {
            char *names;
            LAM_TRY(join_names(document, child, &names));
            LAM_REQUIRE(names, LAM_ERROR_CONFIG, "%s: %s holds what is no name, allowed is %s", where, path,
                        type_words(&config->keys[i], words, sizeof words));
            lam_status status = set_value(config, where, key->start_mark.line + 1, path, names);
            lam_free(names);
            LAM_TRY(status);
            continue;
        }
        LAM_REQUIRE(child->type == YAML_SCALAR_NODE &&
                        strlen((const char *)child->data.scalar.value) == child->data.scalar.length,
                    LAM_ERROR_CONFIG, "%s: %s is no single value, allowed is %s", where, path,
                    type_words(&config->keys[i], words, sizeof words));
        LAM_REQUIRE(!config->values[i], LAM_ERROR_CONFIG,
                    "%s: duplicate key %s: it stands in line %zu already", where, path, config->lines[i]);
        LAM_TRY(
            set_value(config, where, key->start_mark.line + 1, path, (const char *)child->data.scalar.value));
    }
    return LAM_OK;
}

static lam_status load(lam_config *config, const char *text, size_t size) {
    yaml_document_t document;
    LAM_TRY(lam_yaml_load(&document, text, size, config->name));
    lam_status status = walk(config, &document, yaml_document_get_root_node(&document), "");
    yaml_document_delete(&document);
    return status;
}

lam_status lam_config_parse(lam_config **out, const lam_config_key *keys, const char *text, size_t size,
                            const char *name) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_config *config = NULL;
    LAM_TRY(lam_alloc((void **)&config, sizeof *config));
    config->keys = keys;
    while (keys[config->count].path) config->count++;
    LAM_REQUIRE_GOTO(config->count <= MAX_KEYS, done, LAM_ERROR_INTERNAL, "the schema has more than %d keys",
                     MAX_KEYS);
    LAM_TRY_GOTO(lam_alloc_array((void **)&config->values, config->count, sizeof *config->values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&config->lines, config->count, sizeof *config->lines), done);
    LAM_TRY_GOTO(lam_text_copy(&config->name, name), done);
    LAM_TRY_GOTO(load(config, text, size), done);
done:
    if (status == LAM_OK)
        *out = config;
    else
        lam_config_free(config);
    return status;
}

lam_status lam_config_read(lam_config **out, const lam_config_key *keys, const char *path) {
    char *text;
    size_t size;
    *out = NULL;
    LAM_TRY(lam_file_read(path, &text, &size));
    lam_status status = lam_config_parse(out, keys, text, size, path);
    lam_free(text);
    return status;
}

lam_status lam_config_set_from(lam_config *config, const char *where, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    LAM_REQUIRE(equals && equals != assignment, LAM_ERROR_CONFIG, "%s: '%s' is no key.path=value", where,
                assignment);
    char *path;
    LAM_TRY(lam_text_copy_n(&path, assignment, (size_t)(equals - assignment)));
    lam_status status = set_value(config, where, 0, path, equals + 1);
    lam_free(path);
    return status;
}

lam_status lam_config_set(lam_config *config, const char *assignment) {
    return lam_config_set_from(config, "command line", assignment);
}

lam_status lam_config_check(const lam_config *config) {
    char words[256];
    for (int i = 0; i < config->count; i++)
        LAM_REQUIRE(config->values[i] || config->keys[i].default_value, LAM_ERROR_CONFIG,
                    "%s: %s is missing: %s (%s)", config->name, config->keys[i].path, config->keys[i].help,
                    type_words(&config->keys[i], words, sizeof words));
    return LAM_OK;
}

void lam_config_free(lam_config *config) {
    if (!config) return;
    for (int i = 0; config->values && i < config->count; i++) lam_free(config->values[i]);
    lam_free(config->values);
    lam_free(config->lines);
    lam_free(config->name);
    lam_free(config);
}

/* ---- access ---- */

const char *lam_config_text(const lam_config *config, const char *path) {
    int i = find_key(config, path);
    return i < 0 ? NULL : config->values[i] ? config->values[i] : config->keys[i].default_value;
}
int64_t lam_config_int(const lam_config *config, const char *path) {
    return strtoll(lam_config_text(config, path), NULL, 10);
}
double lam_config_float(const lam_config *config, const char *path) {
    return strtod(lam_config_text(config, path), NULL);
}
bool lam_config_bool(const lam_config *config, const char *path) {
    return !strcmp(lam_config_text(config, path), "true");
}
int lam_config_choice(const lam_config *config, const char *path) {
    return lam_text_place(config->keys[find_key(config, path)].choices, '|', lam_config_text(config, path));
}
bool lam_config_given(const lam_config *config, const char *path) {
    int i = find_key(config, path);
    return i >= 0 && config->values[i];
}

/* ---- text ---- */

typedef struct text_buffer {
    char *text;
    size_t length, size;
} text_buffer;

static lam_status put(text_buffer *buffer, const char *text) {
    size_t n = strlen(text);
    if (buffer->length + n + 1 > buffer->size) {
        size_t grown = (buffer->length + n + 1) * 2;
        LAM_TRY(lam_grow((void **)&buffer->text, buffer->size, grown));
        buffer->size = grown;
    }
    memcpy(buffer->text + buffer->length, text, n + 1);
    buffer->length += n;
    return LAM_OK;
}

/* What YAML 1.1 takes for a line break, or does not allow as it is. */
static bool needs_escape(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           code == 0xfeff || code == 0xfffe || code == 0xffff;
}

/* Text values are always quoted: a plain `yes` or `1.0` would read differently elsewhere. `text` is UTF-8. */
static lam_status put_quoted(text_buffer *buffer, const char *text) {
    LAM_TRY(put(buffer, "\""));
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        int bytes = *at < 0x80 ? 1 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : 4;
        uint32_t code = bytes == 1 ? *at : *at & (0x7fu >> bytes);
        char piece[16] = {0};
        memcpy(piece, at, (size_t)bytes);
        for (int i = 1; i < bytes; i++) code = code << 6 | (at[i] & 0x3fu);
        if (code == '"' || code == '\\') snprintf(piece, sizeof piece, "\\%c", (char)code);
        if (needs_escape(code)) snprintf(piece, sizeof piece, "\\u%04X", (unsigned)code);
        LAM_TRY(put(buffer, piece));
        at += bytes;
    }
    return put(buffer, "\"");
}

lam_status lam_config_write(const lam_config *config, char **text) {
    text_buffer buffer = {0};
    lam_status status = LAM_OK;
    const char *section = "";
    size_t section_length = 0;
    for (int i = 0; i < config->count; i++) {
        const char *path = config->keys[i].path, *dot = strchr(path, '.');
        const char *value = lam_config_text(config, path);
        if (!value) continue;
        if (!dot || (size_t)(dot - path) != section_length || strncmp(path, section, section_length) != 0) {
            section = path;
            section_length = dot ? (size_t)(dot - path) : 0;
            char head[300];
            snprintf(head, sizeof head, "%.*s:\n", (int)section_length, section);
            if (dot) LAM_TRY_GOTO(put(&buffer, head), done);
        }
        LAM_TRY_GOTO(put(&buffer, dot ? "  " : ""), done);
        LAM_TRY_GOTO(put(&buffer, dot ? dot + 1 : path), done);
        LAM_TRY_GOTO(put(&buffer, ": "), done);
        bool quoted = config->keys[i].type == LAM_CONFIG_TEXT || config->keys[i].type == LAM_CONFIG_NAMES;
        LAM_TRY_GOTO(quoted ? put_quoted(&buffer, value) : put(&buffer, value), done);
        LAM_TRY_GOTO(put(&buffer, "\n"), done);
    }
done:
    if (status != LAM_OK) {
        lam_free(buffer.text);
        buffer.text = NULL;
    }
    *text = buffer.text;
    return status;
}

lam_status lam_config_help(const lam_config_key *keys, char **text) {
    text_buffer buffer = {0};
    lam_status status = LAM_OK;
    for (const lam_config_key *key = keys; key->path; key++) {
        char line[1024], words[256];
        snprintf(line, sizeof line, "%-30s %-28s %-12s %s\n", key->path, type_words(key, words, sizeof words),
                 !key->default_value   ? "(required)"
                 : *key->default_value ? key->default_value
                                       : "(none)",
                 key->help);
        LAM_TRY_GOTO(put(&buffer, line), done);
    }
done:
    if (status != LAM_OK) {
        lam_free(buffer.text);
        buffer.text = NULL;
    }
    *text = buffer.text;
    return status;
}
