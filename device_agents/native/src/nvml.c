/* NVIDIA's GPUs, asked through the library that comes with the driver (as device_agents/python/telemetry_nvml.py). */
#include "sensors.h"

typedef int Init(void);
typedef int CountGpus(unsigned *count);
typedef int GetGpu(unsigned index, void **device);
typedef int GetName(void *device, char *name, unsigned room);
typedef int Ask(void *device, unsigned *answer);
typedef int AskWith(void *device, int argument, unsigned *answer);

static const char *words_of(int code) {
  static const struct { int code; const char *words; } known[] = {
      {1, "not initialised"},  {3, "not supported"},    {4, "permission denied"}, {9, "the driver is not loaded"},
      {15, "the GPU is lost"}, {18, "library and driver are of different versions"}};
  for (size_t i = 0; i < COUNT(known); i++)
    if (known[i].code == code) return known[i].words;
  return textf("NVML says error %d", code);
}

const char *read_nvml(const Sensor *sensor, int64_t *value) {
  unsigned answer = 0;
  int code = sensor->argument < 0 ? ((Ask *)sensor->ask)(sensor->device, &answer)
                                  : ((AskWith *)sensor->ask)(sensor->device, sensor->argument, &answer);
  *value = (int64_t)answer * 1000; /* degrees, milliwatts, megahertz */
  return code ? words_of(code) : NULL;
}

static void add_gpu(Sensors *all, void *nvml, void *device, char *source) {
  static const struct { const char *kind, *function; int argument; } asked[] = {
      {TEMPERATURE, "nvmlDeviceGetTemperature", 0},
      {"power_uw", "nvmlDeviceGetPowerUsage", -1},
      {"gpu_clock_khz", "nvmlDeviceGetClockInfo", 0},
      {"memory_clock_khz", "nvmlDeviceGetClockInfo", 2}};
  for (size_t i = 0; i < COUNT(asked); i++) {
    void *ask = dlsym(nvml, asked[i].function);
    Sensor sensor = {.kind = asked[i].kind, .source = source, .fd = -1, .device = device, .ask = ask};
    sensor.argument = asked[i].argument;
    if (ask) take_sensor(all, sensor);
  }
}

/* Adds what each GPU tells; returns why there is none. */
static const char *add_gpus(Sensors *all) {
  void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  Init *init = nvml ? (Init *)dlsym(nvml, "nvmlInit_v2") : NULL;
  CountGpus *count_of = nvml ? (CountGpus *)dlsym(nvml, "nvmlDeviceGetCount_v2") : NULL;
  GetGpu *device_of = nvml ? (GetGpu *)dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2") : NULL;
  GetName *name_of = nvml ? (GetName *)dlsym(nvml, "nvmlDeviceGetName") : NULL;
  if (!init || !count_of || !device_of || !name_of) return "no library libnvidia-ml.so.1";
  int code = init(), before = all->count;
  unsigned count = 0;
  if (code) return words_of(code);
  count_of(&count);
  for (unsigned gpu = 0; gpu < count && gpu < 16; gpu++) {
    void *device;
    char name[97] = "";
    if (device_of(gpu, &device)) continue;
    name_of(device, name, 96);
    add_gpu(all, nvml, device, textf("nvml:gpu%u:%s", gpu, *name ? name : "unknown"));
  }
  return all->count > before ? NULL : "no sensor";
}

void add_nvml(Sensors *all) {
  const char *reason = add_gpus(all);
  if (reason) add_absent(all, "power_uw", "nvml", reason);
}
