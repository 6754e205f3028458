/* The event file: one JSON object a line, numbered, each in one write; on a full disk the last ones in a reserve. */
#include "supervisor.h"

#define CLOCK_EVERY_NS (60 * SECOND_NS)
#define RESERVE_BYTES (256 * 1024)

static int file = -1;
static int64_t seq, last_clock_ns, wall_offset_ns;
static bool full;
static char *reserve;

/* File systems that compress would make nothing of zeros. */
static bool write_reserve(void) {
  char bytes[4096];
  int fd = open(reserve, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  int noise = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  bool ok = fd >= 0;
  for (int i = 0; ok && i < RESERVE_BYTES; i += (int)sizeof bytes)
    ok = read(noise, bytes, sizeof bytes) > 0 && write_all(fd, bytes, sizeof bytes);
  int kept = errno;
  if (fd >= 0) close(fd);
  if (noise >= 0) close(noise);
  errno = kept;
  return ok;
}

bool open_events(const char *folder) {
  reserve = textf("%s/reserve", folder);
  if (!write_reserve()) return false;
  file = open(textf("%s/events.jsonl", folder), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  return file >= 0;
}

void close_events(void) {
  close(file);
  unlink(reserve);
}

/* Appends one line: `body` is an object without its opening brace and `seq`. False on a full disk: the line that met it
 * was completed in the room of the reserve, or, later, nothing of it was written. */
bool append_event(const char *body, size_t size) {
  Text line = {0};
  size_t done = 0;
  bool freed = false;
  addf(&line, "{\"seq\":%lld,", (long long)seq + 1);
  add_bytes(&line, body, size);
  add(&line, "\n");
  for (int tries = 0; done < line.size;) {
    ssize_t written = write(file, line.data + done, line.size - done);
    if (written >= 0) {
      done += (size_t)written;
    } else if (errno == EINTR) {
      continue;
    } else if (!no_space()) {
      fail("run_failed", NULL, "the event file cannot be written: %s", strerror(errno));
    } else if (!full) {
      full = freed = true;
      unlink(reserve);
    } else if (done == 0) {
      free(line.data);
      return false;
    } else if (tries++ > 40) {
      fail("disk_full", NULL, "the device's disk is full: %s cannot be completed", "events.jsonl");
    } else {
      sleep_ns(SECOND_NS / 4);
    }
  }
  free(line.data);
  seq++;
  return !freed;
}

/* `members`: what stands in front ("trial":..,"repetition":..,), or NULL. */
void begin_event(Text *event, const char *type, const char *members) {
  add(event, members ? members : "");
  put_string(event, "type", type);
  put_int(event, "t_ns", monotonic_ns());
}

void emit(Text *event) {
  add(event, "}");
  bool ok = append_event(event->data, event->size);
  free(event->data);
  *event = (Text){0};
  if (!ok) disk_full();
}

void emit_error(const char *code, const char *message, const char *advice, const char *members) {
  Text event = {0};
  begin_event(&event, "error", members);
  put_string(&event, "code", code);
  put_string(&event, "message", message);
  put_string(&event, "advice", advice);
  emit(&event);
}

void emit_log(const char *level, const char *text, size_t size, const char *members) {
  Text event = {0};
  begin_event(&event, "log", members);
  put_string(&event, "level", level);
  put(&event, "text", "");
  add_quoted(&event, text, size);
  emit(&event);
}

/* The last line, and the only one that does not care whether there was room for it. */
void emit_end(const char *reason) {
  Text event = {0};
  begin_event(&event, "end", NULL);
  put_string(&event, "reason", reason);
  add(&event, "}");
  append_event(event.data, event.size);
}

void emit_hello(const char *session) {
  Text event = {0};
  begin_event(&event, "hello", NULL);
  put_int(&event, "protocol", PROTOCOL);
  put_string(&event, "agent", "native");
  put_string(&event, "agent_version", AGENT_VERSION);
  put_int(&event, "pid", getpid());
  put_string(&event, "session", session);
  put_string(&event, "boot_id", boot_id());
  put_power(&event);
  emit(&event);
}

/* Both clocks, read together: the narrowest of five brackets, as one may be preempted. */
void emit_clock(int64_t gap_ns) {
  int64_t narrowest = INT64_MAX, wall_ns = 0;
  for (int i = 0; i < 5; i++) {
    int64_t before = monotonic_ns(), now = clock_ns(CLOCK_REALTIME), after = monotonic_ns();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    last_clock_ns = (before + after) / 2;
    wall_ns = now;
  }
  wall_offset_ns = wall_ns - last_clock_ns;
  Text event = {0};
  begin_event(&event, "clock", NULL);
  put_int(&event, "monotonic_ns", last_clock_ns);
  put_int(&event, "wall_ns", wall_ns);
  if (gap_ns) put_int(&event, "gap_ns", gap_ns);
  emit(&event);
}

/* After a minute, and when the time of day was set: what is placed by it needs a pair of each side. */
bool clock_is_due(void) {
  int64_t now = monotonic_ns(), moved = clock_ns(CLOCK_REALTIME) - now - wall_offset_ns;
  return now - last_clock_ns > CLOCK_EVERY_NS || moved > SECOND_NS || moved < -SECOND_NS;
}
