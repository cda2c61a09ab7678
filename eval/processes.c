#include "eval/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"

#define POLL_NANOSECONDS 2000000

typedef enum run_state { WAITING, RUNNING, OVER } run_state;

typedef struct running {
    run_state state;
    pid_t id;
} running;

/* In the new process: only calls that are safe after a fork of a program with threads. */
static void become(const char *program, char **words, const char *log, const char *result, pid_t parent) {
    sigset_t none;
    int in = open("/dev/null", O_RDONLY), out = open(result, O_WRONLY | O_CREAT | O_TRUNC, 0644),
        error = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    /* It ends with the sweep, whatever ended that. */
    if (in < 0 || out < 0 || error < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
        _exit(1);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* this program blocks the signals that it waits for */
    execv(program, words);
    _exit(1);
}

static lam_status start(const lam_process *job, const char *folder, const char *program, pid_t *id) {
    char *words[512], *log = NULL, *result = NULL;
    int count = 0;
    words[0] = (char *)(uintptr_t)program; /* execv does not write to them */
    for (; job->arguments[count]; count++) {
        LAM_REQUIRE(count < 510, LAM_ERROR_USAGE, "%s: more than 510 words", job->name);
        words[count + 1] = (char *)(uintptr_t)job->arguments[count];
    }
    words[count + 1] = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_text_format(&log, "%s/%s.log", folder, job->name), done);
    LAM_TRY_GOTO(lam_text_format(&result, "%s/%s.json", folder, job->name), done);
    pid_t parent = getpid();
    *id = fork();
    if (*id == 0) become(program, words, log, result, parent);
    LAM_REQUIRE_GOTO(*id > 0, done, LAM_ERROR_IO, "a process cannot be started: %s", strerror(errno));
done:
    lam_free(log);
    lam_free(result);
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
    }
    for (int k = 0; k < count && status != LAM_OK; k++)
        if (processes[k].state == RUNNING) kill(processes[k].id, SIGTERM);
    reap(jobs, processes, count, true);
    lam_progress_finish(progress);
    lam_free(processes);
    return status;
}
