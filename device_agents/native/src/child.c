/* One repetition, in a process of its own: load, check, warm up, measure, check again, profile. */
#include "child.h"

#define PRINTED_LIMIT (1 << 20)
#define RESULTS_LIMIT (4 << 20)

int current_repetition;
static int events;
static bool profiled;

/* --- events ----------------------------------------------------------------------------------------------------- */

void begin_line(Text *event, const char *type) {
  add(event, "{");
  put_string(event, "type", type);
  put_int(event, "t_ns", monotonic_ns());
}

void send_line(Text *event) {
  add(event, "}\n");
  if (!write_all(events, event->data, event->size)) _exit(1); /* nobody listens any more */
  free(event->data);
  *event = (Text){0};
}

void enter(Session *session, const char *phase) {
  Text event = {0};
  if (session && session->on_phase) session->on_phase(session, phase);
  begin_line(&event, "phase");
  put_string(&event, "phase", phase);
  put(&event, "detail", "null");
  send_line(&event);
}

static void report_failure(const char *code, const char *message, const char *advice) {
  Text event = {0};
  begin_line(&event, "error");
  put_string(&event, "code", code);
  put_string(&event, "message", message);
  put_string(&event, "advice", advice);
  send_line(&event);
}

static jmp_buf after_profile;
static void warn_of_profile(const char *code, const char *message, const char *advice) {
  Text event = {0};
  (void)advice;
  begin_line(&event, "log");
  put_string(&event, "level", "warning");
  put_string(&event, "text", textf("no profile: %s: %s", code, message));
  send_line(&event);
  longjmp(after_profile, 1);
}

/* --- cores, and what was loaded --------------------------------------------------------------------------------- */

static uint8_t mask[MAX_CPUS / 8];

static void bind_cores(const Json *cores) {
  int64_t cpu;
  Text names = {0};
  if (is_null(cores)) return;
  memset(mask, 0, sizeof mask);
  for (const Json *item = cores->first; item; item = item->next) {
    int_in(item, 0, MAX_CPUS - 1, &cpu);
    mask[cpu / 8] |= (uint8_t)(1 << cpu % 8);
    addf(&names, "%s%lld", names.size ? ", " : "", (long long)cpu);
  }
  if (sched_setaffinity(0, sizeof mask, (void *)mask))
    fail("bad_job", NULL, "this process cannot be bound to CPU %s: %s", names.data, strerror(errno));
}

static void add_effective_cores(Text *text) {
  memset(mask, 0, sizeof mask);
  if (sched_getaffinity(0, sizeof mask, (void *)mask) < 0) {
    add(text, "null");
    return;
  }
  const char *comma = "[";
  for (int cpu = 0; cpu < MAX_CPUS; cpu++)
    if (mask[cpu / 8] >> cpu % 8 & 1) addf(text, "%s%d", comma, cpu), comma = ",";
  add(text, "]");
}

/* What the null runtime's script says in place of what was found. */
static const Json *scripted(const Session *session, const char *name, bool late) {
  const Json *found = late ? member(member(session->script, "evidence"), name) : NULL;
  if (!found) found = member(member(session->script, "loaded"), name);
  if (!found && ends_with(name, "_ns")) found = member(session->script, name);
  return found;
}

static void put_text(Text *event, Session *session, bool late, const char *name, const char *value) {
  const Json *instead = scripted(session, name, late);
  if (instead) put(event, name, ""), add_json(event, instead);
  else put_string(event, name, value);
}

static void put_count(Text *event, Session *session, bool late, const char *name, int64_t value) {
  const Json *instead = scripted(session, name, late);
  if (instead) put(event, name, ""), add_json(event, instead);
  else put_known(event, name, value, value >= 0);
}

static void put_rest(Text *event, Session *session, bool late, const char *name, const char *json) {
  const Json *instead = scripted(session, name, late);
  put(event, name, instead ? "" : json);
  if (instead) add_json(event, instead);
}

static void send_loaded(Session *s, int64_t import_ns, int64_t load_ns, bool late) {
  Text event = {0}, inputs = {0}, outputs = {0}, cores = {0};
  begin_line(&event, "loaded");
  put_count(&event, s, late, "import_ns", import_ns);
  put_count(&event, s, late, "load_ns", load_ns);
  put_count(&event, s, late, "compile_ns", s->compile_ns);
  put_text(&event, s, late, "runtime_version", s->version);
  put_text(&event, s, late, "delegate_effective", s->delegate);
  put_text(&event, s, late, "accelerator", s->accelerator);
  put_text(&event, s, late, "delegation", s->delegation);
  put_text(&event, s, late, "delegation_evidence", s->evidence_kind);
  put_text(&event, s, late, "precision_effective", s->precision);
  put_count(&event, s, late, "nodes_total", s->nodes_total);
  put_count(&event, s, late, "nodes_delegated", s->nodes_delegated);
  put_count(&event, s, late, "partitions", s->partitions);
  put_count(&event, s, late, "threads_effective", s->threads);
  add_tensors(&inputs, s->inputs, s->input_count);
  add_tensors(&outputs, s->outputs, s->output_count);
  add_effective_cores(&cores);
  put_rest(&event, s, late, "emulated", s->emulated ? "true" : "false");
  put_rest(&event, s, late, "inputs", inputs.data);
  put_rest(&event, s, late, "outputs", outputs.data);
  put_rest(&event, s, late, "details", textf("{%s}", s->details.size ? s->details.data : ""));
  put_rest(&event, s, late, "cores_effective", cores.data);
  send_line(&event);
}

/* --- a vendor's own benchmark program instead of a runtime ------------------------------------------------------ */

static const char *program_word(const Json *value) {
  if (!value || value->type != JSON_STRING || !value->plain)
    fail("bad_job", NULL, "options.program names something that is no text");
  return value->text;
}

static char **program_words(const Json *words) {
  if (!words || words->type != JSON_ARRAY || !words->count)
    fail("bad_job", NULL, "options.program.argv is no list of words");
  char **argv = take(sizeof *argv * (size_t)(words->count + 1));
  int count = 0;
  for (const Json *word = words->first; word; word = word->next) argv[count++] = (char *)program_word(word);
  return argv;
}

/* Runs the program that `options.program` names and passes on what it says. What that means, a failure too, is for the
 * host to read: here nothing is known of its output. */
static void run_program(const Json *program) {
  const Json *results = member(program, "results");
  char **argv = program_words(member(program, "argv"));
  const char *file = is_null(results) ? NULL : program_word(results);
  Text event = {0}, printed = {0}, written = {0};
  int status;
  if (file && strchr(file, '/')) fail("bad_job", NULL, "options.program.results is no file of the job's folder");
  if (file) unlink(file); /* programs append to it: what an earlier repetition left is not this one's */
  enter(NULL, "measure");
  int64_t begin_ns = monotonic_ns();
  if (!capture(argv, INT64_MAX / 4, PRINTED_LIMIT, &printed, &status))
    fail("runtime_missing", "put it there, or name another with SOCBENCH_PROGRAM", "%s cannot be run on this device",
         argv[0]);
  int64_t ns = monotonic_ns() - begin_ns;
  bool there = file && read_file(file, RESULTS_LIMIT, &written);
  begin_line(&event, "program");
  put_int(&event, "ran_ns", ns);
  put_int(&event, "exit_code", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  put_bool(&event, "cut", printed.size >= PRINTED_LIMIT);
  put(&event, "program", "");
  add_json(&event, program);
  put(&event, "printed", "");
  add_quoted(&event, printed.data, printed.size);
  put(&event, "results", there ? "" : "null");
  if (there) add_quoted(&event, written.data, written.size);
  send_line(&event);
  begin_line(&event, "done");
  send_line(&event);
}

/* --- one repetition as docs/protocol.md orders it --------------------------------------------------------------- */

static void check(Session *session, const Inputs *inputs, void **buffers, const char *stage) {
  enter(session, "check");
  write_outputs(session, inputs, buffers, stage, NULL);
  bind_input(session, inputs, 0, buffers);
}

static void measured_part(Session *session, const Inputs *inputs, void **buffers, Text *done) {
  const Json *settings = member(session->trial, "settings");
  int64_t count, ns;
  check(session, inputs, buffers, "before");
  enter(session, "warmup");
  warm_up(session, settings);
  enter(session, "measure");
  Counters before = read_counters();
  const char *stopped_by = measure(session, settings, &count, &ns);
  Counters after = read_counters();
  put_done(done, count, ns, stopped_by, &before, &after);
  check(session, inputs, buffers, "after");
}

static void dataset_part(Session *session, const Inputs *inputs, void **buffers, Text *done) {
  enter(session, "dataset");
  Counters before = read_counters();
  int64_t begin_ns = now_ns(session);
  write_outputs(session, inputs, buffers, "dataset", member(member(session->trial, "dataset"), "keep"));
  Counters after = read_counters();
  put_done(done, inputs->count, now_ns(session) - begin_ns, "max_count", &before, &after);
}

/* What is established once everything timed is over. What was measured stands: a profiler that fails costs its rows. */
static void afterwards(const Runtime *runtime, Session *session, void **buffers) {
  Text rows = {0};
  on_fail = warn_of_profile;
  if (setjmp(after_profile) == 0) {
    if (profiled) {
      enter(session, "profile");
      if (runtime->profile && runtime->profile(session, buffers, &rows)) {
        Text event = {0};
        begin_line(&event, "ops");
        put(&event, "rows", rows.data);
        send_line(&event);
      }
    }
    if (session->evidence) session->evidence(session);
  }
  on_fail = report_failure;
}

/* Memory for the inputs, which are never moved again. */
static void **input_buffers(const Session *session) {
  void **buffers = take(sizeof *buffers * (size_t)session->input_count);
  for (int i = 0; i < session->input_count; i++) {
    const Tensor *input = &session->inputs[i];
    if (element_count(input->shape, input->rank) < 0)
      fail("shape_mismatch", NULL, "input %s has no fixed shape, or one that is too large", input->name);
    if (posix_memalign(&buffers[i], 64, tensor_bytes(input) + 64))
      fail("out_of_memory", "use a smaller batch or model", "there is no memory for input %s", input->name);
  }
  return buffers;
}

static void run_runtime(const Json *trial, const char *model, bool accuracy) {
  const char *name = member(trial, "runtime")->text, *source = accuracy ? "dataset" : "probe";
  const Runtime *runtime = find_runtime(name);
  Text event = {0}, done = {0};
  if (!runtime) fail("runtime_missing", NULL, "this agent has no runtime called %s; it has %s", name, runtime_names());
  enter(NULL, "import");
  int64_t begin_ns = monotonic_ns();
  runtime->import(trial);
  int64_t import_ns = monotonic_ns() - begin_ns;
  enter(NULL, "load");
  begin_ns = monotonic_ns();
  Session *session = runtime->load(model, trial);
  int64_t load_ns = monotonic_ns() - begin_ns;
  send_loaded(session, import_ns, load_ns, false);
  Inputs inputs = read_inputs(member(trial, source), source, trial, session->inputs, session->input_count);
  void **buffers = input_buffers(session);
  bind_input(session, &inputs, 0, buffers);
  enter(session, "first");
  run_first(session);
  if (accuracy) {
    dataset_part(session, &inputs, buffers, &done);
  } else {
    measured_part(session, &inputs, buffers, &done);
    afterwards(runtime, session, buffers);
    if (session->better) send_loaded(session, import_ns, load_ns, true);
  }
  begin_line(&event, "done");
  add(&event, ",");
  add(&event, done.data);
  send_line(&event);
}

static void repetition(const Json *trial) {
  const char *scenario = member(trial, "scenario")->text, *path = member(trial, "model")->text;
  const Json *program = member(member(trial, "options"), "program");
  bool accuracy = strcmp(scenario, "accuracy") == 0;
  if (!accuracy && strcmp(scenario, "single_stream") && strcmp(scenario, "sustained"))
    fail("bad_job", NULL, "this agent knows no scenario called %s", scenario);
  bind_cores(member(trial, "cores"));
  char *model = realpath(path, NULL);
  if (!model || !exists(model)) fail("model_missing", NULL, "the model file %s is not there", model ? model : path);
  if (is_null(program)) run_runtime(trial, model, accuracy);
  else run_program(program);
}

int child_main(const char *folder, int index, int fd) {
  events = fd;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  on_fail = report_failure;
  const Json *job = load_job(folder), *entry = member(job, "repetitions")->first;
  for (int i = 0; i < index && entry; i++) entry = entry->next;
  if (!entry) fail("bad_job", NULL, "job.json has no repetition %d", index);
  current_repetition = (int)member(entry, "repetition")->number;
  const Json *trial = member(member(job, "trials"), member(entry, "trial")->text), *asked = member(trial, "profile"),
             *here = member(entry, "profile");
  profiled = asked && asked->truth && !(here && here->type == JSON_BOOL && !here->truth);
  repetition(trial);
  /* A driver that dies while it unloads must not take a finished repetition with it: nothing is unloaded. */
  _exit(0);
}
