/* What the device tells about itself while it runs: docs/protocol.md, *Telemetry* and *Power*. Runs in a process of its
 * own beside the repetition; files stay open; slow commands (Android's dumpsys) have an interval of their own. */
#include "agent.h"

#define COMMAND_NS (8 * SECOND_NS)
#define COLDEST -273150
#define HOTTEST 1000000
static const char TEMPERATURE[] = "temperature_milli_c";

typedef struct {
  const char *kind;
  char *source, *path;
  int fd;
  int64_t factor, divisor;
  const char *reason; /* why it could not be read the last time; each reason is said once */
  void *device, *ask; /* of NVIDIA's library: the GPU, and the function that is asked with `argument` (none below 0) */
  int argument;
} Sensor;
typedef struct {
  Sensor *found;
  int count;
  Text absent; /* rows without t_ns: "kind","source",null,"reason"] */
  int absences;
} Sensors;

static void add_sensor(Sensors *all, const char *kind, char *source, char *path, int64_t factor, int64_t divisor) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return;
  if (fd < 0) {
    addf(&all->absent, "%s\"%s\",", all->absences++ ? "\n" : "", kind);
    add_string(&all->absent, source);
    add(&all->absent, ",null,");
    add_string(&all->absent, errno == EACCES ? "permission denied" : "not readable");
    return;
  }
  Sensor *grown = realloc(all->found, sizeof *grown * (size_t)(all->count + 1));
  if (!grown) return;
  all->found = grown;
  all->found[all->count++] = (Sensor){.kind = kind, .source = source, .path = path, .fd = fd, .factor = factor, .divisor = divisor};
}

/* --- NVIDIA's library: it comes with the driver (as device_agents/python/telemetry_nvml.py) ------------------------------ */

static const char *nvml_words(int code) {
  return code == 1 ? "not initialised" : code == 3 ? "not supported" : code == 4 ? "permission denied" : code == 9 ? "the driver is not loaded"
         : code == 15 ? "the GPU is lost" : code == 18 ? "library and driver are of different versions" : textf("NVML says error %d", code);
}

static const char *read_nvml(const Sensor *sensor, int64_t *value) {
  unsigned answer = 0;
  int code = sensor->argument < 0 ? ((int (*)(void *, unsigned *))sensor->ask)(sensor->device, &answer)
                                  : ((int (*)(void *, int, unsigned *))sensor->ask)(sensor->device, sensor->argument, &answer);
  *value = (int64_t)answer * 1000; /* degrees, milliwatts, megahertz */
  return code ? nvml_words(code) : NULL;
}

/* Adds what each GPU tells; returns why there is none. */
static const char *add_nvml(Sensors *all) {
  static const struct { const char *kind, *function; int argument; } asked[] = {
      {TEMPERATURE, "nvmlDeviceGetTemperature", 0}, {"power_uw", "nvmlDeviceGetPowerUsage", -1},
      {"gpu_clock_khz", "nvmlDeviceGetClockInfo", 0}, {"memory_clock_khz", "nvmlDeviceGetClockInfo", 2}};
  void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  int (*init)(void) = nvml ? (int (*)(void))dlsym(nvml, "nvmlInit_v2") : NULL;
  int (*count_of)(unsigned *) = nvml ? (int (*)(unsigned *))dlsym(nvml, "nvmlDeviceGetCount_v2") : NULL;
  int (*device_of)(unsigned, void **) = nvml ? (int (*)(unsigned, void **))dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2") : NULL;
  int (*name_of)(void *, char *, unsigned) = nvml ? (int (*)(void *, char *, unsigned))dlsym(nvml, "nvmlDeviceGetName") : NULL;
  if (!init || !count_of || !device_of || !name_of) return "no library libnvidia-ml.so.1";
  int code = init(), before = all->count;
  unsigned count = 0;
  if (code) return nvml_words(code);
  count_of(&count);
  for (unsigned gpu = 0; gpu < count && gpu < 16; gpu++) {
    void *device, *ask;
    char name[97] = "";
    if (device_of(gpu, &device)) continue;
    name_of(device, name, 96);
    char *source = textf("nvml:gpu%u:%s", gpu, *name ? name : "unknown");
    for (size_t i = 0; i < COUNT(asked); i++) {
      Sensor *grown = (ask = dlsym(nvml, asked[i].function)) ? realloc(all->found, sizeof *grown * (size_t)(all->count + 1)) : NULL;
      if (!grown) continue;
      all->found = grown;
      all->found[all->count++] = (Sensor){.kind = asked[i].kind, .source = source, .fd = -1, .device = device, .ask = ask, .argument = asked[i].argument};
    }
  }
  return all->count > before ? NULL : "no sensor";
}

static void nvml(Sensors *all) {
  const char *reason = add_nvml(all);
  if (reason) addf(&all->absent, "%s\"power_uw\",\"nvml\",null,\"%s\"", all->absences++ ? "\n" : "", reason);
}

static const char *read_sensor(Sensor *sensor, int64_t *value) {
  char text[65], *end;
  if (sensor->ask) return read_nvml(sensor, value);
  if (sensor->fd < 0 && (sensor->fd = open(sensor->path, O_RDONLY | O_CLOEXEC)) < 0) return "not readable";
  ssize_t size = pread(sensor->fd, text, 64, 0);
  if (size < 0) {
    int reason = errno;
    close(sensor->fd);
    sensor->fd = -1;
    return reason == EAGAIN ? "resource temporarily unavailable" : reason == ENODATA ? "no data available" : strerror(reason);
  }
  text[size] = 0;
  int64_t number = strtoll(text, &end, 10);
  if (end == text) return textf("not a number: '%.*s'", (int)strcspn(text, "\n") > 20 ? 20 : (int)strcspn(text, "\n"), text);
  number *= sensor->factor; /* rounded down, as the Python agent does */
  *value = number / sensor->divisor - (number % sensor->divisor < 0);
  if (sensor->kind == TEMPERATURE && (*value < COLDEST || *value > HOTTEST)) return textf("impossible reading: %lld", (long long)*value);
  return NULL;
}

static char *labelled(const char *folder, const char *label) {
  char *text = stripped_text(label);
  return textf("%s:%s", folder, text ? text : "unknown");
}

/* Calls of `FOR_EACH` walk over the folders of a class, in the order in which people count. */
#define FOR_EACH(name, pattern, prefix)                                                          \
  int name##_count;                                                                              \
  char **name##_list = list_folder(sysfs("%s", pattern), prefix, &name##_count), *name;          \
  for (int name##_at = 0; name##_at < name##_count && (name = name##_list[name##_at]); name##_at++)

static void thermal(Sensors *all) {
  FOR_EACH(zone, "/sys/class/thermal", "thermal_zone")
    add_sensor(all, TEMPERATURE, labelled(zone, sysfs("/sys/class/thermal/%s/type", zone)), textf("%s", sysfs("/sys/class/thermal/%s/temp", zone)), 1, 1);
}

static void cooling_devices(Sensors *all) {
  FOR_EACH(device, "/sys/class/thermal", "cooling_device")
    add_sensor(all, "cooling_state", labelled(device, sysfs("/sys/class/thermal/%s/type", device)),
               textf("%s", sysfs("/sys/class/thermal/%s/cur_state", device)), 1, 1);
}

static char *channel_name(const char *chip, const char *folder, const char *file) {
  char *stem = copy_of(file, (size_t)(strrchr(file, '_') - file));
  char *label = stripped_text(textf("%s/%s_label", folder, stem));
  return textf("%s:%s", chip, label ? label : stem);
}

static void hwmon(Sensors *all) {
  FOR_EACH(chip, "/sys/class/hwmon", "hwmon") {
    char *folder = textf("%s", sysfs("/sys/class/hwmon/%s", chip)), *name = labelled(chip, textf("%s/name", folder));
    int count;
    bool inputs = false;
    char **files = list_folder(folder, "", &count);
    for (int i = 0; i < count; i++) inputs |= strncmp(files[i], "power", 5) == 0 && ends_with(files[i], "_input");
    for (int i = 0; i < count; i++) {
      bool temperature = strncmp(files[i], "temp", 4) == 0 && ends_with(files[i], "_input");
      bool power = strncmp(files[i], "power", 5) == 0 && ends_with(files[i], inputs ? "_input" : "_average");
      if (temperature || power) add_sensor(all, temperature ? TEMPERATURE : "power_uw", channel_name(name, folder, files[i]), textf("%s/%s", folder, files[i]), 1, 1);
    }
  }
}

static void cpufreq(Sensors *all) {
  FOR_EACH(policy, "/sys/devices/system/cpu/cpufreq", "policy") {
    add_sensor(all, "clock_khz", policy, textf("%s", sysfs("/sys/devices/system/cpu/cpufreq/%s/scaling_cur_freq", policy)), 1, 1);
    add_sensor(all, "clock_cap_khz", policy, textf("%s", sysfs("/sys/devices/system/cpu/cpufreq/%s/scaling_max_freq", policy)), 1, 1);
  }
}

static bool any_of(const char *name, const char *const *parts, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (contains_i(name, parts[i])) return true;
  return false;
}

static void devfreq(Sensors *all) {
  static const char *const gpus[] = {"gpu", "mali", "kgsl", "3d0", "gv11b", "ga10b", "g3d"}, *const memories[] = {"dmc", "ddr", "emc", "memory", "mif"};
  int before = all->count;
  FOR_EACH(device, "/sys/class/devfreq", "") {
    const char *current = sysfs("/sys/class/devfreq/%s/cur_freq", device), *cap = sysfs("/sys/class/devfreq/%s/max_freq", device);
    if (any_of(device, gpus, COUNT(gpus))) {
      add_sensor(all, "gpu_clock_khz", device, textf("%s", current), 1, 1000);
      add_sensor(all, "gpu_clock_cap_khz", device, textf("%s", cap), 1, 1000);
    } else if (any_of(device, memories, COUNT(memories))) {
      add_sensor(all, "memory_clock_khz", device, textf("%s", current), 1, 1000);
    }
  }
  if (all->count > before) return;
  add_sensor(all, "gpu_clock_khz", textf("kgsl-3d0"), textf("%s", sysfs("/sys/class/kgsl/kgsl-3d0/gpuclk")), 1, 1000);
  add_sensor(all, "gpu_clock_cap_khz", textf("kgsl-3d0"), textf("%s", sysfs("/sys/class/kgsl/kgsl-3d0/max_gpuclk")), 1, 1000);
}

static bool is_battery(const char *supply) {
  char *type = stripped_text(sysfs("/sys/class/power_supply/%s/type", supply));
  return type && strlen(type) == 7 && contains_i(type, "battery");
}

static void battery(Sensors *all) {
  static const struct { const char *kind, *file; int factor; } files[] = {
      {"battery_permille", "capacity", 10}, {TEMPERATURE, "temp", 100} /* power_supply gives tenths of a degree */};
  FOR_EACH(supply, "/sys/class/power_supply", "")
    for (size_t i = 0; is_battery(supply) && i < COUNT(files); i++)
      add_sensor(all, files[i].kind, supply, textf("%s", sysfs("/sys/class/power_supply/%s/%s", supply, files[i].file)), files[i].factor, 1);
}

static void gauge(Sensors *all) {
  static const struct { const char *kind, *file; } files[] = {{"battery_ua", "current_now"}, {"battery_uv", "voltage_now"}, {"power_uw", "power_now"}};
  FOR_EACH(supply, "/sys/class/power_supply", "")
    for (size_t i = 0; is_battery(supply) && i < COUNT(files); i++)
      add_sensor(all, files[i].kind, supply, textf("%s", sysfs("/sys/class/power_supply/%s/%s", supply, files[i].file)), 1, 1);
}

/* Calls `take` with each current monitor that gives no power (INA3221): millivolts times milliamperes are microwatts. */
static int for_rails(void (*take)(void *to, const char *source, int64_t microwatts), void *to) {
  int rails = 0;
  FOR_EACH(chip, "/sys/class/hwmon", "hwmon") {
    char *folder = textf("%s", sysfs("/sys/class/hwmon/%s", chip)), *name = stripped_text(textf("%s/name", folder));
    for (int i = 1; name && strncmp(name, "ina", 3) == 0 && !exists(textf("%s/power1_input", folder)) && i < 16; i++) {
      int64_t voltage, current;
      if (!read_integer(textf("%s/in%d_input", folder, i), &voltage) || !read_integer(textf("%s/curr%d_input", folder, i), &current)) continue;
      char *label = stripped_text(textf("%s/in%d_label", folder, i));
      rails++;
      if (take) take(to, label ? textf("%s:%s:%s", chip, name, label) : textf("%s:%s:in%d", chip, name, i), voltage * current);
    }
  }
  return rails;
}

static void rapl(Sensors *all) {
  FOR_EACH(zone, "/sys/class/powercap", "")
    if (strchr(zone, ':'))
      add_sensor(all, "energy_uj", labelled(zone, sysfs("/sys/class/powercap/%s/name", zone)), textf("%s", sysfs("/sys/class/powercap/%s/energy_uj", zone)), 1, 1);
}

static Sensors find_sensors(void) {
  static const struct { void (*find)(Sensors *); const char *kind, *source; } groups[] = {
      {thermal, TEMPERATURE, "thermal"}, {cooling_devices, "cooling_state", "thermal"}, {hwmon, "power_uw", "hwmon"},
      {cpufreq, "clock_khz", "cpufreq"}, {devfreq, "gpu_clock_khz", "devfreq"}, {battery, "battery_permille", "power_supply"},
      {gauge, "battery_ua", "power_supply"}, {rapl, "energy_uj", "powercap"}};
  Sensors all = {0};
  for (size_t i = 0; i < COUNT(groups); i++) {
    int at = all.count, absences = all.absences;
    groups[i].find(&all);
    while (at < all.count && strcmp(all.found[at].kind, groups[i].kind)) at++;
    if (at == all.count && all.absences == absences && !(groups[i].find == hwmon && for_rails(NULL, NULL)))
      addf(&all.absent, "%s\"%s\",\"%s\",null,\"no sensor\"", all.absences++ ? "\n" : "", groups[i].kind, groups[i].source);
  }
  nvml(&all);
  return all;
}

/* --- Android's services ---------------------------------------------------------------------------------------------- */

static bool is_android(void) {
  const char *root = getenv("SOCBENCH_SYSFS_ROOT");
  return exists(sysfs("/system/bin/dumpsys")) || (root && exists("/system/bin/dumpsys"));
}

static char *dumpsys(const char *service) {
  Text text = {0};
  char *argv[] = {(char *)"dumpsys", (char *)service, NULL};
  return capture(argv, COMMAND_NS, 262144, &text, NULL) && text.size ? text.data : NULL;
}

typedef void Take(void *to, const char *kind, const char *source, bool known, int64_t value, const char *reason);

/* The readings that come from the HAL now; the cached ones above them in the text may be hours old. */
static void take_thermalservice(const char *text, Take *take_row, void *to) {
  static const char *const types[] = {"cpu", "gpu", "battery", "skin", "usb_port", "power_amplifier", NULL, NULL, NULL, "npu",
                                      "tpu", "display", "modem", "soc", "wifi", "camera", "flashlight", "speaker", "ambient", "pogo"};
  const char *rest, *section, *end;
  bool any = false;
  if (strstr(text, "Permission Denial")) return take_row(to, TEMPERATURE, "thermalservice", false, 0, "permission denied");
  if (find_line(text, "Thermal Status: ", &rest)) take_row(to, "thermal_status", "thermalservice", true, strtoll(rest, NULL, 10), NULL);
  if (find_line(text, "HAL Ready: false", &rest)) return take_row(to, TEMPERATURE, "thermalservice", false, 0, "HAL not ready");
  section = strstr(text, "Current temperatures from HAL:");
  end = section ? strstr(section, "Current cooling devices from HAL:") : NULL;
  for (const char *at = section; at && (at = strstr(at, "Temperature{mValue=")) && (!end || at < end); at++) {
    const char *value = at + strlen("Temperature{mValue="), *type = strstr(value, "mType="), *name = strstr(value, "mName="), *stop = strstr(value, ", mStatus=");
    if (!type || !name || !stop || name > stop) break;
    long number = strtol(type + 6, NULL, 10);
    if (number < 0 || number >= (long)COUNT(types) || !types[number]) continue;
    char *source = textf("thermalservice:%s:%s", types[number], copy_of(name + 6, (size_t)(stop - name - 6)));
    double milli = strtod(value, NULL) * 1000;
    bool possible = milli >= COLDEST && milli <= HOTTEST;
    take_row(to, TEMPERATURE, source, possible, possible ? (int64_t)rint(milli) : 0, textf("impossible reading: %.*s", (int)strcspn(value, ","), value));
    any = true;
    free(source);
  }
  for (const char *at = text; (at = strstr(at, "CoolingDevice{mValue=")); at++) {
    const char *name = strstr(at, "mName="), *stop = name ? strchr(name, '}') : NULL;
    if (!stop) break;
    char *source = textf("thermalservice:%s", copy_of(name + 6, (size_t)(stop - name - 6)));
    take_row(to, "cooling_state", source, true, strtoll(at + strlen("CoolingDevice{mValue="), NULL, 10), NULL);
    free(source);
  }
  if (!any) take_row(to, TEMPERATURE, "thermalservice", false, 0, "no sensor");
}

static bool battery_number(const char *text, const char *name, int64_t *value) {
  const char *rest = text;
  size_t size = strlen(name);
  for (; rest && *rest; rest = strchr(rest, '\n') ? strchr(rest, '\n') + 1 : NULL) {
    const char *at = rest;
    while (*at == ' ' || *at == '\t') at++;
    if (at == rest || strncmp(at, name, size) || strncmp(at + size, ": ", 2)) continue;
    *value = strtoll(at + size + 2, NULL, 10);
    return true;
  }
  return false;
}

static void take_battery(const char *text, Take *take_row, void *to) {
  static const char source[] = "dumpsys:battery";
  int64_t value, scale = 100;
  battery_number(text, "scale", &scale);
  if (battery_number(text, "level", &value)) take_row(to, "battery_permille", source, true, value * 1000 / (scale > 0 ? scale : 100), NULL);
  if (battery_number(text, "temperature", &value)) take_row(to, TEMPERATURE, source, true, value * 100, NULL);
  if (battery_number(text, "voltage", &value) && value >= 100) take_row(to, "battery_uv", source, true, value * 1000, NULL);
  if (battery_number(text, "current now", &value)) take_row(to, "battery_ua", source, true, value, NULL);
  if (battery_number(text, "status", &value)) take_row(to, "battery_charging", source, true, value == 2 || value == 5, NULL);
}

static void take_android(Take *take_row, void *to) {
  if (!is_android()) return;
  char *thermals = dumpsys("thermalservice"), *charge = dumpsys("battery");
  if (thermals) take_thermalservice(thermals, take_row, to);
  else take_row(to, TEMPERATURE, "thermalservice", false, 0, "dumpsys does not answer");
  if (charge) take_battery(charge, take_row, to);
  free(thermals);
  free(charge);
}

void add_power(Text *text) {
  const char *source = NULL;
  int64_t permille = -1, level, scale = 100;
  int saver = -1;
  if (is_android()) {
    static const struct { const char *source, *line; } plugs[] = {
        {"ac", "AC powered: true"}, {"usb", "USB powered: true"}, {"wireless", "Wireless powered: true"}, {"ac", "Dock powered: true"}};
    char *charge = dumpsys("battery"), *state = dumpsys("power"), *found;
    for (size_t i = 0; charge && i < COUNT(plugs) && !source; i++)
      if (strstr(charge, plugs[i].line)) source = plugs[i].source;
    if (charge && battery_number(charge, "level", &level)) {
      battery_number(charge, "scale", &scale);
      permille = level * 1000 / (scale > 0 ? scale : 100);
      if (!source) source = "battery";
    }
    if (state && (found = strstr(state, "mSettingBatterySaverEnabled"))) saver = strncmp(found + 28, "true", 4) == 0;
    free(charge);
    free(state);
  } else {
    FOR_EACH(supply, "/sys/class/power_supply", "") {
      char *scope = stripped_text(sysfs("/sys/class/power_supply/%s/scope", supply)), *type = stripped_text(sysfs("/sys/class/power_supply/%s/type", supply));
      if (is_battery(supply) && !(scope && strcmp(scope, "Device") == 0)) {
        if (read_integer(sysfs("/sys/class/power_supply/%s/capacity", supply), &level)) permille = level * 10;
        if (!source) source = "battery";
      } else if (read_integer(sysfs("/sys/class/power_supply/%s/online", supply), &level) && level == 1) {
        source = type && contains_i(type, "mains") ? "ac" : type && contains_i(type, "wireless") ? "wireless" : "usb";
      }
    }
  }
  add(text, "{\"source\":");
  add_string(text, source);
  add(text, ",\"battery_permille\":");
  add_int_or_null(text, permille, permille >= 0);
  addf(text, ",\"battery_saver\":%s}", saver < 0 ? "null" : saver ? "true" : "false");
}

/* --- cool-down by condition ------------------------------------------------------------------------------------------ */

/* Whether a device can be that warm: sensors that are not there say 0, -274 or 128 degrees. */
static bool credible(int64_t milli_c) { return milli_c != 0 && milli_c > -40000 && milli_c < 120000; }

static void add_reading(Cooling *state, const char *name, int64_t value, bool cap) {
  add_bytes(&state->names, name, strlen(name) + 1);
  state->values = realloc(state->values, sizeof *state->values * (size_t)(state->count + 1));
  state->caps = realloc(state->caps, sizeof *state->caps * (size_t)(state->count + 1));
  if (!state->values || !state->caps) fail("out_of_memory", NULL, "the process ran out of memory");
  state->values[state->count] = value;
  state->caps[state->count++] = cap;
}

static void take_cooling(void *to, const char *kind, const char *source, bool known, int64_t value, const char *reason) {
  Cooling *state = to;
  (void)reason;
  if (known && strcmp(kind, TEMPERATURE) == 0 && credible(value)) add_reading(state, source, value, false);
  if (known && strcmp(kind, "thermal_status") == 0) state->has_status = true, state->status = value;
}

static bool never_cooled(const char *name) {
  static const char *const parts[] = {"batt", "bms", "charg", "usb", "modem", "wifi", "wlan", "camera", "nvme", "ambient", "pmic", "vbat", "ibat"};
  return any_of(name, parts, COUNT(parts)) || ends_with(name, "bat") || ends_with(name, "pa") || ends_with(name, "bcl_soc");
}

static bool is_cooled(const char *name) {
  static const char *const parts[] = {"cpu", "core", "skin", "soc", "big", "little", "mid", "cluster", "x86_pkg", "package", "tdie", "tctl", "k10temp", "acpitz", "gpu", "npu", "shell"};
  return any_of(name, parts, COUNT(parts)) || ends_with(name, ":ap") || contains_i(name, ":ap-");
}

/* Reads what cool-down looks at: temperatures of what computes (all but the battery's kind when none is named so), clock
 * caps, and Android's thermal status. False when nothing can be read. */
bool read_cooling(Cooling *state) {
  Cooling all = {0};
  Sensors sensors = find_sensors();
  *state = (Cooling){0};
  for (int i = 0; i < sensors.count; i++) {
    int64_t value;
    bool cap = ends_with(sensors.found[i].kind, "clock_cap_khz");
    if ((cap || sensors.found[i].kind == TEMPERATURE) && !read_sensor(&sensors.found[i], &value) && (cap || credible(value)))
      add_reading(&all, sensors.found[i].source, value, cap);
    if (sensors.found[i].fd >= 0) close(sensors.found[i].fd);
  }
  take_android(take_cooling, &all);
  bool named = false;
  const char *name = all.names.data;
  for (int i = 0; i < all.count; i++, name += strlen(name) + 1) named |= !all.caps[i] && !never_cooled(name) && is_cooled(name);
  name = all.names.data;
  for (int i = 0; i < all.count; i++, name += strlen(name) + 1)
    if (all.caps[i] || (!never_cooled(name) && (!named || is_cooled(name)))) add_reading(state, name, all.values[i], all.caps[i]);
  state->has_status = all.has_status;
  state->status = all.status;
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

void add_cooling(Text *text, const Cooling *state) {
  for (int caps = 0; caps < 2; caps++) {
    const char *name = state->names.data, *comma = "";
    add(text, caps ? "},\"caps\":{" : "{\"temperatures\":{");
    for (int i = 0; i < state->count; i++, name += strlen(name) + 1)
      if (state->caps[i] == caps) {
        add(text, comma);
        add_string(text, name);
        addf(text, ":%lld", (long long)state->values[i]);
        comma = ",";
      }
  }
  add(text, "},\"status\":");
  add_int_or_null(text, state->status, state->has_status);
  add(text, "}");
}

/* Appends the names of what is still warmer, or more capped, than at the baseline; returns how many there are. */
int add_not_cool(Text *text, const Cooling *baseline, const Cooling *state, double tolerance_milli_c) {
  int above = 0;
  const char *name = state->names.data;
  add(text, "[");
  for (int i = 0; i < state->count; i++, name += strlen(name) + 1) {
    const char *other = baseline->names.data;
    for (int k = 0; k < baseline->count; k++, other += strlen(other) + 1) {
      if (baseline->caps[k] != state->caps[i] || strcmp(other, name)) continue;
      int64_t before = baseline->values[k]; /* of a sensor that told degrees and tells thousandths now, nothing is known */
      if (!state->caps[i] && before > 0 && before < 1000 && state->values[i] >= 8 * before) continue;
      if (state->caps[i] ? state->values[i] < baseline->values[k] : (double)state->values[i] > (double)baseline->values[k] + tolerance_milli_c) {
        add(text, above++ ? "," : "");
        add_string(text, name);
      }
    }
  }
  if (state->has_status && baseline->has_status && state->status > baseline->status) add(text, above++ ? ",\"thermal_status\"" : "\"thermal_status\"");
  add(text, "]");
  return above;
}

/* --- the telemetry process ------------------------------------------------------------------------------------------- */

typedef struct {
  Text rows, failed; /* failed: "kind source reason" lines that were said */
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
  addf(&rows->rows, "%s[%lld,\"%s\",", rows->rows.size ? "," : "", (long long)rows->t_ns, kind);
  add_string(&rows->rows, source);
  if (known) addf(&rows->rows, ",%lld]", (long long)value);
  else add(&rows->rows, ",null,"), add_string(&rows->rows, reason), add(&rows->rows, "]");
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

/* How long CPU quotas of the repetition's control groups have held tasks back so far. */
static void take_quota(Rows *rows) {
  repetition_pid = getpid();
  for_children(getppid(), remember_repetition);
  char *groups = file_text(sysfs("/proc/%d/cgroup", repetition_pid), 65536);
  for (char *line = groups, *next; line && *line; line = next) {
    char *end = strchr(line, '\n'), *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    next = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    if (!path) continue;
    *path++ = 0;
    bool unified = !*++controllers;
    char *list = textf(",%s,", controllers);
    if (!unified && !strstr(list, ",cpu,")) continue;
    const char *base = unified ? "" : "/cpu";
    for (size_t size = strlen(path); size && path[size - 1] == '/';) path[--size] = 0;
    for (;;) {
      char *text = file_text(sysfs("/sys/fs/cgroup%s%s/cpu.stat", base, path), 4096);
      const char *rest;
      bool us = text && find_line(text, "throttled_usec ", &rest), ns = !us && text && find_line(text, "throttled_time ", &rest);
      if (us || ns) take_row(rows, "quota_throttled_us", textf("cgroup:%s", *path ? path : "/"), true, strtoll(rest, NULL, 10) / (us ? 1 : 1000), NULL);
      free(text);
      if (!*path) break;
      *strrchr(path, '/') = 0;
    }
    free(list);
  }
  free(groups);
}

/* How much of the time, of one core, the repetition's threads waited for a core; nothing across its restart. */
static void take_wait(Rows *rows) {
  static int64_t before_ns = -1, before_t_ns;
  static int before_pid;
  int64_t waited = -1;
  repetition_pid = getpid();
  for_children(getppid(), remember_repetition);
  int count;
  char **threads = list_folder(sysfs("/proc/%d/task", repetition_pid), "", &count);
  for (int i = 0; i < count; i++) {
    char *text = file_text(sysfs("/proc/%d/task/%s/schedstat", repetition_pid, threads[i]), 128), *at = text ? strchr(text, ' ') : NULL;
    if (at) waited = (waited < 0 ? 0 : waited) + strtoll(at, NULL, 10);
    free(text);
    free(threads[i]);
  }
  free(threads);
  if (waited < 0) take_row(rows, "cpu_wait_permille", "schedstat", false, 0, "the kernel keeps no count");
  else if (before_ns >= 0 && before_pid == repetition_pid && waited >= before_ns && rows->t_ns > before_t_ns)
    take_row(rows, "cpu_wait_permille", "schedstat", true, 1000 * (waited - before_ns) / (rows->t_ns - before_t_ns), NULL);
  before_ns = waited;
  before_t_ns = rows->t_ns;
  before_pid = repetition_pid;
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
    long long permille = 1000 * busy / span, other = 1000 * others / span;
    take_row(rows, "cpu_busy_permille", "cpu", true, permille < 0 ? 0 : permille > 1000 ? 1000 : permille, NULL);
    take_row(rows, "other_busy_permille", "cpu", true, other < 0 ? 0 : other > 1000 ? 1000 : other, NULL);
    long long stolen = 1000 * (steal - before[3]) / span;
    if (steal) take_row(rows, "cpu_steal_permille", "cpu", true, stolen < 0 ? 0 : stolen > 1000 ? 1000 : stolen, NULL);
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
  if (find_line(text, "MemAvailable:", &rest)) take_row(rows, "memory_available_bytes", "ram", true, strtoll(rest, NULL, 10) * 1024, NULL);
}

static void take_rail(void *to, const char *source, int64_t microwatts) { take_row(to, "power_uw", source, true, microwatts, NULL); }

/* Android's on-device power monitors (ODPM): lines `CH0(T=1234)[S10M_VDD_TPU], 5678`, in microwatt-seconds. */
static void take_odpm(Rows *rows) {
  bool any = false;
  FOR_EACH(meter, "/sys/bus/iio/devices", "iio:device") {
    const char *path = textf("%s", sysfs("/sys/bus/iio/devices/%s/energy_value", meter));
    if (!exists(path)) continue;
    int rails = 0, fd = open(path, O_RDONLY | O_CLOEXEC), reason = errno;
    char *text = fd < 0 ? NULL : file_text(path, 16384);
    if (fd >= 0) close(fd);
    any = true;
    for (char *line = text, *next; line && *line; line = next) {
      char *end = strchr(line, '\n'), *name = strchr(line, '['), *stop = name ? strchr(name, ']') : NULL;
      next = end ? end + 1 : line + strlen(line);
      if (end) *end = 0;
      if (strncmp(line, "CH", 2) || !stop || stop == name + 1 || stop - name > 61 || stop[1] != ',') continue;
      char *value = stop + 2;
      while (*value == ' ') value++;
      if (*value < '0' || *value > '9') continue;
      rails++;
      take_row(rows, "energy_uj", textf("odpm:%s:%s", meter, copy_of(name + 1, (size_t)(stop - name - 1))), true, strtoll(value, NULL, 10), NULL);
    }
    if (!rails) take_row(rows, "energy_uj", textf("odpm:%s", meter), false, 0, fd >= 0 ? "no rail in it" : reason == EACCES ? "permission denied" : "not readable");
    free(text);
  }
  if (!any) take_row(rows, "energy_uj", "odpm", false, 0, "no sensor");
}

/* Newer Androids answer "Headroom in 0 seconds: 0.53", or NaN; 1.0 is where severe throttling begins. */
static void take_headroom(Rows *rows) {
  static bool asked_in_vain;
  char *argv[] = {(char *)"cmd", (char *)"thermalservice", (char *)"headroom", (char *)"0", NULL};
  const char *rest;
  Text text = {0};
  if (!is_android() || asked_in_vain) return;
  bool found = capture(argv, COMMAND_NS, 4096, &text, NULL) && find_line(text.data, "Headroom in ", &rest) && (rest = strstr(rest, "seconds: "));
  double value = found ? strtod(rest + 9, NULL) : (double)NAN;
  asked_in_vain = !(value > -1e9 && value < 1e9);
  take_row(rows, "thermal_headroom_ppm", "thermalservice", !asked_in_vain, asked_in_vain ? 0 : (int64_t)rint(value * 1000) * 1000, "not told by this Android");
  free(text.data);
}

/* How long each clock was used since boot, told again when it has grown. */
static void take_time_in_state(Rows *rows) {
  static struct { char *source; long long ticks; } states[512];
  static int count;
  FOR_EACH(policy, "/sys/devices/system/cpu/cpufreq", "policy") {
    char *text = file_text(sysfs("/sys/devices/system/cpu/cpufreq/%s/stats/time_in_state", policy), 16384), *at = text, *end;
    while (at && *at) {
      long long khz = strtoll(at, &end, 10), ticks = end != at ? strtoll(end, &at, 10) : 0;
      if (end == at || !khz) break;
      char *source = textf("%s:%lld", policy, khz);
      int i = 0;
      while (i < count && strcmp(states[i].source, source)) i++;
      if (i == count && count < (int)COUNT(states)) states[count].source = copy_of(source, strlen(source)), states[count++].ticks = -1;
      if (i < count && states[i].ticks != ticks) take_row(rows, "time_in_state_ms", source, true, (states[i].ticks = ticks) * 10, NULL);
      free(source);
      at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    }
    free(text);
  }
}

static void take_slow(Rows *rows) {
  for_rails(take_rail, rows);
  take_odpm(rows);
  FOR_EACH(supply, "/sys/class/power_supply", "") {
    char *status = stripped_text(sysfs("/sys/class/power_supply/%s/status", supply));
    if (status && is_battery(supply))
      take_row(rows, "battery_charging", supply, true, strcmp(status, "Charging") == 0 || strcmp(status, "Full") == 0, NULL);
  }
  take_android(take_row, rows);
  take_headroom(rows);
  take_time_in_state(rows);
}

int serve_telemetry(double interval_s, double slow_interval_s, int fd) {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  Sensors sensors = find_sensors();
  int stat = open(sysfs("/proc/stat"), O_RDONLY | O_CLOEXEC), meminfo = open(sysfs("/proc/meminfo"), O_RDONLY | O_CLOEXEC);
  Rows rows = {.t_ns = monotonic_ns()};
  for (char *line = sensors.absent.data, *next; line && *line; line = next) {
    char *end = strchr(line, '\n');
    next = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    addf(&rows.rows, "%s[%lld,%s]", rows.rows.size ? "," : "", (long long)rows.t_ns, line);
  }
  if (stat < 0) take_row(&rows, "cpu_busy_permille", "cpu", false, 0, "no such file or directory");
  if (meminfo < 0) take_row(&rows, "memory_available_bytes", "ram", false, 0, "no such file or directory");
  int64_t due = monotonic_ns(), slow_due = due;
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
    char *line = textf("{\"type\":\"telemetry\",\"t_ns\":%lld,\"rows\":[%s]}\n", (long long)rows.t_ns, rows.rows.size ? rows.rows.data : "");
    if (!write_all(fd, line, strlen(line))) return 0;
    free(line);
    if (rows.rows.data) drop_front(&rows.rows, rows.rows.size);
    due += (int64_t)(interval_s * 1e9);
    if (due < monotonic_ns()) due = monotonic_ns();
    sleep_ns(due - monotonic_ns());
  }
}
