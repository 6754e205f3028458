/* A second load: processes of our own that keep cores busy while a repetition warms up and is measured. */
#include "supervisor.h"

static int64_t wanted;
static Child *running;
static int count;
static int64_t ticks[2]; /* what they had used when measuring began and when it ended; -1: not yet */
static char *problem;

static int64_t used_ticks(void) {
  int64_t sum = 0;
  for (int i = 0; i < count; i++) sum += cpu_ticks(running[i].pid);
  return sum;
}

void load_begin(const Json *settings) {
  wanted = 0;
  problem = NULL;
  int_in(member(settings, "busy_cores"), 1, MAX_CPUS, &wanted);
}

static void start(void) {
  char *argv[] = {program_path(), (char *)"busy", textf("%d", getpid()), NULL};
  running = take(sizeof *running * (size_t)wanted);
  ticks[0] = ticks[1] = 0;
  for (; count < wanted && !problem; count++)
    if (!child_start(&running[count], argv, environ, NULL, true)) {
      problem = textf("no process could be started for the second load: %s", strerror(errno));
      return;
    }
}

/* Follows the phases of a repetition: the load works from warming up on, and what it uses counts while it is
 * measured. */
void load_follow(const char *phase) {
  if (!wanted) return;
  if (strcmp(phase, "warmup") == 0) {
    start();
  } else if (strcmp(phase, "measure") == 0) {
    ticks[0] = used_ticks();
    ticks[1] = -1;
  } else if (ticks[1] < 0) {
    ticks[1] = used_ticks();
  }
}

void load_watch(void) {
  for (int i = 0; i < count && !problem; i++)
    if (child_ended(&running[i])) problem = textf("a process of the second load ended by itself");
}

void load_stop(void) {
  while (count) child_close(&running[--count]);
  free(running);
  running = NULL;
}

void put_load(Text *done) {
  if (!count) return;
  int64_t during = (ticks[1] < 0 ? used_ticks() : ticks[1]) - ticks[0];
  put_int(done, "second_load_ns", during * (SECOND_NS / sysconf(_SC_CLK_TCK)));
}

const char *load_problem(void) { return problem; }
