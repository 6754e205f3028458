/* Cool-down by condition: which readings count, and whether they are back at the baseline. */
#include "sensors.h"

/* Whether a device can be that warm: sensors that are not there say 0, -274 or 128 degrees. */
static bool credible(int64_t milli_c) { return milli_c != 0 && milli_c > -40000 && milli_c < 120000; }

static void add_reading(Cooling *state, const char *name, int64_t value, bool cap) {
  Reading *grown = realloc(state->readings, sizeof *grown * (size_t)(state->count + 1));
  if (!grown) fail("out_of_memory", NULL, "the process ran out of memory");
  state->readings = grown;
  state->readings[state->count++] = (Reading){copy_of(name, strlen(name)), value, cap};
}

void free_cooling(Cooling *state) {
  for (int i = 0; i < state->count; i++) free(state->readings[i].name);
  free(state->readings);
  *state = (Cooling){0};
}

static void take_cooling(void *to, const char *kind, const char *source, bool known, int64_t value,
                         const char *reason) {
  Cooling *state = to;
  (void)reason;
  if (known && strcmp(kind, TEMPERATURE) == 0 && credible(value)) add_reading(state, source, value, false);
  if (known && strcmp(kind, "thermal_status") == 0) state->has_status = true, state->status = value;
}

static bool never_cooled(const char *name) {
  static const char *const parts[] = {"batt", "bms",    "charg", "usb",     "modem", "wifi", "wlan",
                                      "camera", "nvme", "ambient", "pmic", "vbat",  "ibat"};
  return contains_any(name, parts, COUNT(parts)) || ends_with(name, "bat") || ends_with(name, "pa") ||
         ends_with(name, "bcl_soc");
}

static bool is_cooled(const char *name) {
  static const char *const parts[] = {"cpu",     "core",    "skin",    "soc",     "big",  "little",
                                      "mid",     "cluster", "x86_pkg", "package", "tdie", "tctl",
                                      "k10temp", "acpitz",  "gpu",     "npu",     "shell"};
  return contains_any(name, parts, COUNT(parts)) || ends_with(name, ":ap") || contains_i(name, ":ap-");
}

static Cooling read_all(void) {
  Cooling all = {0};
  Sensors sensors = find_sensors();
  for (int i = 0; i < sensors.count; i++) {
    Sensor *sensor = &sensors.found[i];
    int64_t value;
    bool cap = ends_with(sensor->kind, "clock_cap_khz");
    if ((cap || sensor->kind == TEMPERATURE) && !read_sensor(sensor, &value) && (cap || credible(value)))
      add_reading(&all, sensor->source, value, cap);
    if (sensor->fd >= 0) close(sensor->fd);
  }
  free(sensors.found);
  free(sensors.absent.data);
  take_android(take_cooling, &all);
  return all;
}

/* Reads what cool-down looks at: temperatures of what computes (all but the battery's kind when none is named so),
 * clock caps, and Android's thermal status. False when nothing can be read. */
bool read_cooling(Cooling *state) {
  Cooling all = read_all();
  bool named = false;
  *state = (Cooling){.has_status = all.has_status, .status = all.status};
  for (int i = 0; i < all.count; i++) {
    const Reading *one = &all.readings[i];
    named |= !one->cap && !never_cooled(one->name) && is_cooled(one->name);
  }
  for (int i = 0; i < all.count; i++) {
    const Reading *one = &all.readings[i];
    if (one->cap || (!never_cooled(one->name) && (!named || is_cooled(one->name))))
      add_reading(state, one->name, one->value, one->cap);
  }
  free_cooling(&all);
  return state->count || state->has_status;
}

/* A baseline that an earlier job of the session found, as the host hands it on. */
void told_cooling(const Json *told, Cooling *state) {
  static const char *const groups[] = {"temperatures", "caps"};
  int64_t value;
  *state = (Cooling){0};
  for (size_t i = 0; i < COUNT(groups); i++)
    for (const Json *one = member(told, groups[i])->first; one; one = one->next)
      if (int_in(one, INT64_MIN, INT64_MAX, &value)) add_reading(state, one->key, value, i == 1);
  state->has_status = int_in(member(told, "status"), INT64_MIN, INT64_MAX, &state->status);
}

void put_cooling(Text *text, const char *name, const Cooling *state) {
  put(text, name, "{");
  for (int caps = 0; caps < 2; caps++) {
    put(text, caps ? "caps" : "temperatures", "{");
    for (int i = 0; i < state->count; i++)
      if (state->readings[i].cap == caps) put_int(text, state->readings[i].name, state->readings[i].value);
    add(text, "}");
  }
  put_known(text, "status", state->status, state->has_status);
  add(text, "}");
}

static bool is_above(const Reading *before, const Reading *now, double tolerance_milli_c) {
  if (now->cap) return now->value < before->value;
  /* of a sensor that told degrees and tells thousandths now, nothing is known */
  if (before->value > 0 && before->value < 1000 && now->value >= 8 * before->value) return false;
  return (double)now->value > (double)before->value + tolerance_milli_c;
}

/* Puts the names of what is still warmer, or more capped, than at the baseline; returns how many there are. */
int put_not_cool(Text *text, const Cooling *baseline, const Cooling *state, double tolerance_milli_c) {
  int above = 0;
  put(text, "above", "[");
  for (int i = 0; i < state->count; i++)
    for (int k = 0; k < baseline->count; k++) {
      const Reading *before = &baseline->readings[k], *now = &state->readings[i];
      if (before->cap != now->cap || strcmp(before->name, now->name) || !is_above(before, now, tolerance_milli_c))
        continue;
      comma(text);
      add_string(text, now->name);
      above++;
    }
  if (state->has_status && baseline->has_status && state->status > baseline->status) {
    comma(text);
    add_string(text, "thermal_status");
    above++;
  }
  add(text, "]");
  return above;
}
