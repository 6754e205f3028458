/* The temperature at which measuring ends (docs/protocol.md, `max_temperature_milli_c`), read off the telemetry. */
#include "supervisor.h"

typedef struct {
  char *source;
  int64_t first, first_ns, last_ns;
  bool alive; /* its value has changed since: a stuck one says nothing */
} Sensor;

static const char *job_folder;
static int64_t limit; /* 0: none */
static Sensor sensors[256];
static int count;

void heat_begin(const char *folder, const Json *settings) {
  job_folder = folder;
  limit = count = 0;
  int_in(member(settings, "max_temperature_milli_c"), 1, INT64_MAX, &limit);
  unlink(textf("%s/" TOO_WARM, folder));
}

/* Whether a sensor is of what a hand can feel, and says something: it was heard of within half a minute, and has
 * changed or may still do so in its first minute. Where there is such a one the limit is meant for it alone. */
static bool protects(const Sensor *sensor, int64_t now) {
  static const char *const outer[] = {"skin", "shell", "batt", "surface", "case"};
  bool heard = now - sensor->last_ns <= 30 * SECOND_NS, may_change = now - sensor->first_ns <= 60 * SECOND_NS;
  return contains_any(sensor->source, outer, COUNT(outer)) && heard && (sensor->alive || may_change);
}

/* Takes a row [t_ns, kind, source, value] that can be a temperature; NULL for others. */
static Sensor *take_row(const Json *row, int64_t *t_ns, int64_t *value) {
  const Json *kind = row->first ? row->first->next : NULL, *source = kind ? kind->next : NULL;
  if (!source || !source->next || strcmp(string_or(kind, ""), "temperature_milli_c")) return NULL;
  if (!int_in(source->next, 1, 119999, value) || !int_in(row->first, 0, INT64_MAX, t_ns)) return NULL;
  int i = 0;
  while (i < count && strcmp(sensors[i].source, source->text)) i++;
  if (i == (int)COUNT(sensors)) return NULL;
  if (i == count) sensors[count++] = (Sensor){copy_of(source->text, source->size), *value, *t_ns, *t_ns, false};
  sensors[i].alive |= *value != sensors[i].first;
  sensors[i].last_ns = *t_ns;
  return &sensors[i];
}

static void stop_measuring(const char *source, int64_t value, const char *members) {
  limit = 0;
  int fd = open(textf("%s/" TOO_WARM, job_folder), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd >= 0) close(fd);
  char *text = textf("stopped measuring: %s reached %.1f degrees C", source, (double)value / 1000);
  emit_log("info", text, strlen(text), members);
}

/* Looks whether a temperature of this telemetry event is at the limit. */
void heat_follow(const char *line, size_t size, const char *members) {
  const char *problem;
  if (!limit) return;
  Json *event = json_parse(line, size, &problem);
  const Json *rows = member(event, "rows"), *first = is_null(rows) ? NULL : rows->first;
  int64_t now = 0, t_ns, value;
  bool outer = false;
  for (const Json *row = first; row; row = row->next)
    if (take_row(row, &t_ns, &value) && t_ns > now) now = t_ns;
  for (int i = 0; i < count; i++) outer |= protects(&sensors[i], now);
  for (const Json *row = first; row && limit; row = row->next) {
    const Sensor *sensor = take_row(row, &t_ns, &value);
    if (sensor && sensor->alive && value >= limit && (!outer || protects(sensor, now)))
      stop_measuring(sensor->source, value, members);
  }
  json_free(event);
}
