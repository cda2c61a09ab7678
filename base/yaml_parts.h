/* Between the sources of configuration: YAML text as libyaml's document. No other source may include yaml.h. */
#ifndef LAMELLA_BASE_YAML_PARTS_H
#define LAMELLA_BASE_YAML_PARTS_H

#include <stddef.h>
#include <yaml.h>

#include "base/status.h"

/* One document without anchors, aliases, tags; not empty. LAM_ERROR_CONFIG with "name:line: what". The caller deletes it. */
lam_status lam_yaml_load(yaml_document_t *document, const char *text, size_t size, const char *name);
/* The key node of a pair before `pair` with the same text; NULL: none. */
const yaml_node_t *lam_yaml_same_key_before(yaml_document_t *document, const yaml_node_t *mapping,
                                            const yaml_node_pair_t *pair);

#endif
