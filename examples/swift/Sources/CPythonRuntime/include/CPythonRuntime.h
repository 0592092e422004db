/// What Swift cannot say well: CPython in this process without its headers, and a helper process on a socket pair.
#ifndef CPYTHON_RUNTIME_H
#define CPYTHON_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bytes that belong to the caller.
typedef struct {
    const void *data;
    size_t length;
} cpr_bytes;

// Helper process

/// A process whose standard input and output are one end of a socket pair, and its standard error a pipe.
typedef struct {
    pid_t process;
    int socket;        ///< our end
    int error_output;  ///< what it prints
} cpr_helper;

/// Start a process. Our descriptors are closed in all other children.
/// `arguments` and `environment` end with NULL; the first argument is the executable's path.
/// Returns 0, or errno.
int cpr_helper_start(char *const arguments[], char *const environment[], cpr_helper *helper);

/// Write all of it; or, if it must not wait, what the socket takes at once. Never raises SIGPIPE.
/// Returns how many bytes were written, or -1 if nobody reads any more.
ssize_t cpr_send(int socket, const void *data, size_t length, bool waits);

/// Wait for the end of a process, whose number stays its own until `cpr_reap`.
void cpr_wait(pid_t process);

/// The exit status of a process that has ended, or minus the signal that ended it.
int cpr_reap(pid_t process);

// Python in this process

/// An event of the engine, as JSON that is valid until this returns. Called on the engine's thread, without the GIL.
typedef void (*cpr_event)(void *context, const char *json, size_t length);

/// Start Python, and an engine on a thread of its own that never ends. Once in a process: later calls return the result
/// of the first, and the first one's callback stays.
/// Blocks until the engine is there, so never call it where others wait.
///
/// - library: path of libpython, or of the framework's binary.
/// - program: the environment's `bin/python`; it need not exist where the standard library lies beside it.
/// - search_paths: `count` folders that come first in `sys.path`.
/// - error: filled with one line if it fails.
///
/// Returns 0, or -1.
int cpr_python_start(const char *library, const char *program, const char *const *search_paths, size_t count,
                     cpr_event callback, void *context, char *error, size_t error_size);

/// Whether `cpr_python_start` was called.
int cpr_python_is_started(void);

/// `Engine.submit`. Returns 0, or -1 with one line in `error`.
int cpr_python_submit(cpr_bytes message, const cpr_bytes *attachments, size_t count, char *error, size_t error_size);

/// `Engine.cancel`.
void cpr_python_cancel(int64_t request);

/// `Engine.push_frame`. Returns whether frames are still wanted.
int cpr_python_push_frame(int64_t source, cpr_bytes data, int64_t width, int64_t height, int64_t bytes_per_row,
                          const char *format, double seconds);

#ifdef __cplusplus
}
#endif

#endif
