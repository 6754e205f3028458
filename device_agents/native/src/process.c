/* Processes that the agent starts: itself in another role, and the system's or a vendor's programs. */
#include "agent.h"

#define END_NS (5 * SECOND_NS)

/* What becomes the started program; `number` is that of its events pipe, which it inherits. */
static _Noreturn void become(char **argv, char *const env[], const char *folder, int parent, const int *ends,
                             int output) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) _exit(125);
  dup2(open("/dev/null", O_RDONLY), 0);
  dup2(output, 1);
  dup2(output, 2);
  if (ends) {
    setsid();
    fcntl(ends[1], F_SETFD, 0);
  }
  if (folder && chdir(folder)) _exit(126);
  environ = (char **)env;
  execvp(argv[0], argv);
  _exit(127);
}

/* Starts a program that dies with us. One of our own roles (`own`) gets a session of its own and, as a last argument,
 * the number of the pipe for its events. False when no process or pipe can be had. */
bool child_start(Child *child, char *const argv[], char *const env[], const char *folder, bool own) {
  int events[2] = {-1, -1}, output[2], parent = getpid(), count = 0;
  char number[16];
  if (pipe2(output, O_CLOEXEC) || (own && pipe2(events, O_CLOEXEC))) return false;
  while (argv[count]) count++;
  char **full = take(sizeof *full * (size_t)(count + 2));
  memcpy(full, argv, sizeof *full * (size_t)count);
  snprintf(number, sizeof number, "%d", events[1]);
  if (own) full[count] = number;
  *child = (Child){.pid = fork(), .events = events[0], .output = output[0]};
  if (child->pid == 0) become(full, env, folder, parent, own ? events : NULL, output[1]);
  free(full);
  if (own) close(events[1]);
  close(output[1]);
  add(&child->buffer, "");
  add(&child->tail, "");
  if (child->pid < 0) {
    child->ended = true;
    child_close(child);
    return false;
  }
  if (own) fcntl(child->events, F_SETFL, O_NONBLOCK);
  fcntl(child->output, F_SETFL, O_NONBLOCK);
  return true;
}

bool child_ended(Child *child) {
  int status;
  if (!child->ended && waitpid(child->pid, &status, WNOHANG) == child->pid) {
    child->ended = true;
    child->status = status;
  }
  return child->ended;
}

void child_kill(Child *child) {
  if (child->pid > 0 && kill(-child->pid, SIGKILL) && !child->ended) kill(child->pid, SIGKILL);
}

void child_reap(Child *child) {
  int status;
  child_kill(child); /* what it started too */
  while (!child->ended) {
    int got = waitpid(child->pid, &status, 0);
    if (got < 0 && errno == EINTR) continue;
    child->ended = true;
    child->status = got < 0 ? 0 : status;
  }
}

void child_close(Child *child) {
  child_reap(child);
  if (child->events >= 0) close(child->events);
  if (child->output >= 0) close(child->output);
  free(child->buffer.data);
  free(child->tail.data);
  child->events = child->output = -1;
  child->buffer = child->tail = (Text){0};
}

/* Reads once from a pipe; it is closed at its end. Returns how much there was. */
size_t child_read(int *fd, char *piece, size_t room) {
  ssize_t got = *fd < 0 ? 0 : read(*fd, piece, room);
  if (got > 0) return (size_t)got;
  if (*fd >= 0 && !(got < 0 && (errno == EAGAIN || errno == EINTR))) {
    close(*fd);
    *fd = -1;
  }
  return 0;
}

/* Takes what a child says until it has closed its events pipe (where it has none, its output) and has ended. Of what it
 * prints `limit` bytes are kept, in `tail`. False when that did not happen in time. */
bool child_follow(Child *child, int64_t timeout_ns, size_t limit) {
  char piece[8192];
  int64_t until = monotonic_ns() + timeout_ns;
  int *last = child->events >= 0 ? &child->events : &child->output;
  while (*last >= 0) {
    struct pollfd wait[] = {{.fd = child->events, .events = POLLIN}, {.fd = child->output, .events = POLLIN}};
    if (monotonic_ns() >= until) return false;
    int64_t left_ms = (until - monotonic_ns()) / 1000000 + 1;
    poll(wait, COUNT(wait), left_ms < 1000 ? (int)left_ms : 1000);
    add_bytes(&child->buffer, piece, child_read(&child->events, piece, sizeof piece));
    size_t printed = child_read(&child->output, piece, sizeof piece);
    if (child->tail.size < limit) add_bytes(&child->tail, piece, printed);
  }
  for (until = monotonic_ns() + END_NS; !child_ended(child) && monotonic_ns() < until;) sleep_ns(1000000);
  return true;
}

/* Runs a command and takes what it prints on both streams and, where wanted, its status; false when it can't be started
 * or is not done in time. */
bool capture(char *const argv[], int64_t timeout_ns, size_t limit, Text *into, int *ended) {
  Child child;
  if (!child_start(&child, argv, environ, NULL, false)) return false;
  bool over = child_follow(&child, timeout_ns, limit);
  add_bytes(into, child.tail.data, child.tail.size);
  child_reap(&child);
  if (ended) *ended = child.status;
  bool started = !(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 127);
  child_close(&child);
  return over && started;
}

/* How many processes the kernel has killed for want of memory since it was started. */
int64_t oom_kills(void) {
  const char *rest;
  char *text = file_text("/proc/vmstat", 65536);
  int64_t count = text && find_line(text, "oom_kill ", &rest) ? strtoll(rest, NULL, 10) : 0;
  free(text);
  return count;
}

static void set_variable(char **env, int *count, const char *name, const char *value) {
  size_t size = strlen(name);
  for (int i = 0; i < *count; i++)
    if (strncmp(env[i], name, size) == 0 && env[i][size] == '=') {
      env[i] = textf("%s=%s", name, value);
      return;
    }
  env[(*count)++] = textf("%s=%s", name, value);
}

/* The environment of a repetition: thread counts for libraries that read them early, and where the loader of the
 * runtime and of Qualcomm's DSP shall look, which must be known before a process starts. */
char **child_environment(const Json *trial) {
  int count = 0, extra = 8;
  const Json *given = member(trial, "env");
  while (environ[count]) count++;
  char **env = take(sizeof *env * (size_t)(count + extra + (given ? given->count : 0)));
  memcpy(env, environ, sizeof *env * (size_t)count);
  char *number = textf("%d", threads_of(trial));
  set_variable(env, &count, "OMP_NUM_THREADS", number);
  set_variable(env, &count, "MKL_NUM_THREADS", number);
  const char *folder = string_or(member(trial, "runtime_dir"), getenv("SOCBENCH_RUNTIMES"));
  if (folder) {
    const char *before = getenv("LD_LIBRARY_PATH");
    set_variable(env, &count, "LD_LIBRARY_PATH", before && *before ? textf("%s:%s", folder, before) : folder);
    set_variable(env, &count, "ADSP_LIBRARY_PATH", folder);
  }
  for (const Json *item = is_null(given) ? NULL : given->first; item; item = item->next)
    set_variable(env, &count, item->key, item->text);
  env[count] = NULL;
  return env;
}
