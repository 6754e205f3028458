/* One repetition, in a process of its own: load, check, warm up, measure, check again, profile. */
#include "agent.h"

#define FLUSH_NS (SECOND_NS / 2)
#define BUFFER_SAMPLES 65536
#define LINE_SAMPLES 4096
#define WINDOW_SAMPLES 32768
#define SPIN_NS 200000
#define PRINTED_LIMIT (1 << 20)
#define RESULTS_LIMIT (4 << 20)

int current_repetition;
static int events;
static bool profiled;
static int64_t starts[BUFFER_SAMPLES], ends[BUFFER_SAMPLES], lates[BUFFER_SAMPLES];

/* --- events --------------------------------------------------------------------------------------------------------- */

static void begin(Text *event, const char *type) { addf(event, "{\"type\":\"%s\",\"t_ns\":%lld", type, (long long)monotonic_ns()); }

static void send_event(Text *event) {
  add(event, "}\n");
  if (!write_all(events, event->data, event->size)) _exit(1); /* nobody listens any more */
  free(event->data);
  *event = (Text){0};
}

static void report_failure(const char *code, const char *message, const char *advice) {
  Text event = {0};
  begin(&event, "error");
  addf(&event, ",\"code\":\"%s\",\"message\":", code);
  add_string(&event, message);
  add(&event, ",\"advice\":");
  add_string(&event, advice);
  send_event(&event);
}

static jmp_buf after_profile;
static void warn_of_profile(const char *code, const char *message, const char *advice) {
  Text event = {0};
  (void)advice;
  begin(&event, "log");
  add(&event, ",\"level\":\"warning\",\"text\":");
  add_string(&event, textf("no profile: %s: %s", code, message));
  send_event(&event);
  longjmp(after_profile, 1);
}

static void enter(Session *session, const char *phase) {
  Text event = {0};
  if (session && session->on_phase) session->on_phase(session, phase);
  begin(&event, "phase");
  addf(&event, ",\"phase\":\"%s\",\"detail\":null", phase);
  send_event(&event);
}

static void send_samples(const char *phase, const int64_t *start, const int64_t *end, const int64_t *late, size_t count) {
  for (size_t low = 0, high; low < count; low = high) {
    Text event = {0};
    high = low + LINE_SAMPLES < count ? low + LINE_SAMPLES : count;
    begin(&event, "samples");
    addf(&event, ",\"phase\":\"%s\",\"start_ns\":%lld,\"latency_ns\":[", phase, (long long)start[low]);
    for (size_t i = low; i < high; i++) addf(&event, i > low ? ",%lld" : "%lld", (long long)(end[i] - start[i]));
    add(&event, "],\"gap_ns\":[0");
    for (size_t i = low + 1; i < high; i++) addf(&event, ",%lld", (long long)(start[i] - end[i - 1]));
    add(&event, "]");
    if (late) {
      add(&event, ",\"late_ns\":[");
      for (size_t i = low; i < high; i++) addf(&event, i > low ? ",%lld" : "%lld", (long long)late[i]);
      add(&event, "]");
    }
    send_event(&event);
  }
}

/* --- the timed loops ------------------------------------------------------------------------------------------------ */

static inline int64_t now_ns(Session *session) { return session->clock ? session->clock(session) : monotonic_ns(); }

static _Noreturn void run_failed(const Session *session) {
  fail("run_failed", NULL, "an inference failed: %s", session->problem ? session->problem : "the runtime does not say why");
}

/* Runs until `limit` samples are there or one ends at or after `stop_ns`; nothing but the inference lies between the two
 * readings of the clock. Returns the next free index. */
static size_t timed_block(Session *session, size_t index, size_t limit, int64_t stop_ns) {
  bool (*const run)(Session *) = session->run;
  while (index < limit) {
    int64_t start = now_ns(session);
    bool ok = run(session);
    int64_t end = now_ns(session);
    if (!ok) run_failed(session);
    starts[index] = start;
    ends[index++] = end;
    if (end >= stop_ns) break;
  }
  return index;
}

static void wait_until(Session *session, int64_t due_ns) {
  if (session->wait_until) {
    session->wait_until(session, due_ns);
    return;
  }
  sleep_ns(due_ns - monotonic_ns() - SPIN_NS);
  while (monotonic_ns() < due_ns) continue;
}

typedef struct {
  int64_t origin_ns, slot;
  double period_ns;
} Grid;

/* The same at a fixed rate: slot k is due at origin + k * period. After an inference the newest slot that is due is taken,
 * those before it are dropped, as a camera's pipeline drops frames. */
static size_t paced_block(Session *session, size_t index, size_t limit, int64_t stop_ns, Grid *grid) {
  while (index < limit) {
    int64_t due = grid->origin_ns + (int64_t)((double)grid->slot * grid->period_ns);
    wait_until(session, due);
    int64_t start = now_ns(session);
    bool ok = session->run(session);
    int64_t end = now_ns(session);
    if (!ok) run_failed(session);
    starts[index] = start;
    ends[index] = end;
    lates[index++] = start - due;
    int64_t newest = (int64_t)((double)(end - grid->origin_ns) / grid->period_ns);
    grid->slot = newest > grid->slot + 1 ? newest : grid->slot + 1;
    if (end >= stop_ns) break;
  }
  return index;
}

static int compare_ns(const void *a, const void *b) {
  int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
  return (left > right) - (left < right);
}

static int64_t twice_median(size_t low, size_t high) {
  static int64_t sorted[WINDOW_SAMPLES];
  size_t count = high - low;
  for (size_t i = 0; i < count; i++) sorted[i] = ends[low + i] - starts[low + i];
  qsort(sorted, count, sizeof *sorted, compare_ns);
  return sorted[(count - 1) / 2] + sorted[count / 2];
}

/* The warm-up test of docs/protocol.md on the last window of `count` samples. */
static bool is_steady(size_t count) {
  if (count < 10) return false;
  size_t low = count - 10;
  while (ends[count - 1] - starts[low] < SECOND_NS / 10 && count - low < WINDOW_SAMPLES) {
    if (low == 0) return false;
    low--;
  }
  size_t middle = (low + count) / 2;
  int64_t first = twice_median(low, middle), second = twice_median(middle, count);
  return 20 * (first > second ? first - second : second - first) < second;
}

typedef struct {
  int64_t min_ns, max_ns, warmup_ns, min_count, max_count, warmup_count;
  double rate_hz;
} Settings;

static Settings read_settings(const Json *given) {
  Settings settings = {.min_ns = (int64_t)(number_or(member(given, "min_time_s"), 0) * 1e9),
                       .max_ns = (int64_t)(number_or(member(given, "max_time_s"), 0) * 1e9),
                       .warmup_ns = (int64_t)(number_or(member(given, "warmup_max_s"), 0) * 1e9),
                       .rate_hz = number_or(member(given, "rate_hz"), 0)};
  int_in(member(given, "min_count"), 1, INT64_MAX, &settings.min_count);
  int_in(member(given, "max_count"), 1, INT64_MAX, &settings.max_count);
  int_in(member(given, "warmup_min_count"), 0, INT64_MAX, &settings.warmup_count);
  return settings;
}

static void warm_up(Session *session, const Settings *settings) {
  int64_t begin_ns = now_ns(session), count = 0;
  size_t used = 0;
  bool steady = false;
  while (count < settings->max_count && !steady) {
    int64_t now = now_ns(session);
    if (now - begin_ns >= settings->warmup_ns && count >= settings->warmup_count) break;
    if (used + 1024 > BUFFER_SAMPLES) { /* the last part is kept for the window; what goes is sent */
      size_t sent = used - WINDOW_SAMPLES;
      send_samples("warmup", starts, ends, NULL, sent);
      memmove(starts, starts + sent, WINDOW_SAMPLES * sizeof *starts);
      memmove(ends, ends + sent, WINDOW_SAMPLES * sizeof *ends);
      used = WINDOW_SAMPLES;
    }
    int64_t left = settings->max_count - count;
    size_t before = used, limit = left < (int64_t)(BUFFER_SAMPLES - used) ? used + (size_t)left : BUFFER_SAMPLES;
    used = timed_block(session, used, limit, now + SECOND_NS / 20);
    count += (int64_t)(used - before);
    steady = count >= settings->warmup_count && is_steady(used);
  }
  int64_t duration = now_ns(session) - begin_ns;
  send_samples("warmup", starts, ends, NULL, used);
  Text event = {0};
  begin(&event, "warmup");
  addf(&event, ",\"count\":%lld,\"duration_ns\":%lld,\"steady\":%s", (long long)count, (long long)duration, steady ? "true" : "false");
  send_event(&event);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static const char *measure(Session *session, const Settings *settings, int64_t *measured_count, int64_t *measured_ns) {
  int64_t begin_ns = now_ns(session), flushed_ns = begin_ns, end_ns = begin_ns, count = 0;
  const int64_t *late = settings->rate_hz ? lates : NULL;
  Grid grid = {begin_ns, 0, late ? 1e9 / settings->rate_hz : 0};
  size_t used = 0;
  const char *stopped_by = NULL;
  while (!stopped_by) {
    bool enough = count >= settings->min_count;
    if (enough && end_ns - begin_ns >= settings->min_ns) stopped_by = "min";
    else if (count && end_ns - begin_ns >= settings->max_ns) stopped_by = "max_time";
    else if (count >= settings->max_count) stopped_by = "max_count";
    if (stopped_by) break;
    if (used && (used == BUFFER_SAMPLES || end_ns - flushed_ns >= FLUSH_NS)) {
      send_samples("measured", starts, ends, late, used);
      used = 0;
      flushed_ns = now_ns(session);
      if (exists(TOO_WARM)) {
        stopped_by = "max_temperature";
        break;
      }
    }
    int64_t stop_ns = least(begin_ns + (enough ? least(settings->min_ns, settings->max_ns) : settings->max_ns), flushed_ns + FLUSH_NS);
    int64_t left = (enough ? settings->max_count : least(settings->min_count, settings->max_count)) - count;
    size_t before = used, limit = used + (size_t)least(BUFFER_SAMPLES - (int64_t)used, left);
    used = late ? paced_block(session, used, limit, stop_ns, &grid) : timed_block(session, used, limit, stop_ns);
    count += (int64_t)(used - before);
    end_ns = ends[used - 1];
  }
  send_samples("measured", starts, ends, late, used);
  *measured_count = count;
  *measured_ns = end_ns - begin_ns;
  return stopped_by;
}

/* --- what the operating system counts around the measured part ------------------------------------------------------- */

typedef struct {
  int64_t cpu_ns, voluntary, involuntary, busy_ns, throttled_ns; /* the last two: -1 when unknown */
  struct { int64_t thread, delay_ns; } delays[256];               /* how long a thread was ready and waited for a core */
  int threads;
} Counters;

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

/* How long CPU quotas of our cgroup and those above it have held tasks back; -1 where none is known. */
static int64_t throttled_ns(void) {
  int64_t total = -1;
  char *groups = file_text(sysfs("/proc/self/cgroup"), 65536);
  for (char *line = groups, *next; line && *line; line = next) {
    char *end = strchr(line, '\n'), *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    next = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    if (!path) continue;
    *path++ = 0;
    controllers++;
    char *list = textf(",%s,", controllers);
    if (*controllers && !strstr(list, ",cpu,")) continue;
    const char *mounts[] = {*controllers ? textf("/%s", controllers) : "", *controllers ? "/cpu" : "/unified", "/cpu,cpuacct"};
    const char *base = NULL;
    for (size_t i = 0; i < (*controllers ? 3u : 2u) && !base; i++)
      if (exists(sysfs("/sys/fs/cgroup%s/cgroup.procs", mounts[i]))) base = mounts[i];
    for (size_t size = strlen(path); size && path[size - 1] == '/';) path[--size] = 0;
    while (base) {
      char *text = file_text(sysfs("/sys/fs/cgroup%s%s/cpu.stat", base, path), 4096);
      const char *rest;
      if (text && find_line(text, "throttled_usec ", &rest)) total = (total < 0 ? 0 : total) + strtoll(rest, NULL, 10) * 1000;
      if (text && find_line(text, "throttled_time ", &rest)) total = (total < 0 ? 0 : total) + strtoll(rest, NULL, 10);
      free(text);
      if (!*path) break;
      *strrchr(path, '/') = 0;
    }
  }
  free(groups);
  return total;
}

static void read_delays(Counters *counters) {
  int count;
  char **threads = list_folder(sysfs("/proc/self/task"), "", &count);
  for (int i = 0; i < count; i++) {
    char *text = file_text(sysfs("/proc/self/task/%s/schedstat", threads[i]), 256), *second = text ? strchr(text, ' ') : NULL;
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

static Counters read_counters(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  Counters counters = {
      .cpu_ns = (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * SECOND_NS + (int64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000,
      .voluntary = usage.ru_nvcsw,
      .involuntary = usage.ru_nivcsw,
      .busy_ns = busy_ns(),
      .throttled_ns = throttled_ns()};
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
static void add_done(Text *event, int64_t count, int64_t ns, const char *stopped_by, const Counters *a, const Counters *b) {
  addf(event, ",\"measured_count\":%lld,\"measured_ns\":%lld,\"stopped_by\":\"%s\",\"cpu_ns\":%lld", (long long)count, (long long)ns, stopped_by,
       (long long)(b->cpu_ns - a->cpu_ns));
  addf(event, ",\"voluntary_switches\":%lld,\"involuntary_switches\":%lld,\"busy_ns\":", (long long)(b->voluntary - a->voluntary),
       (long long)(b->involuntary - a->involuntary));
  add_int_or_null(event, b->busy_ns - a->busy_ns, a->busy_ns >= 0 && b->busy_ns >= 0);
  add(event, ",\"quota_throttled_ns\":");
  add_int_or_null(event, b->throttled_ns - a->throttled_ns, a->throttled_ns >= 0 && b->throttled_ns >= 0);
  int64_t delay = delayed_ns(a, b);
  add(event, ",\"run_delay_ns\":");
  add_int_or_null(event, delay, delay >= 0);
  addf(event, ",\"peak_memory_bytes\":%lld", (long long)peak_memory_bytes());
}

/* --- cores, loaded, outputs ------------------------------------------------------------------------------------------ */

static uint8_t mask[MAX_CPUS / 8];

static void bind_cores(const Json *cores) {
  int64_t cpu;
  Text names = {0};
  if (is_null(cores)) return;
  memset(mask, 0, sizeof mask);
  for (const Json *item = cores->first; item; item = item->next) {
    int_in(item, 0, MAX_CPUS - 1, &cpu);
    mask[cpu / 8] |= (uint8_t)(1 << cpu % 8);
    addf(&names, "%s%lld", names.size ? ", " : "", (long long)cpu);
  }
  if (sched_setaffinity(0, sizeof mask, (void *)mask))
    fail("bad_job", NULL, "this process cannot be bound to CPU %s: %s", names.data, strerror(errno));
}

static void add_effective_cores(Text *text) {
  memset(mask, 0, sizeof mask);
  if (sched_getaffinity(0, sizeof mask, (void *)mask) < 0) {
    add(text, "null");
    return;
  }
  const char *comma = "[";
  for (int cpu = 0; cpu < MAX_CPUS; cpu++)
    if (mask[cpu / 8] >> cpu % 8 & 1) addf(text, "%s%d", comma, cpu), comma = ",";
  add(text, "]");
}

static const Json *scripted(const Session *session, const char *name, bool late) {
  const Json *found = late ? member(member(session->script, "evidence"), name) : NULL;
  if (!found) found = member(member(session->script, "loaded"), name);
  if (!found && ends_with(name, "_ns")) found = member(session->script, name);
  return found;
}

static void add_value(Text *event, Session *session, bool late, const char *name, char *json) {
  const Json *given = scripted(session, name, late);
  addf(event, ",\"%s\":", name);
  if (given) add_json(event, given);
  else add(event, json);
  free(json);
}

static char *quoted(const char *string) {
  Text text = {0};
  add_string(&text, string);
  return text.data;
}

static char *known(int64_t value) {
  Text text = {0};
  add_int_or_null(&text, value, value >= 0);
  return text.data;
}

static void send_loaded(Session *session, int64_t import_ns, int64_t load_ns, bool late) {
  Text event = {0}, cores = {0}, inputs = {0}, outputs = {0};
  begin(&event, "loaded");
  add_effective_cores(&cores);
  add_tensors(&inputs, session->inputs, session->input_count);
  add_tensors(&outputs, session->outputs, session->output_count);
  const struct { const char *name; char *json; } values[] = {
      {"import_ns", known(import_ns)},
      {"load_ns", known(load_ns)},
      {"compile_ns", known(session->compile_ns)},
      {"runtime_version", quoted(session->version)},
      {"delegate_effective", quoted(session->delegate)},
      {"accelerator", quoted(session->accelerator)},
      {"emulated", textf("%s", session->emulated ? "true" : "false")},
      {"delegation", quoted(session->delegation)},
      {"delegation_evidence", quoted(session->evidence_kind)},
      {"nodes_total", known(session->nodes_total)},
      {"nodes_delegated", known(session->nodes_delegated)},
      {"partitions", known(session->partitions)},
      {"precision_effective", quoted(session->precision)},
      {"threads_effective", known(session->threads)},
      {"inputs", inputs.data},
      {"outputs", outputs.data},
      {"details", textf("{%s}", session->details.size ? session->details.data : "")},
      {"cores_effective", cores.data},
  };
  for (size_t i = 0; i < COUNT(values); i++) add_value(&event, session, late, values[i].name, values[i].json);
  send_event(&event);
}

typedef struct {
  int fd;
  char *path, *target;
  Sha256 sum;
  Dtype dtype;
  int rank;
  int64_t shape[MAX_RANK];
} OutputFile;

static void close_output(OutputFile *file) {
  char hex[65];
  sha256_end(&file->sum, hex);
  file->target = textf("out/%s.bin", hex);
  if (close(file->fd) || rename(file->path, file->target)) fail("run_failed", NULL, "%s cannot be written: %s", file->target, strerror(errno));
}

static _Noreturn void unwritable(const OutputFile *file) {
  bool full = errno == ENOSPC || errno == EDQUOT;
  const char *reason = strerror(errno);
  unlink(file->path);
  fail(full ? "disk_full" : "run_failed", full ? "free space on the device" : NULL, "%s cannot be written: %s", file->path, reason);
}

/* Puts the index of the largest element along the last axis in place of the elements. */
static const void *largest(const void *data, Dtype *dtype, int64_t *shape, int *rank) {
  static int32_t *indices;
  int64_t along = *rank ? shape[*rank - 1] : 1, rows = *rank ? element_count(shape, *rank - 1) : 1;
  free(indices);
  indices = take(sizeof *indices * (size_t)(rows > 0 ? rows : 1));
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 1; i < along; i++) {
      double best = get_element(*dtype, data, (size_t)(row * along + indices[row])), value = get_element(*dtype, data, (size_t)(row * along + i));
      if (value > best || (value != value && best == best)) indices[row] = (int32_t)i; /* NaN counts as largest, as in NumPy */
    }
  *dtype = INT32;
  if (*rank) --*rank;
  return indices;
}

/* Runs every input once and writes the outputs to out/SHA256.bin. `keep`: by output, all, argmax or none. */
static void write_outputs(Session *session, const Inputs *inputs, void **buffers, const char *stage, const Json *keep) {
  OutputFile *files = take(sizeof *files * (size_t)session->output_count);
  mkdir("out", 0755);
  for (int64_t index = 0; index < inputs->count; index++) {
    fit_inputs(inputs, index, session->inputs, session->input_count, buffers);
    session->bind(session, buffers);
    if (!session->run(session)) run_failed(session);
    const Json *wanted = is_null(keep) ? NULL : keep->first;
    for (int i = 0; i < session->output_count; i++) {
      OutputFile *file = &files[i];
      int64_t shape[MAX_RANK];
      int rank;
      const char *word = string_or(wanted, "all");
      wanted = wanted ? wanted->next : NULL;
      if (strcmp(word, "none") == 0) continue;
      const void *data = session->output(session, i, &file->dtype, shape, &rank);
      if (element_count(shape, rank) < 0) fail("run_failed", NULL, "output %s is too large", session->outputs[i].name);
      if (strcmp(word, "argmax") == 0) data = largest(data, &file->dtype, shape, &rank);
      int64_t elements = element_count(shape, rank);
      size_t size = (size_t)elements * dtype_size(file->dtype);
      if (index == 0) {
        file->rank = rank;
        memcpy(file->shape, shape, sizeof shape);
        sha256_begin(&file->sum);
        file->path = textf("out/.%d.%s.%d", getpid(), stage, i);
        file->fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (file->fd < 0) unwritable(file);
      } else if (rank != file->rank || memcmp(shape, file->shape, sizeof *shape * (size_t)rank) != 0) {
        fail("run_failed", NULL, "output %s changed its shape between two inputs", session->outputs[i].name);
      }
      if (!write_all(file->fd, data, size)) unwritable(file);
      sha256_add(&file->sum, data, size);
    }
  }
  Text event = {0};
  begin(&event, "outputs");
  addf(&event, ",\"stage\":\"%s\",\"count\":%lld,\"tensors\":[", stage, (long long)inputs->count);
  for (int i = 0, written = 0; i < session->output_count; i++) {
    if (!files[i].path) continue;
    close_output(&files[i]);
    add(&event, written++ ? ",{\"name\":" : "{\"name\":");
    add_string(&event, session->outputs[i].name);
    addf(&event, ",\"dtype\":\"%s\",\"shape\":", dtype_name(files[i].dtype));
    add_shape(&event, files[i].shape, files[i].rank);
    addf(&event, ",\"sha256\":\"%.64s\",\"file\":\"%s\"}", files[i].target + 4, files[i].target);
  }
  add(&event, "]");
  send_event(&event);
  free(files);
}

/* --- a vendor's own benchmark program instead of a runtime -------------------------------------------------------------- */

static const char *program_word(const Json *value) {
  if (!value || value->type != JSON_STRING || !value->plain) fail("bad_job", NULL, "options.program names something that is no text");
  return value->text;
}

/* Runs the program that `options.program` names and passes on what it says. What that means, a failure too, is for the
 * host to read: here nothing is known of its output. */
static void run_program(const Json *program) {
  const Json *words = member(program, "argv"), *results = member(program, "results");
  if (!words || words->type != JSON_ARRAY || !words->count) fail("bad_job", NULL, "options.program.argv is no list of words");
  char **argv = take(sizeof *argv * (size_t)(words->count + 1));
  int count = 0, status;
  for (const Json *word = words->first; word; word = word->next) argv[count++] = (char *)program_word(word);
  Text event = {0}, printed = {0}, written = {0};
  const char *file = is_null(results) ? NULL : program_word(results);
  if (file && strchr(file, '/')) fail("bad_job", NULL, "options.program.results is no file of the job's folder");
  if (file) unlink(file); /* programs append to it: what an earlier repetition left is not this one's */
  enter(NULL, "measure");
  int64_t begin_ns = monotonic_ns();
  if (!capture(argv, INT64_MAX / 4, PRINTED_LIMIT, &printed, &status))
    fail("runtime_missing", "put it there, or name another with SOCBENCH_STOCK_PROGRAM", "%s cannot be run on this device", argv[0]);
  int64_t ns = monotonic_ns() - begin_ns;
  bool there = file && read_file(file, RESULTS_LIMIT, &written);
  begin(&event, "program");
  addf(&event, ",\"ran_ns\":%lld,\"exit_code\":%d,\"cut\":%s,\"program\":", (long long)ns,
       WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), printed.size >= PRINTED_LIMIT ? "true" : "false");
  add_json(&event, program);
  add(&event, ",\"printed\":");
  add_quoted(&event, printed.data, printed.size);
  add(&event, ",\"results\":");
  if (there) add_quoted(&event, written.data, written.size);
  else add(&event, "null");
  send_event(&event);
  begin(&event, "done");
  send_event(&event);
}

/* --- one repetition as docs/protocol.md orders it --------------------------------------------------------------------- */

static void measured_part(Session *session, const Inputs *inputs, void **buffers, Text *done) {
  Settings settings = read_settings(member(session->trial, "settings"));
  enter(session, "check");
  write_outputs(session, inputs, buffers, "before", NULL);
  fit_inputs(inputs, 0, session->inputs, session->input_count, buffers);
  session->bind(session, buffers);
  enter(session, "warmup");
  warm_up(session, &settings);
  enter(session, "measure");
  int64_t count, ns;
  Counters before = read_counters();
  const char *stopped_by = measure(session, &settings, &count, &ns);
  Counters after = read_counters();
  add_done(done, count, ns, stopped_by, &before, &after);
  enter(session, "check");
  write_outputs(session, inputs, buffers, "after", NULL);
}

/* What is established once everything timed is over. What was measured stands: a profiler that fails costs its rows. */
static void afterwards(const Runtime *runtime, Session *session, void **buffers) {
  Text rows = {0};
  on_fail = warn_of_profile;
  if (setjmp(after_profile) == 0) {
    if (profiled) {
      enter(session, "profile");
      if (runtime->profile && runtime->profile(session, buffers, &rows)) {
        Text event = {0};
        begin(&event, "ops");
        addf(&event, ",\"rows\":%s", rows.data);
        send_event(&event);
      }
    }
    if (session->evidence) session->evidence(session);
  }
  on_fail = report_failure;
}

static void repetition(const Json *trial) {
  const char *scenario = member(trial, "scenario")->text, *name = member(trial, "runtime")->text;
  bool accuracy = strcmp(scenario, "accuracy") == 0;
  if (!accuracy && strcmp(scenario, "single_stream") && strcmp(scenario, "sustained"))
    fail("bad_job", NULL, "this agent knows no scenario called %s", scenario);
  bind_cores(member(trial, "cores"));
  char *model = realpath(member(trial, "model")->text, NULL);
  if (!model || !exists(model)) fail("model_missing", NULL, "the model file %s is not there", model ? model : member(trial, "model")->text);
  const Json *program = member(member(trial, "options"), "program");
  if (!is_null(program)) {
    run_program(program);
    return;
  }
  const Runtime *runtime = find_runtime(name);
  if (!runtime) fail("runtime_missing", NULL, "this agent has no runtime called %s; it has %s", name, runtime_names());
  enter(NULL, "import");
  int64_t time_ns = monotonic_ns();
  runtime->import(trial);
  int64_t import_ns = monotonic_ns() - time_ns;
  enter(NULL, "load");
  time_ns = monotonic_ns();
  Session *session = runtime->load(model, trial);
  int64_t load_ns = monotonic_ns() - time_ns;
  send_loaded(session, import_ns, load_ns, false);
  Inputs inputs = read_inputs(member(trial, accuracy ? "dataset" : "probe"), accuracy ? "dataset" : "probe", trial, session->inputs, session->input_count);
  void **buffers = take(sizeof *buffers * (size_t)session->input_count);
  for (int i = 0; i < session->input_count; i++) {
    int64_t elements = element_count(session->inputs[i].shape, session->inputs[i].rank);
    if (elements < 0) fail("shape_mismatch", NULL, "input %s has no fixed shape, or one that is too large", session->inputs[i].name);
    if (posix_memalign(&buffers[i], 64, (size_t)elements * dtype_size(session->inputs[i].dtype) + 64))
      fail("out_of_memory", "use a smaller batch or model", "there is no memory for input %s", session->inputs[i].name);
  }
  fit_inputs(&inputs, 0, session->inputs, session->input_count, buffers);
  session->bind(session, buffers);
  enter(session, "first");
  timed_block(session, 0, 1, 0);
  send_samples("first", starts, ends, NULL, 1);
  Text done = {0};
  if (accuracy) {
    enter(session, "dataset");
    Counters before = read_counters();
    int64_t begin_ns = now_ns(session);
    write_outputs(session, &inputs, buffers, "dataset", member(member(trial, "dataset"), "keep"));
    Counters after = read_counters();
    add_done(&done, inputs.count, now_ns(session) - begin_ns, "max_count", &before, &after);
  } else {
    measured_part(session, &inputs, buffers, &done);
    fit_inputs(&inputs, 0, session->inputs, session->input_count, buffers);
    afterwards(runtime, session, buffers);
    if (session->better) send_loaded(session, import_ns, load_ns, true);
  }
  Text event = {0};
  begin(&event, "done");
  add(&event, done.data);
  send_event(&event);
}

int child_main(const char *folder, int index, int fd) {
  events = fd;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  on_fail = report_failure;
  const Json *job = load_job(folder), *entry = member(job, "repetitions")->first;
  for (int i = 0; i < index && entry; i++) entry = entry->next;
  if (!entry) fail("bad_job", NULL, "job.json has no repetition %d", index);
  current_repetition = (int)member(entry, "repetition")->number;
  const Json *trial = member(member(job, "trials"), member(entry, "trial")->text), *asked = member(trial, "profile"), *here = member(entry, "profile");
  profiled = asked && asked->truth && !(here && here->type == JSON_BOOL && !here->truth);
  repetition(trial);
  /* A driver that dies while it unloads must not take a finished repetition with it: nothing is unloaded. */
  _exit(0);
}
