/* The commands of the agent (docs/protocol.md, *Commands*). Each prints at most one JSON object. `child`, `telemetry`,
 * `probe-one` and `gpu-facts` are entry points that the agent calls itself. */
#include "agent.h"

#define PROBE_NS (60 * SECOND_NS)
#define STOP_WAIT_NS (10 * SECOND_NS)

static const Runtime *const RUNTIMES[] = {&litert_runtime, &null_runtime, &onnxruntime_runtime};

const Runtime *find_runtime(const char *name) {
  for (size_t i = 0; i < COUNT(RUNTIMES); i++)
    if (strcmp(RUNTIMES[i]->name, name) == 0) return RUNTIMES[i];
  return NULL;
}

char *runtime_names(void) {
  Text names = {0};
  for (size_t i = 0; i < COUNT(RUNTIMES); i++) addf(&names, "%s%s", i ? ", " : "", RUNTIMES[i]->name);
  return names.data;
}

static int print(Text *answer) {
  add(answer, "\n");
  return write_all(1, answer->data, answer->size) ? 0 : 1;
}

static void put_problem(Text *into, const char *code, const char *message, const char *advice) {
  put(into, "error", "{");
  put_string(into, "code", code);
  put_string(into, "message", message);
  put_string(into, "advice", advice);
  add(into, "}");
}

static void print_failure(const char *code, const char *message, const char *advice) {
  Text answer = {0};
  add(&answer, "{");
  put_problem(&answer, code, message, advice);
  add(&answer, "}");
  print(&answer);
}

/* --- start, stop, status ---------------------------------------------------------------------------------------- */

static char *real_folder(const char *path) {
  char *folder = realpath(path, NULL);
  return folder ? folder : copy_of(path, strlen(path));
}

/* The pid of the supervisor that works on the folder, or 0; a stale pid file deceives nobody, for the lock is free. */
static int running_pid(const char *folder) {
  char *path = textf("%s/pid", folder);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  int64_t pid = 0;
  if (fd < 0) return 0;
  bool held = flock(fd, LOCK_SH | LOCK_NB) != 0;
  close(fd);
  return held && read_integer(path, &pid) ? (int)pid : 0;
}

static int64_t events_size(const char *folder) {
  struct stat facts;
  return stat(textf("%s/events.jsonl", folder), &facts) ? 0 : (int64_t)facts.st_size;
}

static const char *start_folder;
static void refuse_start(const char *code, const char *message, const char *advice) {
  write_refusal(start_folder, code, message, advice);
  print_failure(code, message, advice);
}

static int start(const char *folder) {
  int status;
  char *program = program_path(), *log = textf("%s/agent.log", folder);
  start_folder = folder;
  refuse_used(folder);
  on_fail = refuse_start;
  load_job(folder);
  on_fail = print_failure;
  int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (out < 0) folder_unwritable(folder);
  int pid = fork();
  if (pid < 0) fail("out_of_memory", NULL, "no process can be started: %s", strerror(errno));
  if (pid == 0) {
    char *argv[] = {program, (char *)"run", (char *)folder, NULL};
    setsid();
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(out, 1);
    dup2(out, 2);
    close(out);
    if (chdir("/") == 0) execv(program, argv);
    _exit(127);
  }
  while (!events_size(folder)) {
    if (waitpid(pid, &status, WNOHANG) == pid) {
      char *said = file_text(log, 500);
      fail("run_failed", NULL, "the supervisor ended at once with status %d: %s", WEXITSTATUS(status),
           said ? said : "");
    }
    sleep_ns(5000000);
  }
  Text answer = {0};
  addf(&answer, "{\"pid\":%d}", pid);
  return print(&answer);
}

static int stop(const char *folder) {
  int pid = running_pid(folder);
  Text answer = {0};
  static const int signals[] = {SIGTERM, SIGKILL};
  for (size_t i = 0; pid && i < COUNT(signals) && running_pid(folder) == pid; i++) {
    if (kill(pid, signals[i])) break;
    int64_t until = monotonic_ns() + STOP_WAIT_NS;
    while (monotonic_ns() < until && running_pid(folder) == pid) sleep_ns(10000000);
  }
  addf(&answer, "{\"stopped\":%s}", pid ? "true" : "false");
  return print(&answer);
}

static int status(const char *folder) {
  int pid = running_pid(folder);
  int64_t size = events_size(folder);
  char tail[4097] = "";
  int fd = open(textf("%s/events.jsonl", folder), O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? 0 : pread(fd, tail, 4096, size > 4096 ? size - 4096 : 0);
  while (got > 0 && tail[got - 1] == '\n') got--;
  tail[got > 0 ? got : 0] = 0;
  char *line = strrchr(tail, '\n');
  Text answer = {0};
  add(&answer, "{");
  put_bool(&answer, "running", pid);
  put_known(&answer, "pid", pid, pid);
  put_int(&answer, "events_bytes", size);
  put_bool(&answer, "ended", strstr(line ? line : tail, "\"type\":\"end\""));
  add(&answer, "}");
  return print(&answer);
}

/* --- probe: each runtime in a process of its own, so that a crash costs one entry ------------------------------- */

static const char *probed;
static int probe_fd;

static void add_unavailable(Text *entry, const char *name, const char *code, const char *message, const char *advice) {
  add(entry, "{");
  put_string(entry, "runtime", name);
  put(entry, "version", "null");
  put(entry, "formats", "[]");
  put_problem(entry, code, message, advice);
  put(entry, "delegates", "[]");
  add(entry, "}");
}

static void report_probe(const char *code, const char *message, const char *advice) {
  Text entry = {0};
  add_unavailable(&entry, probed, code, message, advice);
  write_all(probe_fd, entry.data, entry.size);
}

static int probe_one(const char *name, int fd) {
  const Runtime *runtime = find_runtime(name);
  Text entry = {0};
  probed = name;
  probe_fd = fd;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  on_fail = report_probe;
  if (!runtime) fail("runtime_missing", NULL, "this agent has no runtime called %s; it has %s", name, runtime_names());
  add(&entry, "{");
  put_string(&entry, "runtime", name);
  runtime->probe(&entry);
  add(&entry, "}");
  write_all(fd, entry.data, entry.size);
  _exit(0);
}

void add_delegate(Text *entry, const char *name, const char *accelerator, const char *precisions, const char *reason) {
  comma(entry);
  add(entry, "{");
  put_string(entry, "delegate", name);
  put_bool(entry, "available", !reason);
  put_string(entry, "accelerator", accelerator);
  put_bool(entry, "emulated", false);
  put(entry, "precisions", precisions ? precisions : "null");
  put_string(entry, "reason", reason);
  put(entry, "fix", "null");
  add(entry, "}");
}

/* The probed runtime finds its libraries as a repetition would: where the loader looks is fixed when a process
 * starts. */
static char *loader_path(void) {
  const char *folder = getenv("SOCBENCH_RUNTIMES"), *before = getenv("LD_LIBRARY_PATH");
  if (!folder) return NULL;
  return before && *before ? textf("%s:%s", folder, before) : copy_of(folder, strlen(folder));
}

static void probe_in_child(Text *answer, const char *name) {
  Child child;
  char *argv[] = {program_path(), (char *)"probe-one", (char *)name, NULL};
  if (!child_start(&child, argv, environ, NULL, true))
    fail("out_of_memory", NULL, "no process can be started: %s", strerror(errno));
  bool answered = child_follow(&child, PROBE_NS, 1 << 20);
  const char *problem, *tail = child.tail.data + (child.tail.size > 300 ? child.tail.size - 300 : 0);
  if (child.buffer.size && json_parse(child.buffer.data, child.buffer.size, &problem)) {
    add(answer, child.buffer.data);
  } else {
    bool crashed = child_ended(&child) && WIFSIGNALED(child.status);
    const char *how = !answered ? "did not answer in 60 s"
                      : crashed ? textf("crashed (%s)", signal_name(WTERMSIG(child.status)))
                                : "crashed";
    add_unavailable(answer, name, "runtime_broken", textf("probing %s %s%s%s", name, how, *tail ? ": " : "", tail),
                    NULL);
  }
  child_close(&child);
}

static int probe(char **words, int count) {
  const char *environment = getenv("SOCBENCH_ENVIRONMENT");
  Text answer = {0};
  int wanted = count ? count / 2 : (int)COUNT(RUNTIMES);
  char *path = loader_path();
  if (path) setenv("LD_LIBRARY_PATH", path, 1);
  add(&answer, "{\"runtimes\":[");
  for (int i = 0; i < wanted; i++) {
    comma(&answer);
    probe_in_child(&answer, count ? words[2 * i + 1] : RUNTIMES[i]->name);
    answer.data[--answer.size] = 0;
    put_string(&answer, "environment", environment ? environment : "host");
    add(&answer, "}");
  }
  add(&answer, "]}");
  return print(&answer);
}

/* Keeps a core busy (integers in registers, no memory) until the parent is gone, or, mostly, until it kills us. */
static int busy(int parent) {
  for (volatile unsigned value = 1; getppid() == parent;)
    for (int i = 0; i < 10000000; i++) value = value * 1103515245u + 12345u;
  return 0;
}

int main(int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : "";
  char **rest = argv + 2;
  int count = argc > 2 ? argc - 2 : 0;
  Text answer = {0};
  on_fail = print_failure;
  // ONNX Runtime 1.31.1 for Linux has telemetry: it writes $TMPDIR/.ses and may send events while it is measured.
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  if (strcmp(name, "version") == 0 && !count) {
    addf(&answer, "{\"agent\":\"native\",\"version\":\"" AGENT_VERSION "\",\"protocols\":[%d]}", PROTOCOL);
    return print(&answer);
  }
  if (strcmp(name, "identify") == 0 && !count) return identify(&answer), print(&answer);
  bool named = strcmp(name, "probe") == 0 && count % 2 == 0;
  for (int i = 0; i < count; i += 2) named = named && strcmp(rest[i], "--runtime") == 0;
  if (named) return probe(rest, count);
  if (strcmp(name, "run") == 0 && count == 1) return supervise(real_folder(rest[0]));
  if (strcmp(name, "start") == 0 && count == 1) return start(real_folder(rest[0]));
  if (strcmp(name, "stop") == 0 && count == 1) return stop(real_folder(rest[0]));
  if (strcmp(name, "status") == 0 && count == 1) return status(real_folder(rest[0]));
  if (strcmp(name, "child") == 0 && count == 3) return child_main(rest[0], atoi(rest[1]), atoi(rest[2]));
  if (strcmp(name, "probe-one") == 0 && count == 2) return probe_one(rest[0], atoi(rest[1]));
  if (strcmp(name, "gpu-facts") == 0 && count == 1) return gpu_facts(atoi(rest[0]));
  if (strcmp(name, "busy") == 0 && count == 2) return busy(atoi(rest[0]));
  if (strcmp(name, "telemetry") == 0 && count == 3)
    return serve_telemetry(strtod(rest[0], NULL), strtod(rest[1], NULL), atoi(rest[2]));
  Text words = {0};
  add(&words, argc > 1 ? "" : "what to do");
  for (int i = 1; i < argc; i++) addf(&words, "%s%s", i > 1 ? " " : "", argv[i]);
  fail(
      "bad_job",
      "it knows: version | identify | probe [--runtime R ...] | start JOBDIR | run JOBDIR | stop JOBDIR | "
       "status JOBDIR",
      "the agent does not know %s", words.data);
}
