/* Raw facts of the device, read and never interpreted here (docs/protocol.md, *Identity*). */
#include "agent.h"

static void add_member(Text *into, const char *name, char *value) {
  addf(into, "%s\"%s\":", into->data[into->size - 1] == '{' ? "" : ",", name);
  add_string(into, value);
  free(value);
}

static void add_number(Text *into, const char *name, const char *path) {
  int64_t value = 0;
  addf(into, ",\"%s\":", name);
  bool known = read_integer(path, &value);
  add_int_or_null(into, value, known);
}

/* The value of a line of the CPU's block in /proc/cpuinfo. */
static char *cpuinfo_value(const char *cpuinfo, int cpu, const char *label) {
  for (const char *block = cpuinfo; block && *block;) {
    const char *end = strstr(block, "\n\n"), *rest;
    char *text = end ? copy_of(block, (size_t)(end - block + 1)) : copy_of(block, strlen(block)), *value = NULL;
    if (find_line(text, "processor", &rest) && strchr(rest, ':') && strtol(strchr(rest, ':') + 1, NULL, 10) == cpu && find_line(text, label, &rest) && strchr(rest, ':')) {
      rest = strchr(rest, ':') + 1;
      while (*rest == ' ' || *rest == '\t') rest++;
      value = copy_of(rest, strcspn(rest, " \n"));
    }
    free(text);
    if (value) return value;
    block = end ? end + 2 : NULL;
  }
  return NULL;
}

static void add_cpus(Text *into, const char *cpuinfo) {
  int count, rows = 0;
  char **names = list_folder(sysfs("/sys/devices/system/cpu"), "cpu", &count);
  add(into, ",\"cpus\":[");
  for (int i = 0; i < count; i++) {
    char *end;
    long cpu = strtol(names[i] + 3, &end, 10);
    if (end == names[i] + 3 || *end) continue;
    char *base = textf("%s", sysfs("/sys/devices/system/cpu/%s", names[i]));
    addf(into, "%s{\"cpu\":%ld", rows++ ? "," : "", cpu);
    add_number(into, "max_khz", textf("%s/cpufreq/cpuinfo_max_freq", base));
    add_number(into, "cap_khz", textf("%s/cpufreq/scaling_max_freq", base));
    add_number(into, "capacity", textf("%s/cpu_capacity", base));
    add_member(into, "implementer", cpuinfo_value(cpuinfo, (int)cpu, "CPU implementer"));
    add_member(into, "part", cpuinfo_value(cpuinfo, (int)cpu, "CPU part"));
    char *cluster = stripped_text(textf("%s/cpufreq/related_cpus", base));
    add_member(into, "cluster", cluster ? cluster : stripped_text(textf("%s/topology/cluster_cpus_list", base)));
    add(into, "}");
  }
  add(into, "]");
}

/* `getprop` prints [name]: [value], where a value may have several lines. */
static void add_getprop(Text *into) {
  Text text = {0};
  char *argv[] = {(char *)"getprop", NULL};
  int count = 0;
  add(into, ",\"getprop\":");
  bool there = capture(argv, 10 * SECOND_NS, 1 << 20, &text, NULL);
  for (char *at = text.data; there && at && *at == '[';) {
    char *key_end = strstr(at, "]: ["), *end = key_end ? strstr(key_end, "]\n") : NULL;
    if (!end) break;
    add(into, count++ ? "," : "{");
    add_quoted(into, at + 1, (size_t)(key_end - at - 1));
    add(into, ":");
    add_quoted(into, key_end + 4, (size_t)(end - key_end - 4));
    at = end + 2;
  }
  add(into, count ? "}" : "null");
}

/* --- GPU, NNAPI and NPU libraries, asked in a process of its own: a driver may crash ---------------------------------- */

static void *first_library(const char *const *paths) {
  void *library = NULL;
  for (; *paths && !library; paths++) library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL);
  return library;
}

static void add_opencl(Text *into) {
  static const char *const paths[] = {"libOpenCL.so", "/vendor/lib64/libOpenCL.so", "/system/vendor/lib64/libOpenCL.so", "/vendor/lib/libOpenCL.so",
                                      "/vendor/lib64/egl/libGLES_mali.so", "/vendor/lib/egl/libGLES_mali.so", "libOpenCL.so.1", NULL};
  static const struct { const char *name; unsigned parameter; } wanted[] = {{"name", 0x102B}, {"vendor", 0x102C}, {"driver", 0x102D}, {"version", 0x102F}};
  void *library = first_library(paths), *platforms[8], *devices[8];
  int (*get_platforms)(unsigned, void **, unsigned *) = library ? (int (*)(unsigned, void **, unsigned *))dlsym(library, "clGetPlatformIDs") : NULL;
  int (*get_devices)(void *, uint64_t, unsigned, void **, unsigned *) = library ? (int (*)(void *, uint64_t, unsigned, void **, unsigned *))dlsym(library, "clGetDeviceIDs") : NULL;
  int (*get_info)(void *, unsigned, size_t, void *, size_t *) = library ? (int (*)(void *, unsigned, size_t, void *, size_t *))dlsym(library, "clGetDeviceInfo") : NULL;
  unsigned platform_count = 0, rows = 0;
  add(into, "\"opencl\":[");
  if (!get_platforms || !get_devices || !get_info || get_platforms(8, platforms, &platform_count)) platform_count = 0;
  for (unsigned p = 0; p < platform_count && p < 8; p++) {
    unsigned count = 0;
    if (get_devices(platforms[p], 0xFFFFFFFF, 8, devices, &count)) continue;
    for (unsigned d = 0; d < count && d < 8; d++) {
      addf(into, "%s{\"platform\":%u", rows++ ? "," : "", p);
      for (size_t i = 0; i < COUNT(wanted); i++) {
        char text[256] = "";
        get_info(devices[d], wanted[i].parameter, sizeof text - 1, text, NULL);
        add_member(into, wanted[i].name, copy_of(text, strlen(text)));
      }
      add(into, "}");
    }
  }
  add(into, "]");
}

static void add_vulkan(Text *into) {
  static const char *const paths[] = {"libvulkan.so", "libvulkan.so.1", NULL};
  struct { int type; const void *next; unsigned flags; const void *application; unsigned layers; const void *names; unsigned extensions; const void *more; } create = {.type = 1};
  struct { uint32_t api, driver, vendor, device, type; char name[256]; char rest[2048]; } facts;
  void *library = first_library(paths), *instance = NULL, *devices[8];
  int (*create_instance)(const void *, const void *, void **) = library ? (int (*)(const void *, const void *, void **))dlsym(library, "vkCreateInstance") : NULL;
  int (*enumerate)(void *, uint32_t *, void **) = library ? (int (*)(void *, uint32_t *, void **))dlsym(library, "vkEnumeratePhysicalDevices") : NULL;
  void (*properties)(void *, void *) = library ? (void (*)(void *, void *))dlsym(library, "vkGetPhysicalDeviceProperties") : NULL;
  uint32_t count = 8;
  add(into, ",\"vulkan\":[");
  if (!create_instance || !enumerate || !properties || create_instance(&create, NULL, &instance) || enumerate(instance, &count, devices) < 0) count = 0;
  for (uint32_t i = 0; i < count && i < 8; i++) {
    memset(&facts, 0, sizeof facts);
    properties(devices[i], &facts);
    facts.name[255] = 0;
    addf(into, "%s{\"api\":\"%u.%u.%u\",\"driver\":%u,\"vendor_id\":%u,\"device_id\":%u,\"device_type\":%u", i ? "," : "", facts.api >> 22, facts.api >> 12 & 1023,
         facts.api & 4095, facts.driver, facts.vendor, facts.device, facts.type);
    add_member(into, "name", copy_of(facts.name, strlen(facts.name)));
    add(into, "}");
  }
  add(into, "]");
}

static void add_nnapi(Text *into) {
  static const char *const paths[] = {"libneuralnetworks.so", NULL};
  void *library = first_library(paths);
  int (*get_count)(uint32_t *) = library ? (int (*)(uint32_t *))dlsym(library, "ANeuralNetworks_getDeviceCount") : NULL;
  int (*get_device)(uint32_t, void **) = library ? (int (*)(uint32_t, void **))dlsym(library, "ANeuralNetworks_getDevice") : NULL;
  int (*get_name)(const void *, const char **) = library ? (int (*)(const void *, const char **))dlsym(library, "ANeuralNetworksDevice_getName") : NULL;
  int (*get_type)(const void *, int32_t *) = library ? (int (*)(const void *, int32_t *))dlsym(library, "ANeuralNetworksDevice_getType") : NULL;
  int (*get_version)(const void *, const char **) = library ? (int (*)(const void *, const char **))dlsym(library, "ANeuralNetworksDevice_getVersion") : NULL;
  uint32_t count = 0;
  bool there = get_count && get_device && get_name && get_type && get_version && !get_count(&count);
  add(into, there ? ",\"nnapi\":[" : ",\"nnapi\":null");
  for (uint32_t i = 0; there && i < count; i++) {
    void *device = NULL;
    const char *name = "", *version = "";
    int32_t type = 0;
    if (get_device(i, &device)) break;
    get_name(device, &name);
    get_version(device, &version);
    get_type(device, &type);
    addf(into, "%s{\"type\":%d", i ? "," : "", type);
    add_member(into, "name", copy_of(name, strlen(name)));
    add_member(into, "version", copy_of(version, strlen(version)));
    add(into, "}");
  }
  if (there) add(into, "]");
}

static void add_npu_libraries(Text *into) {
  static const char *const folders[] = {"/vendor/lib64", "/vendor/lib", "/system/vendor/lib64", "/system/lib64", "/odm/lib64", "/vendor/dsp/cdsp", "/usr/lib"};
  static const char *const prefixes[] = {"libQnn", "libSnpe", "libneuron", "libcdsprpc", "libadsprpc", "libenn", "libedgetpu", "libOpenCL", "libarmnn"};
  int rows = 0;
  add(into, ",\"libraries\":[");
  for (size_t f = 0; f < COUNT(folders); f++)
    for (size_t p = 0; p < COUNT(prefixes); p++) {
      int count;
      char **names = list_folder(folders[f], prefixes[p], &count);
      for (int i = 0; i < count && rows < 200; i++) {
        add(into, rows++ ? "," : "");
        add_string(into, textf("%s/%s", folders[f], names[i]));
      }
    }
  add(into, "]");
}

int gpu_facts(int fd) {
  Text facts = {0};
  add(&facts, "{");
  add_opencl(&facts);
  add_vulkan(&facts);
  add_nnapi(&facts);
  add_npu_libraries(&facts);
  add(&facts, "}");
  write_all(fd, facts.data, facts.size);
  _exit(0);
}

static void add_accelerators(Text *into) {
  Text answer = {0};
  int ends[2];
  char fd[16];
  if (pipe2(ends, 0)) return;
  snprintf(fd, sizeof fd, "%d", ends[1]);
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  char *argv[] = {program_path(), (char *)"gpu-facts", fd, NULL};
  Text noise = {0};
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  bool done = capture(argv, 10 * SECOND_NS, 4096, &noise, NULL);
  close(ends[1]);
  char piece[4096];
  for (ssize_t got; (got = read(ends[0], piece, sizeof piece)) > 0;) add_bytes(&answer, piece, (size_t)got);
  close(ends[0]);
  const char *problem;
  add(into, ",\"accelerators\":");
  add(into, done && answer.size && json_parse(answer.data, answer.size, &problem) ? answer.data : "null");
}

void identify(Text *into) {
  struct utsname system;
  int64_t kilobytes = 0;
  const char *rest;
  memset(&system, 0, sizeof system);
  uname(&system);
  char *cpuinfo = file_text(sysfs("/proc/cpuinfo"), 65536), *meminfo = file_text(sysfs("/proc/meminfo"), 4096);
  bool known = meminfo && find_line(meminfo, "MemTotal:", &rest);
  if (known) kilobytes = strtoll(rest, NULL, 10);
  const char *parts[] = {system.sysname, system.nodename, system.release, system.version, system.machine};
  add(into, "{\"facts\":{\"uname\":[");
  for (size_t i = 0; i < COUNT(parts); i++) add(into, i ? "," : ""), add_string(into, parts[i]);
  add(into, "]");
  add_member(into, "boot_id", boot_id());
  addf(into, ",\"page_size\":%ld,\"cpu_count\":%ld,\"cpuinfo\":", sysconf(_SC_PAGESIZE), sysconf(_SC_NPROCESSORS_CONF));
  add_string(into, cpuinfo);
  add(into, ",\"meminfo_total_kb\":");
  add_int_or_null(into, kilobytes, known);
  add_member(into, "os_release", file_text(sysfs("/etc/os-release"), 8192));
  static const char *const dmi[] = {"product_name", "sys_vendor", "board_name"}, *const tree[] = {"model", "compatible"};
  add(into, ",\"dmi\":{");
  for (size_t i = 0; i < COUNT(dmi); i++) add_member(into, dmi[i], stripped_text(sysfs("/sys/class/dmi/id/%s", dmi[i])));
  add(into, "},\"device_tree\":{");
  for (size_t i = 0; i < COUNT(tree); i++) add_member(into, tree[i], stripped_text(sysfs("/proc/device-tree/%s", tree[i])));
  add(into, "}");
  add_getprop(into);
  add_cpus(into, cpuinfo ? cpuinfo : "");
  bool guest = cpuinfo && find_line(cpuinfo, "flags", &rest) && strcspn(rest, "\n") > 12 && strstr(rest, " hypervisor") && strstr(rest, " hypervisor") < rest + strcspn(rest, "\n");
  char *type = stripped_text(sysfs("/sys/hypervisor/type"));
  add_member(into, "hypervisor", type ? type : guest ? textf("hypervisor") : NULL);
  add(into, ",\"python\":null");
  add_accelerators(into);
  add(into, "}}");
}
