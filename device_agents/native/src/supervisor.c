/* The supervisor: runs a job's repetitions, each in a process of its own, and alone writes the event file. */
#include "supervisor.h"

#define TICK_NS SECOND_NS
#define LINE_LIMIT (8u << 20)
#define LOG_LIMIT (1 << 20)
#define AFTER_DONE_NS (5 * SECOND_NS)

static struct {
  const char *folder, *program;
  const Json *job;
  int wake[2], log_bytes;
  Child child, telemetry;
  bool has_child, has_telemetry;
  Text current; /* "trial":..,"repetition":.., of the repetition under way */
  int64_t finished_ns, last_boot_ns;
  char last_error[64];
  int64_t lease_mtime, lease_seen_ns;
  Cooling baseline;
  bool has_baseline;
} self;
static const char *volatile ending; /* set by a signal too */

static _Noreturn void finish(const char *reason) {
  load_stop();
  if (self.has_child) child_close(&self.child);
  if (self.has_telemetry) child_close(&self.telemetry);
  emit_end(reason);
  close_events();
  exit(strcmp(reason, "complete") == 0 ? 0 : 1);
}

/* Says that the disk is full, in the room of the reserve, and ends. */
void disk_full(void) {
  static bool said;
  char *message = textf("the device's disk is full: %s cannot grow", self.folder);
  if (!said) {
    said = true;
    if (self.current.size && !self.finished_ns) emit_error("disk_full", message, NULL, self.current.data);
    emit_error("disk_full", message, "free space on the device", NULL);
  }
  finish("job_error");
}

/* --- what children say ------------------------------------------------------------------------------------------ */

/* Keeps the tail of what a child prints, and up to a limit all of it in agent.log. */
static void keep_output(Child *child, const char *data, size_t size) {
  add_bytes(&child->tail, data, size);
  if (child->tail.size > TAIL_CHARS) drop_front(&child->tail, child->tail.size - TAIL_CHARS);
  int room = LOG_LIMIT - self.log_bytes;
  if (room <= 0) return;
  self.log_bytes += (int)size;
  int fd = open(textf("%s/agent.log", self.folder), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || !write_all(fd, data, size < (size_t)room ? size : (size_t)room)) self.log_bytes = LOG_LIMIT;
  if (fd >= 0) close(fd);
}

/* The text of a member of an event line, copied into `into`; empty when it has none. */
static void text_of(const char *line, size_t size, const char *name, char *into, size_t room) {
  const char *problem;
  Json *event = json_parse(line, size, &problem);
  snprintf(into, room, "%s", string_or(member(event, name), ""));
  json_free(event);
}

/* Appends a line of a child: it is complete JSON but for seq, trial and repetition. */
static void take_event(const char *line, size_t size) {
  static const char start[] = "{\"type\":\"";
  char phase[32];
  if (size < sizeof start || memcmp(line, start, sizeof start - 1) != 0 || line[size - 1] != '}') return;
  const char *kind = line + sizeof start - 1;
  bool done = strncmp(kind, "done\"", 5) == 0, error = strncmp(kind, "error\"", 6) == 0;
  Text event = {0};
  if (self.current.size) add(&event, self.current.data);
  add_bytes(&event, line + 1, size - 2);
  if (done) {
    put_power(&event);
    put_load(&event);
  }
  add(&event, "}");
  if (self.has_child && strncmp(kind, "phase\"", 6) == 0) {
    text_of(line, size, "phase", phase, sizeof phase);
    load_follow(phase);
  }
  if (error) text_of(line, size, "code", self.last_error, sizeof self.last_error);
  if (done || error) {
    self.finished_ns = monotonic_ns();
    load_stop();
  }
  bool ok = append_event(event.data, event.size);
  free(event.data);
  if (!ok) disk_full();
  if (self.has_child && strncmp(kind, "telemetry\"", 10) == 0) heat_follow(line, size, self.current.data);
}

/* Reads once from a pipe of a child; false when there was nothing. */
static bool read_child(Child *child, int *fd) {
  static char piece[1 << 16];
  size_t got = child_read(fd, piece, sizeof piece);
  if (!got) return false;
  if (fd == &child->output) return keep_output(child, piece, got), true;
  add_bytes(&child->buffer, piece, got);
  size_t begin = 0;
  for (char *end; (end = memchr(child->buffer.data + begin, '\n', child->buffer.size - begin));) {
    size_t size = (size_t)(end - (child->buffer.data + begin));
    take_event(child->buffer.data + begin, size);
    begin += size + 1;
  }
  drop_front(&child->buffer, begin);
  if (child->buffer.size > LINE_LIMIT) {
    drop_front(&child->buffer, child->buffer.size);
    child_kill(child);
  }
  return true;
}

static void drain(Child *child) {
  for (int i = 0; i < 1024 && read_child(child, &child->events); i++) continue;
  for (int i = 0; i < 1024 && read_child(child, &child->output); i++) continue;
}

/* --- time ------------------------------------------------------------------------------------------------------- */

/* Ends when the host has not touched the lease for too long, judged on the monotonic clock alone. */
static void check_lease(void) {
  double limit_s = number_or(member(self.job, "orphan_after_s"), 0);
  struct stat facts;
  if (!limit_s) return;
  int64_t now = monotonic_ns(), mtime = -1;
  if (stat(textf("%s/lease", self.folder), &facts) == 0)
    mtime = (int64_t)facts.st_mtim.tv_sec * SECOND_NS + facts.st_mtim.tv_nsec;
  if (mtime != -1 && mtime != self.lease_mtime) {
    self.lease_mtime = mtime;
    self.lease_seen_ns = now;
  } else if ((double)(now - self.lease_seen_ns) > limit_s * 1e9 && !ending) {
    ending = "orphaned";
  }
}

static void tick(void) {
  int64_t now = boot_ns(), gap = now - self.last_boot_ns;
  self.last_boot_ns = now;
  if (gap > TICK_NS + SECOND_NS) emit_clock(gap);
  else if (clock_is_due()) emit_clock(0);
  if (self.has_telemetry && child_ended(&self.telemetry)) {
    char *text = textf("telemetry ended: %s", self.telemetry.tail.data);
    self.has_telemetry = false;
    child_close(&self.telemetry);
    emit_log("warning", text, strlen(text), self.current.size ? self.current.data : NULL);
  }
  check_lease();
}

/* Waits for output of the children, at most one tick and at most until `until_ns`, and handles it. */
static void pump(int64_t until_ns) {
  struct pollfd wait[5] = {{.fd = self.wake[0], .events = POLLIN}};
  struct { Child *child; int *fd; } from[5];
  unsigned count = 1;
  Child *children[] = {self.has_child ? &self.child : NULL, self.has_telemetry ? &self.telemetry : NULL};
  for (size_t i = 0; i < COUNT(children); i++)
    for (int k = 0; children[i] && k < 2; k++, count++) {
      from[count].child = children[i];
      from[count].fd = k ? &children[i]->output : &children[i]->events;
      wait[count] = (struct pollfd){.fd = *from[count].fd, .events = POLLIN};
    }
  int64_t left = until_ns - monotonic_ns();
  if (left < 0) left = 0;
  if (left > TICK_NS) left = TICK_NS;
  int ready = poll(wait, count, (int)(left / 1000000) + 1);
  char bytes[512];
  if (ready > 0 && wait[0].revents && read(self.wake[0], bytes, sizeof bytes) < 0) errno = 0;
  for (unsigned i = 1; ready > 0 && i < count; i++)
    if (wait[i].revents) read_child(from[i].child, from[i].fd);
  tick();
}

static void wait_ns(int64_t ns) {
  int64_t until = monotonic_ns() + ns;
  while (!ending && monotonic_ns() < until) pump(until);
}

static void on_signal(int number) {
  int kept = errno;
  if (number != SIGCHLD && !ending) ending = "stopped";
  if (write(self.wake[1], "", 1) < 0) errno = 0;
  errno = kept;
}

/* --- repetitions ------------------------------------------------------------------------------------------------ */

static void emit_cool_down(const char *detail, const char *outcome, int64_t waited_ns) {
  Text event = {0};
  begin_event(&event, "phase", self.current.data);
  put_string(&event, "phase", "cool_down");
  put(&event, "detail", "{");
  add(&event, detail);
  put_string(&event, "outcome", outcome);
  if (waited_ns >= 0) put_int(&event, "waited_ns", waited_ns);
  add(&event, "}");
  emit(&event);
}

/* Waits until the device is as cool as at the baseline; `detail` says what was compared. Returns the outcome. */
static const char *wait_for_cool(const Json *cool, Text *detail) {
  int64_t until = monotonic_ns() + (int64_t)(member(cool, "max_wait_s")->number * 1e9);
  for (;;) {
    Cooling state;
    read_cooling(&state);
    drop_front(detail, detail->size);
    put_cooling(detail, "baseline", &self.baseline);
    put_cooling(detail, "state", &state);
    int above = put_not_cool(detail, &self.baseline, &state, number_or(member(cool, "tolerance_milli_c"), 0));
    free_cooling(&state);
    int64_t left = until - monotonic_ns();
    if (!above) return "reached";
    if (left <= 0 || ending) return "timeout";
    wait_ns(left < SECOND_NS ? left : SECOND_NS);
  }
}

/* Rule 7 of the design: cool by condition, and record how that ended. */
static void cool_down(const Json *cool) {
  if (is_null(cool)) return;
  Text detail = {0};
  const char *outcome = "fixed";
  int64_t begin = monotonic_ns();
  add(&detail, "");
  emit_cool_down("", "waiting", -1);
  if (!is_null(member(cool, "max_wait_s"))) outcome = self.has_baseline ? wait_for_cool(cool, &detail) : "unreadable";
  if (!detail.size) wait_ns((int64_t)(number_or(member(cool, "fixed_s"), 0) * 1e9));
  emit_cool_down(detail.data, outcome, monotonic_ns() - begin);
  free(detail.data);
}

/* Writes the error of a repetition that did not finish by itself. */
static void conclude(const Child *child, const char *what, double deadline_s, bool late, bool running, bool oom) {
  const char *begin = child->tail.data, *members = self.current.data;
  size_t size = child->tail.size;
  while (size && strchr(" \n\r\t", begin[size - 1])) size--;
  while (size && strchr(" \n\r\t", *begin)) begin++, size--;
  if (size) emit_log("error", begin, size, members);
  int number = WIFSIGNALED(child->status) ? WTERMSIG(child->status) : 0;
  if (load_problem()) {
    char *message = textf("%s was under way when %s", what, load_problem());
    emit_error("run_failed", message, "leave --busy-cores away", members);
  } else if (late) {
    emit_error("deadline", textf("%s was not done after %g s", what, deadline_s), NULL, members);
  } else if (ending && running) {
    emit_error(ending, textf("%s was under way when the agent ended (%s)", what, ending), NULL, members);
  } else if (number == SIGKILL && oom) {
    char *message = textf("the process of %s was killed by the kernel for want of memory", what);
    emit_error("out_of_memory", message, "use a smaller batch or a smaller model", members);
  } else if (number) {
    emit_error("crashed", textf("the process of %s died of %s", what, signal_name(number)), NULL, members);
  } else {
    int status = WEXITSTATUS(child->status);
    emit_error("run_failed", textf("the process of %s ended with status %d and no result", what, status), NULL,
               members);
  }
}

static bool start_child(const Json *trial, int index) {
  char *argv[] = {(char *)self.program, (char *)"child", (char *)self.folder, textf("%d", index), NULL};
  self.has_child = child_start(&self.child, argv, child_environment(trial), self.folder, true);
  if (!self.has_child)
    emit_error("out_of_memory", textf("no process can be started: %s", strerror(errno)), NULL, self.current.data);
  return self.has_child;
}

static bool repetition_over(void) {
  return child_ended(&self.child) || (self.finished_ns && monotonic_ns() - self.finished_ns > AFTER_DONE_NS);
}

static void run_child(int index, const Json *entry) {
  const Json *trial = member(member(self.job, "trials"), member(entry, "trial")->text);
  double deadline_s = member(entry, "deadline_s")->number;
  int64_t kills = oom_kills(), deadline_ns = monotonic_ns() + (int64_t)(deadline_s * 1e9);
  bool late = false;
  self.finished_ns = 0;
  self.last_error[0] = 0;
  load_begin(member(trial, "settings"));
  heat_begin(self.folder, member(trial, "settings"));
  if (!start_child(trial, index)) return;
  while (!ending && !repetition_over() && !load_problem()) {
    late = monotonic_ns() >= deadline_ns;
    if (late) break;
    pump(deadline_ns);
    load_watch();
  }
  bool running = !child_ended(&self.child);
  load_stop();
  child_reap(&self.child);
  drain(&self.child);
  char *what = textf("%s repetition %s", member(entry, "trial")->text, member(entry, "repetition")->text);
  if (!self.finished_ns) conclude(&self.child, what, deadline_s, late, running, oom_kills() > kills);
  self.has_child = false;
  child_close(&self.child);
  if (strcmp(self.last_error, "disk_full") == 0) disk_full(); /* what follows would meet the same disk */
}

static void start_telemetry(void) {
  const Json *settings = member(self.job, "telemetry");
  if (is_null(settings)) return;
  char *interval = textf("%.6f", number_or(member(settings, "interval_s"), 0.5));
  char *slow_interval = textf("%.6f", number_or(member(settings, "slow_interval_s"), 10.0));
  char *argv[] = {(char *)self.program, (char *)"telemetry", interval, slow_interval, NULL};
  self.has_telemetry = child_start(&self.telemetry, argv, environ, NULL, true);
  static const char problem[] = "telemetry could not be started: there is no process to be had";
  if (!self.has_telemetry) emit_log("warning", problem, sizeof problem - 1, NULL);
}

/* The baseline is read before the first repetition, or told by the host from an earlier job of the session. */
static void find_baseline(const Json *entry) {
  while (entry && is_null(member(member(entry, "cool_down"), "max_wait_s"))) entry = entry->next;
  const Json *told = member(member(entry, "cool_down"), "baseline");
  if (!entry) return;
  if (is_null(told)) {
    self.has_baseline = read_cooling(&self.baseline);
  } else {
    told_cooling(told, &self.baseline);
    self.has_baseline = true;
  }
}

static _Noreturn void run_job(void) {
  struct sigaction action = {.sa_handler = on_signal};
  static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
  const Json *repetitions = member(self.job, "repetitions");
  int index = 0;
  self.program = program_path();
  if (pipe2(self.wake, O_CLOEXEC | O_NONBLOCK)) fail("run_failed", NULL, "no pipe can be had: %s", strerror(errno));
  for (size_t i = 0; i < COUNT(signals); i++) sigaction(signals[i], &action, NULL);
  self.last_boot_ns = boot_ns();
  self.lease_seen_ns = monotonic_ns();
  self.lease_mtime = -1;
  emit_hello(string_or(member(self.job, "session"), NULL));
  emit_clock(0);
  start_telemetry();
  find_baseline(repetitions->first);
  for (const Json *entry = repetitions->first; entry && !ending; entry = entry->next, index++) {
    put_string(&self.current, "trial", member(entry, "trial")->text);
    put(&self.current, "repetition", member(entry, "repetition")->text);
    add(&self.current, ",");
    cool_down(member(entry, "cool_down"));
    if (!ending) run_child(index, entry);
    drop_front(&self.current, self.current.size);
  }
  if (self.has_telemetry && !ending) /* how the device cools down */
    wait_ns((int64_t)(number_or(member(member(self.job, "telemetry"), "after_s"), 0) * 1e9));
  finish(ending ? ending : "complete");
}

/* --- the commands `run` and `start` ----------------------------------------------------------------------------- */

void refuse_used(const char *folder) {
  if (exists(textf("%s/events.jsonl", folder)))
    fail("bad_job", "write what is left of it as a new job into a new folder",
         "%s already holds events.jsonl: this job was run", folder);
}

/* Leaves an event file that says why a job was refused. */
void write_refusal(const char *folder, const char *code, const char *message, const char *advice) {
  if (!open_events(folder)) return;
  emit_hello(NULL);
  emit_error(code, message, advice, NULL);
  emit_end("job_error");
  close_events();
}

static FailHandler *refused_before;
static void refuse(const char *code, const char *message, const char *advice) {
  write_refusal(self.folder, code, message, advice);
  refused_before(code, message, advice);
}

/* A folder that can't be written is said as what it is: a full disk, or no permission. */
void folder_unwritable(const char *folder) {
  bool full = no_space();
  fail(full ? "disk_full" : "run_failed",
       full ? "free space on the device"
            : "name a folder that the agent may write in SOCBENCH_DEVICE_ROOT on the device",
       "%s cannot be written: %s", folder, strerror(errno));
}

/* Only one agent works on a folder: it holds the lock of the file `pid`, which tells who it is. */
static void take_lock(const char *folder) {
  char number[16];
  int lock = open(textf("%s/pid", folder), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) folder_unwritable(folder);
  if (flock(lock, LOCK_EX | LOCK_NB)) fail("bad_job", NULL, "an agent already works on %s", folder);
  int size = snprintf(number, sizeof number, "%d\n", getpid());
  if (ftruncate(lock, 0) || !write_all(lock, number, (size_t)size)) folder_unwritable(folder);
}

int supervise(const char *folder) {
  struct stat facts;
  refuse_used(folder);
  if (stat(folder, &facts) || (facts.st_mode & S_IFMT) != S_IFDIR) fail("bad_job", NULL, "%s is no folder", folder);
  take_lock(folder);
  self.folder = folder;
  refused_before = on_fail;
  on_fail = refuse;
  self.job = load_job(folder);
  on_fail = refused_before;
  if (!open_events(folder)) folder_unwritable(folder);
  run_job();
}
