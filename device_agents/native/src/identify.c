/* What a device's drivers say of its accelerators (docs/protocol.md, *Identity*): only a program on it can ask them. */
#include "agent.h"

static void *first_library(const char *const *paths) {
  void *library = NULL;
  for (; *paths && !library; paths++) library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL);
  return library;
}

static void *symbol(void *library, const char *name) { return library ? dlsym(library, name) : NULL; }

typedef int GetPlatforms(unsigned room, void **platforms, unsigned *count);
typedef int GetDevices(void *platform, uint64_t type, unsigned room, void **devices, unsigned *count);
typedef int GetDeviceInfo(void *device, unsigned parameter, size_t room, void *value, size_t *size);

static void put_opencl_device(Text *into, unsigned platform, void *device, GetDeviceInfo *get_info) {
  static const struct { const char *name; unsigned parameter; } wanted[] = {
      {"name", 0x102B}, {"vendor", 0x102C}, {"driver", 0x102D}, {"version", 0x102F}};
  comma(into);
  add(into, "{");
  put_int(into, "platform", platform);
  for (size_t i = 0; i < COUNT(wanted); i++) {
    char text[256] = "";
    get_info(device, wanted[i].parameter, sizeof text - 1, text, NULL);
    put_string(into, wanted[i].name, text);
  }
  add(into, "}");
}

static void put_opencl(Text *into) {
  static const char *const paths[] = {"libOpenCL.so", "/vendor/lib64/libOpenCL.so", "/system/vendor/lib64/libOpenCL.so",
                                      "/vendor/lib/libOpenCL.so", "/vendor/lib64/egl/libGLES_mali.so",
                                      "/vendor/lib/egl/libGLES_mali.so", "libOpenCL.so.1", NULL};
  void *library = first_library(paths), *platforms[8], *devices[8];
  GetPlatforms *get_platforms = (GetPlatforms *)symbol(library, "clGetPlatformIDs");
  GetDevices *get_devices = (GetDevices *)symbol(library, "clGetDeviceIDs");
  GetDeviceInfo *get_info = (GetDeviceInfo *)symbol(library, "clGetDeviceInfo");
  unsigned platform_count = 0;
  put(into, "opencl", "[");
  if (!get_platforms || !get_devices || !get_info || get_platforms(8, platforms, &platform_count)) platform_count = 0;
  for (unsigned p = 0; p < platform_count && p < 8; p++) {
    unsigned count = 0;
    if (get_devices(platforms[p], 0xFFFFFFFF, 8, devices, &count)) continue;
    for (unsigned d = 0; d < count && d < 8; d++) put_opencl_device(into, p, devices[d], get_info);
  }
  add(into, "]");
}

typedef int CreateInstance(const void *create, const void *allocator, void **instance);
typedef int EnumerateDevices(void *instance, uint32_t *count, void **devices);
typedef void GetProperties(void *device, void *facts);

static void put_vulkan(Text *into) {
  static const char *const paths[] = {"libvulkan.so", "libvulkan.so.1", NULL};
  struct {
    int type;
    const void *next;
    unsigned flags;
    const void *application;
    unsigned layers;
    const void *names;
    unsigned extensions;
    const void *more;
  } create = {.type = 1};
  struct { uint32_t api, driver, vendor, device, type; char name[256]; char rest[2048]; } facts;
  void *library = first_library(paths), *instance = NULL, *devices[8];
  CreateInstance *create_instance = (CreateInstance *)symbol(library, "vkCreateInstance");
  EnumerateDevices *enumerate = (EnumerateDevices *)symbol(library, "vkEnumeratePhysicalDevices");
  GetProperties *get_properties = (GetProperties *)symbol(library, "vkGetPhysicalDeviceProperties");
  uint32_t count = 8;
  put(into, "vulkan", "[");
  bool there = create_instance && enumerate && get_properties && !create_instance(&create, NULL, &instance);
  if (!there || enumerate(instance, &count, devices) < 0) count = 0;
  for (uint32_t i = 0; i < count && i < 8; i++) {
    memset(&facts, 0, sizeof facts);
    get_properties(devices[i], &facts);
    facts.name[255] = 0;
    comma(into);
    addf(into, "{\"api\":\"%u.%u.%u\"", facts.api >> 22, facts.api >> 12 & 1023, facts.api & 4095);
    put_int(into, "driver", facts.driver);
    put_int(into, "vendor_id", facts.vendor);
    put_int(into, "device_id", facts.device);
    put_int(into, "device_type", facts.type);
    put_string(into, "name", facts.name);
    add(into, "}");
  }
  add(into, "]");
}

typedef int CountAccelerators(uint32_t *count);
typedef int GetAccelerator(uint32_t index, void **device);
typedef int GetText(const void *device, const char **text);
typedef int GetType(const void *device, int32_t *type);

static void put_nnapi(Text *into) {
  static const char *const paths[] = {"libneuralnetworks.so", NULL};
  void *library = first_library(paths);
  CountAccelerators *get_count = (CountAccelerators *)symbol(library, "ANeuralNetworks_getDeviceCount");
  GetAccelerator *get_device = (GetAccelerator *)symbol(library, "ANeuralNetworks_getDevice");
  GetText *get_name = (GetText *)symbol(library, "ANeuralNetworksDevice_getName");
  GetText *get_version = (GetText *)symbol(library, "ANeuralNetworksDevice_getVersion");
  GetType *get_type = (GetType *)symbol(library, "ANeuralNetworksDevice_getType");
  uint32_t count = 0;
  bool there = get_count && get_device && get_name && get_type && get_version && !get_count(&count);
  put(into, "nnapi", there ? "[" : "null");
  for (uint32_t i = 0; there && i < count; i++) {
    void *device = NULL;
    const char *name = "", *version = "";
    int32_t type = 0;
    if (get_device(i, &device)) break;
    get_name(device, &name);
    get_version(device, &version);
    get_type(device, &type);
    comma(into);
    add(into, "{");
    put_int(into, "type", type);
    put_string(into, "name", name);
    put_string(into, "version", version);
    add(into, "}");
  }
  if (there) add(into, "]");
}

static void put_npu_libraries(Text *into) {
  static const char *const folders[] = {"/vendor/lib64", "/vendor/lib", "/system/vendor/lib64",
                                        "/system/lib64", "/odm/lib64",  "/vendor/dsp/cdsp",
                                        "/usr/lib"};
  static const char *const prefixes[] = {"libQnn", "libSnpe",    "libneuron", "libcdsprpc", "libadsprpc",
                                         "libenn", "libedgetpu", "libOpenCL", "libarmnn"};
  int rows = 0;
  put(into, "libraries", "[");
  for (size_t f = 0; f < COUNT(folders); f++)
    for (size_t p = 0; p < COUNT(prefixes); p++) {
      int count;
      char **names = list_folder(folders[f], prefixes[p], &count);
      for (int i = 0; i < count && rows < 200; i++, rows++) {
        comma(into);
        add_string(into, textf("%s/%s", folders[f], names[i]));
      }
    }
  add(into, "]");
}

int gpu_facts(int fd) {
  Text facts = {0};
  add(&facts, "{");
  put_opencl(&facts);
  put_vulkan(&facts);
  put_nnapi(&facts);
  put_npu_libraries(&facts);
  add(&facts, "}");
  write_all(fd, facts.data, facts.size);
  _exit(0);
}

static void put_accelerators(Text *into) {
  Child child;
  char *argv[] = {program_path(), (char *)"gpu-facts", NULL};
  const char *problem;
  bool done = child_start(&child, argv, environ, NULL, true);
  if (done) {
    bool told =
        child_follow(&child, 10 * SECOND_NS, 4096) && json_parse(child.buffer.data, child.buffer.size, &problem);
    put(into, "accelerators", told ? child.buffer.data : "null");
    child_close(&child);
  } else {
    put(into, "accelerators", "null");
  }
}

void identify(Text *into) {
  static struct utsname system;
  uname(&system);
  const char *parts[] = {system.sysname, system.nodename, system.release, system.version, system.machine};
  add(into, "{\"facts\":{\"uname\":[");
  for (size_t i = 0; i < COUNT(parts); i++) comma(into), add_string(into, parts[i]);
  add(into, "]");
  put_string(into, "boot_id", boot_id());
  put_int(into, "page_size", sysconf(_SC_PAGESIZE));
  put_accelerators(into);
  add(into, "}}");
}
