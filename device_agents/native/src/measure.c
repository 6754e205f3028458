/* The timed loops: warming up until the timings are steady, then measuring. Between the two readings of the clock lies
 * nothing but the inference; samples go into memory that is there, and are sent between inferences. */
#include "child.h"

#define FLUSH_NS (SECOND_NS / 2)
#define BUFFER_SAMPLES 65536
#define LINE_SAMPLES 4096
#define WINDOW_SAMPLES 32768
#define SPIN_NS 200000

static int64_t starts[BUFFER_SAMPLES], ends[BUFFER_SAMPLES], lates[BUFFER_SAMPLES];

static void send_samples(const char *phase, const int64_t *start, const int64_t *end, const int64_t *late,
                         size_t count) {
  for (size_t low = 0, high; low < count; low = high) {
    Text event = {0};
    high = low + LINE_SAMPLES < count ? low + LINE_SAMPLES : count;
    begin_line(&event, "samples");
    put_string(&event, "phase", phase);
    put_int(&event, "start_ns", start[low]);
    put(&event, "latency_ns", "[");
    for (size_t i = low; i < high; i++) addf(&event, i > low ? ",%lld" : "%lld", (long long)(end[i] - start[i]));
    add(&event, "]");
    put(&event, "gap_ns", "[0");
    for (size_t i = low + 1; i < high; i++) addf(&event, ",%lld", (long long)(start[i] - end[i - 1]));
    add(&event, "]");
    if (late) {
      put(&event, "late_ns", "[");
      for (size_t i = low; i < high; i++) addf(&event, i > low ? ",%lld" : "%lld", (long long)late[i]);
      add(&event, "]");
    }
    send_line(&event);
  }
}

inline int64_t now_ns(Session *session) { return session->clock ? session->clock(session) : monotonic_ns(); }

_Noreturn void run_failed(const Session *session) {
  fail("run_failed", NULL, "an inference failed: %s",
       session->problem ? session->problem : "the runtime does not say why");
}

/* Runs until `limit` samples are there or one ends at or after `stop_ns`; nothing but the inference lies between the
 * two readings of the clock. Returns the next free index. */
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

/* The same at a fixed rate: slot k is due at origin + k * period. After an inference the newest slot that is due is
 * taken, those before it are dropped, as a camera's pipeline drops frames. */
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

void warm_up(Session *session, const Json *given) {
  const Settings all = read_settings(given), *settings = &all;
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
  begin_line(&event, "warmup");
  put_int(&event, "count", count);
  put_int(&event, "duration_ns", duration);
  put_bool(&event, "steady", steady);
  send_line(&event);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

const char *measure(Session *session, const Json *given, int64_t *measured_count, int64_t *measured_ns) {
  const Settings all = read_settings(given), *settings = &all;
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
    int64_t stop_ns = least(begin_ns + (enough ? least(settings->min_ns, settings->max_ns) : settings->max_ns),
                            flushed_ns + FLUSH_NS);
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

void run_first(Session *session) {
  timed_block(session, 0, 1, 0);
  send_samples("first", starts, ends, NULL, 1);
}
