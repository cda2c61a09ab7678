#include "eval/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"

#define POLL_NANOSECONDS 2000000

typedef enum run_state { WAITING, RUNNING, OVER } run_state;

typedef struct running {
    run_state state;
    pid_t id;
} running;

static lam_status redirect(posix_spawn_file_actions_t *actions, int stream, const char *folder,
                           const char *name, const char *end) {
    char *path;
    LAM_TRY(lam_text_format(&path, "%s/%s%s", folder, name, end));
    int code = posix_spawn_file_actions_addopen(actions, stream, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    lam_free(path);
    LAM_REQUIRE(!code, LAM_ERROR_MEMORY, "out of memory: a process could not be prepared");
    return LAM_OK;
}

static lam_status start(const lam_process *job, const char *folder, const char *program, pid_t *id) {
    const char *words[512] = {program};
    int count = 0;
    for (; job->arguments[count]; count++) {
        LAM_REQUIRE(count < 510, LAM_ERROR_USAGE, "%s: more than 510 words", job->name);
        words[count + 1] = job->arguments[count];
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    LAM_REQUIRE(!posix_spawn_file_actions_init(&actions), LAM_ERROR_MEMORY,
                "out of memory: a process could not be prepared");
    lam_status status = LAM_OK;
    bool attributed = !posix_spawnattr_init(&attributes);
    LAM_REQUIRE_GOTO(attributed &&
                         !posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0),
                     done, LAM_ERROR_MEMORY, "out of memory: a process could not be prepared");
    LAM_TRY_GOTO(redirect(&actions, STDOUT_FILENO, folder, job->name, ".json"), done);
    LAM_TRY_GOTO(redirect(&actions, STDERR_FILENO, folder, job->name, ".log"), done);
    /* This process blocks the signals that it waits for; the new one must get them. */
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char **arguments = (char **)(void *)words; /* posix_spawn does not write to them */
    int code = posix_spawn(id, program, &actions, &attributes, arguments, environ);
    LAM_REQUIRE_GOTO(!code, done, LAM_ERROR_IO, "%s: cannot be started: %s", program, strerror(code));
done:
    posix_spawn_file_actions_destroy(&actions);
    if (attributed) posix_spawnattr_destroy(&attributes);
    return status;
}

/* Jobs that can never start count as over. */
static int start_ready(lam_process *jobs, running *processes, int count, int at_once, const char *folder,
                       const char *program, lam_status *status) {
    int busy = 0, over = 0;
    for (int k = 0; k < count; k++) busy += processes[k].state == RUNNING;
    for (int k = 0; k < count; k++) {
        const running *before = jobs[k].after >= 0 ? &processes[jobs[k].after] : NULL;
        if (processes[k].state == WAITING && before && before->state == OVER && !jobs[jobs[k].after].done)
            processes[k].state = OVER;
        bool ready = processes[k].state == WAITING && (!before || before->state == OVER);
        if (ready && busy < at_once && *status == LAM_OK) {
            *status = start(&jobs[k], folder, program, &processes[k].id);
            if (*status == LAM_OK) {
                processes[k].state = RUNNING;
                busy++;
            }
        }
        over += processes[k].state == OVER;
    }
    return over;
}

static void reap(lam_process *jobs, running *processes, int count, bool wait_for_all) {
    for (int k = 0; k < count; k++) {
        int code = 0;
        if (processes[k].state != RUNNING) continue;
        pid_t id;
        do id = waitpid(processes[k].id, &code, wait_for_all ? 0 : WNOHANG);
        while (id < 0 && errno == EINTR);
        if (!id) continue;
        processes[k].state = OVER;
        jobs[k].done = id > 0 && WIFEXITED(code) && !WEXITSTATUS(code);
    }
}

lam_status lam_processes_run(lam_process *jobs, int count, int at_once, const char *folder) {
    running *processes;
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    LAM_REQUIRE(length > 0, LAM_ERROR_EXTERNAL, "/proc/self/exe cannot be read: %s", strerror(errno));
    program[length] = 0;
    LAM_TRY(lam_signals_install());
    LAM_TRY(lam_alloc_array((void **)&processes, count, sizeof *processes));
    for (int k = 0; k < count; k++) jobs[k].done = false;
    lam_progress *progress = lam_progress_start("sweep", count, "runs");
    lam_status status = LAM_OK;
    for (int over = 0; over < count && status == LAM_OK;) {
        over = start_ready(jobs, processes, count, at_once, folder, program, &status);
        lam_progress_update(progress, over, NULL);
        if (over == count) break;
        nanosleep(&(struct timespec){0, POLL_NANOSECONDS}, NULL);
        reap(jobs, processes, count, false);
        if (lam_stop_requested())
            status = lam_fail(LAM_ERROR_EXTERNAL, __FILE__, __LINE__,
                              "stopped by %s; what is done lies in %s", lam_stop_signal_name(), folder);
    }
    for (int k = 0; k < count && status != LAM_OK; k++)
        if (processes[k].state == RUNNING) kill(processes[k].id, SIGTERM);
    reap(jobs, processes, count, true);
    lam_progress_finish(progress);
    lam_free(processes);
    return status;
}
