/* What the operating system counts around the measured part: CPU time, switches, quotas, waiting for a core. */
#include "child.h"

static int64_t busy_ns(void) {
  long long t[7];
  char *text = file_text(sysfs("/proc/stat"), 512), *at = text;
  bool ok = text && strncmp(text, "cpu ", 4) == 0;
  if (ok) at += 4;
  for (int i = 0; ok && i < 7; i++) {
    char *end;
    t[i] = strtoll(at, &end, 10);
    ok = end != at;
    at = end;
  }
  free(text);
  return ok ? (int64_t)(t[0] + t[1] + t[2] + t[5] + t[6]) * (SECOND_NS / sysconf(_SC_CLK_TCK)) : -1;
}

/* The `throttled_usec` or `throttled_time` of a control group's cpu.stat, in nanoseconds; false when it has none. */
static bool read_throttled(const char *path, int64_t *ns) {
  char *text = file_text(path, 4096);
  const char *rest;
  bool us = text && find_line(text, "throttled_usec ", &rest);
  bool found = us || (text && find_line(text, "throttled_time ", &rest));
  if (found) *ns = strtoll(rest, NULL, 10) * (us ? 1000 : 1);
  free(text);
  return found;
}

/* Gives a group and those above it to `take`; `mounts`: where its kind may be mounted. */
static void climb(char *path, const char *const *mounts, size_t count, TakeGroup *take_group, void *to) {
  const char *base = NULL;
  int64_t ns;
  for (size_t i = 0; i < count && !base; i++)
    if (exists(sysfs("/sys/fs/cgroup%s/cgroup.procs", mounts[i]))) base = mounts[i];
  for (size_t size = strlen(path); size && path[size - 1] == '/';) path[--size] = 0;
  while (base) {
    if (read_throttled(sysfs("/sys/fs/cgroup%s%s/cpu.stat", base, path), &ns)) take_group(to, path, ns);
    if (!*path) return;
    *strrchr(path, '/') = 0;
  }
}

/* How long CPU quotas have held tasks of a process back (0: of this one), for each control group that tells it. */
void for_cpu_groups(int pid, TakeGroup *take_group, void *to) {
  char *groups = file_text(pid ? sysfs("/proc/%d/cgroup", pid) : sysfs("/proc/self/cgroup"), 65536);
  for (char *line = groups, *next; line && *line; line = next) {
    char *end = strchr(line, '\n'), *controllers = strchr(line, ':'),
         *path = controllers ? strchr(controllers + 1, ':') : NULL;
    next = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    if (!path) continue;
    *path++ = 0;
    controllers++;
    char *list = textf(",%s,", controllers), *own_mount = textf("/%s", controllers);
    const char *const unified[] = {"", "/unified"}, *const split[] = {own_mount, "/cpu", "/cpu,cpuacct"};
    if (!*controllers) climb(path, unified, COUNT(unified), take_group, to);
    else if (strstr(list, ",cpu,")) climb(path, split, COUNT(split), take_group, to);
    free(list);
    free(own_mount);
  }
  free(groups);
}

static void add_group(void *to, const char *path, int64_t throttled_ns) {
  int64_t *total = to;
  (void)path;
  *total = (*total < 0 ? 0 : *total) + throttled_ns;
}

static void read_delays(Counters *counters) {
  int count;
  char **threads = list_folder(sysfs("/proc/self/task"), "", &count);
  for (int i = 0; i < count; i++) {
    char *text = file_text(sysfs("/proc/self/task/%s/schedstat", threads[i]), 256),
         *second = text ? strchr(text, ' ') : NULL;
    if (second && counters->threads < (int)COUNT(counters->delays)) {
      counters->delays[counters->threads].thread = strtoll(threads[i], NULL, 10);
      counters->delays[counters->threads++].delay_ns = strtoll(second, NULL, 10);
    }
    free(text);
    free(threads[i]);
  }
  free(threads);
}

/* Threads that began in between count from their beginning, those that ended do not count. -1 when unknown. */
static int64_t delayed_ns(const Counters *before, const Counters *after) {
  int64_t sum = 0;
  for (int i = 0; i < after->threads; i++) {
    sum += after->delays[i].delay_ns;
    for (int k = 0; k < before->threads; k++)
      if (before->delays[k].thread == after->delays[i].thread) sum -= before->delays[k].delay_ns;
  }
  return before->threads && after->threads ? sum : -1;
}

Counters read_counters(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  Counters counters = {
      .cpu_ns = (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * SECOND_NS +
                (int64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000,
      .voluntary = usage.ru_nvcsw,
      .involuntary = usage.ru_nivcsw,
      .busy_ns = busy_ns(),
      .throttled_ns = -1};
  for_cpu_groups(0, add_group, &counters.throttled_ns);
  read_delays(&counters);
  return counters;
}

static int64_t peak_memory_bytes(void) {
  const char *rest;
  char *text = file_text("/proc/self/status", 8192);
  if (text && find_line(text, "VmHWM:", &rest)) return strtoll(rest, NULL, 10) * 1024;
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (int64_t)usage.ru_maxrss * 1024;
}

/* The members of `done`; the event itself is sent when all is over. */
void put_done(Text *event, int64_t count, int64_t ns, const char *stopped_by, const Counters *a, const Counters *b) {
  int64_t delay = delayed_ns(a, b);
  put_int(event, "measured_count", count);
  put_int(event, "measured_ns", ns);
  put_string(event, "stopped_by", stopped_by);
  put_int(event, "cpu_ns", b->cpu_ns - a->cpu_ns);
  put_int(event, "voluntary_switches", b->voluntary - a->voluntary);
  put_int(event, "involuntary_switches", b->involuntary - a->involuntary);
  put_known(event, "busy_ns", b->busy_ns - a->busy_ns, a->busy_ns >= 0 && b->busy_ns >= 0);
  put_known(event, "quota_throttled_ns", b->throttled_ns - a->throttled_ns,
            a->throttled_ns >= 0 && b->throttled_ns >= 0);
  put_known(event, "run_delay_ns", delay, delay >= 0);
  put_int(event, "peak_memory_bytes", peak_memory_bytes());
}
