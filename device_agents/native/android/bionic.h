/* Android's C library, as far as the agent uses it, in our own words: its binary interface since Android 7 (API 24) for
 * arm64-v8a, armeabi-v7a and x86_64. With this an Android executable needs no NDK; an NDK build does not see this file. */
#ifndef SOCBENCH_BIONIC_H
#define SOCBENCH_BIONIC_H

typedef long ssize_t, off_t, time_t, suseconds_t;
typedef int pid_t, clockid_t;
typedef unsigned mode_t, nfds_t;
typedef long jmp_buf[64]; /* more than any of the three needs */

struct timespec { time_t tv_sec; long tv_nsec; };
struct timeval { time_t tv_sec; suseconds_t tv_usec; };
struct pollfd { int fd; short events, revents; };
struct dirent { uint64_t d_ino; int64_t d_off; unsigned short d_reclen; unsigned char d_type; char d_name[256]; };
struct utsname { char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65]; };
struct rusage {
  struct timeval ru_utime, ru_stime;
  long ru_maxrss, ru_ixrss, ru_idrss, ru_isrss, ru_minflt, ru_majflt, ru_nswap, ru_inblock, ru_oublock, ru_msgsnd, ru_msgrcv, ru_nsignals,
      ru_nvcsw, ru_nivcsw, spare[16];
};

#if defined(__aarch64__)
struct stat {
  unsigned long st_dev, st_ino;
  unsigned st_mode, st_nlink, st_uid, st_gid;
  unsigned long st_rdev, pad1;
  long st_size;
  int st_blksize, pad2;
  long st_blocks;
  struct timespec st_atim, st_mtim, st_ctim;
  unsigned pad3[2];
  char spare[64];
};
#elif defined(__x86_64__)
struct stat {
  unsigned long st_dev, st_ino, st_nlink;
  unsigned st_mode, st_uid, st_gid, pad0;
  unsigned long st_rdev;
  long st_size, st_blksize, st_blocks;
  struct timespec st_atim, st_mtim, st_ctim;
  long pad3[3];
  char spare[64];
};
#elif defined(__arm__)
struct stat {
  unsigned long long st_dev;
  unsigned char pad0[4];
  unsigned long short_ino;
  unsigned st_mode, st_nlink, st_uid, st_gid;
  unsigned long long st_rdev;
  unsigned char pad3[4];
  long long st_size;
  unsigned long st_blksize;
  unsigned long long st_blocks;
  struct timespec st_atim, st_mtim, st_ctim;
  unsigned long long st_ino;
  char spare[64];
};
#else
#error "this architecture's struct stat is not stated here: build with the NDK"
#endif

#ifdef __LP64__
struct sigaction { int sa_flags; void (*sa_handler)(int); unsigned long sa_mask; void (*sa_restorer)(void); };
enum { RTLD_LOCAL = 0, RTLD_NOW = 2 };
#else
struct sigaction { void (*sa_handler)(int); unsigned long sa_mask; int sa_flags; void (*sa_restorer)(void); };
enum { RTLD_LOCAL = 0, RTLD_NOW = 0 };
#endif

enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_EXCL = 0200, O_TRUNC = 01000, O_APPEND = 02000, O_NONBLOCK = 04000, O_CLOEXEC = 02000000 };
enum { F_SETFD = 2, F_SETFL = 4, F_DUPFD_CLOEXEC = 1030, FD_CLOEXEC = 1, S_IFMT = 0170000, S_IFDIR = 0040000 };
enum { LOCK_SH = 1, LOCK_EX = 2, LOCK_NB = 4, PROT_READ = 1, MAP_PRIVATE = 2, POLLIN = 1, WNOHANG = 1, PR_SET_PDEATHSIG = 1, RUSAGE_SELF = 0 };
enum { ENOENT = 2, EINTR = 4, EAGAIN = 11, EACCES = 13, ENOSPC = 28, ENODATA = 61, EDQUOT = 122 };
enum { CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_BOOTTIME = 7, _SC_CLK_TCK = 6, _SC_PAGESIZE = 0x27, _SC_NPROCESSORS_CONF = 0x60 };
enum { SIGHUP = 1, SIGINT = 2, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGSEGV = 11, SIGPIPE = 13, SIGTERM = 15, SIGCHLD = 17, SIGSYS = 31 };
#define MAP_FAILED ((void *)-1)
#define SIG_DFL ((void (*)(int))0)
#define SIG_IGN ((void (*)(int))1)
#define WIFEXITED(status) (((status) & 0x7f) == 0)
#define WEXITSTATUS(status) ((status) >> 8 & 0xff)
#define WTERMSIG(status) ((status) & 0x7f)
#define WIFSIGNALED(status) (WTERMSIG(status) && WTERMSIG(status) != 0x7f)
#define errno (*__errno())
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define signbit(x) __builtin_signbit(x)
#define fabs(x) __builtin_fabs(x)

typedef struct DIR DIR;
extern char **environ;
int *__errno(void);
int open(const char *, int, ...);
int close(int);
int fcntl(int, int, ...);
ssize_t read(int, void *, size_t);
ssize_t write(int, const void *, size_t);
ssize_t pread(int, void *, size_t, off_t);
int stat(const char *, struct stat *);
int fstat(int, struct stat *);
int unlink(const char *);
int rename(const char *, const char *);
int mkdir(const char *, mode_t);
int chdir(const char *);
int ftruncate(int, off_t);
int flock(int, int);
int pipe2(int *, int);
int dup2(int, int);
int poll(struct pollfd *, nfds_t, int);
ssize_t readlink(const char *, char *, size_t);
char *realpath(const char *, char *);
DIR *opendir(const char *);
struct dirent *readdir(DIR *);
int closedir(DIR *);
void *mmap(void *, size_t, int, int, int, off_t);
int munmap(void *, size_t);
pid_t fork(void);
pid_t getpid(void);
pid_t getppid(void);
pid_t setsid(void);
pid_t waitpid(pid_t, int *, int);
int kill(pid_t, int);
int prctl(int, ...);
int execve(const char *, char *const *, char *const *);
int execv(const char *, char *const *);
int execvp(const char *, char *const *);
void _exit(int) __attribute__((noreturn));
void exit(int) __attribute__((noreturn));
int sigaction(int, const struct sigaction *, struct sigaction *);
void (*signal(int, void (*)(int)))(int);
int setjmp(jmp_buf) __attribute__((returns_twice));
void longjmp(jmp_buf, int) __attribute__((noreturn));
int clock_gettime(clockid_t, struct timespec *);
int nanosleep(const struct timespec *, struct timespec *);
int getrusage(int, struct rusage *);
int sched_setaffinity(pid_t, size_t, const void *);
int sched_getaffinity(pid_t, size_t, void *);
long sysconf(int);
int uname(struct utsname *);
char *getenv(const char *);
int setenv(const char *, const char *, int);
int unsetenv(const char *);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
void free(void *);
int posix_memalign(void **, size_t, size_t);
void qsort(void *, size_t, size_t, int (*)(const void *, const void *));
int atoi(const char *);
long strtol(const char *, char **, int);
long long strtoll(const char *, char **, int);
unsigned long long strtoull(const char *, char **, int);
double strtod(const char *, char **);
int snprintf(char *, size_t, const char *, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *, size_t, const char *, va_list);
size_t strlen(const char *);
int strcmp(const char *, const char *);
int strncmp(const char *, const char *, size_t);
char *strchr(const char *, int);
char *strrchr(const char *, int);
char *strstr(const char *, const char *);
size_t strcspn(const char *, const char *);
char *strerror(int);
void *memchr(const void *, int, size_t);
int memcmp(const void *, const void *, size_t);
void *memcpy(void *, const void *, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);
double rint(double);
double ldexp(double, int);
double frexp(double, int *);

#endif
