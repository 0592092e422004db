// Stands for the library of Python 3.14 or later, where there is none: the functions of PEP 741, over a Python that has
// only those before them. A program that used these itself would end.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int type;
    const char *function, *message;
    int exit_code;
} status;

typedef struct {
    long long preconfig[2048], config[2048];
    char *program;
    const char *message;
} settings;

#define REAL(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

void PyConfig_SetBytesArgv(void) { abort(); }
void Py_InitializeFromConfig(void) { abort(); }

settings *PyInitConfig_Create(void) {
    settings *made = calloc(1, sizeof(settings));
    REAL(void, PyPreConfig_InitIsolatedConfig, void *)(made->preconfig);
    return made;
}

int PyInitConfig_SetInt(settings *made, const char *name, int64_t value) {
    if (strcmp(name, "utf8_mode") == 0) return ((int *)made->preconfig)[7] = (int)value, 0;
    made->message = "unknown option";
    return -1;
}

int PyInitConfig_SetStrList(settings *made, const char *name, size_t length, char *const *items) {
    made->message = "unknown list";
    if (strcmp(name, "argv") || length != 1) return -1;
    made->program = strdup(items[0]);
    return 0;
}

int Py_InitializeFromInitConfig(settings *made) {
    made->message = "refused by a test";
    if (strstr(made->program, "refused")) return -1;
    REAL(status, Py_PreInitialize, void *)(made->preconfig);
    REAL(void, PyConfig_InitIsolatedConfig, void *)(made->config);
    REAL(status, PyConfig_SetBytesArgv, void *, long, char **)(made->config, 1, &made->program);
    return REAL(status, Py_InitializeFromConfig, void *)(made->config).type ? -1 : 0;
}

int PyInitConfig_GetError(settings *made, const char **message) {
    *message = made->message;
    return 1;
}

void PyInitConfig_Free(settings *made) {
    free(made->program);
    free(made);
}
