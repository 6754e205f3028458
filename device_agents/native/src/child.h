/* What the parts of a repetition share: its events, the timed loops, the system's counters, the outputs. */
#ifndef SOCBENCH_CHILD_H
#define SOCBENCH_CHILD_H

#include "agent.h"

/* --- child.c: lines for the supervisor, which adds who they are of ---------------------------------------------- */
void begin_line(Text *event, const char *type);
void send_line(Text *event);
void enter(Session *session, const char *phase);

/* --- measure.c -------------------------------------------------------------------------------------------------- */
int64_t now_ns(Session *session);
_Noreturn void run_failed(const Session *session);
void run_first(Session *session);
void warm_up(Session *session, const Json *settings);
const char *measure(Session *session, const Json *settings, int64_t *count, int64_t *ns); /* says what stopped it */

/* --- counters.c ------------------------------------------------------------------------------------------------- */
typedef struct {
  int64_t cpu_ns, voluntary, involuntary, busy_ns, throttled_ns; /* the last two: -1 when unknown */
  struct {
    int64_t thread, delay_ns;
  } delays[256]; /* how long a thread was ready and waited for a core */
  int threads;
} Counters;
Counters read_counters(void);
void put_done(Text *event, int64_t count, int64_t ns, const char *stopped_by, const Counters *a, const Counters *b);

/* --- outputs.c -------------------------------------------------------------------------------------------------- */
/* Runs every input once and writes the outputs to out/SHA256.bin. `keep`: by output, all, argmax or none. */
void write_outputs(Session *session, const Inputs *inputs, void **buffers, const char *stage, const Json *keep);

#endif
