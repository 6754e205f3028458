/* The system's declarations: its own headers, or for Android without an NDK the few that bionic.h states. */
#ifndef SOCBENCH_SYS_H
#define SOCBENCH_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef SOCBENCH_BARE_BIONIC
#include "../android/bionic.h"
#else
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
extern char **environ;
int sched_setaffinity(pid_t pid, size_t size, const void *mask);
int sched_getaffinity(pid_t pid, size_t size, void *mask);
#endif

#endif
