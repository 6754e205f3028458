/* A fake of NVIDIA's management library: two GPUs, the second of which tells no power. For tests only. */
#include <stdlib.h>
#include <string.h>

int nvmlInit_v2(void) {
  const char *code = getenv("FAKE_NVML_INIT");
  return code ? atoi(code) : 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = 2;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  static int devices[2] = {0, 1};
  *device = &devices[index];
  return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned size) {
  strncpy(name, *(int *)device ? "Fake B" : "Fake A 80GB", size);
  return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
  *celsius = sensor == 0 ? 41 + *(unsigned *)device : 0;
  return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
  *milliwatts = 71234;
  return *(int *)device ? 3 : 0;
}
int nvmlDeviceGetClockInfo(void *device, int clock, unsigned *megahertz) {
  (void)device;
  *megahertz = clock == 0 ? 1980 : clock == 2 ? 2619 : 0;
  return 0;
}
