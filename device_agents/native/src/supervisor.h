/* What the parts of the supervisor share: the event file, the second load, the limit of temperature. */
#ifndef SOCBENCH_SUPERVISOR_H
#define SOCBENCH_SUPERVISOR_H

#include "agent.h"

/* --- events.c --------------------------------------------------------------------------------------------------- */
bool open_events(const char *folder); /* makes the event file and the reserve beside it */
void close_events(void);
bool append_event(const char *body, size_t size);
void begin_event(Text *event, const char *type, const char *members);
void emit(Text *event);
void emit_error(const char *code, const char *message, const char *advice, const char *members);
void emit_log(const char *level, const char *text, size_t size, const char *members);
void emit_end(const char *reason);
void emit_hello(const char *session);
void emit_clock(int64_t gap_ns);
bool clock_is_due(void);
_Noreturn void disk_full(void); /* supervisor.c */

/* --- load.c: processes that keep cores busy beside a repetition ------------------------------------------------- */
void load_begin(const Json *settings);
void load_follow(const char *phase);
void load_watch(void);
void load_stop(void);
void put_load(Text *done);
const char *load_problem(void); /* NULL: none */

/* --- heat.c: the temperature at which measuring ends ------------------------------------------------------------ */
void heat_begin(const char *folder, const Json *settings);
void heat_follow(const char *line, size_t size, const char *members);

#endif
