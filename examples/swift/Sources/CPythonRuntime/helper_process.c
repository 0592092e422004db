#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "CPythonRuntime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if !defined(__linux__)
static int close_on_exec(int ends[2]) {
    for (int end = 0; end < 2; end++)
        if (fcntl(ends[end], F_SETFD, FD_CLOEXEC) == -1) return errno;
    return 0;
}
#endif

/// Two ends of a socket pair and of a pipe, which no child inherits.
static int make_ends(int sockets[2], int pipes[2]) {
#if defined(__linux__)  // at once, so that a child that another thread starts meanwhile cannot inherit them
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == -1) return errno;
    if (pipe2(pipes, O_CLOEXEC) == -1) return errno;
    return 0;
#else
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == -1 || pipe(pipes) == -1) return errno;
    int problem = close_on_exec(sockets);
    return problem ? problem : close_on_exec(pipes);
#endif
}

static void close_both(int ends[2]) {
    for (int end = 0; end < 2; end++)
        if (ends[end] != -1) close(ends[end]);
}

int cpr_helper_start(char *const arguments[], char *const environment[], cpr_helper *helper) {
    int sockets[2] = {-1, -1}, pipes[2] = {-1, -1};
    int problem = make_ends(sockets, pipes);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], 0);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], 1);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], 2);
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGTERM);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
#if defined(__APPLE__)
    flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
    int on = 1;
    if (!problem && setsockopt(sockets[0], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) == -1) problem = errno;
#endif
    posix_spawnattr_setflags(&attributes, flags);
    if (!problem)
        problem = posix_spawn(&helper->process, arguments[0], &actions, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (problem) {
        close_both(sockets);
        close_both(pipes);
        return problem;
    }
    close(sockets[1]);
    close(pipes[1]);
    helper->socket = sockets[0];
    helper->error_output = pipes[0];
    return 0;
}

ssize_t cpr_send(int socket, const void *data, size_t length, bool waits) {
    const char *bytes = data;
#if defined(MSG_NOSIGNAL)
    const int flags = MSG_NOSIGNAL | (waits ? 0 : MSG_DONTWAIT);
#else
    const int flags = waits ? 0 : MSG_DONTWAIT;  // SO_NOSIGPIPE is set
#endif
    size_t done = 0;
    while (done < length) {
        ssize_t sent = send(socket, bytes + done, length - done, flags);
        if (sent == -1 && errno == EINTR) continue;
        if (sent == -1 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (sent == -1) return -1;
        done += (size_t)sent;
    }
    return (ssize_t)done;
}

void cpr_wait(pid_t process) {
    siginfo_t information;
    while (waitid(P_PID, (id_t)process, &information, WEXITED | WNOWAIT) == -1)
        if (errno != EINTR) return;  // somebody else has waited for it
}

int cpr_reap(pid_t process) {
    int status = 0;
    while (waitpid(process, &status, 0) == -1)
        if (errno != EINTR) return -1;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
