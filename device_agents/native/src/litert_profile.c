/* LiteRT's profiler, read for the operators' times and for what a delegate took over. */
#include "litert_compiled.h"

#define PROFILE_RUNS 10

typedef struct {
  const char *tag;
  uint64_t us, node;
  int calls, type;
} Row;

/* Adds up the events by their place in a run (nodes of one kind share a tag), and counts over the first run which nodes
 * builtin kernels ran and into how many parts the delegate's operators fall. */
static int add_up(const ProfilerEvent *events, int count, Row *all, int *builtin, int *parts) {
  int found = 0, place = 0, runs = 0;
  bool inside = false;
  for (int i = 0; i < count; i++) {
    if (!events[i].tag) continue;
    if (events[i].type == RUN_EVENT && strcmp(events[i].tag, "Invoke") == 0) place = 0, runs++, inside = false;
    if (!(events[i].type & (OPERATOR_EVENT | INSIDE_DELEGATE_EVENT))) continue;
    int k = place;
    while (k < found && (strcmp(all[k].tag, events[i].tag) || all[k].type != events[i].type)) k++;
    if (k == found) all[found++] = (Row){events[i].tag, 0, events[i].metadata1, 0, events[i].type};
    place = k + 1;
    all[k].us += events[i].elapsed_us;
    all[k].calls++;
    if (runs > 1) continue;
    if (events[i].type == OPERATOR_EVENT) (*builtin)++, inside = false;
    else if (!inside) (*parts)++, inside = true;
  }
  return found;
}

/* A profile of PROFILE_RUNS runs, in a session of its own; NULL when there is none. */
static ProfilerEvent *record(CompiledSession *self, void *const *buffers, int *count) {
  void *profiler;
  capture_log_begin();
  int status = compile(self, self->hardware, true);
  if (!status) make_buffers(self);
  free(capture_log_end());
  if (status || lite.CompiledModelGetProfiler(self->compiled, &profiler)) return NULL;
  self->base.bind(&self->base, buffers);
  if (!self->base.run(&self->base) || lite.StartProfiler(profiler)) return NULL;
  for (int i = 0; i < PROFILE_RUNS; i++)
    if (!self->base.run(&self->base)) return NULL;
  lite.StopProfiler(profiler);
  if (lite.GetNumProfilerEvents(profiler, count) || *count <= 0) return NULL;
  ProfilerEvent *events = take(sizeof *events * (size_t)*count);
  return lite.GetProfilerEvents(profiler, *count, events) ? NULL : events;
}

/* LiteRT's own profiler: nodes that builtin kernels run, and operators inside a delegate. With XNNPACK that counts what
 * it took over, which the C API does not tell otherwise. */
bool compiled_profile(Session *session, void *const *buffers, Text *rows) {
  CompiledSession *first = (CompiledSession *)session, self = *first;
  int count = 0, builtin = 0, parts = 0;
  self.base.details = (Text){0};
  first->profiled = true;
  ProfilerEvent *events = record(&self, buffers, &count);
  if (!events) return false;
  Row *all = take(sizeof *all * (size_t)count);
  int found = add_up(events, count, all, &builtin, &parts);
  add(rows, "[");
  for (int k = 0; k < found; k++) {
    bool own = all[k].type == OPERATOR_EVENT;
    const char *name = own ? textf("%s:%llu", all[k].tag, (unsigned long long)all[k].node) : all[k].tag;
    add_op_row(rows, k, all[k].tag, name, own ? "builtin" : session->delegate,
               (int64_t)(all[k].us * 1000 / PROFILE_RUNS), all[k].calls / PROFILE_RUNS);
  }
  add(rows, "]");
  bool xnnpack = strcmp(member(session->trial, "delegate")->text, "cpu:xnnpack") == 0;
  if (xnnpack && session->nodes_total > 0 && builtin <= session->nodes_total) {
    session->nodes_delegated = session->nodes_total - builtin;
    session->partitions = parts;
    session->delegation = !builtin ? "full" : session->nodes_delegated ? "partial" : "fell_back";
    session->evidence_kind = "counted";
    session->better = true;
    if (!session->nodes_delegated) session->delegate = "cpu:builtin";
  }
  return found > 0;
}
