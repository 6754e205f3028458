/* The supervisor: runs a job's repetitions, each in a process of its own, and alone writes the event file. */
#include "agent.h"

#define TICK_NS SECOND_NS
#define CLOCK_EVERY_NS (60 * SECOND_NS)
#define LINE_LIMIT (8u << 20)
#define LOG_LIMIT (1 << 20)
#define RESERVE_BYTES (256 * 1024)

static struct {
  const char *folder;
  const Json *job;
  int events, wake[2], log_bytes;
  int64_t seq;
  bool full;
  char *reserve;
  Child child, telemetry;
  bool has_child, has_telemetry;
  Text current; /* "trial":..,"repetition":.., of the repetition under way */
  int64_t finished_ns, last_clock_ns, last_boot_ns, wall_offset_ns;
  char last_error[64];
  int64_t lease_mtime, lease_seen_ns;
  int64_t load_cores;
  Child *load; /* processes that keep cores busy beside the repetition */
  int loads;
  int64_t load_ticks[2]; /* what they had used when measuring began and when it ended; -1: not yet */
  char *load_problem;
  Cooling baseline;
  bool has_baseline;
  struct {
    int64_t limit; /* 0: none */
    struct { char *source; int64_t first, first_ns, last_ns; bool alive; } sensors[256];
    int count;
  } heat;
} self;
static const char *volatile ending; /* set by a signal too */

static _Noreturn void disk_full(void);

/* --- the event file ------------------------------------------------------------------------------------------------- */

static bool open_events(const char *folder) {
  char *path = textf("%s/events.jsonl", folder), bytes[4096];
  self.folder = folder;
  self.reserve = textf("%s/reserve", folder);
  int fd = open(self.reserve, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  bool ok = fd >= 0; /* file systems that compress would make nothing of zeros */
  for (int i = 0; ok && i < RESERVE_BYTES; i += (int)sizeof bytes)
    ok = read(random, bytes, sizeof bytes) > 0 && write_all(fd, bytes, sizeof bytes);
  int kept = errno;
  if (fd >= 0) close(fd);
  if (random >= 0) close(random);
  errno = kept;
  self.events = ok ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644) : -1;
  return self.events >= 0;
}

static bool no_space(void) { return errno == ENOSPC || errno == EDQUOT; }

/* Appends one line: `body` is an object without its opening brace and `seq`. False on a full disk: the line that met it
 * was completed in the room of the reserve, or, later, nothing of it was written. */
static bool append(const char *body, size_t size) {
  Text line = {0};
  size_t done = 0;
  bool freed = false;
  addf(&line, "{\"seq\":%lld,", (long long)self.seq + 1);
  add_bytes(&line, body, size);
  add(&line, "\n");
  for (int tries = 0; done < line.size;) {
    ssize_t written = write(self.events, line.data + done, line.size - done);
    if (written >= 0) {
      done += (size_t)written;
    } else if (errno == EINTR) {
      continue;
    } else if (!no_space()) {
      fail("run_failed", NULL, "the event file cannot be written: %s", strerror(errno));
    } else if (!self.full) {
      self.full = freed = true;
      unlink(self.reserve);
    } else if (done == 0) {
      free(line.data);
      return false;
    } else if (tries++ > 40) {
      fail("disk_full", NULL, "the device's disk is full: %s", self.folder);
    } else {
      sleep_ns(SECOND_NS / 4);
    }
  }
  free(line.data);
  self.seq++;
  return !freed;
}

static void begin_event(Text *event, const char *type, const char *members) {
  addf(event, "%s\"type\":\"%s\",\"t_ns\":%lld", members ? members : "", type, (long long)monotonic_ns());
}

static void emit(Text *event) {
  add(event, "}");
  bool ok = append(event->data, event->size);
  free(event->data);
  *event = (Text){0};
  if (!ok) disk_full();
}

static void emit_error(const char *code, const char *message, const char *advice, const char *members) {
  Text event = {0};
  begin_event(&event, "error", members);
  addf(&event, ",\"code\":\"%s\",\"message\":", code);
  add_string(&event, message);
  add(&event, ",\"advice\":");
  add_string(&event, advice);
  emit(&event);
}

static void stop_load(void) {
  while (self.loads) child_close(&self.load[--self.loads]);
  free(self.load);
  self.load = NULL;
}

static _Noreturn void finish(const char *reason) {
  Text event = {0};
  stop_load();
  if (self.has_child) child_close(&self.child);
  if (self.has_telemetry) child_close(&self.telemetry);
  begin_event(&event, "end", NULL);
  addf(&event, ",\"reason\":\"%s\"}", reason);
  append(event.data, event.size);
  close(self.events);
  unlink(self.reserve);
  exit(strcmp(reason, "complete") == 0 ? 0 : 1);
}

/* Says that the disk is full, in the room of the reserve, and ends. */
static _Noreturn void disk_full(void) {
  static bool said;
  char *message = textf("the device's disk is full: %s cannot grow", self.folder);
  if (!said) {
    said = true;
    if (self.current.size && !self.finished_ns) emit_error("disk_full", message, NULL, self.current.data);
    emit_error("disk_full", message, "free space on the device", NULL);
  }
  finish("job_error");
}

static void emit_hello(const char *session) {
  Text event = {0};
  begin_event(&event, "hello", NULL);
  addf(&event, ",\"protocol\":%d,\"agent\":\"native\",\"agent_version\":\"" AGENT_VERSION "\",\"pid\":%d,\"session\":", PROTOCOL, getpid());
  add_string(&event, session);
  add(&event, ",\"boot_id\":");
  add_string(&event, boot_id());
  add(&event, ",\"power\":");
  add_power(&event);
  emit(&event);
}

/* Both clocks, read together: the narrowest of five brackets, as one may be preempted. */
static void emit_clock(int64_t gap_ns) {
  int64_t narrowest = INT64_MAX, wall_ns = 0;
  for (int i = 0; i < 5; i++) {
    int64_t before = monotonic_ns();
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t after = monotonic_ns();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    self.last_clock_ns = (before + after) / 2;
    wall_ns = (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
  }
  self.wall_offset_ns = wall_ns - self.last_clock_ns;
  Text event = {0};
  begin_event(&event, "clock", NULL);
  addf(&event, ",\"monotonic_ns\":%lld,\"wall_ns\":%lld", (long long)self.last_clock_ns, (long long)wall_ns);
  if (gap_ns) addf(&event, ",\"gap_ns\":%lld", (long long)gap_ns);
  emit(&event);
}

/* --- children ------------------------------------------------------------------------------------------------------- */

/* Starts `argv` in a session of its own with the number of its events pipe as a last argument. */
void child_start(Child *child, char *const argv[], char *const env[], const char *folder) {
  int events[2], output[2], parent = getpid(), count = 0;
  if (pipe2(events, O_CLOEXEC) || pipe2(output, O_CLOEXEC)) fail("run_failed", NULL, "no pipe can be had: %s", strerror(errno));
  char number[16], *full[12];
  snprintf(number, sizeof number, "%d", events[1]);
  while (argv[count]) full[count] = argv[count], count++;
  full[count] = number;
  full[count + 1] = NULL;
  *child = (Child){.pid = fork()};
  if (child->pid < 0) fail("out_of_memory", NULL, "no process can be started: %s", strerror(errno));
  if (child->pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent) _exit(125);
    setsid();
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(output[1], 1);
    dup2(output[1], 2);
    fcntl(events[1], F_SETFD, 0);
    if (folder && chdir(folder)) _exit(126);
    execve(full[0], full, env);
    _exit(127);
  }
  close(events[1]);
  close(output[1]);
  fcntl(child->events = events[0], F_SETFL, O_NONBLOCK);
  fcntl(child->output = output[0], F_SETFL, O_NONBLOCK);
  add(&child->buffer, "");
  add(&child->tail, "");
}

bool child_ended(Child *child) {
  int status;
  if (!child->ended && waitpid(child->pid, &status, WNOHANG) == child->pid) {
    child->ended = true;
    child->status = status;
  }
  return child->ended;
}

static void child_kill(Child *child) {
  if (kill(-child->pid, SIGKILL) && !child->ended) kill(child->pid, SIGKILL);
}

static void child_reap(Child *child) {
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

static int64_t load_ticks(void) {
  int64_t sum = 0;
  for (int i = 0; i < self.loads; i++) sum += cpu_ticks(self.load[i].pid);
  return sum;
}

/* Follows the phases of a repetition that has a second load: it works from warming up on, and what it uses counts while
 * it is measured. */
static void load_beside(const char *event) {
  const char *phase = strstr(event, "\"phase\":\"");
  phase = phase ? phase + strlen("\"phase\":\"") : "";
  if (strncmp(phase, "warmup\"", 7) == 0) {
    char *argv[] = {program_path(), (char *)"busy", textf("%d", getpid()), NULL};
    self.load = take(sizeof *self.load * (size_t)self.load_cores);
    self.load_ticks[0] = self.load_ticks[1] = 0;
    for (; self.loads < self.load_cores; self.loads++) child_start(&self.load[self.loads], argv, environ, NULL);
  } else if (strncmp(phase, "measure\"", 8) == 0) {
    self.load_ticks[0] = load_ticks();
    self.load_ticks[1] = -1;
  } else if (self.load_ticks[1] < 0) {
    self.load_ticks[1] = load_ticks();
  }
}

static void watch_load(void) {
  for (int i = 0; i < self.loads && !self.finished_ns && !self.load_problem; i++)
    if (child_ended(&self.load[i])) self.load_problem = textf("a process of the second load ended by itself");
}

/* Whether a sensor is of what a hand can feel, and says something: it was heard of within half a minute, and has changed
 * or may still do so in its first minute. Where there is such a one the limit is meant for it alone. */
static bool protects(int i, int64_t now) {
  static const char *const outer[] = {"skin", "shell", "batt", "surface", "case"};
  bool named = false;
  for (size_t k = 0; k < COUNT(outer); k++) named |= contains_i(self.heat.sensors[i].source, outer[k]);
  return named && now - self.heat.sensors[i].last_ns <= 30 * SECOND_NS &&
         (self.heat.sensors[i].alive || now - self.heat.sensors[i].first_ns <= 60 * SECOND_NS);
}

/* Takes a reading that can be a temperature; the sensor's number, or -1. A sensor counts once its value has changed: a
 * stuck one says nothing. */
static int take_heat(const Json *row, int64_t *t_ns, int64_t *value) {
  const Json *kind = row->first ? row->first->next : NULL, *source = kind ? kind->next : NULL;
  if (!source || !source->next || strcmp(string_or(kind, ""), "temperature_milli_c") || !int_in(source->next, 1, 119999, value)) return -1;
  if (!int_in(row->first, 0, INT64_MAX, t_ns)) return -1;
  int i = 0;
  while (i < self.heat.count && strcmp(self.heat.sensors[i].source, source->text)) i++;
  if (i == (int)COUNT(self.heat.sensors)) return -1;
  if (i == self.heat.count) {
    self.heat.sensors[i].source = copy_of(source->text, source->size);
    self.heat.sensors[i].first = *value;
    self.heat.sensors[i].first_ns = *t_ns;
    self.heat.sensors[self.heat.count++].alive = false;
  }
  if (*value != self.heat.sensors[i].first) self.heat.sensors[i].alive = true;
  self.heat.sensors[i].last_ns = *t_ns;
  return i;
}

static void stop_for_heat(const char *source, int64_t value) {
  Text event = {0};
  self.heat.limit = 0;
  int fd = open(textf("%s/" TOO_WARM, self.folder), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd >= 0) close(fd);
  begin_event(&event, "log", self.current.data);
  add(&event, ",\"level\":\"info\",\"text\":");
  add_string(&event, textf("stopped measuring: %s reached %.1f degrees C", source, (double)value / 1000));
  emit(&event);
}

/* Looks whether a temperature is at the trial's limit: of skin and battery where the device tells them, else any. */
static void watch_heat(const char *line, size_t size) {
  const char *problem;
  const Json *rows = member(json_parse(line, size, &problem), "rows");
  int64_t now = 0, t_ns, value;
  for (const Json *row = is_null(rows) ? NULL : rows->first; row; row = row->next)
    if (take_heat(row, &t_ns, &value) >= 0 && t_ns > now) now = t_ns;
  bool outer = false;
  for (int i = 0; i < self.heat.count; i++) outer |= protects(i, now);
  for (const Json *row = is_null(rows) ? NULL : rows->first; row && self.heat.limit; row = row->next) {
    int i = take_heat(row, &t_ns, &value);
    if (i >= 0 && self.heat.sensors[i].alive && value >= self.heat.limit && (!outer || protects(i, now)))
      stop_for_heat(self.heat.sensors[i].source, value);
  }
}

/* Appends a line of a child: it is complete JSON but for seq, trial and repetition. */
static void take_event(const char *line, size_t size) {
  static const char start[] = "{\"type\":\"";
  if (size < sizeof start || memcmp(line, start, sizeof start - 1) != 0 || line[size - 1] != '}') return;
  const char *kind = line + sizeof start - 1;
  bool done = strncmp(kind, "done\"", 5) == 0, error = strncmp(kind, "error\"", 6) == 0;
  Text event = {0};
  if (self.current.size) add(&event, self.current.data);
  add_bytes(&event, line + 1, size - 1);
  if (done) {
    event.data[--event.size] = 0;
    add(&event, ",\"power\":");
    add_power(&event);
    if (self.loads)
      addf(&event, ",\"second_load_ns\":%lld",
           (long long)(((self.load_ticks[1] < 0 ? load_ticks() : self.load_ticks[1]) - self.load_ticks[0]) * (SECOND_NS / sysconf(_SC_CLK_TCK))));
    add(&event, "}");
  }
  if (self.load_cores && self.has_child && strncmp(kind, "phase\"", 6) == 0) load_beside(kind + 6);
  if (error) {
    const char *problem;
    snprintf(self.last_error, sizeof self.last_error, "%s", string_or(member(json_parse(line, size, &problem), "code"), ""));
  }
  if (done || error) {
    self.finished_ns = monotonic_ns();
    stop_load();
  }
  bool ok = append(event.data, event.size);
  free(event.data);
  if (!ok) disk_full();
  if (self.heat.limit && self.has_child && strncmp(kind, "telemetry\"", 10) == 0) watch_heat(line, size);
}

/* Reads once from a pipe of a child; false when there was nothing. */
static bool read_child(Child *child, int *fd) {
  static char piece[1 << 16];
  ssize_t got = read(*fd, piece, sizeof piece);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) {
    close(*fd);
    *fd = -1;
    return false;
  }
  if (fd == &child->output) return keep_output(child, piece, (size_t)got), true;
  add_bytes(&child->buffer, piece, (size_t)got);
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
  for (int i = 0; i < 1024 && child->events >= 0 && read_child(child, &child->events); i++) continue;
  for (int i = 0; i < 1024 && child->output >= 0 && read_child(child, &child->output); i++) continue;
}

/* --- time ----------------------------------------------------------------------------------------------------------- */

/* Ends when the host has not touched the lease for too long, judged on the monotonic clock alone. */
static void check_lease(void) {
  double limit_s = number_or(member(self.job, "orphan_after_s"), 0);
  struct stat facts;
  if (!limit_s) return;
  int64_t now = monotonic_ns(), mtime = -1;
  if (stat(textf("%s/lease", self.folder), &facts) == 0) mtime = (int64_t)facts.st_mtim.tv_sec * SECOND_NS + facts.st_mtim.tv_nsec;
  if (mtime != -1 && mtime != self.lease_mtime) {
    self.lease_mtime = mtime;
    self.lease_seen_ns = now;
  } else if ((double)(now - self.lease_seen_ns) > limit_s * 1e9 && !ending) {
    ending = "orphaned";
  }
}

/* The time of day runs differently than at the last pair: what is placed by it needs a pair of each side. */
static bool wall_was_set(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int64_t moved = (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec - monotonic_ns() - self.wall_offset_ns;
  return moved > SECOND_NS || moved < -SECOND_NS;
}

static void tick(void) {
  int64_t now = boot_ns(), gap = now - self.last_boot_ns;
  self.last_boot_ns = now;
  if (gap > TICK_NS + SECOND_NS) emit_clock(gap);
  else if (monotonic_ns() - self.last_clock_ns > CLOCK_EVERY_NS || wall_was_set()) emit_clock(0);
  if (self.has_telemetry && child_ended(&self.telemetry)) {
    Text event = {0};
    begin_event(&event, "log", self.current.size ? self.current.data : NULL);
    add(&event, ",\"level\":\"warning\",\"text\":");
    add_string(&event, textf("telemetry ended: %s", self.telemetry.tail.data));
    self.has_telemetry = false;
    child_close(&self.telemetry);
    emit(&event);
  }
  check_lease();
}

/* Waits for output of the children, at most one tick and at most until `until_ns`, and handles it. */
static void pump(int64_t until_ns) {
  struct pollfd wait[5] = {{.fd = self.wake[0], .events = POLLIN}};
  struct { Child *child; int *fd; } from[5];
  int count = 1;
  Child *children[] = {self.has_child ? &self.child : NULL, self.has_telemetry ? &self.telemetry : NULL};
  for (size_t i = 0; i < COUNT(children); i++)
    for (int k = 0; children[i] && k < 2; k++) {
      int *fd = k ? &children[i]->output : &children[i]->events;
      if (*fd < 0) continue;
      wait[count] = (struct pollfd){.fd = *fd, .events = POLLIN};
      from[count].child = children[i];
      from[count++].fd = fd;
    }
  int64_t left = until_ns - monotonic_ns();
  if (left < 0) left = 0;
  if (left > TICK_NS) left = TICK_NS;
  int ready = poll(wait, (unsigned)count, (int)(left / 1000000) + 1);
  char bytes[512];
  if (ready > 0 && wait[0].revents && read(self.wake[0], bytes, sizeof bytes) < 0) errno = 0;
  for (int i = 1; ready > 0 && i < count; i++)
    if (wait[i].revents && *from[i].fd >= 0) read_child(from[i].child, from[i].fd);
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

/* --- repetitions ---------------------------------------------------------------------------------------------------- */

/* Waits until the device is as cool as at the baseline (rule 7 of the design) and records how that ended. */
static void cool_down(const Json *cool) {
  if (is_null(cool)) return;
  Text event = {0}, detail = {0};
  begin_event(&event, "phase", self.current.data);
  add(&event, ",\"phase\":\"cool_down\",\"detail\":{\"outcome\":\"waiting\"}");
  emit(&event);
  const char *outcome = "fixed";
  int64_t begin = monotonic_ns();
  add(&detail, "");
  if (!is_null(member(cool, "max_wait_s"))) {
    int64_t until = begin + (int64_t)(member(cool, "max_wait_s")->number * 1e9);
    outcome = self.has_baseline ? NULL : "unreadable";
    while (!outcome) {
      Cooling state;
      read_cooling(&state);
      drop_front(&detail, detail.size);
      add(&detail, "\"baseline\":");
      add_cooling(&detail, &self.baseline);
      add(&detail, ",\"state\":");
      add_cooling(&detail, &state);
      add(&detail, ",\"above\":");
      int above = add_not_cool(&detail, &self.baseline, &state, number_or(member(cool, "tolerance_milli_c"), 0));
      add(&detail, ",");
      int64_t left = until - monotonic_ns();
      if (!above) outcome = "reached";
      else if (left <= 0 || ending) outcome = "timeout";
      else wait_ns(left < SECOND_NS ? left : SECOND_NS);
    }
  }
  if (is_null(member(cool, "max_wait_s")) || strcmp(outcome, "unreadable") == 0) wait_ns((int64_t)(number_or(member(cool, "fixed_s"), 0) * 1e9));
  begin_event(&event, "phase", self.current.data);
  addf(&event, ",\"phase\":\"cool_down\",\"detail\":{%s\"outcome\":\"%s\",\"waited_ns\":%lld}", detail.data, outcome,
       (long long)(monotonic_ns() - begin));
  emit(&event);
}

static int64_t oom_kills(void) {
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
static char **child_environment(const Json *trial) {
  int count = 0, extra = 8;
  const Json *given = member(trial, "env");
  while (environ[count]) count++;
  char **env = take(sizeof *env * (size_t)(count + extra + (given ? given->count : 0)));
  memcpy(env, environ, sizeof *env * (size_t)count);
  int64_t threads = 1;
  int_in(member(trial, "threads"), 1, 4096, &threads);
  char *number = textf("%lld", (long long)threads);
  set_variable(env, &count, "OMP_NUM_THREADS", number);
  set_variable(env, &count, "MKL_NUM_THREADS", number);
  const char *folder = string_or(member(trial, "runtime_dir"), getenv("SOCBENCH_RUNTIMES"));
  if (folder) {
    const char *before = getenv("LD_LIBRARY_PATH");
    set_variable(env, &count, "LD_LIBRARY_PATH", before && *before ? textf("%s:%s", folder, before) : folder);
    set_variable(env, &count, "ADSP_LIBRARY_PATH", folder);
  }
  for (const Json *item = is_null(given) ? NULL : given->first; item; item = item->next) set_variable(env, &count, item->key, item->text);
  env[count] = NULL;
  return env;
}

/* Writes the error of a repetition that did not finish by itself. */
static void conclude(const Child *child, const char *what, double deadline_s, bool late, bool running, bool oom) {
  Text event = {0};
  const char *tail = child->tail.data, *begin = tail;
  size_t size = child->tail.size;
  while (size && strchr(" \n\r\t", begin[size - 1])) size--;
  while (size && strchr(" \n\r\t", *begin)) begin++, size--;
  if (size) {
    begin_event(&event, "log", self.current.data);
    add(&event, ",\"level\":\"error\",\"text\":");
    add_quoted(&event, begin, size);
    emit(&event);
  }
  int number = WIFSIGNALED(child->status) ? WTERMSIG(child->status) : 0;
  if (self.load_problem) {
    emit_error("run_failed", textf("%s was under way when %s", what, self.load_problem), "leave --busy-cores away", self.current.data);
  } else if (late) {
    emit_error("deadline", textf("%s was not done after %g s", what, deadline_s), NULL, self.current.data);
  } else if (ending && running) {
    emit_error(ending, textf("%s was under way when the agent ended (%s)", what, ending), NULL, self.current.data);
  } else if (number == SIGKILL && oom) {
    emit_error("out_of_memory", textf("the process of %s was killed by the kernel for want of memory", what),
               "use a smaller batch or a smaller model", self.current.data);
  } else if (number) {
    emit_error("crashed", textf("the process of %s died of %s", what, signal_name(number)), NULL, self.current.data);
  } else {
    emit_error("run_failed", textf("the process of %s ended with status %d and no result", what, WEXITSTATUS(child->status)), NULL,
               self.current.data);
  }
}

static bool repetition_over(void) {
  if (child_ended(&self.child)) return true;
  return self.finished_ns && monotonic_ns() - self.finished_ns > 5 * SECOND_NS;
}

static void run_child(int index, const Json *entry, const char *program) {
  const Json *trial = member(member(self.job, "trials"), member(entry, "trial")->text);
  double deadline_s = member(entry, "deadline_s")->number;
  int64_t kills = oom_kills(), deadline_ns = monotonic_ns() + (int64_t)(deadline_s * 1e9);
  bool late = false;
  self.finished_ns = 0;
  self.last_error[0] = 0;
  self.heat.limit = self.heat.count = 0;
  self.load_cores = 0;
  self.load_problem = NULL;
  int_in(member(member(trial, "settings"), "busy_cores"), 1, MAX_CPUS, &self.load_cores);
  int_in(member(member(trial, "settings"), "max_temperature_milli_c"), 1, INT64_MAX, &self.heat.limit);
  unlink(textf("%s/" TOO_WARM, self.folder));
  char *argv[] = {(char *)program, (char *)"child", (char *)self.folder, textf("%d", index), NULL};
  child_start(&self.child, argv, child_environment(trial), self.folder);
  self.has_child = true;
  while (!ending && !repetition_over() && !self.load_problem) {
    late = monotonic_ns() >= deadline_ns;
    if (late) break;
    pump(deadline_ns);
    watch_load();
  }
  bool running = !child_ended(&self.child);
  stop_load();
  child_reap(&self.child);
  drain(&self.child);
  if (!self.finished_ns)
    conclude(&self.child, textf("%s repetition %s", member(entry, "trial")->text, member(entry, "repetition")->text), deadline_s, late,
             running, oom_kills() > kills);
  self.has_child = false;
  child_close(&self.child);
  if (strcmp(self.last_error, "disk_full") == 0) disk_full(); /* what follows would meet the same disk */
}

static void start_telemetry(const char *program) {
  const Json *settings = member(self.job, "telemetry");
  if (is_null(settings)) return;
  char *argv[] = {(char *)program, (char *)"telemetry", textf("%.6f", number_or(member(settings, "interval_s"), 0.5)),
                  textf("%.6f", number_or(member(settings, "slow_interval_s"), 10.0)), NULL};
  child_start(&self.telemetry, argv, environ, NULL);
  self.has_telemetry = true;
}

static _Noreturn void run_job(void) {
  char *program = program_path();
  if (pipe2(self.wake, O_CLOEXEC | O_NONBLOCK)) fail("run_failed", NULL, "no pipe can be had: %s", strerror(errno));
  struct sigaction action = {.sa_handler = on_signal};
  static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
  for (size_t i = 0; i < COUNT(signals); i++) sigaction(signals[i], &action, NULL);
  self.last_boot_ns = boot_ns();
  self.lease_seen_ns = monotonic_ns();
  self.lease_mtime = -1;
  emit_hello(string_or(member(self.job, "session"), NULL));
  emit_clock(0);
  start_telemetry(program);
  const Json *repetitions = member(self.job, "repetitions");
  for (const Json *entry = repetitions->first; entry && !self.has_baseline; entry = entry->next)
    if (!is_null(member(member(entry, "cool_down"), "max_wait_s"))) {
      const Json *told = member(member(entry, "cool_down"), "baseline");
      self.has_baseline = is_null(told) ? read_cooling(&self.baseline) : (told_cooling(told, &self.baseline), true);
      break;
    }
  int index = 0;
  for (const Json *entry = repetitions->first; entry && !ending; entry = entry->next, index++) {
    add(&self.current, "\"trial\":");
    add_string(&self.current, member(entry, "trial")->text);
    addf(&self.current, ",\"repetition\":%s,", member(entry, "repetition")->text);
    cool_down(member(entry, "cool_down"));
    if (!ending) run_child(index, entry, program);
    drop_front(&self.current, self.current.size);
  }
  finish(ending ? ending : "complete");
}

/* --- the commands `run` and `start` --------------------------------------------------------------------------------- */

void refuse_used(const char *folder) {
  if (exists(textf("%s/events.jsonl", folder)))
    fail("bad_job", "write what is left of it as a new job into a new folder", "%s already holds events.jsonl: this job was run", folder);
}

/* Leaves an event file that says why a job was refused. */
void write_refusal(const char *folder, const char *code, const char *message, const char *advice) {
  if (!open_events(folder)) return;
  emit_hello(NULL);
  emit_error(code, message, advice, NULL);
  Text event = {0};
  begin_event(&event, "end", NULL);
  add(&event, ",\"reason\":\"job_error\"");
  emit(&event);
  close(self.events);
  unlink(self.reserve);
}

static FailHandler *refused_before;
static void refuse(const char *code, const char *message, const char *advice) {
  write_refusal(self.folder, code, message, advice);
  refused_before(code, message, advice);
}

int supervise(const char *folder) {
  refuse_used(folder);
  struct stat facts;
  if (stat(folder, &facts) || (facts.st_mode & S_IFMT) != S_IFDIR) fail("bad_job", NULL, "%s is no folder", folder);
  int lock = open(textf("%s/pid", folder), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) fail("disk_full", NULL, "%s cannot be written: %s", folder, strerror(errno));
  if (flock(lock, LOCK_EX | LOCK_NB)) fail("bad_job", NULL, "an agent already works on %s", folder);
  char number[16];
  int size = snprintf(number, sizeof number, "%d\n", getpid());
  if (ftruncate(lock, 0) || !write_all(lock, number, (size_t)size)) fail("disk_full", NULL, "%s cannot be written: %s", folder, strerror(errno));
  self.folder = folder;
  refused_before = on_fail;
  on_fail = refuse;
  self.job = load_job(folder);
  on_fail = refused_before;
  if (!open_events(folder)) fail("disk_full", NULL, "%s cannot be written: %s", folder, strerror(errno));
  run_job();
}
