// CPython by its stable functions, found in a library that is opened at run time. No Python headers are needed, and none
// of the variadic functions is used: they are called in another way on Apple silicon.
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "CPythonRuntime.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct object object;  // PyObject
typedef struct {               // PyStatus, which is returned by value
    int type;
    const char *function;
    const char *message;
    int exit_code;
} status;

enum {
    CONFIG_BYTES = 16 * 1024,  // PyConfig takes 424 to 448 bytes in 3.11 to 3.13; it is not used from 3.14 on
    UTF8_MODE = 7,             // which int of PyPreConfig, on POSIX
    STACK_BYTES = 16 * 1024 * 1024,
    LINE = 512,
};

static struct {
    // To start Python up to 3.13
    void (*PyPreConfig_InitIsolatedConfig)(void *);
    status (*Py_PreInitialize)(const void *);
    void (*PyConfig_InitIsolatedConfig)(void *);
    status (*PyConfig_SetBytesArgv)(void *, ssize_t, char *const *);
    status (*Py_InitializeFromConfig)(const void *);
    void (*PyConfig_Clear)(void *);
    // To start it from 3.14 on (PEP 741)
    void *(*PyInitConfig_Create)(void);
    int (*PyInitConfig_SetInt)(void *, const char *, int64_t);
    int (*PyInitConfig_SetStrList)(void *, const char *, size_t, char *const *);
    int (*Py_InitializeFromInitConfig)(void *);
    int (*PyInitConfig_GetError)(void *, const char **);
    void (*PyInitConfig_Free)(void *);
    // In all of them
    int (*Py_IsInitialized)(void);
    const char *(*Py_GetVersion)(void);
    void *(*PyEval_SaveThread)(void);
    int (*PyGILState_Ensure)(void);
    void (*PyGILState_Release)(int);
    object *(*PyImport_ImportModule)(const char *);
    object *(*PyObject_GetAttrString)(object *, const char *);
    object *(*PyObject_CallObject)(object *, object *);
    object *(*PyObject_Str)(object *);
    object *(*PyTuple_New)(ssize_t);
    int (*PyTuple_SetItem)(object *, ssize_t, object *);
    object *(*PyList_New)(ssize_t);
    int (*PyList_Append)(object *, object *);
    object *(*PyLong_FromLongLong)(long long);
    object *(*PyFloat_FromDouble)(double);
    object *(*PyBytes_FromStringAndSize)(const char *, ssize_t);
    object *(*PyUnicode_FromStringAndSize)(const char *, ssize_t);
    const char *(*PyUnicode_AsUTF8AndSize)(object *, ssize_t *);
    int (*PyObject_IsTrue)(object *);
    void (*PyErr_Fetch)(object **, object **, object **);
    void (*PyErr_NormalizeException)(object **, object **, object **);
    void (*PyErr_Clear)(void);
    void (*Py_DecRef)(object *);
} py;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_begun, is_done;
    int result;
    char error[LINE];
    char *library, *program;
    char **search_paths;
    size_t count;
    cpr_event callback;
    void *context;
    object *submit, *cancel, *push_frame, *step;  // methods of the engine
} state = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool find_functions(void *library, char *error) {
#define FIND(name)                                                                        \
    if (!(*(void **)&py.name = dlsym(library, #name))) {                                  \
        snprintf(error, LINE, "%s is no Python 3.11 or later: it has no " #name, state.library); \
        return false;                                                                     \
    }
    if (dlsym(library, "PyInitConfig_Create")) {
        FIND(PyInitConfig_Create)
        FIND(PyInitConfig_SetInt)
        FIND(PyInitConfig_SetStrList)
        FIND(Py_InitializeFromInitConfig)
        FIND(PyInitConfig_GetError)
        FIND(PyInitConfig_Free)
    } else {
        FIND(PyPreConfig_InitIsolatedConfig)
        FIND(Py_PreInitialize)
        FIND(PyConfig_InitIsolatedConfig)
        FIND(PyConfig_SetBytesArgv)
        FIND(Py_InitializeFromConfig)
        FIND(PyConfig_Clear)
    }
    FIND(Py_IsInitialized)
    FIND(Py_GetVersion)
    FIND(PyEval_SaveThread)
    FIND(PyGILState_Ensure)
    FIND(PyGILState_Release)
    FIND(PyImport_ImportModule)
    FIND(PyObject_GetAttrString)
    FIND(PyObject_CallObject)
    FIND(PyObject_Str)
    FIND(PyTuple_New)
    FIND(PyTuple_SetItem)
    FIND(PyList_New)
    FIND(PyList_Append)
    FIND(PyLong_FromLongLong)
    FIND(PyFloat_FromDouble)
    FIND(PyBytes_FromStringAndSize)
    FIND(PyUnicode_FromStringAndSize)
    FIND(PyUnicode_AsUTF8AndSize)
    FIND(PyObject_IsTrue)
    FIND(PyErr_Fetch)
    FIND(PyErr_NormalizeException)
    FIND(PyErr_Clear)
    FIND(Py_DecRef)
#undef FIND
    return true;
}

/// One line about the exception that is set, which is cleared.
static void take_error(char *error, size_t size) {
    object *type = NULL, *value = NULL, *traceback = NULL;
    py.PyErr_Fetch(&type, &value, &traceback);
    py.PyErr_NormalizeException(&type, &value, &traceback);
    object *name = type ? py.PyObject_GetAttrString(type, "__name__") : NULL;
    object *text = value ? py.PyObject_Str(value) : NULL;
    const char *name_text = name ? py.PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    const char *text_text = text ? py.PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    snprintf(error, size, "%s: %s", name_text ? name_text : "error", text_text ? text_text : "");
    for (char *next = error; *next; next++)
        if (*next == '\n' || *next == '\r') *next = ' ';
    if (text) py.Py_DecRef(text);
    if (name) py.Py_DecRef(name);
    if (type) py.Py_DecRef(type);
    if (value) py.Py_DecRef(value);
    if (traceback) py.Py_DecRef(traceback);
    py.PyErr_Clear();
}

/// Calls with a tuple of new references, which are taken over; any of them may be NULL, and then the call fails.
static object *call(object *function, object *const *arguments, ssize_t count) {
    bool is_whole = function != NULL;
    for (ssize_t n = 0; n < count; n++) is_whole &= arguments[n] != NULL;
    object *tuple = is_whole ? py.PyTuple_New(count) : NULL;
    if (!tuple) {
        for (ssize_t n = 0; n < count; n++)
            if (arguments[n]) py.Py_DecRef(arguments[n]);
        return NULL;
    }
    for (ssize_t n = 0; n < count; n++) py.PyTuple_SetItem(tuple, n, arguments[n]);
    object *result = py.PyObject_CallObject(function, tuple);
    py.Py_DecRef(tuple);
    return result;
}

static object *attribute(object *owner, const char *name) {
    return owner ? py.PyObject_GetAttrString(owner, name) : NULL;
}

static object *text(const char *utf8) { return py.PyUnicode_FromStringAndSize(utf8, (ssize_t)strlen(utf8)); }

static bool does_not_start(const char *message, char *error) {
    snprintf(error, LINE, "Python does not start: %s", message ? message : "it asks to exit");
    return true;
}

static bool failed(status result, char *error) { return result.type != 0 && does_not_start(result.message, error); }

/// Start the interpreter as isolated as possible: no environment, no signal handlers, UTF-8 whatever the locale says.
static bool initialise(char *error) {
    char *arguments[] = {state.program};  // becomes the program's name, by which the environment is found
    if (py.PyInitConfig_Create) {
        void *config = py.PyInitConfig_Create();
        const char *message = "no memory";
        bool is_wrong = !config || py.PyInitConfig_SetInt(config, "utf8_mode", 1) ||
                        py.PyInitConfig_SetStrList(config, "argv", 1, arguments) ||
                        py.Py_InitializeFromInitConfig(config);
        if (is_wrong && config) py.PyInitConfig_GetError(config, &message);
        if (is_wrong) does_not_start(message, error);
        if (config) py.PyInitConfig_Free(config);
        return !is_wrong;
    }
    static long long preconfig[CONFIG_BYTES / sizeof(long long)], config[CONFIG_BYTES / sizeof(long long)];
    py.PyPreConfig_InitIsolatedConfig(preconfig);
    ((int *)preconfig)[UTF8_MODE] = 1;
    if (failed(py.Py_PreInitialize(preconfig), error)) return false;
    py.PyConfig_InitIsolatedConfig(config);
    bool is_wrong = failed(py.PyConfig_SetBytesArgv(config, 1, arguments), error) ||
                    failed(py.Py_InitializeFromConfig(config), error);
    py.PyConfig_Clear(config);
    return !is_wrong;
}

/// Whether `sys.prefix` is the environment's, if it has a pyvenv.cfg: a library of another version passes over it.
static bool check_prefix(char *error) {
    char root[4096], marker[4200];
    snprintf(root, sizeof root, "%s", state.program);
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(root, '/');
        if (!slash) return true;
        *slash = '\0';
    }
    snprintf(marker, sizeof marker, "%s/pyvenv.cfg", root);
    FILE *file = fopen(marker, "r");
    if (!file) return true;
    fclose(file);
    object *sys = py.PyImport_ImportModule("sys");
    object *prefix = attribute(sys, "prefix");
    const char *found = prefix ? py.PyUnicode_AsUTF8AndSize(prefix, NULL) : NULL;
    char *real_found = found ? realpath(found, NULL) : NULL, *real_root = realpath(root, NULL);
    bool is_right = real_found && real_root && strcmp(real_found, real_root) == 0;
    if (!is_right)
        snprintf(error, LINE, "%.120s starts with prefix %.120s, expected %.120s", state.library, found ? found : "none",
                 root);
    free(real_found);
    free(real_root);
    if (prefix) py.Py_DecRef(prefix);
    if (sys) py.Py_DecRef(sys);
    return is_right;
}

static bool extend_path(void) {
    object *sys = py.PyImport_ImportModule("sys");
    object *path = attribute(sys, "path"), *insert = attribute(path, "insert");
    bool is_done = insert != NULL;
    for (size_t n = 0; is_done && n < state.count; n++) {
        object *arguments[] = {py.PyLong_FromLongLong((long long)n), text(state.search_paths[n])};
        object *none = call(insert, arguments, 2);
        is_done = none != NULL;
        if (none) py.Py_DecRef(none);
    }
    if (insert) py.Py_DecRef(insert);
    if (path) py.Py_DecRef(path);
    if (sys) py.Py_DecRef(sys);
    return is_done;
}

/// `sys.path` and the engine. The version check keeps a library of another x.y from passing over the environment's
/// packages in silence.
static bool make_engine(char *error) {
    if (!check_prefix(error)) return false;
    object *module = NULL, *engine = NULL;
    if (extend_path() && (module = py.PyImport_ImportModule("mlx_smolvlm.bridge"))) {
        object *class = attribute(module, "Engine");
        engine = class ? py.PyObject_CallObject(class, NULL) : NULL;
        if (class) py.Py_DecRef(class);
    }
    state.submit = attribute(engine, "submit");
    state.cancel = attribute(engine, "cancel");
    state.push_frame = attribute(engine, "push_frame");
    state.step = attribute(engine, "step");
    bool is_made = state.submit && state.cancel && state.push_frame && state.step;
    if (!is_made) take_error(error, LINE);
    if (module) py.Py_DecRef(module);
    return is_made;  // the engine is never released
}

static bool start(char *error) {
    void *here = dlopen(NULL, RTLD_NOW);
    int (*is_initialised)(void) = NULL;
    if (here) *(void **)&is_initialised = dlsym(here, "Py_IsInitialized");
    bool is_hosted = is_initialised && is_initialised();  // the program has Python already: that one is used
    // Global, because extension modules find Python's functions among the program's.
    void *library = is_hosted ? here : dlopen(state.library, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        snprintf(error, LINE, "%s", dlerror());
        return false;
    }
    if (!find_functions(library, error)) return false;
    if (!is_hosted) {
        if (!initialise(error)) return false;
        bool is_made = make_engine(error);
        py.PyEval_SaveThread();
        return is_made;
    }
    int gil = py.PyGILState_Ensure();
    bool is_made = make_engine(error);
    py.PyGILState_Release(gil);
    return is_made;
}

static void finish_start(int result) {
    pthread_mutex_lock(&state.mutex);
    state.result = result;
    state.is_done = true;
    pthread_cond_broadcast(&state.changed);
    pthread_mutex_unlock(&state.mutex);
}

/// The one thread that owns MLX. It never ends: MLX keeps what belongs to a thread, and some versions abort at its end.
static void *run(void *unused) {
    (void)unused;
    bool is_made = start(state.error);
    finish_start(is_made ? 0 : -1);
    while (is_made) {
        int gil = py.PyGILState_Ensure();
        object *arguments[] = {py.PyFloat_FromDouble(0.5)};
        object *event = call(state.step, arguments, 1);
        ssize_t length = 0;
        const char *json = NULL;
        char *copy = NULL;
        if (event) json = py.PyUnicode_AsUTF8AndSize(event, &length);  // NULL for None
        if (json && (copy = malloc((size_t)length + 1))) memcpy(copy, json, (size_t)length + 1);
        py.PyErr_Clear();
        if (event) py.Py_DecRef(event);
        py.PyGILState_Release(gil);
        if (copy) state.callback(state.context, copy, (size_t)length);
        free(copy);
    }
    return NULL;
}

static int begin(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);  // as CPython's own threads; Apple gives others 512 KB
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int problem = pthread_create(&thread, &attributes, run, NULL);
    pthread_attr_destroy(&attributes);
    return problem;
}

int cpr_python_start(const char *library, const char *program, const char *const *search_paths, size_t count,
                     cpr_event callback, void *context, char *error, size_t error_size) {
    pthread_mutex_lock(&state.mutex);
    if (!state.is_begun) {
        state.is_begun = true;
        state.library = strdup(library);
        state.program = strdup(program);
        state.search_paths = calloc(count + 1, sizeof(char *));
        for (size_t n = 0; n < count; n++) state.search_paths[n] = strdup(search_paths[n]);
        state.count = count;
        state.callback = callback;
        state.context = context;
        if (begin()) {
            state.is_done = true;
            state.result = -1;
            snprintf(state.error, LINE, "no thread of 16 MiB can be started");
        }
    }
    while (!state.is_done) pthread_cond_wait(&state.changed, &state.mutex);
    int result = state.result;
    if (result && error_size) snprintf(error, error_size, "%s", state.error);
    pthread_mutex_unlock(&state.mutex);
    return result;
}

int cpr_python_is_started(void) {
    pthread_mutex_lock(&state.mutex);
    bool is_begun = state.is_begun;
    pthread_mutex_unlock(&state.mutex);
    return is_begun;
}

int cpr_python_submit(cpr_bytes message, const cpr_bytes *attachments, size_t count, char *error, size_t error_size) {
    int gil = py.PyGILState_Ensure();
    object *list = py.PyList_New(0);
    for (size_t n = 0; list && n < count; n++) {
        object *bytes = py.PyBytes_FromStringAndSize(attachments[n].data, (ssize_t)attachments[n].length);
        if (!bytes || py.PyList_Append(list, bytes)) {
            py.Py_DecRef(list);
            list = NULL;
        }
        if (bytes) py.Py_DecRef(bytes);
    }
    object *arguments[] = {py.PyUnicode_FromStringAndSize(message.data, (ssize_t)message.length), list};
    object *none = call(state.submit, arguments, 2);
    if (none)
        py.Py_DecRef(none);
    else
        take_error(error, error_size);
    py.PyGILState_Release(gil);
    return none ? 0 : -1;
}

void cpr_python_cancel(int64_t request) {
    int gil = py.PyGILState_Ensure();
    object *arguments[] = {py.PyLong_FromLongLong(request)};
    object *none = call(state.cancel, arguments, 1);
    if (none) py.Py_DecRef(none);
    py.PyErr_Clear();
    py.PyGILState_Release(gil);
}

int cpr_python_push_frame(int64_t source, cpr_bytes data, int64_t width, int64_t height, int64_t bytes_per_row,
                          const char *format, double seconds) {
    int gil = py.PyGILState_Ensure();
    object *arguments[] = {
        py.PyLong_FromLongLong(source), py.PyBytes_FromStringAndSize(data.data, (ssize_t)data.length),
        py.PyLong_FromLongLong(width),  py.PyLong_FromLongLong(height),
        py.PyLong_FromLongLong(bytes_per_row), text(format),
        py.PyFloat_FromDouble(seconds),
    };
    object *answer = call(state.push_frame, arguments, 7);
    int is_wanted = answer && py.PyObject_IsTrue(answer) == 1;
    if (answer) py.Py_DecRef(answer);
    py.PyErr_Clear();
    py.PyGILState_Release(gil);
    return is_wanted;
}
