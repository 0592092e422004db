// Starts Python as the Swift package does, asks the engine of a test's package for events, and tells what it saw.
// Arguments: library, program, search path, and how the process ends: "return" or "exit".
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "CPythonRuntime.h"

static volatile int seen;

static void on_event(void *context, const char *json, size_t length) {
    (void)context;
    (void)length;
    printf("%s\n", json);
    fflush(stdout);
    seen = 1;
}

static int is_default(int number) {
    struct sigaction action;
    sigaction(number, NULL, &action);
    return action.sa_handler == SIG_DFL;
}

int main(int count, char **arguments) {
    if (count < 5) return 64;
    char error[512] = "";
    const char *paths[] = {arguments[3]};
    int result = cpr_python_start(arguments[1], arguments[2], paths, 1, on_event, NULL, error, sizeof error);
    if (result) {
        printf("error: %s\n", error);
        return 0;  // the process goes on
    }
    printf("handlers %d %d\n", is_default(SIGINT), is_default(SIGPIPE));
    const char *message = "{\"request\": \"ping\"}";
    cpr_bytes attachment = {"abc", 3};
    if (cpr_python_submit((cpr_bytes){message, strlen(message)}, &attachment, 1, error, sizeof error)) return 70;
    cpr_python_cancel(7);
    printf("wanted %d\n", cpr_python_push_frame(3, (cpr_bytes){"1234", 4}, 1, 1, 4, "bgra", 0.5));
    for (int wait = 0; !seen && wait < 6000; wait++) usleep(10000);
    if (strcmp(arguments[4], "exit") == 0) exit(0);
    return 0;
}
