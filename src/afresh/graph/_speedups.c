/* The graph's kernel in C: nodes, edges, the cascade, and the call path of a cached result.
 *
 * `_pure.py` is its twin and says what each part is for; names and behaviour are the same, and the
 * test suite runs against both. Only the reasons for doing things differently here are told below.
 *
 * Edges. While a body runs, its node lists the nodes used (strong references). When the result is
 * there, the list becomes one array of edges, owned by the dependant: each refers strongly to the
 * dependency and is a link in that dependency's list of dependants. So an edge costs one struct,
 * either end removes it in constant time, and a dependant that dies takes its edges out by itself.
 *
 * Calls. A compute method is a method descriptor with vectorcall: the interpreter hands over the
 * instance and the arguments without making a bound method. The node that is found is returned, and
 * `await` takes the value out of it without any coroutine.
 *
 * Everything here runs under the interpreter lock; free-threaded builds use the twin.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

enum { COMPUTING = 0, CONSISTENT = 1, INVALIDATED = 2 };
enum { PENDING = 1, PENDING_NOW = 2, DELAYED = 4 };

typedef struct Node Node;
typedef struct Keeper Keeper;
typedef struct Method Method;

typedef struct Edge {
    Node *dependency;        /* strong */
    Node *dependant;         /* the owner of the array; NULL once out of the dependency's list */
    struct Edge *previous;
    struct Edge *next;
} Edge;

struct Keeper {
    PyObject_HEAD
    PyObject *entries;
    PyObject *computing;
    PyObject *instance;
    PyObject *weak_references;
    Py_ssize_t arity;
    Method *cached_in;       /* borrowed: the method that may have this keeper in its cache */
};

struct Node {
    PyObject_HEAD
    Keeper *keeper;
    PyObject *key;
    PyObject *args;          /* NULL when they follow from the key */
    PyObject *parent;
    PyObject *value;
    PyObject *error;
    PyObject *cause;
    PyObject *extra;
    PyObject *weak_references;
    Node **uses;             /* while computing: strong references, in order, maybe repeated */
    Edge *edges;             /* afterwards */
    Py_ssize_t count;        /* of uses, or of edges */
    Py_ssize_t capacity;     /* of uses */
    Edge *first_dependant;
    Edge *last_dependant;
    long long version;
    long long used;
    long long stamp;         /* the version of the node that was last found to use this one */
    unsigned char state;
    unsigned char flags;
};

/* What a call needs to know of its compute method. */
typedef struct {
    PyObject *definition;
    PyObject *plain_types;
    Py_ssize_t arity;
    int plain_keys;
} Signature;

#define CACHE_SIZE 8
#define CACHE_SLOT(instance) ((((uintptr_t)(instance)) >> 5) & (CACHE_SIZE - 1))

struct Method {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Signature signature;
    PyObject *weak_references;
    struct {
        PyObject *instance;  /* borrowed: kept alive by the keeper, which leaves when it dies */
        Keeper *keeper;      /* borrowed */
    } cache[CACHE_SIZE];
};

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Signature signature;
    Keeper *table;
    PyObject *weak_references;
} Bound;

static PyTypeObject KeeperType, NodeType, MethodType, BoundType;

static PyObject *current;    /* the context variable */
static PyObject *empty_tuple;
static long long tick = 1;
static long long room = 1LL << 30;
static long long next_version = 1;
static PyObject *make_room = NULL;
static PyObject *hit_sampler = NULL;
static PyObject *observer = NULL;
static int chain_causes = 0;

static PyObject *str_miss, *str_hit, *str_raise, *str_gone, *str_delay, *str_replaced, *str_computed,
    *str_invalidated, *str_definition, *str_parameters, *str_names, *str_plain_keys,
    *str_plain_types, *str_key_of, *str_unhashable, *str_bind, *str_table_of, *str_function,
    *str_named, *str_bound;

#define IS_NODE(object) PyObject_TypeCheck((PyObject *)(object), &NodeType)
#define IS_SET(object) ((object) != NULL && (object) != Py_None)

static void invalidate_node(Node *node, PyObject *cause, int now);

static PyObject *interruption = NULL;

/* Call a method for its effect, where no exception may get in the way: what asks the program to end
 * waits in `interruption` until all is done. */
static void
notify(PyObject *object, PyObject *name, PyObject *argument)
{
    PyObject *kind, *error, *traceback;
    PyErr_Fetch(&kind, &error, &traceback);
    PyObject *result = argument == NULL ? PyObject_CallMethodNoArgs(object, name)
                                        : PyObject_CallMethodOneArg(object, name, argument);
    if (result == NULL) {
        if (interruption == NULL && !PyErr_ExceptionMatches(PyExc_Exception)) {
            PyObject *raised_kind, *raised_traceback;
            PyErr_Fetch(&raised_kind, &interruption, &raised_traceback);
            PyErr_NormalizeException(&raised_kind, &interruption, &raised_traceback);
            if (raised_traceback != NULL) {
                PyException_SetTraceback(interruption, raised_traceback);
            }
            Py_XDECREF(raised_kind);
            Py_XDECREF(raised_traceback);
        }
        else {
            PyErr_WriteUnraisable(object);
        }
    }
    Py_XDECREF(result);
    PyErr_Restore(kind, error, traceback);
}

/* None, unless the program was asked to end meanwhile. */
static PyObject *
none_or_interruption(void)
{
    if (interruption == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *error = interruption;
    interruption = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    return NULL;
}

/* ------------------------------------------------------------------------------------- Keeper */

static int
Keeper_init(Keeper *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"instance", "arity", NULL};
    PyObject *instance = Py_None;
    Py_ssize_t arity = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|On", names, &instance, &arity)) {
        return -1;
    }
    PyObject *entries = PyDict_New(), *computing = PyDict_New();
    if (entries == NULL || computing == NULL) {
        Py_XDECREF(entries);
        Py_XDECREF(computing);
        return -1;
    }
    Py_XSETREF(self->entries, entries);
    Py_XSETREF(self->computing, computing);
    Py_XSETREF(self->instance, Py_NewRef(instance));
    self->arity = arity;
    return 0;
}

static void
Keeper_leave_cache(Keeper *self)
{
    Method *method = self->cached_in;
    self->cached_in = NULL;
    for (int i = 0; method != NULL && i < CACHE_SIZE; i++) {
        if (method->cache[i].keeper == self) {
            method->cache[i].keeper = NULL;
            method->cache[i].instance = NULL;
        }
    }
}

static int
Keeper_traverse(Keeper *self, visitproc visit, void *arg)
{
    Py_VISIT(self->entries);
    Py_VISIT(self->computing);
    Py_VISIT(self->instance);
    return 0;
}

static int
Keeper_clear(Keeper *self)
{
    Keeper_leave_cache(self);
    Py_CLEAR(self->entries);
    Py_CLEAR(self->computing);
    Py_CLEAR(self->instance);
    return 0;
}

static void
Keeper_dealloc(Keeper *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Keeper_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef Keeper_members[] = {
    {"entries", T_OBJECT_EX, offsetof(Keeper, entries), READONLY, "Consistent results by key."},
    {"computing", T_OBJECT_EX, offsetof(Keeper, computing), READONLY, "Those being computed."},
    {"instance", T_OBJECT, offsetof(Keeper, instance), READONLY, "Whose results they are."},
    {"arity", T_PYSSIZET, offsetof(Keeper, arity), READONLY, "How many arguments a key is of."},
    {NULL}};

static PyTypeObject KeeperType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "afresh.graph._speedups.Keeper",
    .tp_doc = "Where nodes of one kind are kept, by key.",
    .tp_basicsize = sizeof(Keeper),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Keeper_init,
    .tp_dealloc = (destructor)Keeper_dealloc,
    .tp_traverse = (traverseproc)Keeper_traverse,
    .tp_clear = (inquiry)Keeper_clear,
    .tp_weaklistoffset = offsetof(Keeper, weak_references),
    .tp_members = Keeper_members,
};

/* --------------------------------------------------------------------------------------- Node */

static PySendResult Node_am_send(Node *self, PyObject *sent, PyObject **result);

static int
Node_init(Node *self, PyObject *arguments, PyObject *kwargs)
{
    static char *names[] = {"keeper", "key", "args", "parent", "flags", NULL};
    PyObject *keeper, *key, *args, *parent = Py_None;
    int flags = 0;
    if (kwargs == NULL && PyTuple_GET_SIZE(arguments) == 5) {
        keeper = PyTuple_GET_ITEM(arguments, 0);
        key = PyTuple_GET_ITEM(arguments, 1);
        args = PyTuple_GET_ITEM(arguments, 2);
        parent = PyTuple_GET_ITEM(arguments, 3);
        flags = (int)PyLong_AsLong(PyTuple_GET_ITEM(arguments, 4));
        if (flags == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    else if (!PyArg_ParseTupleAndKeywords(arguments, kwargs, "OOO|Oi", names, &keeper, &key, &args,
                                          &parent, &flags)) {
        return -1;
    }
    if (!PyObject_TypeCheck(keeper, &KeeperType) || !PyTuple_Check(args)) {
        PyErr_SetString(PyExc_TypeError, "a Node needs a Keeper, a key and a tuple of arguments");
        return -1;
    }
    if (self->keeper != NULL) {
        PyErr_SetString(PyExc_TypeError, "a Node can't be initialised twice");
        return -1;
    }
    if (Py_TYPE(self)->tp_as_async->am_send == NULL) {
        /* CPython 3.11 does not let classes written in Python inherit this one slot. */
        Py_TYPE(self)->tp_as_async->am_send = (sendfunc)Node_am_send;
    }
    self->keeper = (Keeper *)Py_NewRef(keeper);
    self->key = Py_NewRef(key);
    int follows = key == args
        || (self->keeper->arity == 1 && PyTuple_GET_SIZE(args) == 1
            && PyTuple_GET_ITEM(args, 0) == key);
    self->args = follows ? NULL : Py_NewRef(args);
    self->parent = parent == Py_None ? NULL : Py_NewRef(parent);
    self->flags = (unsigned char)flags;
    self->state = COMPUTING;
    self->version = next_version++;
    self->used = tick;
    return PyDict_SetItem(self->keeper->computing, key, (PyObject *)self);
}

static void
unlink_edge(Edge *edge)
{
    Node *dependency = edge->dependency;
    if (edge->dependant == NULL) {
        return;
    }
    edge->dependant = NULL;
    if (edge->previous != NULL) {
        edge->previous->next = edge->next;
    }
    else {
        dependency->first_dependant = edge->next;
    }
    if (edge->next != NULL) {
        edge->next->previous = edge->previous;
    }
    else {
        dependency->last_dependant = edge->previous;
    }
}

/* Leave the dependencies, whether still only listed or linked. */
static void
detach(Node *self)
{
    Node **uses = self->uses;
    Edge *edges = self->edges;
    Py_ssize_t count = self->count;
    self->uses = NULL;
    self->edges = NULL;
    self->count = self->capacity = 0;
    if (edges != NULL) {
        for (Py_ssize_t i = 0; i < count; i++) {
            unlink_edge(&edges[i]);
        }
        for (Py_ssize_t i = 0; i < count; i++) {
            Py_DECREF(edges[i].dependency);
        }
        PyMem_Free(edges);
    }
    else if (uses != NULL) {
        for (Py_ssize_t i = 0; i < count; i++) {
            Py_DECREF(uses[i]);
        }
        PyMem_Free(uses);
    }
}

static int
Node_traverse(Node *self, visitproc visit, void *arg)
{
    Py_VISIT(self->keeper);
    Py_VISIT(self->key);
    Py_VISIT(self->args);
    Py_VISIT(self->parent);
    Py_VISIT(self->value);
    Py_VISIT(self->error);
    Py_VISIT(self->cause);
    Py_VISIT(self->extra);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        if (self->edges != NULL) {
            Py_VISIT(self->edges[i].dependency);
        }
        else {
            Py_VISIT(self->uses[i]);
        }
    }
    return 0;
}

static int
Node_clear(Node *self)
{
    detach(self);
    /* Those that depend on this node hold it, so there are none left unless all are garbage. */
    for (Edge *edge = self->first_dependant, *next; edge != NULL; edge = next) {
        next = edge->next;
        edge->dependant = NULL;
    }
    self->first_dependant = self->last_dependant = NULL;
    Py_CLEAR(self->args);
    Py_CLEAR(self->parent);
    Py_CLEAR(self->value);
    Py_CLEAR(self->error);
    Py_CLEAR(self->cause);
    Py_CLEAR(self->extra);
    return 0;
}

static void
Node_dealloc(Node *self)
{
    PyObject_GC_UnTrack(self);
    /* First of all out of the dependants' lists: code that runs below must not find it there. */
    detach(self);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Node_clear(self);
    Py_CLEAR(self->key);
    Py_CLEAR(self->keeper);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* Remove repeated nodes from the list of uses; returns how many are left. */
static Py_ssize_t
without_repeats(Node *self)
{
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Node *node = self->uses[i];
        if (node->stamp == self->version) {
            Py_DECREF(node);  /* listed before, so never the last reference */
        }
        else {
            node->stamp = self->version;
            self->uses[kept++] = node;
        }
    }
    for (Py_ssize_t i = 0; i < kept; i++) {
        self->uses[i]->stamp = 0;
    }
    return self->count = kept;
}

static int
add_use(Node *self, Node *used)
{
    if (self->count > 0 && self->uses[self->count - 1] == used) {
        return 0;
    }
    if (self->count == self->capacity) {
        /* A loop that asks for the same few nodes again and again must not fill the memory. */
        if (self->count < 64 || without_repeats(self) > self->capacity / 2) {
            Py_ssize_t capacity = self->capacity == 0 ? 4 : 2 * self->capacity;
            Node **uses = PyMem_Realloc(self->uses, capacity * sizeof(Node *));
            if (uses == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            self->uses = uses;
            self->capacity = capacity;
        }
    }
    self->uses[self->count++] = (Node *)Py_NewRef(used);
    return 0;
}

static PyObject *
Node_use(Node *self, PyObject *used)
{
    if (!IS_NODE(used)) {
        PyErr_SetString(PyExc_TypeError, "only nodes can be used by a node");
        return NULL;
    }
    if (self->state == COMPUTING && add_use(self, (Node *)used) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
link_edges(Node *self)
{
    Py_ssize_t count = without_repeats(self);
    if (count == 0) {
        PyMem_Free(self->uses);
        self->uses = NULL;
        return 0;
    }
    Edge *edges = PyMem_Malloc(count * sizeof(Edge));
    if (edges == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Node *dependency = self->uses[i];
        Edge *edge = &edges[i];
        edge->dependency = dependency;
        edge->next = NULL;
        if (dependency->state == CONSISTENT) {
            edge->dependant = self;
            edge->previous = dependency->last_dependant;
            if (edge->previous != NULL) {
                edge->previous->next = edge;
            }
            else {
                dependency->first_dependant = edge;
            }
            dependency->last_dependant = edge;
        }
        else {
            edge->dependant = NULL;
            edge->previous = NULL;
            self->flags |= PENDING;
            if (!IS_SET(self->cause)) {
                PyObject *cause = chain_causes ? (PyObject *)dependency : dependency->cause;
                Py_XSETREF(self->cause, Py_XNewRef(cause));
            }
        }
    }
    PyMem_Free(self->uses);
    self->uses = NULL;
    self->capacity = 0;
    self->edges = edges;
    return 0;
}

static int
publish(Node *self)
{
    PyObject *entries = self->keeper->entries;
    PyObject *previous = PyDict_GetItemWithError(entries, self->key);
    if (previous == NULL && PyErr_Occurred()) {
        return -1;
    }
    Py_XINCREF(previous);
    int failed = PyDict_SetItem(entries, self->key, (PyObject *)self);
    if (previous != NULL) {
        if (!failed) {
            notify(previous, str_replaced, NULL);
        }
        Py_DECREF(previous);
    }
    if (failed) {
        return -1;
    }
    if (--room <= 0 && make_room != NULL) {
        PyObject *result = PyObject_CallNoArgs(make_room);
        if (result == NULL) {
            return -1;
        }
        room = PyLong_AsLongLong(result);
        Py_DECREF(result);
        if (room == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
Node_finish(Node *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_finish() takes a value, an error, and whether to keep");
        return NULL;
    }
    if (self->state != COMPUTING) {
        PyErr_SetString(PyExc_RuntimeError, "_finish() was called before");
        return NULL;
    }
    int keep = PyObject_IsTrue(args[2]);
    if (keep < 0) {
        return NULL;
    }
    Py_XSETREF(self->value, Py_NewRef(args[0]));
    Py_XSETREF(self->error, args[1] == Py_None ? NULL : Py_NewRef(args[1]));
    Py_CLEAR(self->parent);
    if (self->uses != NULL && link_edges(self) < 0) {
        return NULL;
    }
    self->state = CONSISTENT;
    PyObject *computing = self->keeper->computing;
    PyObject *listed = PyDict_GetItemWithError(computing, self->key);
    if (listed == (PyObject *)self) {
        if (PyDict_DelItem(computing, self->key) < 0) {
            return NULL;
        }
    }
    else if (listed == NULL && PyErr_Occurred()) {
        return NULL;
    }
    else {
        keep = 0;
        self->flags |= PENDING | PENDING_NOW;
    }
    self->used = ++tick;
    if (keep && publish(self) < 0) {
        return NULL;
    }
    if (observer != NULL) {
        notify(observer, str_computed, (PyObject *)self);
    }
    if (self->flags & PENDING) {
        invalidate_node(self, self->cause, (self->flags & PENDING_NOW) != 0);
    }
    return none_or_interruption();
}

/* -- being awaited */

/* Whether there is a value to give; if not, an exception is set. */
static int
has_value(Node *self)
{
    if (self->error == NULL && self->state != COMPUTING) {
        return 1;
    }
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, str_raise);
    if (result != NULL) {
        Py_DECREF(result);
        PyErr_SetString(PyExc_SystemError, "_raise() did not");
    }
    return 0;
}

#define VALUE(node) ((node)->value != NULL ? (node)->value : Py_None)

static PyObject *
Node_await(PyObject *self)
{
    return Py_NewRef(self);
}

static PySendResult
Node_am_send(Node *self, PyObject *Py_UNUSED(sent), PyObject **result)
{
    if (!has_value(self)) {
        *result = NULL;
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(VALUE(self));
    return PYGEN_RETURN;
}

#if PY_VERSION_HEX >= 0x030C0000
/* CPython 3.12 and later ask an awaitable that is no coroutine through `tp_iternext`, which returns
 * by raising StopIteration. Making one costs more than all the rest of a cached call, so one object
 * is used over and over: it comes back here, emptied, when the interpreter lets go of it. */

static PyTypeObject FinishedType;
static PyObject *spare = NULL;

static void
Finished_dealloc(PyObject *self)
{
    PyStopIterationObject *finished = (PyStopIterationObject *)self;
    PyObject_GC_UnTrack(self);
    if (finished->dict != NULL || finished->notes != NULL || finished->traceback != NULL
        || finished->context != NULL || finished->cause != NULL
        || finished->args != empty_tuple) {
        /* It was caught by Python code, which may have left anything in it. */
        ((PyTypeObject *)PyExc_StopIteration)->tp_clear(self);
        finished->args = Py_NewRef(empty_tuple);
    }
    Py_CLEAR(finished->value);
    if (spare == NULL) {
        Py_SET_REFCNT(self, 1);
        spare = self;
    }
    else {
        Py_CLEAR(finished->args);
        Py_TYPE(self)->tp_free(self);
    }
}

static PyTypeObject FinishedType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "StopIteration",
    .tp_doc = "How the kernel hands a value to `await`.",
    .tp_basicsize = sizeof(PyStopIterationObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = Finished_dealloc,
};

static void
return_value(PyObject *value)
{
    PyObject *finished = spare;
    if (finished == NULL) {
        finished = PyObject_CallNoArgs((PyObject *)&FinishedType);
        if (finished == NULL) {
            return;
        }
        PyObject_GC_UnTrack(finished);
    }
    spare = NULL;
    Py_XSETREF(((PyStopIterationObject *)finished)->value, Py_NewRef(value));
    PyErr_SetRaisedException(finished);
}
#else
static void
return_value(PyObject *value)
{
    PyObject *finished = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (finished != NULL) {
        PyErr_SetObject(PyExc_StopIteration, finished);
        Py_DECREF(finished);
    }
}
#endif

static PyObject *
Node_iternext(Node *self)
{
    if (has_value(self)) {
        return_value(VALUE(self));
    }
    return NULL;
}

static PyObject *
Node_send(Node *self, PyObject *Py_UNUSED(sent))
{
    return Node_iternext(self);
}

static PyObject *
Node_throw(Node *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    if (PyExceptionInstance_Check(args[0])) {
        PyErr_SetObject(PyExceptionInstance_Class(args[0]), args[0]);
    }
    else if (PyExceptionClass_Check(args[0])) {
        PyErr_SetObject(args[0], nargs > 1 ? args[1] : NULL);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    }
    return NULL;
}

static PyObject *
Node_close(Node *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    Py_RETURN_NONE;
}

/* -- attributes */

static PyObject *
Node_get_args(Node *self, void *Py_UNUSED(closure))
{
    if (self->args != NULL) {
        return Py_NewRef(self->args);
    }
    if (self->keeper->arity == 1) {
        return PyTuple_Pack(1, self->key);
    }
    return Py_NewRef(self->key);
}

static PyObject *
Node_get_dependencies(Node *self, void *Py_UNUSED(closure))
{
    if (self->uses != NULL) {
        without_repeats(self);
    }
    PyObject *nodes = PyTuple_New(self->count);
    for (Py_ssize_t i = 0; nodes != NULL && i < self->count; i++) {
        Node *node = self->edges != NULL ? self->edges[i].dependency : self->uses[i];
        PyTuple_SET_ITEM(nodes, i, Py_NewRef(node));
    }
    return nodes;
}

/* A node whose deallocation was put off (the trashcan) is still in the lists, but gone. */
#define IS_ALIVE(node) (Py_REFCNT(node) > 0)

static PyObject *
Node_get_dependants(Node *self, void *Py_UNUSED(closure))
{
    PyObject *nodes = PyList_New(0);
    for (Edge *edge = self->first_dependant; nodes != NULL && edge != NULL; edge = edge->next) {
        if (IS_ALIVE(edge->dependant) && PyList_Append(nodes, (PyObject *)edge->dependant) < 0) {
            Py_CLEAR(nodes);
        }
    }
    PyObject *result = nodes == NULL ? NULL : PyList_AsTuple(nodes);
    Py_XDECREF(nodes);
    return result;
}

static PyMemberDef Node_members[] = {
    {"keeper", T_OBJECT_EX, offsetof(Node, keeper), READONLY, "Where it is kept."},
    {"key", T_OBJECT_EX, offsetof(Node, key), READONLY, "Under which it is kept."},
    {"parent", T_OBJECT, offsetof(Node, parent), 0, "The context of the call, while computing."},
    {"_value", T_OBJECT, offsetof(Node, value), READONLY, "The value."},
    {"_error", T_OBJECT, offsetof(Node, error), READONLY, "The error, or None."},
    {"cause", T_OBJECT, offsetof(Node, cause), 0, "Why it went, or will go, stale."},
    {"extra", T_OBJECT, offsetof(Node, extra), 0, "What only some nodes have."},
    {"version", T_LONGLONG, offsetof(Node, version), READONLY, "Unique in this process."},
    {"used", T_LONGLONG, offsetof(Node, used), 0, "The tick of the last use."},
    {"state", T_UBYTE, offsetof(Node, state), READONLY, "COMPUTING, CONSISTENT or INVALIDATED."},
    {"flags", T_UBYTE, offsetof(Node, flags), 0, "See the constants in `_context`."},
    {NULL}};

static PyGetSetDef Node_properties[] = {
    {"args", (getter)Node_get_args, NULL, "The arguments to compute this result again with."},
    {"dependencies", (getter)Node_get_dependencies, NULL,
     "The nodes that this one was computed from, in the order of their first use."},
    {"dependants", (getter)Node_get_dependants, NULL,
     "The living nodes that were computed from this one, in the order in which they were."},
    {NULL}};

static PyObject *
Node_touch(Node *self, PyObject *Py_UNUSED(none))
{
    self->used = tick;
    Py_RETURN_NONE;
}

static PyMethodDef Node_methods[] = {
    {"_touch", (PyCFunction)Node_touch, METH_NOARGS, "Note that the node was used just now."},
    {"_use", (PyCFunction)Node_use, METH_O, "Note that the body of this node used another."},
    {"_finish", (PyCFunction)(void (*)(void))Node_finish, METH_FASTCALL,
     "Set the result, link the edges, and publish the node."},
    {"send", (PyCFunction)Node_send, METH_O, "Step the finished coroutine that a result is."},
    {"throw", (PyCFunction)(void (*)(void))Node_throw, METH_FASTCALL,
     "Raise an error, as a finished coroutine does."},
    {"close", (PyCFunction)Node_close, METH_NOARGS, "Do nothing: there is nothing to stop."},
    {NULL}};

static PyAsyncMethods Node_async = {
    .am_await = Node_await,
    .am_send = (sendfunc)Node_am_send,
};

static PyTypeObject NodeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "afresh.graph._speedups.Node",
    .tp_doc = "One result: its keeper and key, its state, its value or error, and its edges.",
    .tp_basicsize = sizeof(Node),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Node_init,
    .tp_dealloc = (destructor)Node_dealloc,
    .tp_traverse = (traverseproc)Node_traverse,
    .tp_clear = (inquiry)Node_clear,
    .tp_weaklistoffset = offsetof(Node, weak_references),
    .tp_as_async = &Node_async,
    .tp_iternext = (iternextfunc)Node_iternext,
    .tp_members = Node_members,
    .tp_getset = Node_properties,
    .tp_methods = Node_methods,
};

/* ------------------------------------------------------------------------------- invalidation */

typedef struct {
    Node **nodes;            /* strong references */
    Py_ssize_t count;
    Py_ssize_t capacity;
} Stack;

static int
push(Stack *stack, Node *node)
{
    if (stack->count == stack->capacity) {
        Py_ssize_t capacity = stack->capacity == 0 ? 64 : 2 * stack->capacity;
        Node **nodes = PyMem_Realloc(stack->nodes, capacity * sizeof(Node *));
        if (nodes == NULL) {
            return -1;
        }
        stack->nodes = nodes;
        stack->capacity = capacity;
    }
    stack->nodes[stack->count++] = (Node *)Py_NewRef(node);
    return 0;
}

static void
forget(Node *node)
{
    PyObject *entries = node->keeper->entries;
    if (entries == NULL) {
        return;
    }
    if (PyDict_GetItemWithError(entries, node->key) == (PyObject *)node) {
        if (PyDict_DelItem(entries, node->key) == 0 && PyDict_GET_SIZE(entries) == 0) {
            PyDict_Clear(entries);  /* an emptied dict keeps its memory, a cleared one does not */
        }
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)node);
    }
}

/* Move the dependants of `node`, which just went stale, to the stack: the first one on top. */
static void
push_dependants(Node *node, Stack *stack)
{
    Edge *edge = node->first_dependant;
    Py_ssize_t bottom = stack->count;
    Stack delayed = {NULL, 0, 0};
    node->first_dependant = node->last_dependant = NULL;
    for (Edge *next; edge != NULL; edge = next) {
        Node *dependant = edge->dependant;
        next = edge->next;
        edge->dependant = NULL;
        edge->previous = edge->next = NULL;
        if (!IS_ALIVE(dependant)) {
            continue;
        }
        if (!IS_SET(dependant->cause)) {
            PyObject *cause = chain_causes ? (PyObject *)node : node->cause;
            Py_XSETREF(dependant->cause, Py_XNewRef(cause));
        }
        if (push(dependant->flags & DELAYED ? &delayed : stack, dependant) < 0) {
            Py_FatalError("afresh: out of memory while invalidating");
        }
    }
    for (Py_ssize_t low = bottom, high = stack->count - 1; low < high; low++, high--) {
        Node *other = stack->nodes[low];
        stack->nodes[low] = stack->nodes[high];
        stack->nodes[high] = other;
    }
    /* Only now, as it runs Python code, which may change any list. */
    for (Py_ssize_t i = 0; i < delayed.count; i++) {
        notify((PyObject *)delayed.nodes[i], str_delay, NULL);
        Py_DECREF(delayed.nodes[i]);
    }
    PyMem_Free(delayed.nodes);
}

static void
cascade(Node *root)
{
    Stack stack = {NULL, 0, 0};
    if (push(&stack, root) < 0) {
        Py_FatalError("afresh: out of memory while invalidating");
    }
    while (stack.count > 0) {
        Node *node = stack.nodes[--stack.count];
        if (node->state == CONSISTENT) {  /* else a handler came first */
            node->state = INVALIDATED;
            if (IS_SET(node->extra)) {
                notify((PyObject *)node, str_gone, NULL);
            }
            else {
                forget(node);
            }
            if (observer != NULL) {
                notify(observer, str_invalidated, (PyObject *)node);
            }
            push_dependants(node, &stack);
            detach(node);
        }
        Py_DECREF(node);
    }
    PyMem_Free(stack.nodes);
}

static void
invalidate_node(Node *node, PyObject *cause, int now)
{
    if (!IS_SET(node->cause)) {
        Py_XSETREF(node->cause, Py_XNewRef(cause));
    }
    if (node->state == COMPUTING) {
        node->flags |= now ? PENDING | PENDING_NOW : PENDING;
    }
    else if (node->state == CONSISTENT) {
        if (node->flags & DELAYED && !now) {
            notify((PyObject *)node, str_delay, NULL);
        }
        else {
            cascade(node);
        }
    }
}

static PyObject *
kernel_invalidate(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"node", "cause", "now", NULL};
    PyObject *node, *cause = Py_None;
    int now = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|Op", names, &NodeType, &node, &cause,
                                     &now)) {
        return NULL;
    }
    Py_INCREF(node);
    invalidate_node((Node *)node, cause, now);
    Py_DECREF(node);
    return none_or_interruption();
}

/* -------------------------------------------------------------------------------------- calls */

static int
Signature_init(Signature *self, PyObject *definition)
{
    PyObject *parameters = PyObject_GetAttr(definition, str_parameters);
    PyObject *names = parameters ? PyObject_GetAttr(parameters, str_names) : NULL;
    PyObject *plain_keys = names ? PyObject_GetAttr(definition, str_plain_keys) : NULL;
    PyObject *plain_types = plain_keys ? PyObject_GetAttr(definition, str_plain_types) : NULL;
    int result = -1;
    if (plain_types != NULL) {
        self->arity = PyObject_Length(names);
        self->plain_keys = PyObject_IsTrue(plain_keys);
        if (self->arity >= 0 && self->plain_keys >= 0) {
            Py_XSETREF(self->definition, Py_NewRef(definition));
            Py_XSETREF(self->plain_types, Py_NewRef(plain_types));
            result = 0;
        }
    }
    Py_XDECREF(parameters);
    Py_XDECREF(names);
    Py_XDECREF(plain_keys);
    Py_XDECREF(plain_types);
    return result;
}

/* 1: can be part of a key as it is; 0: not, or not known yet; -1: error. */
static inline int
is_plain(Signature *signature, PyObject *argument)
{
    if (PyLong_CheckExact(argument) || PyUnicode_CheckExact(argument)) {
        return 1;
    }
    return PySet_Contains(signature->plain_types, (PyObject *)Py_TYPE(argument));
}

static PyObject *
tuple_of(PyObject *const *args, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    return tuple;
}

/* Say which argument it is that can't be hashed. */
static void
explain_unhashable(Signature *signature, PyObject *const *args)
{
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
        return;
    }
    PyObject *kind, *error, *traceback;
    PyErr_Fetch(&kind, &error, &traceback);
    PyErr_NormalizeException(&kind, &error, &traceback);
    PyObject *arguments = tuple_of(args, signature->arity);
    PyObject *better = arguments
        ? PyObject_CallMethodOneArg(signature->definition, str_unhashable, arguments)
        : NULL;
    Py_XDECREF(arguments);
    if (better != NULL) {
        PyException_SetCause(better, Py_XNewRef(error));
        PyErr_SetObject((PyObject *)Py_TYPE(better), better);
        Py_DECREF(better);
    }
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
}

/* The key for arguments that are lined up, one for each parameter. */
static inline PyObject *
key_of(Signature *signature, PyObject *const *args)
{
    Py_ssize_t arity = signature->arity;
    int plain = signature->plain_keys;
    for (Py_ssize_t i = 0; plain > 0 && i < arity; i++) {
        plain = is_plain(signature, args[i]);
    }
    if (plain < 0) {
        return NULL;
    }
    if (plain) {
        return arity == 1 ? Py_NewRef(args[0]) : tuple_of(args, arity);
    }
    PyObject *arguments = tuple_of(args, arity);
    if (arguments == NULL) {
        return NULL;
    }
    PyObject *key = PyObject_CallMethodOneArg(signature->definition, str_key_of, arguments);
    Py_DECREF(arguments);
    return key;
}

/* Those arguments as a tuple: the key itself where it is one of them all. */
static PyObject *
arguments_of(Signature *signature, PyObject *const *args, PyObject *key)
{
    Py_ssize_t arity = signature->arity;
    int is_key = arity != 1 && PyTuple_CheckExact(key) && PyTuple_GET_SIZE(key) == arity;
    for (Py_ssize_t i = 0; is_key && i < arity; i++) {
        is_key = PyTuple_GET_ITEM(key, i) == args[i];
    }
    return is_key ? Py_NewRef(key) : tuple_of(args, arity);
}

/* What a call returns that found `node` (borrowed). */
static inline PyObject *
hand_out(Node *node)
{
    PyObject *context = NULL;
    Py_INCREF(node);
    node->used = tick;
    if (hit_sampler != NULL) {
        PyObject *sampled = PyObject_CallOneArg(hit_sampler, (PyObject *)node);
        if (sampled == NULL) {
            PyErr_WriteUnraisable(hit_sampler);
        }
        Py_XDECREF(sampled);
    }
    if (PyContextVar_Get(current, Py_None, &context) < 0) {
        Py_DECREF(node);
        return NULL;
    }
    if (context == Py_None) {
        Py_DECREF(context);
        return (PyObject *)node;
    }
    PyObject *result = (PyObject *)node;
    if (!IS_NODE(context)) {
        result = PyObject_CallMethodOneArg(context, str_hit, (PyObject *)node);
        Py_DECREF(node);
    }
    else if (((Node *)context)->state == COMPUTING && add_use((Node *)context, node) < 0) {
        result = NULL;
        Py_DECREF(node);
    }
    Py_DECREF(context);
    return result;
}

/* Answer a call whose arguments are lined up. */
static PyObject *
answer(Signature *signature, Keeper *table, PyObject *const *args)
{
    PyObject *key = key_of(signature, args);
    if (key == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    Node *node = (Node *)PyDict_GetItemWithError(table->entries, key);
    if (node != NULL) {
        result = hand_out(node);
    }
    else if (PyErr_Occurred()) {
        explain_unhashable(signature, args);
    }
    else {
        PyObject *arguments = arguments_of(signature, args, key);
        if (arguments != NULL) {
            PyObject *call[] = {(PyObject *)table, key, arguments};
            result = PyObject_VectorcallMethod(str_miss, call, 3, NULL);
            Py_DECREF(arguments);
        }
    }
    Py_DECREF(key);
    return result;
}

/* The key and the arguments as a pair: what is asked for before anything but a call. */
static PyObject *
key_and_arguments(Signature *signature, Keeper *Py_UNUSED(table), PyObject *const *args)
{
    PyObject *key = key_of(signature, args);
    PyObject *arguments = key == NULL ? NULL : arguments_of(signature, args, key);
    PyObject *pair = arguments == NULL ? NULL : PyTuple_Pack(2, key, arguments);
    Py_XDECREF(key);
    Py_XDECREF(arguments);
    return pair;
}

typedef PyObject *(*Purpose)(Signature *, Keeper *, PyObject *const *);

/* Fill in defaults and sort out arguments given by name, then do `purpose` with the result. */
static PyObject *
line_up(Purpose purpose, Signature *signature, Keeper *table, PyObject *const *args,
        Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *result = NULL, *lined_up = NULL;
    PyObject *positional = tuple_of(args, nargs);
    PyObject *named = PyDict_New();
    PyObject *parameters = PyObject_GetAttr(signature->definition, str_parameters);
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (positional == NULL || named == NULL || parameters == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]) < 0) {
            goto done;
        }
    }
    PyObject *call[] = {parameters, positional, named};
    lined_up = PyObject_VectorcallMethod(str_bind, call, 3, NULL);
    if (lined_up == NULL) {
        goto done;
    }
    if (!PyTuple_CheckExact(lined_up) || PyTuple_GET_SIZE(lined_up) != signature->arity) {
        PyErr_SetString(PyExc_SystemError, "bind() must return one argument for each parameter");
        goto done;
    }
    result = purpose(signature, table, ((PyTupleObject *)lined_up)->ob_item);
done:
    Py_XDECREF(positional);
    Py_XDECREF(named);
    Py_XDECREF(parameters);
    Py_XDECREF(lined_up);
    return result;
}

static inline PyObject *
call_table(Purpose purpose, Signature *signature, Keeper *table, PyObject *const *args,
           Py_ssize_t nargs, PyObject *kwnames)
{
    if (kwnames == NULL && nargs == signature->arity && signature->plain_keys) {
        return purpose(signature, table, args);
    }
    return line_up(purpose, signature, table, args, nargs, kwnames);
}

/* -------------------------------------------------------------------------------------- Bound */

static PyObject *
Bound_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Bound *self = (Bound *)callable;
    return call_table(answer, &self->signature, self->table, args, PyVectorcall_NARGS(nargsf),
                      kwnames);
}

static PyObject *
Bound_key(Bound *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return call_table(key_and_arguments, &self->signature, self->table, args, nargs, kwnames);
}

static PyMethodDef Bound_methods[] = {
    {"_key", (PyCFunction)(void (*)(void))Bound_key, METH_FASTCALL | METH_KEYWORDS,
     "The key of a call, and its arguments, one for each parameter."},
    {NULL}};

static PyObject *
Bound_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Bound *self = (Bound *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = Bound_vectorcall;
    }
    return (PyObject *)self;
}

static int
Bound_init(Bound *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"table", NULL};
    PyObject *table;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, &KeeperType, &table)) {
        return -1;
    }
    PyObject *definition = PyObject_GetAttr(table, str_definition);
    if (definition == NULL) {
        return -1;
    }
    int result = Signature_init(&self->signature, definition);
    Py_DECREF(definition);
    if (result == 0) {
        Py_XSETREF(self->table, (Keeper *)Py_NewRef(table));
    }
    return result;
}

static int
Bound_traverse(Bound *self, visitproc visit, void *arg)
{
    Py_VISIT(self->table);
    Py_VISIT(self->signature.definition);
    Py_VISIT(self->signature.plain_types);
    return 0;
}

static int
Bound_clear(Bound *self)
{
    Py_CLEAR(self->table);
    Py_CLEAR(self->signature.definition);
    Py_CLEAR(self->signature.plain_types);
    return 0;
}

static void
Bound_dealloc(Bound *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Bound_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef Bound_members[] = {
    {"table", T_OBJECT_EX, offsetof(Bound, table), READONLY, "The results."},
    {NULL}};

static PyTypeObject BoundType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "afresh.graph._speedups.Bound",
    .tp_doc = "A compute method of one service instance, or a compute function.",
    .tp_basicsize = sizeof(Bound),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
        | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_new = Bound_new,
    .tp_init = (initproc)Bound_init,
    .tp_dealloc = (destructor)Bound_dealloc,
    .tp_traverse = (traverseproc)Bound_traverse,
    .tp_clear = (inquiry)Bound_clear,
    .tp_weaklistoffset = offsetof(Bound, weak_references),
    .tp_vectorcall_offset = offsetof(Bound, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_members = Bound_members,
    .tp_methods = Bound_methods,
};

/* ------------------------------------------------------------------------------------- Method */

/* The table of `instance`, borrowed; NULL without an exception where a subclass overrides it. */
static Keeper *
find_table(Method *self, PyObject *instance)
{
    PyObject *table = PyObject_CallMethodOneArg(self->signature.definition, str_table_of, instance);
    if (table == NULL) {
        return NULL;
    }
    if (!PyObject_TypeCheck(table, &KeeperType)) {
        Py_DECREF(table);
        return NULL;
    }
    Keeper *keeper = (Keeper *)table;
    size_t slot = CACHE_SLOT(instance);
    Keeper *previous = self->cache[slot].keeper;
    if (previous != NULL) {
        previous->cached_in = NULL;  /* it may outlive this method, and must not look for it then */
    }
    self->cache[slot].instance = instance;
    self->cache[slot].keeper = keeper;
    keeper->cached_in = self;
    Py_DECREF(table);  /* the instance keeps it */
    return keeper;
}

static PyObject *
Method_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Method *self = (Method *)callable;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs < 1) {
        PyErr_Format(PyExc_TypeError, "%R is called on an instance", callable);
        return NULL;
    }
    PyObject *instance = args[0];
    size_t slot = CACHE_SLOT(instance);
    Keeper *table = self->cache[slot].keeper;
    if (self->cache[slot].instance != instance || table == NULL) {
        table = find_table(self, instance);
        if (table == NULL) {
            if (PyErr_Occurred()) {
                return NULL;
            }
            PyObject *function = PyObject_GetAttr(self->signature.definition, str_function);
            if (function == NULL) {
                return NULL;
            }
            PyObject *result = PyObject_Vectorcall(function, args, nargs, kwnames);
            Py_DECREF(function);
            return result;
        }
    }
    if (nargs == 2 && kwnames == NULL && self->signature.arity == 1 && self->signature.plain_keys
        && (PyLong_CheckExact(args[1]) || PyUnicode_CheckExact(args[1]))) {
        /* By far the most frequent call: one argument that is its own key. */
        Node *node = (Node *)PyDict_GetItemWithError(table->entries, args[1]);
        if (node != NULL) {
            return hand_out(node);
        }
        PyErr_Clear();  /* another key could not be compared; what follows says so */
    }
    return call_table(answer, &self->signature, table, args + 1, nargs - 1, kwnames);
}

static PyObject *
Method_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"definition", NULL};
    PyObject *definition;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &definition)) {
        return NULL;
    }
    Method *self = (Method *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = Method_vectorcall;
    if (Signature_init(&self->signature, definition) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Method_traverse(Method *self, visitproc visit, void *arg)
{
    Py_VISIT(self->signature.definition);
    Py_VISIT(self->signature.plain_types);
    return 0;
}

static int
Method_clear(Method *self)
{
    for (int i = 0; i < CACHE_SIZE; i++) {
        if (self->cache[i].keeper != NULL) {
            self->cache[i].keeper->cached_in = NULL;
            self->cache[i].keeper = NULL;
            self->cache[i].instance = NULL;
        }
    }
    Py_CLEAR(self->signature.definition);
    Py_CLEAR(self->signature.plain_types);
    return 0;
}

static void
Method_dealloc(Method *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Method_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
Method_get(Method *self, PyObject *instance, PyObject *Py_UNUSED(owner))
{
    if (instance == NULL || instance == Py_None) {
        return Py_NewRef(self);
    }
    size_t slot = CACHE_SLOT(instance);
    if (self->cache[slot].instance == instance && self->cache[slot].keeper != NULL) {
        return PyObject_GetAttr((PyObject *)self->cache[slot].keeper, str_bound);
    }
    return PyObject_CallMethodOneArg(self->signature.definition, str_bind, instance);
}

static PyObject *
Method_getattro(Method *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr((PyObject *)self, name);
    if (found == NULL && self->signature.definition != NULL
        && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        found = PyObject_GetAttr(self->signature.definition, name);
    }
    return found;
}

static PyObject *
Method_set_name(Method *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "__set_name__() takes a class and a name");
        return NULL;
    }
    PyObject *call[] = {self->signature.definition, args[0], args[1]};
    PyObject *result = PyObject_VectorcallMethod(str_named, call, 3, NULL);
    if (result == NULL) {
        return NULL;
    }
    /* What keys are made of may come from the method that this one overrides. */
    PyObject *definition = Py_NewRef(self->signature.definition);
    if (Signature_init(&self->signature, definition) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(definition);
    return result;
}

static PyObject *
Method_repr(Method *self)
{
    return PyObject_Repr(self->signature.definition);
}

static PyObject *
Method_get_doc(Method *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(self->signature.definition, "__doc__");
}

static PyObject *
Method_get_definition(Method *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->signature.definition);
}

static PyObject *
Method_get_abstract(Method *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(self->signature.definition, "__isabstractmethod__");
}

/* For `@abstractmethod` written above the decorator. */
static int
Method_set_abstract(Method *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "__isabstractmethod__ can't be deleted");
        return -1;
    }
    return PyObject_SetAttrString(self->signature.definition, "__isabstractmethod__", value);
}

static PyMethodDef Method_methods[] = {
    {"__set_name__", (PyCFunction)(void (*)(void))Method_set_name, METH_FASTCALL,
     "Tell the definition where it stands."},
    {NULL}};

static PyGetSetDef Method_properties[] = {
    {"__doc__", (getter)Method_get_doc, NULL, NULL},
    {"definition", (getter)Method_get_definition, NULL, "The declaration."},
    {"__isabstractmethod__", (getter)Method_get_abstract, (setter)Method_set_abstract, NULL},
    {NULL}};

static PyTypeObject MethodType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "afresh.graph._speedups.Method",
    .tp_basicsize = sizeof(Method),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
        | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_new = Method_new,
    .tp_dealloc = (destructor)Method_dealloc,
    .tp_traverse = (traverseproc)Method_traverse,
    .tp_clear = (inquiry)Method_clear,
    .tp_weaklistoffset = offsetof(Method, weak_references),
    .tp_vectorcall_offset = offsetof(Method, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = (descrgetfunc)Method_get,
    .tp_getattro = (getattrofunc)Method_getattro,
    .tp_repr = (reprfunc)Method_repr,
    .tp_methods = Method_methods,
    .tp_getset = Method_properties,
};

/* ------------------------------------------------------------------------------------- module */

static void
set_or_clear(PyObject **variable, PyObject *value)
{
    Py_XSETREF(*variable, IS_SET(value) ? Py_NewRef(value) : NULL);
}

static PyObject *
kernel_configure(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"room", "make_room", "hit_sampler", "observer", "chain_causes", NULL};
    PyObject *new_room = NULL, *new_make_room = NULL, *new_sampler = NULL, *new_observer = NULL;
    PyObject *new_chain = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOO", names, &new_room, &new_make_room,
                                     &new_sampler, &new_observer, &new_chain)) {
        return NULL;
    }
    if (new_room != NULL) {
        long long value = PyLong_AsLongLong(new_room);
        if (value == -1 && PyErr_Occurred()) {
            return NULL;
        }
        room = value;
    }
    if (new_chain != NULL) {
        int value = PyObject_IsTrue(new_chain);
        if (value < 0) {
            return NULL;
        }
        chain_causes = value;
    }
    if (new_make_room != NULL) {
        set_or_clear(&make_room, new_make_room);
    }
    if (new_sampler != NULL) {
        set_or_clear(&hit_sampler, new_sampler);
    }
    if (new_observer != NULL) {
        set_or_clear(&observer, new_observer);
    }
    Py_RETURN_NONE;
}

static PyObject *
kernel_advance_tick(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return PyLong_FromLongLong(tick++);
}

static PyMethodDef kernel_methods[] = {
    {"invalidate", (PyCFunction)(void (*)(void))kernel_invalidate, METH_VARARGS | METH_KEYWORDS,
     "Make a node stale and, depth first, everything computed from it."},
    {"configure", (PyCFunction)(void (*)(void))kernel_configure, METH_VARARGS | METH_KEYWORDS,
     "Set the kernel's variables."},
    {"advance_tick", kernel_advance_tick, METH_NOARGS,
     "Return the tick that marks all uses up to now; those that follow get a higher one."},
    {NULL}};

static struct PyModuleDef kernel_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "afresh.graph._speedups",
    .m_doc = "The graph's kernel in C; `_pure` is its twin in Python.",
    .m_size = -1,
    .m_methods = kernel_methods,
};

static int
add_names(void)
{
    struct {
        PyObject **variable;
        const char *name;
    } names[] = {
        {&str_miss, "miss"},
        {&str_hit, "_hit"},
        {&str_raise, "_raise"},
        {&str_gone, "_gone"},
        {&str_delay, "_delay"},
        {&str_replaced, "_replaced"},
        {&str_computed, "computed"},
        {&str_invalidated, "invalidated"},
        {&str_definition, "definition"},
        {&str_parameters, "parameters"},
        {&str_names, "names"},
        {&str_plain_keys, "plain_keys"},
        {&str_plain_types, "plain_types"},
        {&str_key_of, "key_of"},
        {&str_unhashable, "unhashable"},
        {&str_bind, "bind"},
        {&str_table_of, "table_of"},
        {&str_function, "function"},
        {&str_named, "named"},
        {&str_bound, "bound"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *names[i].variable = PyUnicode_InternFromString(names[i].name);
        if (*names[i].variable == NULL) {
            return -1;
        }
    }
    return 0;
}

PyMODINIT_FUNC
PyInit__speedups(void)
{
    PyObject *context = PyImport_ImportModule("afresh.graph._context");
    if (context == NULL) {
        return NULL;
    }
    current = PyObject_GetAttrString(context, "current");
    Py_DECREF(context);
    empty_tuple = PyTuple_New(0);
    if (current == NULL || empty_tuple == NULL || add_names() < 0) {
        return NULL;
    }
    if (!PyContextVar_CheckExact(current)) {
        PyErr_SetString(PyExc_TypeError, "afresh.graph._context.current is no ContextVar");
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    FinishedType.tp_base = (PyTypeObject *)PyExc_StopIteration;
    if (PyType_Ready(&FinishedType) < 0) {
        return NULL;
    }
#endif
    PyObject *module = PyModule_Create(&kernel_module);
    if (module == NULL) {
        return NULL;
    }
    if (PyModule_AddType(module, &KeeperType) < 0 || PyModule_AddType(module, &NodeType) < 0
        || PyModule_AddType(module, &MethodType) < 0 || PyModule_AddType(module, &BoundType) < 0
        || PyModule_AddObjectRef(module, "COMPILED", Py_True) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
