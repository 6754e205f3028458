/* The null runtime: does what its model, a small JSON script, says. The script is described in runtimes/null.py of the
 * Python agent; both read the same. */
#include "agent.h"

static const char *const DELEGATES[] = {"cpu:null", "gpu:null", "npu:null", "nnapi"};

typedef struct {
  Session base;
  const Json *results, *latencies;
  int64_t now_ns, calls, bound, factor, plain_ns, standard_ns;
  bool fake, spin;
  const char *phase;
  void *const *given;
  void **values;
} NullSession;

/* Fails in the scripted way when its time has come. */
static void fail_if_scripted(const Json *script, const char *phase, int64_t calls) {
  const Json *failure = member(script, "fail"), *only = member(failure, "repetitions");
  int64_t after = 0;
  int_in(member(failure, "after"), 0, INT64_MAX, &after);
  if (is_null(failure) || strcmp(string_or(member(failure, "at"), ""), phase) || calls < after) return;
  bool mine = is_null(only);
  for (const Json *item = mine ? NULL : only->first; item; item = item->next)
    mine |= (int)item->number == current_repetition;
  if (!mine) return;
  const Json *said = member(failure, "stderr");
  if (said && said->type == JSON_STRING) write_all(2, said->text, said->size);
  const char *how = string_or(member(failure, "how"), "raise"),
             *message = string_or(member(failure, "message"), "scripted failure");
  static const struct {
    const char *how;
    int number;
  } signals[] = {{"segfault", SIGSEGV}, {"abort", SIGABRT}, {"kill", SIGKILL}};
  for (size_t i = 0; i < COUNT(signals); i++)
    if (strcmp(how, signals[i].how) == 0) {
      signal(signals[i].number, SIG_DFL);
      kill(getpid(), signals[i].number);
    }
  while (strcmp(how, "hang") == 0) sleep_ns(3600 * SECOND_NS);
  if (strcmp(how, "exit") == 0) _exit(3);
  if (strcmp(how, "memory") == 0)
    fail("out_of_memory", "use a smaller batch or model", "the process ran out of memory");
  if (strcmp(how, "problem") == 0)
    fail(string_or(member(failure, "code"), "run_failed"), string_or(member(failure, "advice"), NULL), "%s", message);
  fail("run_failed", NULL, "%s", message);
}

static int64_t latency_of(const NullSession *self) {
  int64_t value = self->standard_ns;
  const Json *given = self->latencies;
  if (given && given->type == JSON_ARRAY && given->count) {
    const Json *item = given->first;
    for (int64_t i = self->calls % given->count; i; i--) item = item->next;
    given = item;
  }
  int_in(given, 0, INT64_MAX, &value);
  return value * self->factor / 1000;
}

static bool run(Session *session) {
  NullSession *self = (NullSession *)session;
  fail_if_scripted(session->script, self->phase, self->calls);
  int64_t latency = latency_of(self);
  self->calls++;
  if (self->fake) {
    self->now_ns += latency;
  } else if (self->spin) {
    int64_t until = monotonic_ns() + latency;
    while (monotonic_ns() < until) continue;
  } else {
    sleep_ns(latency);
  }
  return true;
}

static bool run_nothing(Session *session) {
  (void)session;
  return true;
}

static void on_phase(Session *session, const char *phase) {
  NullSession *self = (NullSession *)session;
  if (strcmp(phase, "check") == 0) self->bound = -1;
  self->phase = phase;
  self->calls = 0;
  self->latencies = member(session->script, "latency_ns");
  if (self->latencies && self->latencies->type == JSON_OBJECT) self->latencies = member(self->latencies, phase);
  bool nothing = !self->fake && is_null(member(session->script, "fail")) &&
                 (!self->latencies || self->latencies->type != JSON_ARRAY) && latency_of(self) == 0;
  session->run = nothing ? run_nothing : run;
}

static int64_t scripted_clock(Session *session) { return ((NullSession *)session)->now_ns; }

static void scripted_wait(Session *session, int64_t due_ns) {
  NullSession *self = (NullSession *)session;
  if (self->now_ns < due_ns) self->now_ns = due_ns;
}

static void bind(Session *session, void *const *buffers) {
  NullSession *self = (NullSession *)session;
  self->given = buffers;
  self->bound++;
}

static const void *output(Session *session, int index, Dtype *dtype, int64_t *shape, int *rank) {
  NullSession *self = (NullSession *)session;
  const Tensor *spec = &session->outputs[index], *input = &session->inputs[0];
  const Json *result = self->results ? self->results->first : NULL;
  for (int i = 0; i < index; i++) result = result->next;
  const Json *values = member(result, "values"), *by_input = member(result, "by_input");
  *dtype = spec->dtype;
  *rank = spec->rank;
  memcpy(shape, spec->shape, sizeof spec->shape);
  int64_t count = element_count(spec->shape, spec->rank);
  void *data = self->values[index];
  if (by_input && by_input->count) {
    values = by_input->first;
    for (int64_t i = self->bound % by_input->count; i > 0; i--) values = values->next;
  }
  const char *word = string_or(values, "");
  int64_t from = element_count(input->shape, input->rank);
  const Json *item = values && values->type == JSON_ARRAY ? values->first : NULL;
  for (int64_t i = 0; i < count; i++) {
    if (strcmp(word, "echo") == 0 && from > 0 && input->dtype == spec->dtype)
      memcpy((uint8_t *)data + (size_t)i * dtype_size(spec->dtype),
             (uint8_t *)self->given[0] + (size_t)(i % from) * dtype_size(spec->dtype), dtype_size(spec->dtype));
    else if (strcmp(word, "echo") == 0 && from > 0)
      put_element(spec->dtype, data, (size_t)i, get_element(input->dtype, self->given[0], (size_t)(i % from)));
    else
      put_element(spec->dtype, data, (size_t)i,
                  strcmp(word, "nan") == 0 ? (double)NAN
                  : item                   ? item->number
                  : self->results          ? 0
                  : i % 2                  ? 0.75
                                           : 0.25);
    if (item) item = item->next ? item->next : values->first;
  }
  return data;
}

static Tensor *read_specs(const Json *list, const char *name, int64_t last, int *count) {
  bool standard = is_null(list) || list->type != JSON_ARRAY;
  *count = standard ? 1 : list->count;
  Tensor *specs = take(sizeof *specs * (size_t)(*count ? *count : 1));
  if (standard) {
    specs[0] = (Tensor){.name = (char *)name, .dtype = FLOAT32, .rank = 2, .shape = {1, last}};
    return specs;
  }
  int i = 0;
  for (const Json *item = list->first; item; item = item->next, i++) {
    specs[i].name = (char *)string_or(member(item, "name"), "");
    specs[i].dtype = dtype_of(string_or(member(item, "dtype"), ""));
    if (specs[i].dtype == DTYPE_NONE)
      fail("model_invalid", NULL, "the script's tensor %s is of no type", specs[i].name);
    const Json *shape = member(item, "shape");
    for (const Json *size = is_null(shape) ? NULL : shape->first; size && specs[i].rank < MAX_RANK; size = size->next) {
      int64_t *into = &specs[i].shape[specs[i].rank++];
      if (!int_in(size, 0, INT32_MAX, into)) *into = -1;
    }
    specs[i].scale = number_or(member(item, "scale"), 0);
    specs[i].quantized = specs[i].scale != 0;
    int_in(member(item, "zero_point"), INT32_MIN, INT32_MAX, &specs[i].zero_point);
  }
  return specs;
}

static Json *read_script(const char *model) {
  const char *problem = "no content";
  Text text = {0};
  if (!read_file(model, 64u << 20, &text))
    fail("model_missing", NULL, "the model file %s cannot be read: %s", model, strerror(errno));
  Json *script = json_parse(text.data, text.size, &problem);
  if (!script || script->type != JSON_OBJECT)
    fail("model_invalid", NULL, "%s is no script of the null runtime: it has %s", model,
         script ? "no object" : problem);
  return script;
}

static void import_nothing(const Json *trial) { (void)trial; }

/* Room for the outputs' values, whose shapes the script must fix. */
static void take_values(NullSession *self) {
  const Session *session = &self->base;
  self->values = take(sizeof *self->values * (size_t)session->output_count);
  for (int i = 0; i < session->output_count; i++) {
    const Tensor *output = &session->outputs[i];
    if (element_count(output->shape, output->rank) < 0)
      fail("model_invalid", NULL, "the script's output %s has no fixed shape", output->name);
    self->values[i] = take(tensor_bytes(output));
  }
}

/* How the script's time runs: a clock of its own or the real one, and a factor for this repetition. */
static void read_times(NullSession *self, const Json *script) {
  const Json *factors = member(script, "repetition_permille");
  self->fake = asks(script, "clock", "fake");
  self->spin = member(script, "spin") && member(script, "spin")->truth;
  self->now_ns = INT64_C(1000000000000);
  int_in(member(script, "clock_start_ns"), 0, INT64_MAX, &self->now_ns);
  self->standard_ns = self->fake ? 1000000 : 0;
  self->factor = 1000;
  if (is_null(factors) || !factors->count) return;
  const Json *item = factors->first;
  for (int i = (current_repetition - 1 + factors->count) % factors->count; i > 0; i--) item = item->next;
  int_in(item, 0, INT64_MAX, &self->factor);
}

static Session *load(const char *model, const Json *trial) {
  Session *session = new_session(sizeof(NullSession), model, trial);
  NullSession *self = (NullSession *)session;
  bool changed[64], there = false;
  for (size_t i = 0; i < COUNT(DELEGATES); i++) there |= asks(trial, "delegate", DELEGATES[i]);
  if (!there) delegate_missing("null", session->delegate, "cpu:null, gpu:null, npu:null, nnapi");
  const Json *script = session->script = read_script(model);
  session->inputs = read_specs(member(script, "inputs"), "x", 4, &session->input_count);
  session->outputs = read_specs(self->results = member(script, "outputs"), "y", 2, &session->output_count);
  if (session->input_count > (int)COUNT(changed) || session->input_count == 0)
    fail("model_invalid", NULL, "the script has %d inputs", session->input_count);
  want_shapes(session->inputs, session->input_count, trial, false, changed);
  take_values(self);
  read_times(self, script);
  self->bound = -1;
  session->bind = bind;
  session->output = output;
  session->on_phase = on_phase;
  if (self->fake) session->clock = scripted_clock, session->wait_until = scripted_wait;
  session->version = "1";
  session->accelerator = "script";
  session->delegation = "full";
  session->evidence_kind = "reported";
  session->precision = member(trial, "precision")->text;
  session->nodes_total = session->nodes_delegated = session->partitions = 1;
  session->threads = threads_of(trial);
  session->better = !is_null(member(script, "evidence"));
  on_phase(session, "load");
  fail_if_scripted(script, "load", 0);
  return session;
}

static void probe(Text *entry) {
  char *cpu = cpu_name();
  add(entry, ",\"version\":\"1\",\"formats\":[\"null\"],\"error\":null,\"delegates\":[");
  for (size_t i = 0; i < COUNT(DELEGATES); i++)
    add_delegate(entry, DELEGATES[i], i ? "script" : cpu, "[\"fp32\",\"fp16\",\"int8\"]", NULL);
  add(entry, "]");
}

static bool profile(Session *session, void *const *buffers, Text *rows) {
  const Json *ops = member(session->script, "ops");
  (void)buffers;
  fail_if_scripted(session->script, "profile", 0);
  if (is_null(ops) || !ops->count) return false;
  add_json(rows, ops);
  return true;
}

const Runtime null_runtime = {"null", "null", import_nothing, load, probe, profile};
