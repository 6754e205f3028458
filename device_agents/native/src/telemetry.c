/* What the device tells about itself while it runs: docs/protocol.md, *Telemetry*. Runs in a process of its own
 * beside the repetition; files stay open; slow commands (Android's dumpsys) have an interval of their own. */
#include "sensors.h"

typedef struct {
  Text rows, failed; /* failed: "kind source reason" lines that were said: each reason is said once */
  int64_t t_ns;
} Rows;

static void take_row(void *to, const char *kind, const char *source, bool known, int64_t value, const char *reason) {
  Rows *rows = to;
  if (!known) {
    char *line = textf("%s\t%s\t%s\n", kind, source, reason);
    bool said = rows->failed.size && strstr(rows->failed.data, line);
    if (!said) add(&rows->failed, line);
    free(line);
    if (said) return;
  }
  comma(&rows->rows);
  addf(&rows->rows, "[%lld,\"%s\",", (long long)rows->t_ns, kind);
  add_string(&rows->rows, source);
  add(&rows->rows, ",");
  add_int_or_null(&rows->rows, value, known);
  if (!known) add(&rows->rows, ","), add_string(&rows->rows, reason);
  add(&rows->rows, "]");
}

static void take_value(Rows *rows, const char *kind, const char *source, int64_t value) {
  take_row(rows, kind, source, true, value, NULL);
}

/* The children of a process, from its main thread's list; each is given to `take_pid`. */
static int64_t for_children(int pid, int64_t (*take_pid)(int pid)) {
  char *text = file_text(textf("/proc/%d/task/%d/children", pid, pid), 4096), *at = text, *end;
  int64_t sum = 0;
  for (long child; text && (child = strtol(at, &end, 10), end != at); at = end) sum += take_pid((int)child);
  free(text);
  return sum;
}

/* CPU time of a process in clock ticks, with that of the children it has buried; 0 once it is gone. */
int64_t cpu_ticks(int pid) {
  char *text = file_text(textf("/proc/%d/stat", pid), 1024), *at = text ? strrchr(text, ')') : NULL;
  int64_t sum = 0;
  for (int word = 0; at && word < 16; word++) {
    if (word >= 12) sum += strtoll(at, NULL, 10);
    at = strchr(at + 1, ' ');
  }
  free(text);
  return sum;
}

static int repetition_pid;
static int64_t remember_repetition(int pid) { return pid != getpid() ? (repetition_pid = pid, 1) : 0; }

static void take_group(void *rows, const char *path, int64_t throttled_ns) {
  char *source = textf("cgroup:%s", *path ? path : "/");
  take_value(rows, "quota_throttled_us", source, throttled_ns / 1000);
  free(source);
}

static int find_repetition(void) {
  repetition_pid = getpid();
  for_children(getppid(), remember_repetition);
  return repetition_pid;
}

/* How long CPU quotas of the repetition's control groups have held tasks back so far. */
static void take_quota(Rows *rows) { for_cpu_groups(find_repetition(), take_group, rows); }

/* How long a process's threads have waited for a core so far; -1 where the kernel keeps no count. */
static int64_t waited_ns(int pid) {
  int64_t waited = -1;
  int count;
  char **threads = list_folder(sysfs("/proc/%d/task", pid), "", &count);
  for (int i = 0; i < count; i++) {
    char *text = file_text(sysfs("/proc/%d/task/%s/schedstat", pid, threads[i]), 128);
    char *second = text ? strchr(text, ' ') : NULL;
    if (second) waited = (waited < 0 ? 0 : waited) + strtoll(second, NULL, 10);
    free(text);
    free(threads[i]);
  }
  free(threads);
  return waited;
}

/* How much of the time, of one core, the repetition's threads waited for a core; nothing across its restart. */
static void take_wait(Rows *rows) {
  static int64_t before_ns = -1, before_t_ns;
  static int before_pid;
  int pid = find_repetition();
  int64_t waited = waited_ns(pid), span = rows->t_ns - before_t_ns;
  if (waited < 0) take_row(rows, "cpu_wait_permille", "schedstat", false, 0, "the kernel keeps no count");
  else if (before_ns >= 0 && before_pid == pid && waited >= before_ns && span > 0)
    take_value(rows, "cpu_wait_permille", "schedstat", 1000 * (waited - before_ns) / span);
  before_ns = waited;
  before_t_ns = rows->t_ns;
  before_pid = pid;
}

static int64_t within(int64_t low, int64_t value, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

static void take_load(Rows *rows, int fd) {
  static long long before[4];
  char text[257], *at = text + 4, *end;
  long long total = 0, idle = 0, steal = 0;
  ssize_t size = fd < 0 ? -1 : pread(fd, text, 256, 0);
  if (size <= 4) return;
  text[size] = 0;
  for (int i = 0; i < 8; i++, at = end) {
    long long value = strtoll(at, &end, 10);
    total += value;
    if (i == 3 || i == 4) idle += value;
    if (i == 7) steal = value;
  }
  int64_t own = cpu_ticks(getppid()) + for_children(getppid(), cpu_ticks);
  if (before[0] && total > before[0]) {
    long long span = total - before[0], busy = span - (idle - before[1]), others = busy - (own - before[2]);
    take_value(rows, "cpu_busy_permille", "cpu", within(0, 1000 * busy / span, 1000));
    take_value(rows, "other_busy_permille", "cpu", within(0, 1000 * others / span, 1000));
    if (steal) take_value(rows, "cpu_steal_permille", "cpu", within(0, 1000 * (steal - before[3]) / span, 1000));
  }
  before[0] = total;
  before[1] = idle;
  before[2] = own;
  before[3] = steal;
}

static void take_memory(Rows *rows, int fd) {
  char text[513];
  const char *rest;
  ssize_t size = fd < 0 ? -1 : pread(fd, text, 512, 0);
  if (size <= 0) return;
  text[size] = 0;
  if (find_line(text, "MemAvailable:", &rest))
    take_value(rows, "memory_available_bytes", "ram", strtoll(rest, NULL, 10) * 1024);
}

static void take_rail(void *to, const char *source, int64_t microwatts) { take_value(to, "power_uw", source, microwatts); }

/* Takes a line `CH0(T=1234)[S10M_VDD_TPU], 5678` of microwatt-seconds; false when it is none. */
static bool take_channel(Rows *rows, const char *meter, const char *line, size_t size) {
  const char *name = memchr(line, '[', size), *stop = name ? memchr(name, ']', size - (size_t)(name - line)) : NULL;
  if (strncmp(line, "CH", 2) || !stop || stop == name + 1 || stop - name > 61 || stop[1] != ',') return false;
  const char *value = stop + 2;
  while (*value == ' ') value++;
  if (*value < '0' || *value > '9') return false;
  char *source = textf("odpm:%s:%.*s", meter, (int)(stop - name - 1), name + 1);
  take_value(rows, "energy_uj", source, strtoll(value, NULL, 10));
  free(source);
  return true;
}

/* Android's on-device power monitors (ODPM). */
static void take_odpm(Rows *rows) {
  bool any = false;
  FOR_EACH(meter, "/sys/bus/iio/devices", "iio:device") {
    const char *path = sysfs("/sys/bus/iio/devices/%s/energy_value", meter);
    int rails = 0;
    char *text = file_text(path, 16384);
    bool denied = !text && errno == EACCES;
    if (!text && errno == ENOENT) continue;
    any = true;
    for (const char *line = text; line && *line;) {
      size_t size = strcspn(line, "\n");
      rails += take_channel(rows, meter, line, size);
      line += size + (line[size] == '\n');
    }
    const char *reason = text ? "no rail in it" : denied ? "permission denied" : "not readable";
    if (!rails) take_row(rows, "energy_uj", textf("odpm:%s", meter), false, 0, reason);
    free(text);
  }
  if (!any) take_row(rows, "energy_uj", "odpm", false, 0, "no sensor");
}

static void take_headroom(Rows *rows) {
  static bool asked_in_vain;
  double headroom;
  if (!is_android() || asked_in_vain) return;
  asked_in_vain = !android_headroom(&headroom);
  int64_t ppm = asked_in_vain ? 0 : (int64_t)rint(headroom * 1000) * 1000;
  take_row(rows, "thermal_headroom_ppm", "thermalservice", !asked_in_vain, ppm, "not told by this Android");
}

typedef struct { char *source; int64_t ticks; } State;

/* Remembers what was told of a clock; NULL where there is no more room. */
static State *state_of(const char *source) {
  static State states[512];
  static int count;
  for (int i = 0; i < count; i++)
    if (strcmp(states[i].source, source) == 0) return &states[i];
  if (count == (int)COUNT(states)) return NULL;
  states[count] = (State){copy_of(source, strlen(source)), -1};
  return &states[count++];
}

/* How long each clock was used since boot, told again when it has grown. */
static void take_time_in_state(Rows *rows) {
  FOR_EACH(policy, "/sys/devices/system/cpu/cpufreq", "policy") {
    char *text = file_text(sysfs("/sys/devices/system/cpu/cpufreq/%s/stats/time_in_state", policy), 16384), *at = text,
         *end;
    while (at && *at) {
      int64_t khz = strtoll(at, &end, 10), ticks = end != at ? strtoll(end, &at, 10) : 0;
      if (end == at || !khz) break;
      char *source = textf("%s:%lld", policy, (long long)khz);
      State *state = state_of(source);
      if (state && state->ticks != ticks) take_value(rows, "time_in_state_ms", source, (state->ticks = ticks) * 10);
      free(source);
      at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    }
    free(text);
  }
}

static void take_charging(Rows *rows) {
  FOR_EACH(supply, "/sys/class/power_supply", "") {
    char *status = stripped_text(sysfs("/sys/class/power_supply/%s/status", supply));
    if (!status || !is_battery(supply)) continue;
    take_value(rows, "battery_charging", supply, strcmp(status, "Charging") == 0 || strcmp(status, "Full") == 0);
  }
}

static void take_slow(Rows *rows) {
  for_rails(take_rail, rows);
  take_odpm(rows);
  take_charging(rows);
  take_android(take_row, rows);
  take_headroom(rows);
  take_time_in_state(rows);
}

/* Rows of what is not there: said once, at the start. */
static void take_absent(Rows *rows, const Sensors *sensors) {
  for (char *line = sensors->absent.data; line && *line;) {
    size_t size = strcspn(line, "\n");
    comma(&rows->rows);
    addf(&rows->rows, "[%lld,%.*s]", (long long)rows->t_ns, (int)size, line);
    line += size + (line[size] == '\n');
  }
}

static bool send_rows(Rows *rows, int fd) {
  const char *all = rows->rows.data ? rows->rows.data : "";
  char *line = textf("{\"type\":\"telemetry\",\"t_ns\":%lld,\"rows\":[%s]}\n", (long long)rows->t_ns, all);
  bool sent = write_all(fd, line, strlen(line));
  free(line);
  if (rows->rows.data) drop_front(&rows->rows, rows->rows.size);
  return sent;
}

int serve_telemetry(double interval_s, double slow_interval_s, int fd) {
  static const char missing[] = "no such file or directory";
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  Sensors sensors = find_sensors();
  int stat = open(sysfs("/proc/stat"), O_RDONLY | O_CLOEXEC),
      meminfo = open(sysfs("/proc/meminfo"), O_RDONLY | O_CLOEXEC);
  int64_t due = monotonic_ns(), slow_due = due;
  Rows rows = {.t_ns = due};
  take_absent(&rows, &sensors);
  if (stat < 0) take_row(&rows, "cpu_busy_permille", "cpu", false, 0, missing);
  if (meminfo < 0) take_row(&rows, "memory_available_bytes", "ram", false, 0, missing);
  for (;;) {
    rows.t_ns = monotonic_ns();
    if (rows.t_ns >= slow_due) {
      take_slow(&rows);
      slow_due = rows.t_ns + (int64_t)(slow_interval_s * 1e9);
    }
    rows.t_ns = monotonic_ns();
    for (int i = 0; i < sensors.count; i++) {
      int64_t value = 0;
      const char *reason = read_sensor(&sensors.found[i], &value);
      take_row(&rows, sensors.found[i].kind, sensors.found[i].source, !reason, value, reason);
    }
    take_load(&rows, stat);
    take_quota(&rows);
    take_wait(&rows);
    take_memory(&rows, meminfo);
    if (!send_rows(&rows, fd)) return 0;
    due += (int64_t)(interval_s * 1e9);
    if (due < monotonic_ns()) due = monotonic_ns();
    sleep_ns(due - monotonic_ns());
  }
}
