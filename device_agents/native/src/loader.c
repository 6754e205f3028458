/* What runtimes have in common: sessions, the vendors' libraries, and what those log while they load a model. */
#include "agent.h"

Session *new_session(size_t size, const char *model, const Json *trial) {
  Session *session = take(size);
  session->trial = trial;
  session->model = model;
  session->delegate = member(trial, "delegate")->text;
  session->delegation = "unknown";
  session->evidence_kind = "none";
  session->compile_ns = session->nodes_total = session->nodes_delegated = session->partitions = -1;
  return session;
}

int threads_of(const Json *trial) {
  int64_t threads = 1;
  int_in(member(trial, "threads"), 1, 4096, &threads);
  return (int)threads;
}

bool asks(const Json *trial, const char *name, const char *value) {
  return strcmp(string_or(member(trial, name), ""), value) == 0;
}

void delegate_missing(const char *runtime, const char *delegate, const char *have) {
  fail("delegate_missing", NULL, "%s has no delegate %s here; it has %s", runtime, delegate, *have ? have : "none");
}

/* Looks for one of `names` (a name that ends with '.' stands for any version: libx.so.) in the trial's runtime_dir,
 * or in the folders of SOCBENCH_RUNTIMES. Returns its path and folder, NULL when it is nowhere. */
char *find_library(const Json *trial, const char *const *names, char **folder) {
  const char *list = string_or(member(trial, "runtime_dir"), getenv("SOCBENCH_RUNTIMES"));
  for (const char *at = list; at && *at;) {
    size_t size = strcspn(at, ":");
    char *here = copy_of(at, size);
    for (const char *const *name = names; *name; name++) {
      bool any_version = (*name)[strlen(*name) - 1] == '.';
      int count = 0;
      char **found = any_version ? list_folder(here, *name, &count) : NULL;
      char *path = textf("%s/%s", here, count ? found[count - 1] : *name);
      if (any_version && !count) continue;
      if (exists(path)) return *folder = here, path;
    }
    at += size + (at[size] == ':');
  }
  return NULL;
}

/* The class and machine of an ELF file, 0 when it is none. */
static int elf_kind(const char *path) {
  Text head = {0};
  int kind = 0;
  if (read_file(path, 20, &head) && head.size == 20 && memcmp(head.data, "\177ELF", 4) == 0)
    kind = (uint8_t)head.data[4] << 16 | (uint8_t)head.data[19] << 8 | (uint8_t)head.data[18];
  free(head.data);
  return kind;
}

/* Opens a library; where that fails, tells another architecture (which not every loader does) from what else the loader
 * says: a missing symbol, a missing library, pages of another size. */
void *open_library(const char *path, const char *what) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library) return library;
  const char *why = dlerror();
  int theirs = elf_kind(path), ours = elf_kind("/proc/self/exe");
  if (theirs && ours && theirs != ours)
    fail("runtime_broken", "fetch the libraries that are built for this device: socbench runtimes fetch PLATFORM",
         "%s is built for another architecture (ELF class %d, machine %d; this agent: %d, %d)", what, theirs >> 16,
         theirs & 0xFFFF, ours >> 16, ours & 0xFFFF);
  fail("runtime_broken",
       theirs ? "put the libraries that it needs beside it, or fetch another version"
              : "fetch it again: socbench runtimes fetch PLATFORM",
       "%s cannot be loaded: %s", what, why ? why : "the loader does not say why");
}

static int kept_stderr = -1, log_fd = -1;
static char log_path[64];

static void give_log_back(void) {
  char piece[4096];
  ssize_t got;
  if (kept_stderr < 0) return;
  dup2(kept_stderr, 2);
  for (off_t at = 0; (got = pread(log_fd, piece, sizeof piece, at)) > 0; at += got)
    if (write(2, piece, (size_t)got) < 0) break;
  unlink(log_path);
  kept_stderr = -1;
}

/* A driver that dies while it loads a model must not take its last words with it. */
static void on_crash(int number) {
  give_log_back();
  signal(number, SIG_DFL);
  kill(getpid(), number);
}

static const int CRASHES[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE};

/* Runtimes tell what a delegate took over in their log alone: keep what is written to standard error meanwhile. */
void capture_log_begin(void) {
  snprintf(log_path, sizeof log_path, ".load-%d.log", getpid());
  int fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return;
  log_fd = fd;
  kept_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
  dup2(fd, 2);
  for (size_t i = 0; i < COUNT(CRASHES); i++) signal(CRASHES[i], on_crash);
}

char *capture_log_end(void) {
  Text text = {0};
  char piece[4096];
  ssize_t got;
  add(&text, "");
  for (size_t i = 0; i < COUNT(CRASHES); i++) signal(CRASHES[i], SIG_DFL);
  if (kept_stderr < 0) return text.data;
  while (text.size < 1 << 20 && (got = pread(log_fd, piece, sizeof piece, (off_t)text.size)) > 0)
    add_bytes(&text, piece, (size_t)got);
  give_log_back();
  close(log_fd);
  return text.data;
}

/* A row of the event `ops`: mean time of an inference, and how often it ran in one. */
void add_op_row(Text *rows, int index, const char *op, const char *name, const char *unit, int64_t ns, int calls) {
  const char *const texts[] = {op, name, unit};
  comma(rows);
  addf(rows, "[%d", index);
  for (size_t i = 0; i < COUNT(texts); i++) add(rows, ","), add_string(rows, texts[i]);
  addf(rows, ",%lld,%d]", (long long)ns, calls ? calls : 1);
}
