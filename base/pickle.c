#include "base/pickle.h"

#include <stdbool.h>
#include <string.h>

enum { STACK_LIMIT = 65536, MARK_LIMIT = 256, VALUE_LIMIT = 1 << 20, MEMO_LIMIT = 1 << 20 };

typedef lam_pickle_value value;

/* ---- the names that a pickle may speak of ---- */

typedef enum role {
    MAKES_DICT,
    MAKES_TENSOR,
    MAKES_PARAMETER,
    MAKES_TUPLE,  /* of its only argument */
    MAKES_OPAQUE, /* of any arguments */
    IS_STORAGE,
    IS_INERT
} role;

static const struct {
    const char *module, *name;
    role role;
    const char *dtype;
} names[] = {
    {"collections", "OrderedDict", MAKES_DICT, NULL},
    {"torch._utils", "_rebuild_tensor_v2", MAKES_TENSOR, NULL},
    {"torch._utils", "_rebuild_parameter", MAKES_PARAMETER, NULL},
    {"torch", "Size", MAKES_TUPLE, NULL},
    {"torch", "device", MAKES_OPAQUE, NULL},
    {"argparse", "Namespace", MAKES_OPAQUE, NULL},
    {"torch", "FloatStorage", IS_STORAGE, "F32"},
    {"torch", "DoubleStorage", IS_STORAGE, "F64"},
    {"torch", "HalfStorage", IS_STORAGE, "F16"},
    {"torch", "BFloat16Storage", IS_STORAGE, "BF16"},
    {"torch", "LongStorage", IS_STORAGE, "I64"},
    {"torch", "IntStorage", IS_STORAGE, "I32"},
    {"torch", "ShortStorage", IS_STORAGE, "I16"},
    {"torch", "CharStorage", IS_STORAGE, "I8"},
    {"torch", "ByteStorage", IS_STORAGE, "U8"},
    {"torch", "BoolStorage", IS_STORAGE, "BOOL"},
    {"torch", "float32", IS_INERT, NULL},
    {"torch", "float64", IS_INERT, NULL},
    {"torch", "float16", IS_INERT, NULL},
    {"torch", "bfloat16", IS_INERT, NULL},
    {"torch", "int64", IS_INERT, NULL},
    {"torch", "int32", IS_INERT, NULL},
    {"torch", "int16", IS_INERT, NULL},
    {"torch", "int8", IS_INERT, NULL},
    {"torch", "uint8", IS_INERT, NULL},
    {"torch", "bool", IS_INERT, NULL},
};

/* ---- the machine ---- */

typedef struct machine {
    lam_arena *arena;
    const unsigned char *begin, *at, *end;
    const char *file;
    value **stack;
    int64_t depth, stack_room;
    int64_t mark[MARK_LIMIT]; /* depths of the stack */
    int marks;
    value **memo;
    int64_t memo_room, memo_next;
    int64_t values;
} machine;

#define DEMAND(condition, m, what)                                                                           \
    LAM_REQUIRE(condition, LAM_ERROR_FORMAT,                                                                 \
                "%s: its pickle %s (byte %td): it is damaged, or was not written by torch.save", (m)->file,  \
                what, (m)->at - (m)->begin)

static lam_status take(machine *m, size_t size, const unsigned char **bytes) {
    DEMAND((size_t)(m->end - m->at) >= size, m, "ends too early");
    *bytes = m->at;
    m->at += size;
    return LAM_OK;
}

static lam_status take_number(machine *m, size_t size, uint64_t *number) {
    const unsigned char *bytes = NULL;
    LAM_TRY(take(m, size, &bytes));
    *number = 0;
    for (size_t i = size; i-- > 0;) *number = *number << 8 | bytes[i];
    return LAM_OK;
}

/* Values and the cells of containers are counted together: the memory is bounded by it. */
static lam_status count_one(machine *m) {
    DEMAND(m->values < VALUE_LIMIT, m, "holds more than 2^20 values");
    m->values++;
    return LAM_OK;
}

static lam_status new_value(machine *m, lam_pickle_kind kind, value **out) {
    LAM_TRY(count_one(m));
    LAM_TRY(lam_arena_alloc(m->arena, (void **)out, sizeof **out));
    (*out)->kind = kind;
    return LAM_OK;
}

static lam_status push(machine *m, value *v) {
    DEMAND(m->depth < STACK_LIMIT, m, "needs too large a stack");
    if (m->depth == m->stack_room) {
        int64_t room = m->stack_room ? 2 * m->stack_room : 256;
        LAM_TRY(lam_grow((void **)&m->stack, (size_t)m->stack_room * sizeof *m->stack,
                         (size_t)room * sizeof *m->stack));
        m->stack_room = room;
    }
    m->stack[m->depth++] = v;
    return LAM_OK;
}

static int64_t floor_of(const machine *m) { return m->marks ? m->mark[m->marks - 1] : 0; }

/* Values above the last mark may be taken, none below it. */
static lam_status pop(machine *m, value **out) {
    DEMAND(m->depth > floor_of(m), m, "takes from an empty stack");
    *out = m->stack[--m->depth];
    return LAM_OK;
}

static lam_status push_new(machine *m, lam_pickle_kind kind, int64_t integer) {
    value *v = NULL;
    LAM_TRY(new_value(m, kind, &v));
    v->integer = integer;
    return push(m, v);
}

static lam_status append(machine *m, value *container, const value *key, value *item) {
    lam_pickle_item *cell = NULL;
    LAM_TRY(count_one(m));
    LAM_TRY(lam_arena_alloc(m->arena, (void **)&cell, sizeof *cell));
    *cell = (lam_pickle_item){key, item, NULL};
    if (container->last)
        container->last->next = cell;
    else
        container->first = cell;
    container->last = cell;
    container->count++;
    return LAM_OK;
}

static lam_status push_tuple(machine *m, int64_t from) {
    value *tuple = NULL;
    DEMAND(from >= floor_of(m), m, "takes from an empty stack");
    LAM_TRY(new_value(m, LAM_PICKLE_TUPLE, &tuple));
    for (int64_t i = from; i < m->depth; i++) LAM_TRY(append(m, tuple, NULL, m->stack[i]));
    m->depth = from;
    return push(m, tuple);
}

/* Drops the last mark; *from is where its values begin. */
static lam_status close_mark(machine *m, int64_t *from) {
    DEMAND(m->marks > 0, m, "closes a mark that it has not set");
    *from = m->mark[--m->marks];
    return LAM_OK;
}

static lam_status push_text(machine *m, uint64_t length) {
    const unsigned char *bytes = NULL;
    char *text = NULL;
    value *v = NULL;
    LAM_TRY(take(m, length, &bytes));
    DEMAND(!memchr(bytes, 0, length), m, "holds a text with a zero byte");
    LAM_TRY(new_value(m, LAM_PICKLE_TEXT, &v));
    LAM_TRY(lam_arena_text(m->arena, &text, (const char *)bytes, length));
    v->text = text;
    return push(m, v);
}

static lam_status push_name(machine *m, const char *module, const char *name) {
    value *v = NULL;
    int found = -1;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(names[i].module, module) && !strcmp(names[i].name, name)) found = i;
    LAM_REQUIRE(
        found >= 0, LAM_ERROR_FORMAT,
        "%s: its pickle asks for %.100s.%.100s, which no plain weights need: it is not run; in PyTorch save "
        "the state_dict alone, best as safetensors",
        m->file, module, name);
    LAM_TRY(new_value(m, LAM_PICKLE_GLOBAL, &v));
    v->name = found;
    return push(m, v);
}

static lam_status take_line(machine *m, char *line, size_t room) {
    const unsigned char *end = memchr(m->at, '\n', (size_t)(m->end - m->at));
    DEMAND(end && (size_t)(end - m->at) < room, m, "names something too long");
    memcpy(line, m->at, (size_t)(end - m->at));
    line[end - m->at] = 0;
    m->at = end + 1;
    return LAM_OK;
}

/* ---- tensors ---- */

static lam_status dimensions(machine *m, const value *tuple, int64_t *out, int *count) {
    DEMAND(tuple->kind == LAM_PICKLE_TUPLE && tuple->count <= LAM_PICKLE_MAX_RANK, m,
           "has a tensor without a shape of at most 8 dimensions");
    *count = 0;
    for (const lam_pickle_item *i = tuple->first; i; i = i->next) {
        DEMAND(i->value->kind == LAM_PICKLE_INT && i->value->integer >= 0, m,
               "has a tensor with an impossible shape or stride");
        out[(*count)++] = i->value->integer;
    }
    return LAM_OK;
}

/* ("storage", torch.FloatStorage, key, location, elements) */
static lam_status make_storage(machine *m) {
    value *id = NULL, *made = NULL;
    lam_pickle_tensor *tensor = NULL;
    LAM_TRY(pop(m, &id));
    const value *part[5];
    int parts = 0;
    DEMAND(id->kind == LAM_PICKLE_TUPLE && id->count == 5, m, "has a storage of an unknown form");
    for (const lam_pickle_item *i = id->first; i; i = i->next) part[parts++] = i->value;
    DEMAND(part[0]->kind == LAM_PICKLE_TEXT && !strcmp(part[0]->text, "storage") &&
               part[1]->kind == LAM_PICKLE_GLOBAL && names[part[1]->name].role == IS_STORAGE &&
               part[2]->kind == LAM_PICKLE_TEXT && part[4]->kind == LAM_PICKLE_INT && part[4]->integer >= 0,
           m, "has a storage of an unknown form");
    LAM_TRY(new_value(m, LAM_PICKLE_STORAGE, &made));
    LAM_TRY(lam_arena_alloc(m->arena, (void **)&tensor, sizeof *tensor));
    tensor->dtype = names[part[1]->name].dtype;
    tensor->key = part[2]->text;
    tensor->storage_count = part[4]->integer;
    made->tensor = tensor;
    return push(m, made);
}

/* (storage, offset, shape, stride, requires_grad, hooks[, metadata]) */
static lam_status make_tensor(machine *m, const value *arguments) {
    const value *part[7];
    int parts = 0, strides = 0;
    value *made = NULL;
    lam_pickle_tensor *tensor = NULL;
    DEMAND(arguments->count == 6 || arguments->count == 7, m, "has a tensor of an unknown form");
    for (const lam_pickle_item *i = arguments->first; i; i = i->next) part[parts++] = i->value;
    DEMAND(part[0]->kind == LAM_PICKLE_STORAGE && part[1]->kind == LAM_PICKLE_INT && part[1]->integer >= 0, m,
           "has a tensor of an unknown form");
    LAM_TRY(new_value(m, LAM_PICKLE_TENSOR, &made));
    LAM_TRY(lam_arena_alloc(m->arena, (void **)&tensor, sizeof *tensor));
    *tensor = *part[0]->tensor;
    tensor->offset = part[1]->integer;
    LAM_TRY(dimensions(m, part[2], tensor->shape, &tensor->rank));
    LAM_TRY(dimensions(m, part[3], tensor->stride, &strides));
    DEMAND(strides == tensor->rank, m, "has a tensor with as many strides as it has no dimensions");
    made->tensor = tensor;
    return push(m, made);
}

static lam_status reduce(machine *m) {
    value *arguments = NULL, *callable = NULL;
    LAM_TRY(pop(m, &arguments));
    LAM_TRY(pop(m, &callable));
    DEMAND(callable->kind == LAM_PICKLE_GLOBAL && arguments->kind == LAM_PICKLE_TUPLE, m,
           "calls what is no name");
    value *first = arguments->first ? arguments->first->value : NULL;
    switch (names[callable->name].role) {
    case MAKES_DICT:
        DEMAND(arguments->count == 0, m, "makes an OrderedDict of an unknown form");
        return push_new(m, LAM_PICKLE_DICT, 0);
    case MAKES_TENSOR: return make_tensor(m, arguments);
    case MAKES_PARAMETER:
        DEMAND(arguments->count == 3 && first->kind == LAM_PICKLE_TENSOR, m,
               "has a parameter of an unknown form");
        return push(m, first);
    case MAKES_TUPLE:
        DEMAND(arguments->count == 1 && first->kind == LAM_PICKLE_TUPLE, m, "has a size of an unknown form");
        return push(m, first);
    case MAKES_OPAQUE: return push_new(m, LAM_PICKLE_OPAQUE, 0);
    default: DEMAND(false, m, "calls what cannot be called");
    }
}

/* object state -> object; the state of what is kept is of no use here. */
static lam_status build(machine *m) {
    value *state = NULL, *object = NULL;
    LAM_TRY(pop(m, &state));
    LAM_TRY(pop(m, &object));
    DEMAND(object->kind == LAM_PICKLE_DICT || object->kind == LAM_PICKLE_OPAQUE, m,
           "gives a state to what has none");
    return push(m, object);
}

/* ---- memo and containers ---- */

static lam_status remember(machine *m, uint64_t index) {
    DEMAND(m->depth > floor_of(m), m, "remembers nothing");
    DEMAND(index < MEMO_LIMIT, m, "needs too large a memo");
    if ((int64_t)index >= m->memo_room) {
        int64_t room = m->memo_room ? 2 * m->memo_room : 256;
        while (room <= (int64_t)index) room *= 2;
        LAM_TRY(lam_grow((void **)&m->memo, (size_t)m->memo_room * sizeof *m->memo,
                         (size_t)room * sizeof *m->memo));
        m->memo_room = room;
    }
    if (!m->memo[index]) m->memo_next++;
    m->memo[index] = m->stack[m->depth - 1];
    return LAM_OK;
}

static lam_status recall(machine *m, uint64_t index) {
    DEMAND(index < (uint64_t)m->memo_room && m->memo[index], m, "recalls what it has not remembered");
    return push(m, m->memo[index]);
}

/* What stands below `from` takes everything above: pairs for a dict, items for a list. */
static lam_status fill(machine *m, int64_t from, lam_pickle_kind kind) {
    DEMAND(from > floor_of(m) && m->stack[from - 1]->kind == kind, m, "fills what is no container");
    value *container = m->stack[from - 1];
    int64_t step = kind == LAM_PICKLE_DICT ? 2 : 1;
    DEMAND((m->depth - from) % step == 0, m, "has a key without a value");
    for (int64_t i = from; i < m->depth; i += step)
        LAM_TRY(append(m, container, step == 2 ? m->stack[i] : NULL, m->stack[i + step - 1]));
    m->depth = from;
    return LAM_OK;
}

static lam_status fill_from_mark(machine *m, lam_pickle_kind kind) {
    int64_t from = 0;
    LAM_TRY(close_mark(m, &from));
    return fill(m, from, kind);
}

/* ---- opcodes ---- */

static lam_status step_number(machine *m, unsigned char opcode) {
    uint64_t number = 0, length = 0;
    const unsigned char *bytes = NULL;
    switch (opcode) {
    case 'K': LAM_TRY(take_number(m, 1, &number)); break;
    case 'M': LAM_TRY(take_number(m, 2, &number)); break;
    case 'J':
        LAM_TRY(take_number(m, 4, &number));
        return push_new(m, LAM_PICKLE_INT, (int32_t)(uint32_t)number);
    default: /* LONG1: two's complement of `length` bytes */
        LAM_TRY(take_number(m, 1, &length));
        LAM_TRY(take(m, length, &bytes));
        if (length > 8) return push_new(m, LAM_PICKLE_OPAQUE, 0);
        number = length && bytes[length - 1] & 0x80 ? ~(uint64_t)0 : 0;
        for (uint64_t i = length; i-- > 0;) number = number << 8 | bytes[i];
    }
    return push_new(m, LAM_PICKLE_INT, (int64_t)number);
}

static lam_status step_text(machine *m, unsigned char opcode) {
    uint64_t length = 0;
    LAM_TRY(take_number(m, opcode == 0x8c ? 1 : opcode == 'X' ? 4 : 8, &length));
    return push_text(m, length);
}

static lam_status step_name(machine *m, unsigned char opcode) {
    char module[128], name[128];
    if (opcode == 'c') {
        LAM_TRY(take_line(m, module, sizeof module));
        LAM_TRY(take_line(m, name, sizeof name));
        return push_name(m, module, name);
    }
    value *v = NULL, *of = NULL;
    LAM_TRY(pop(m, &v));
    LAM_TRY(pop(m, &of));
    DEMAND(v->kind == LAM_PICKLE_TEXT && of->kind == LAM_PICKLE_TEXT, m, "asks for a name that is no text");
    return push_name(m, of->text, v->text);
}

static lam_status step_memo(machine *m, unsigned char opcode) {
    uint64_t index = (uint64_t)m->memo_next;
    if (opcode == 'q' || opcode == 'h') LAM_TRY(take_number(m, 1, &index));
    if (opcode == 'r' || opcode == 'j') LAM_TRY(take_number(m, 4, &index));
    return opcode == 'h' || opcode == 'j' ? recall(m, index) : remember(m, index);
}

static lam_status step(machine *m, unsigned char opcode) {
    uint64_t number = 0;
    int64_t from = 0;
    value *v = NULL;
    const unsigned char *bytes = NULL;
    switch (opcode) {
    case 0x95: /* FRAME: only how the text is buffered */
        LAM_TRY(take_number(m, 8, &number));
        DEMAND(number <= (uint64_t)(m->end - m->at), m, "has a frame that ends too early");
        return LAM_OK;
    case '(':
        DEMAND(m->marks < MARK_LIMIT, m, "is nested too deeply");
        m->mark[m->marks++] = m->depth;
        return LAM_OK;
    case '0': return pop(m, &v);
    case '1': return close_mark(m, &m->depth);
    case '}': return push_new(m, LAM_PICKLE_DICT, 0);
    case ']': return push_new(m, LAM_PICKLE_LIST, 0);
    case ')': return push_tuple(m, m->depth);
    case 't': LAM_TRY(close_mark(m, &from)); return push_tuple(m, from);
    case 0x85:
    case 0x86:
    case 0x87: return push_tuple(m, m->depth - (opcode - 0x84));
    case 's': return fill(m, m->depth - 2, LAM_PICKLE_DICT);
    case 'u': return fill_from_mark(m, LAM_PICKLE_DICT);
    case 'a': return fill(m, m->depth - 1, LAM_PICKLE_LIST);
    case 'e': return fill_from_mark(m, LAM_PICKLE_LIST);
    case 'N': return push_new(m, LAM_PICKLE_NONE, 0);
    case 0x88: return push_new(m, LAM_PICKLE_BOOL, 1);
    case 0x89: return push_new(m, LAM_PICKLE_BOOL, 0);
    case 'K':
    case 'M':
    case 'J':
    case 0x8a: return step_number(m, opcode);
    case 'G': LAM_TRY(take(m, 8, &bytes)); return push_new(m, LAM_PICKLE_FLOAT, 0);
    case 'X':
    case 0x8c:
    case 0x8d: return step_text(m, opcode);
    case 'c':
    case 0x93: return step_name(m, opcode);
    case 'q':
    case 'r':
    case 'h':
    case 'j':
    case 0x94: return step_memo(m, opcode);
    case 'Q': return make_storage(m);
    case 'R': return reduce(m);
    case 0x81: /* NEWOBJ: what pickle makes of objects, for the opaque ones */
        DEMAND(m->depth >= floor_of(m) + 2 && m->stack[m->depth - 2]->kind == LAM_PICKLE_GLOBAL &&
                   names[m->stack[m->depth - 2]->name].role == MAKES_OPAQUE,
               m, "makes an object of an unknown kind");
        return reduce(m);
    case 'b': return build(m);
    default:
        LAM_FAIL(
            LAM_ERROR_FORMAT,
            "%s: its pickle holds opcode 0x%02x (byte %td), which torch.save does not need for weights: it is not "
            "run; in PyTorch save the state_dict alone, best as safetensors",
            m->file, opcode, m->at - m->begin - 1);
    }
}

static lam_status run(machine *m, const value **root) {
    uint64_t start = 0, protocol = 0;
    LAM_TRY(take_number(m, 1, &start));
    LAM_TRY(take_number(m, 1, &protocol));
    DEMAND(start == 0x80 && protocol >= 2 && protocol <= 5, m, "is of no protocol from 2 to 5");
    for (;;) {
        uint64_t opcode = 0;
        LAM_TRY(take_number(m, 1, &opcode));
        if (opcode == '.') break;
        LAM_TRY(step(m, (unsigned char)opcode));
    }
    DEMAND(m->depth == 1 && m->marks == 0, m, "leaves other than one value");
    *root = m->stack[0];
    return LAM_OK;
}

lam_status lam_pickle_read(lam_arena *arena, const void *bytes, size_t size, const char *name,
                           const lam_pickle_value **root) {
    machine m = {.arena = arena,
                 .begin = bytes,
                 .at = bytes,
                 .end = (const unsigned char *)bytes + size,
                 .file = name};
    *root = NULL;
    LAM_REQUIRE(size <= LAM_PICKLE_MAX_BYTES, LAM_ERROR_FORMAT,
                "%s: its pickle has %zu bytes, more than any weights need", name, size);
    lam_status status = run(&m, root);
    lam_free(m.stack);
    lam_free(m.memo);
    return status;
}
