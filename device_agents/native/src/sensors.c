/* The device's sensors: files of the kernel, found once, kept open and read again and again. */
#include "sensors.h"

#define COLDEST -273150
#define HOTTEST 1000000
const char TEMPERATURE[] = "temperature_milli_c";

/* Says that a sensor is there and can't be read, or that there is none: a row without its t_ns. */
void add_absent(Sensors *all, const char *kind, const char *source, const char *reason) {
  Text *row = &all->absent;
  addf(row, "%s\"%s\",", all->absences++ ? "\n" : "", kind);
  add_string(row, source);
  add(row, ",null,");
  add_string(row, reason);
}

void take_sensor(Sensors *all, Sensor sensor) {
  Sensor *grown = realloc(all->found, sizeof *grown * (size_t)(all->count + 1));
  if (!grown) return;
  all->found = grown;
  all->found[all->count++] = sensor;
}

static void add_sensor(Sensors *all, const char *kind, char *source, char *path, int factor, int divisor) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return;
  if (fd < 0) {
    add_absent(all, kind, source, errno == EACCES ? "permission denied" : "not readable");
    return;
  }
  take_sensor(all, (Sensor){.kind = kind, .source = source, .path = path, .fd = fd, .factor = factor, .divisor = divisor});
}

/* Returns NULL, or why it can't be read now. */
const char *read_sensor(Sensor *sensor, int64_t *value) {
  char text[65], *end;
  if (sensor->ask) return read_nvml(sensor, value);
  if (sensor->fd < 0 && (sensor->fd = open(sensor->path, O_RDONLY | O_CLOEXEC)) < 0) return "not readable";
  ssize_t size = pread(sensor->fd, text, 64, 0);
  if (size < 0) {
    int reason = errno;
    close(sensor->fd);
    sensor->fd = -1;
    return reason == EAGAIN    ? "resource temporarily unavailable"
           : reason == ENODATA ? "no data available"
                               : strerror(reason);
  }
  text[size] = 0;
  int64_t number = strtoll(text, &end, 10);
  int shown = (int)strcspn(text, "\n");
  if (end == text) return textf("not a number: '%.*s'", shown > 20 ? 20 : shown, text);
  number *= sensor->factor; /* rounded down, as the Python agent does */
  *value = number / sensor->divisor - (number % sensor->divisor < 0);
  if (sensor->kind == TEMPERATURE && !possible_temperature(*value))
    return textf("impossible reading: %lld", (long long)*value);
  return NULL;
}

bool possible_temperature(int64_t milli_c) { return milli_c >= COLDEST && milli_c <= HOTTEST; }

bool is_battery(const char *supply) {
  char *type = stripped_text(sysfs("/sys/class/power_supply/%s/type", supply));
  return type && strlen(type) == 7 && contains_i(type, "battery");
}

static bool is_gpu(const char *device) {
  static const char *const names[] = {"gpu", "mali", "kgsl", "3d0", "gv11b", "ga10b", "g3d"};
  return contains_any(device, names, COUNT(names));
}

static bool is_memory(const char *device) {
  static const char *const names[] = {"dmc", "ddr", "emc", "memory", "mif"};
  return contains_any(device, names, COUNT(names)) && !is_gpu(device);
}

static bool is_zone(const char *zone) { return strchr(zone, ':') != NULL; }

/* One file for each folder of a class whose name begins with `prefix` and that is `wanted`; `label` names the file
 * whose text becomes part of the source's name. */
static const struct {
  const char *kind, *group, *folder, *prefix, *label, *file;
  int factor, divisor;
  bool (*wanted)(const char *name);
} FILES[] = {
    {TEMPERATURE, "thermal", "/sys/class/thermal", "thermal_zone", "type", "temp", 1, 1, NULL},
    {"cooling_state", "cooling", "/sys/class/thermal", "cooling_device", "type", "cur_state", 1, 1, NULL},
    {"clock_khz", "cpufreq", "/sys/devices/system/cpu/cpufreq", "policy", NULL, "scaling_cur_freq", 1, 1, NULL},
    {"clock_cap_khz", "cpufreq", "/sys/devices/system/cpu/cpufreq", "policy", NULL, "scaling_max_freq", 1, 1, NULL},
    {"gpu_clock_khz", "devfreq", "/sys/class/devfreq", "", NULL, "cur_freq", 1, 1000, is_gpu},
    {"gpu_clock_cap_khz", "devfreq", "/sys/class/devfreq", "", NULL, "max_freq", 1, 1000, is_gpu},
    {"memory_clock_khz", "devfreq", "/sys/class/devfreq", "", NULL, "cur_freq", 1, 1000, is_memory},
    {"battery_permille", "battery", "/sys/class/power_supply", "", NULL, "capacity", 10, 1, is_battery},
    {"battery_ua", "gauge", "/sys/class/power_supply", "", NULL, "current_now", 1, 1, is_battery},
    {"battery_uv", "gauge", "/sys/class/power_supply", "", NULL, "voltage_now", 1, 1, is_battery},
    {TEMPERATURE, "battery", "/sys/class/power_supply", "", NULL, "temp", 100, 1,
     is_battery}, /* tenths of a degree */
    {"power_uw", "gauge", "/sys/class/power_supply", "", NULL, "power_now", 1, 1, is_battery},
    {"energy_uj", "rapl", "/sys/class/powercap", "", "name", "energy_uj", 1, 1, is_zone},
};

static char *labelled(const char *name, const char *label) {
  char *text = stripped_text(label);
  return textf("%s:%s", name, text ? text : "unknown");
}

static void add_files(Sensors *all, size_t row) {
  FOR_EACH(name, FILES[row].folder, FILES[row].prefix) {
    char *folder = textf("%s", sysfs("%s/%s", FILES[row].folder, name));
    if (FILES[row].wanted && !FILES[row].wanted(name)) continue;
    char *source = FILES[row].label ? labelled(name, textf("%s/%s", folder, FILES[row].label)) : name;
    char *path = textf("%s/%s", folder, FILES[row].file);
    add_sensor(all, FILES[row].kind, source, path, FILES[row].factor, FILES[row].divisor);
  }
}

static char *channel_name(const char *chip, const char *folder, const char *file) {
  char *stem = copy_of(file, (size_t)(strrchr(file, '_') - file));
  char *label = stripped_text(textf("%s/%s_label", folder, stem));
  return textf("%s:%s", chip, label ? label : stem);
}

/* Temperatures and powers of monitoring chips: averaged power only where a chip has no other. */
static void add_hwmon(Sensors *all) {
  FOR_EACH(chip, "/sys/class/hwmon", "hwmon") {
    char *folder = textf("%s", sysfs("/sys/class/hwmon/%s", chip)), *name = labelled(chip, textf("%s/name", folder));
    int count;
    bool has_input = false;
    char **files = list_folder(folder, "", &count);
    for (int i = 0; i < count; i++) has_input |= strncmp(files[i], "power", 5) == 0 && ends_with(files[i], "_input");
    for (int i = 0; i < count; i++) {
      bool temperature = strncmp(files[i], "temp", 4) == 0 && ends_with(files[i], "_input");
      bool power = strncmp(files[i], "power", 5) == 0 && ends_with(files[i], has_input ? "_input" : "_average");
      if (!temperature && !power) continue;
      char *source = channel_name(name, folder, files[i]), *path = textf("%s/%s", folder, files[i]);
      add_sensor(all, temperature ? TEMPERATURE : "power_uw", source, path, 1, 1);
    }
  }
}

/* Qualcomm's older kernels tell the GPU's clock elsewhere. */
static void add_kgsl(Sensors *all) {
  static const char folder[] = "/sys/class/kgsl/kgsl-3d0";
  add_sensor(all, "gpu_clock_khz", textf("kgsl-3d0"), textf("%s", sysfs("%s/gpuclk", folder)), 1, 1000);
  add_sensor(all, "gpu_clock_cap_khz", textf("kgsl-3d0"), textf("%s", sysfs("%s/max_gpuclk", folder)), 1, 1000);
}

/* Current monitors that give no power (INA3221): millivolts times milliamperes are microwatts. */
int for_rails(TakeRail *take_rail, void *to) {
  int rails = 0;
  FOR_EACH(chip, "/sys/class/hwmon", "hwmon") {
    char *folder = textf("%s", sysfs("/sys/class/hwmon/%s", chip)), *name = stripped_text(textf("%s/name", folder));
    if (!name || strncmp(name, "ina", 3) || exists(textf("%s/power1_input", folder))) continue;
    for (int i = 1; i < 16; i++) {
      int64_t voltage, current;
      bool known = read_integer(textf("%s/in%d_input", folder, i), &voltage);
      if (!known || !read_integer(textf("%s/curr%d_input", folder, i), &current)) continue;
      char *label = stripped_text(textf("%s/in%d_label", folder, i));
      rails++;
      if (take_rail) take_rail(to, textf("%s:%s:%s", chip, name, label ? label : textf("in%d", i)), voltage * current);
    }
  }
  return rails;
}

static bool has_kind(const Sensors *all, int from, const char *kind) {
  while (from < all->count && strcmp(all->found[from].kind, kind)) from++;
  return from < all->count;
}

Sensors find_sensors(void) {
  static const struct { const char *group, *kind, *source; void (*more)(Sensors *); } groups[] = {
      {"thermal", TEMPERATURE, "thermal", NULL},
      {"cooling", "cooling_state", "thermal", NULL},
      {"hwmon", "power_uw", "hwmon", add_hwmon},
      {"cpufreq", "clock_khz", "cpufreq", NULL},
      {"devfreq", "gpu_clock_khz", "devfreq", add_kgsl},
      {"battery", "battery_permille", "power_supply", NULL},
      {"gauge", "battery_ua", "power_supply", NULL},
      {"rapl", "energy_uj", "powercap", NULL}};
  Sensors all = {0};
  for (size_t g = 0; g < COUNT(groups); g++) {
    int at = all.count, absences = all.absences;
    for (size_t i = 0; i < COUNT(FILES); i++)
      if (strcmp(FILES[i].group, groups[g].group) == 0) add_files(&all, i);
    if (groups[g].more && !has_kind(&all, at, groups[g].kind)) groups[g].more(&all);
    bool told = has_kind(&all, at, groups[g].kind) || all.absences > absences;
    if (!told && !(groups[g].more == add_hwmon && for_rails(NULL, NULL)))
      add_absent(&all, groups[g].kind, groups[g].source, "no sensor");
  }
  add_nvml(&all);
  return all;
}
