/* What telemetry, cool-down and power share of the device's sensors and of Android's services. */
#ifndef SOCBENCH_SENSORS_H
#define SOCBENCH_SENSORS_H

#include "agent.h"

typedef struct {
  const char *kind;
  char *source, *path;
  int fd;
  int64_t factor, divisor;
  void *device, *ask; /* of NVIDIA's library: the GPU, and the function that is asked with `argument` (none below 0) */
  int argument;
} Sensor;
typedef struct {
  Sensor *found;
  int count;
  Text absent; /* rows without t_ns, one a line: "kind","source",null,"reason" */
  int absences;
} Sensors;
extern const char TEMPERATURE[];

/* Walks over the folders of a class, in the order in which people count. */
#define FOR_EACH(name, folder, prefix)                                                 \
  int name##_count;                                                                    \
  char **name##_list = list_folder(sysfs("%s", folder), prefix, &name##_count), *name; \
  for (int name##_at = 0; name##_at < name##_count && (name = name##_list[name##_at]); name##_at++)

Sensors find_sensors(void);
void take_sensor(Sensors *all, Sensor sensor);
void add_absent(Sensors *all, const char *kind, const char *source, const char *reason);
typedef void TakeRail(void *to, const char *source, int64_t microwatts);
int for_rails(TakeRail *take_rail, void *to); /* how many there are; NULL: only count them */
void add_nvml(Sensors *all);                  /* nvml.c */
const char *read_nvml(const Sensor *sensor, int64_t *value);
const char *read_sensor(Sensor *sensor, int64_t *value);
bool possible_temperature(int64_t milli_c);
bool is_battery(const char *supply);

/* A reading, or (`known` false) why there is none. */
typedef void Take(void *to, const char *kind, const char *source, bool known, int64_t value, const char *reason);
bool is_android(void);                   /* android.c */
void take_android(Take *take, void *to); /* thermalservice and battery, by dumpsys */
bool android_headroom(double *headroom); /* 1.0 is where severe throttling begins; false: not told */

#endif
