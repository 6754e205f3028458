/* Memory, text, files, clocks, processes, and SHA-256 (FIPS 180-4). */
#include "agent.h"

FailHandler *on_fail;

void fail(const char *code, const char *advice, const char *format, ...) {
  static char message[TAIL_CHARS];
  va_list list;
  va_start(list, format);
  vsnprintf(message, sizeof message, format, list);
  va_end(list);
  FailHandler *handler = on_fail;
  on_fail = NULL; /* a failure while failing is not reported again */
  if (handler) handler(code, message, advice);
  _exit(1);
}

void *take(size_t size) {
  void *memory = calloc(1, size ? size : 1);
  if (!memory) fail("out_of_memory", "use a smaller batch or model", "the process ran out of memory");
  return memory;
}

char *copy_of(const char *string, size_t size) {
  char *copy = take(size + 1);
  memcpy(copy, string, size);
  return copy;
}

void add_bytes(Text *text, const void *data, size_t size) {
  if (text->size + size + 1 > text->room) {
    size_t room = (text->size + size + 1) * 3 / 2 + 64;
    char *grown = realloc(text->data, room);
    if (!grown) fail("out_of_memory", NULL, "the process ran out of memory");
    text->data = grown;
    text->room = room;
  }
  if (size) memcpy(text->data + text->size, data, size);
  text->size += size;
  text->data[text->size] = 0;
}

void add(Text *text, const char *string) { add_bytes(text, string, strlen(string)); }

static void add_list(Text *text, const char *format, va_list list) {
  char piece[1024];
  va_list again;
  va_copy(again, list);
  int size = vsnprintf(piece, sizeof piece, format, list);
  if (size >= (int)sizeof piece) {
    char *large = take((size_t)size + 1);
    vsnprintf(large, (size_t)size + 1, format, again);
    add_bytes(text, large, (size_t)size);
    free(large);
  } else if (size > 0) {
    add_bytes(text, piece, (size_t)size);
  }
  va_end(again);
}

void addf(Text *text, const char *format, ...) {
  va_list list;
  va_start(list, format);
  add_list(text, format, list);
  va_end(list);
}

char *textf(const char *format, ...) {
  Text text = {0};
  va_list list;
  add(&text, "");
  va_start(list, format);
  add_list(&text, format, list);
  va_end(list);
  return text.data;
}

void drop_front(Text *text, size_t size) {
  memmove(text->data, text->data + size, text->size - size + 1);
  text->size -= size;
}

int64_t clock_ns(int clock) {
  struct timespec now;
  clock_gettime((clockid_t)clock, &now);
  return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

int64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
int64_t boot_ns(void) { return clock_ns(CLOCK_BOOTTIME); }

void sleep_ns(int64_t ns) {
  if (ns <= 0) return;
  struct timespec span = {.tv_sec = (time_t)(ns / SECOND_NS), .tv_nsec = (long)(ns % SECOND_NS)};
  nanosleep(&span, NULL);
}

bool write_all(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size) {
    ssize_t done = write(fd, at, size);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    at += done;
    size -= (size_t)done;
  }
  return true;
}

bool no_space(void) { return errno == ENOSPC || errno == EDQUOT; }

bool read_file(const char *path, size_t limit, Text *into) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  char piece[16384];
  if (fd < 0) return false;
  add(into, "");
  while (into->size < limit) {
    size_t room = limit - into->size < sizeof piece ? limit - into->size : sizeof piece;
    ssize_t got = read(fd, piece, room);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      int kept = errno;
      close(fd);
      errno = kept;
      return false;
    }
    if (got == 0) break;
    add_bytes(into, piece, (size_t)got);
  }
  close(fd);
  return true;
}

/* Whether a file or folder is there and can be read: asked by opening it, which every emulation and sandbox answers. */
bool exists(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

char *file_text(const char *path, size_t limit) {
  Text text = {0};
  if (read_file(path, limit, &text)) return text.data;
  free(text.data);
  return NULL;
}

/* The text of a one-line file; the NUL separated lists of a device tree are joined by commas. NULL when empty. */
char *stripped_text(const char *path) {
  Text text = {0};
  if (!read_file(path, 4096, &text)) return free(text.data), NULL;
  while (text.size && strchr("\n\r\t ", text.data[text.size - 1]))
    text.data[--text.size] = 0; /* strchr finds the NUL */
  for (size_t i = 0; i < text.size; i++)
    if (!text.data[i]) text.data[i] = ',';
  return text.size ? text.data : (free(text.data), NULL);
}

bool read_integer(const char *path, int64_t *value) {
  char *text = file_text(path, 64), *end = text;
  if (text) *value = strtoll(text, &end, 10);
  bool ok = text && end != text;
  free(text);
  return ok;
}

/* A path under SOCBENCH_SYSFS_ROOT (tests and simulators put another folder in front); valid until the 8th call
 * after. */
const char *sysfs(const char *format, ...) {
  static char paths[8][1024];
  static int turn;
  char *path = paths[turn = (turn + 1) % 8];
  const char *root = getenv("SOCBENCH_SYSFS_ROOT");
  va_list list;
  int size = snprintf(path, sizeof paths[0], "%s", root ? root : "");
  if (size < 0 || size >= (int)sizeof paths[0]) return "/nowhere";
  va_start(list, format);
  vsnprintf(path + size, sizeof paths[0] - (size_t)size, format, list);
  va_end(list);
  return path;
}

static int compare_as_people_count(const void *a, const void *b) {
  const char *left = *(char *const *)a, *right = *(char *const *)b;
  while (*left && *right) {
    if (*left >= '0' && *left <= '9' && *right >= '0' && *right <= '9') {
      char *left_end, *right_end;
      unsigned long long x = strtoull(left, &left_end, 10), y = strtoull(right, &right_end, 10);
      if (x != y) return x < y ? -1 : 1;
      left = left_end, right = right_end;
    } else if (*left != *right) {
      return (unsigned char)*left - (unsigned char)*right;
    } else {
      left++, right++;
    }
  }
  return (unsigned char)*left - (unsigned char)*right;
}

char **list_folder(const char *path, const char *prefix, int *count) {
  DIR *folder = opendir(path);
  char **names = NULL;
  *count = 0;
  for (struct dirent *entry; folder && (entry = readdir(folder));) {
    if (entry->d_name[0] == '.' || strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
    char **grown = realloc(names, sizeof *names * (size_t)(*count + 1));
    if (!grown) break;
    names = grown;
    names[(*count)++] = copy_of(entry->d_name, strlen(entry->d_name));
  }
  if (folder) closedir(folder);
  if (names) qsort(names, (size_t)*count, sizeof *names, compare_as_people_count);
  return names;
}

/* Finds the first line that begins with `start`; `rest` is what follows it there. */
bool find_line(const char *text, const char *start, const char **rest) {
  size_t size = strlen(start);
  for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
    if (strncmp(line, start, size) == 0) return *rest = line + size, true;
  return false;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

bool contains_i(const char *text, const char *part) {
  for (; *text; text++) {
    size_t i = 0;
    while (part[i] && lower(text[i]) == lower(part[i])) i++;
    if (!part[i]) return true;
  }
  return false;
}

bool contains_any(const char *text, const char *const *parts, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (contains_i(text, parts[i])) return true;
  return false;
}

bool ends_with(const char *text, const char *end) {
  size_t a = strlen(text), b = strlen(end);
  return a >= b && contains_i(text + a - b, end);
}

const char *base_name(const char *path) { return strrchr(path, '/') ? strrchr(path, '/') + 1 : path; }

char *boot_id(void) { return stripped_text(sysfs("/proc/sys/kernel/random/boot_id")); }

char *program_path(void) {
  char path[4096];
  ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
  if (size <= 0) fail("run_failed", NULL, "the agent can't find its own file: %s", strerror(errno));
  return copy_of(path, (size_t)size);
}

const char *signal_name(int number) {
  static const struct { int number; const char *name; } names[] = {
      {SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGKILL, "SIGKILL"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"},
      {SIGFPE, "SIGFPE"},   {SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"},   {SIGSYS, "SIGSYS"}, {SIGTRAP, "SIGTRAP"},
      {SIGPIPE, "SIGPIPE"}, {SIGHUP, "SIGHUP"}};
  for (size_t i = 0; i < COUNT(names); i++)
    if (names[i].number == number) return names[i].name;
  return textf("signal %d", number);
}

char *cpu_name(void) {
  char *text = file_text(sysfs("/proc/cpuinfo"), 65536);
  static const char *const labels[] = {"model name", "Hardware", "Model"};
  const char *rest;
  for (size_t i = 0; text && i < COUNT(labels); i++)
    if (find_line(text, labels[i], &rest) && strchr(rest, ':')) {
      const char *name = strchr(rest, ':') + 1, *end;
      while (*name == ' ') name++;
      if ((end = strchr(name, '\n')) && end > name) return copy_of(name, (size_t)(end - name));
    }
  static struct utsname system;
  return uname(&system) == 0 ? system.machine : NULL;
}

int thread_count(void) {
  int count;
  char **names = list_folder("/proc/self/task", "", &count);
  for (int i = 0; i < count; i++) free(names[i]);
  free(names);
  return count ? count : 1;
}

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(Sha256 *sum, const uint8_t *block) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
           block[4 * i + 3];
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
           (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
  memcpy(s, sum->state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t a = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                 ROUND[i] + w[i];
    uint32_t b =
        (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += a;
    s[0] = a + b;
  }
  for (int i = 0; i < 8; i++) sum->state[i] += s[i];
}

void sha256_begin(Sha256 *sum) {
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(sum->state, start, sizeof start);
  sum->size = 0;
}

void sha256_add(Sha256 *sum, const void *data, size_t size) {
  const uint8_t *at = data;
  while (size) {
    size_t used = sum->size % 64, part = 64 - used < size ? 64 - used : size;
    memcpy(sum->block + used, at, part);
    sum->size += part;
    at += part;
    size -= part;
    if (sum->size % 64 == 0) sha256_block(sum, sum->block);
  }
}

void sha256_end(Sha256 *sum, char hex[65]) {
  uint64_t bits = sum->size * 8;
  uint8_t end[8];
  for (int i = 0; i < 8; i++) end[i] = (uint8_t)(bits >> (56 - 8 * i));
  sha256_add(sum, "\x80", 1);
  while (sum->size % 64 != 56) sha256_add(sum, "", 1);
  sha256_add(sum, end, 8);
  for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", sum->state[i]);
}
