/* What Android's services say (dumpsys), and what a device says of its power. */
#include "sensors.h"

#define COMMAND_NS (8 * SECOND_NS)
#define TEMPERATURE_START "Temperature{mValue="
#define COOLING_START "CoolingDevice{mValue="

bool is_android(void) {
  const char *root = getenv("SOCBENCH_SYSFS_ROOT");
  return exists(sysfs("/system/bin/dumpsys")) || (root && exists("/system/bin/dumpsys"));
}

static char *dumpsys(const char *service) {
  Text text = {0};
  char *argv[] = {(char *)"dumpsys", (char *)service, NULL};
  if (capture(argv, COMMAND_NS, 262144, &text, NULL) && text.size) return text.data;
  free(text.data);
  return NULL;
}

/* Takes Temperature{mValue=31.7, mType=0, mName=cpu0, mStatus=0}; false for a kind that nobody knows, or a cut line. */
static bool take_temperature(const char *value, Take *take, void *to) {
  static const char *const types[] = {"cpu",     "gpu",   "battery", "skin",   "usb_port",  "power_amplifier", NULL,
                                      NULL,      NULL,    "npu",     "tpu",    "display",   "modem",           "soc",
                                      "wifi",    "camera", "flashlight", "speaker", "ambient", "pogo"};
  const char *type = strstr(value, "mType="), *name = strstr(value, "mName="), *stop = strstr(value, ", mStatus=");
  if (!type || !name || !stop || name > stop) return false;
  long number = strtol(type + 6, NULL, 10);
  if (number < 0 || number >= (long)COUNT(types) || !types[number]) return false;
  char *source = textf("thermalservice:%s:%.*s", types[number], (int)(stop - name - 6), name + 6);
  double milli = strtod(value, NULL) * 1000;
  bool possible = milli > -1e9 && milli < 1e9 && possible_temperature((int64_t)rint(milli));
  char *reason = textf("impossible reading: %.*s", (int)strcspn(value, ","), value);
  take(to, TEMPERATURE, source, possible, possible ? (int64_t)rint(milli) : 0, reason);
  free(source);
  free(reason);
  return true;
}

/* The readings that come from the HAL now; the cached ones above them in the text may be hours old. */
static void take_thermalservice(const char *text, Take *take, void *to) {
  static const char service[] = "thermalservice";
  const char *rest;
  bool any = false;
  if (strstr(text, "Permission Denial")) return take(to, TEMPERATURE, service, false, 0, "permission denied");
  if (find_line(text, "Thermal Status: ", &rest))
    take(to, "thermal_status", service, true, strtoll(rest, NULL, 10), NULL);
  if (find_line(text, "HAL Ready: false", &rest)) return take(to, TEMPERATURE, service, false, 0, "HAL not ready");
  const char *at = strstr(text, "Current temperatures from HAL:");
  const char *end = at ? strstr(at, "Current cooling devices from HAL:") : NULL;
  for (; at && (at = strstr(at, TEMPERATURE_START)) && (!end || at < end); at++)
    any |= take_temperature(at + strlen(TEMPERATURE_START), take, to);
  for (at = text; (at = strstr(at, COOLING_START)); at++) {
    const char *name = strstr(at, "mName="), *stop = name ? strchr(name, '}') : NULL;
    if (!stop) break;
    char *source = textf("thermalservice:%.*s", (int)(stop - name - 6), name + 6);
    take(to, "cooling_state", source, true, strtoll(at + strlen(COOLING_START), NULL, 10), NULL);
    free(source);
  }
  if (!any) take(to, TEMPERATURE, service, false, 0, "no sensor");
}

/* The number of an indented line "  name: 12". */
static bool battery_number(const char *text, const char *name, int64_t *value) {
  size_t size = strlen(name);
  for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    const char *at = line;
    while (*at == ' ' || *at == '\t') at++;
    if (at == line || strncmp(at, name, size) || strncmp(at + size, ": ", 2)) continue;
    *value = strtoll(at + size + 2, NULL, 10);
    return true;
  }
  return false;
}

static bool battery_permille(const char *text, int64_t *permille) {
  int64_t level, scale = 100;
  battery_number(text, "scale", &scale);
  bool known = battery_number(text, "level", &level);
  if (known) *permille = level * 1000 / (scale > 0 ? scale : 100);
  return known;
}

static void take_battery(const char *text, Take *take, void *to) {
  static const char source[] = "dumpsys:battery";
  int64_t value;
  if (battery_permille(text, &value)) take(to, "battery_permille", source, true, value, NULL);
  if (battery_number(text, "temperature", &value)) take(to, TEMPERATURE, source, true, value * 100, NULL);
  if (battery_number(text, "voltage", &value) && value >= 100) take(to, "battery_uv", source, true, value * 1000, NULL);
  if (battery_number(text, "current now", &value)) take(to, "battery_ua", source, true, value, NULL);
  if (battery_number(text, "status", &value))
    take(to, "battery_charging", source, true, value == 2 || value == 5, NULL);
}

void take_android(Take *take, void *to) {
  if (!is_android()) return;
  char *thermals = dumpsys("thermalservice"), *charge = dumpsys("battery");
  if (thermals) take_thermalservice(thermals, take, to);
  else take(to, TEMPERATURE, "thermalservice", false, 0, "dumpsys does not answer");
  if (charge) take_battery(charge, take, to);
  free(thermals);
  free(charge);
}

/* Newer Androids answer "Headroom in 0 seconds: 0.53", or NaN. */
bool android_headroom(double *headroom) {
  char *argv[] = {(char *)"cmd", (char *)"thermalservice", (char *)"headroom", (char *)"0", NULL};
  const char *rest;
  Text text = {0};
  *headroom = (double)NAN;
  if (capture(argv, COMMAND_NS, 4096, &text, NULL) && find_line(text.data, "Headroom in ", &rest) &&
      (rest = strstr(rest, "seconds: ")))
    *headroom = strtod(rest + strlen("seconds: "), NULL);
  free(text.data);
  return *headroom > -1e9 && *headroom < 1e9;
}

typedef struct {
  const char *source, *saver; /* saver: JSON */
  int64_t permille;
} Power;

static void read_android_power(Power *power) {
  static const struct { const char *source, *line;
  } plugs[] = {{"ac", "AC powered: true"},
               {"usb", "USB powered: true"},
               {"wireless", "Wireless powered: true"},
               {"ac", "Dock powered: true"}};
  static const char saver[] = "mSettingBatterySaverEnabled=";
  char *charge = dumpsys("battery"), *state = dumpsys("power"), *found = state ? strstr(state, saver) : NULL;
  for (size_t i = 0; charge && i < COUNT(plugs) && !power->source; i++)
    if (strstr(charge, plugs[i].line)) power->source = plugs[i].source;
  if (charge && battery_permille(charge, &power->permille) && !power->source) power->source = "battery";
  if (found) power->saver = strncmp(found + strlen(saver), "true", 4) == 0 ? "true" : "false";
  free(charge);
  free(state);
}

static void read_supplies(Power *power) {
  FOR_EACH(supply, "/sys/class/power_supply", "") {
    char *scope = stripped_text(sysfs("/sys/class/power_supply/%s/scope", supply));
    char *type = stripped_text(sysfs("/sys/class/power_supply/%s/type", supply));
    int64_t value;
    if (is_battery(supply) && !(scope && strcmp(scope, "Device") == 0)) {
      if (read_integer(sysfs("/sys/class/power_supply/%s/capacity", supply), &value)) power->permille = value * 10;
      if (!power->source) power->source = "battery";
    } else if (read_integer(sysfs("/sys/class/power_supply/%s/online", supply), &value) && value == 1) {
      bool mains = type && contains_i(type, "mains"), wireless = type && contains_i(type, "wireless");
      power->source = mains ? "ac" : wireless ? "wireless" : "usb";
    }
    free(scope);
    free(type);
  }
}

/* The member `power` of docs/protocol.md, *Power*. */
void put_power(Text *text) {
  Power power = {NULL, "null", -1};
  if (is_android()) read_android_power(&power);
  else read_supplies(&power);
  put(text, "power", "{");
  put_string(text, "source", power.source);
  put_known(text, "battery_permille", power.permille, power.permille >= 0);
  put(text, "battery_saver", power.saver);
  add(text, "}");
}
