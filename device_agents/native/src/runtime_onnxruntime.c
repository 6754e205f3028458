/* ONNX Runtime through its C API: one table of functions whose order never changes (they are only ever added at the
 * end), so the few that are used are declared here by their position. The table's type and the enumerations are those
 * of onnxruntime_c_api.h (MIT, Copyright Microsoft Corporation; see NOTICE). */
#include "onnxruntime.h"

enum {
  GET_ERROR_CODE = 1, GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_SESSION_OPTIONS = 10,
  ENABLE_PROFILING = 14, SET_LOG_SEVERITY = 22, SET_OPTIMIZATION = 23, SET_INTRA_THREADS = 24, SET_INTER_THREADS = 25,
  INPUT_COUNT = 30, OUTPUT_COUNT = 31, INPUT_TYPE = 33, OUTPUT_TYPE = 34, INPUT_NAME = 36, OUTPUT_NAME = 37,
  CREATE_TENSOR = 48, CREATE_TENSOR_WITH_DATA = 49, TENSOR_DATA = 51, CAST_TO_TENSOR = 55, ELEMENT_TYPE = 60,
  DIMENSION_COUNT = 61, DIMENSIONS = 62, TENSOR_SHAPE = 65, CREATE_CPU_MEMORY_INFO = 69, ALLOCATOR_FREE = 76,
  DEFAULT_ALLOCATOR = 78, RELEASE_STATUS = 93, RELEASE_SESSION = 95, RELEASE_VALUE = 96, RELEASE_TYPE_INFO = 98,
  RELEASE_SHAPE = 99, END_PROFILING = 110, AVAILABLE_PROVIDERS = 125, RELEASE_PROVIDERS = 126, ADD_CONFIG = 130,
  RUN_WITH_BINDING = 133, CREATE_BINDING = 134, BIND_INPUT = 136, BIND_OUTPUT = 137, BIND_OUTPUT_TO_DEVICE = 138,
  BOUND_OUTPUTS = 140, CLEAR_INPUTS = 141, CLEAR_OUTPUTS = 142, SYNCHRONIZE_OUTPUTS = 203, APPEND_PROVIDER = 216,
  ASSIGNMENT_INFO = 407, SUBGRAPH_PROVIDER = 408, SUBGRAPH_NODES = 409
};
enum { OLDEST_API = 12, ASSIGNMENT_API = 24, PROFILE_RUNS = 10 };
static const char CPU[] = "CPUExecutionProvider";
static const struct { const char *delegate, *provider, *generic; } PROVIDERS[] = {
    {"cpu:mlas", CPU, NULL}, {"cpu:xnnpack", "XnnpackExecutionProvider", "XNNPACK"},
    {"npu:qnn", "QNNExecutionProvider", "QNN"}, {"nnapi", "NnapiExecutionProvider", NULL}};

static const Dtype DTYPES[] = {DTYPE_NONE, FLOAT32, UINT8,      INT8,       UINT16,  INT16,
                               INT32,      INT64,   DTYPE_NONE, BOOL,       FLOAT16, FLOAT64,
                               UINT32,     UINT64,  DTYPE_NONE, DTYPE_NONE, BFLOAT16};

static int type_of(Dtype dtype) {
  int type = 0;
  while (DTYPES[type] != dtype) type++;
  return type;
}

static void *library, *environment;
static void *const *api;
static char *folder, *version;
static int api_version;

/* Calls a function of the table that returns a status: NULL for success. */
#define CALL(index, types, ...) (((void *(*)types)api[index])(__VA_ARGS__))
#define RELEASE(index, object) (((void (*)(void *))api[index])(object))

typedef struct {
  Session base;
  void *session, *binding, *memory, *allocator;
  void **inputs, **outputs; /* OrtValues */
  void *bound_buffers;      /* what the input values point at */
  bool outputs_known;
  const char *provider;
  bool profiled;
  ProfileFacts facts;
} OrtSession;

static char *status_text(void *status) {
  const char *message = ((const char *(*)(void *))api[GET_ERROR_MESSAGE])(status);
  char *text = copy_of(message, strlen(message) < 500 ? strlen(message) : 500);
  for (char *c = text; *c; c++)
    if (*c == '\n' || *c == '\r' || *c == '\t') *c = ' ';
  return text;
}

/* Every status that is not about the model: a failure of this repetition. */
static void check(void *status, const char *what) {
  if (status) fail("run_failed", NULL, "ONNX Runtime failed to %s: %s", what, status_text(status));
}

static _Noreturn void load_failed(void *status, const char *model, const char *delegate) {
  char *text = status_text(status);
  int code = ((int (*)(void *))api[GET_ERROR_CODE])(status);
  const char *name = base_name(model);
  if (code == 9 || strstr(text, "not a registered function/op") || strstr(text, "No Op registered"))
    fail("op_unsupported", NULL, "ONNX Runtime lacks an operator of %s: %s", name, text);
  if (contains_i(text, "out of memory") || strstr(text, "bad_alloc") || strstr(text, "Failed to allocate"))
    fail("out_of_memory", NULL, "ONNX Runtime has no memory for %s: %s", name, text);
  if (code == 3) fail("model_missing", NULL, "the model file %s cannot be opened: %s", name, text);
  if (code == 7 || code == 10 || code == 1 || code == 2)
    fail("model_invalid", NULL, "%s is not a model that ONNX Runtime can load: %s", name, text);
  fail("run_failed", NULL, "ONNX Runtime cannot load %s on %s: %s", name, delegate, text);
}

static void import(const Json *trial) {
  static const char *const names[] = {"libonnxruntime.so", "libonnxruntime.so.", NULL};
  char *path = find_library(trial, names, &folder);
  if (!path)
    fail("runtime_missing", "socbench runtimes fetch PLATFORM, or name the folder that holds it in SOCBENCH_RUNTIMES",
         "libonnxruntime.so is not on this device");
  library = open_library(path, path);
  const void *(*get_base)(void) = (const void *(*)(void))dlsym(library, "OrtGetApiBase");
  if (!get_base)
    fail("runtime_broken", "fetch it again: socbench runtimes fetch PLATFORM",
         "%s lacks OrtGetApiBase: it is no ONNX Runtime", path);
  const struct { const void *(*get)(uint32_t); const char *(*version)(void); } *base = get_base();
  version = copy_of(base->version(), strlen(base->version()));
  int minor = strchr(version, '.') ? atoi(strchr(version, '.') + 1) : 0; /* the API's version is the release's minor */
  api_version = minor < ASSIGNMENT_API ? minor : ASSIGNMENT_API;
  if (api_version < OLDEST_API || !(api = base->get((uint32_t)api_version)))
    fail("runtime_broken", "use ONNX Runtime 1.12 or newer", "%s is ONNX Runtime %s, which is too old for this agent",
         path, version);
  check(CALL(CREATE_ENV, (int, const char *, void **), 3, "socbench", &environment), "start");
}

static bool has_provider(const char *name) {
  char **names;
  int count;
  bool found = false;
  check(CALL(AVAILABLE_PROVIDERS, (char ***, int *), &names, &count), "list its providers");
  for (int i = 0; i < count; i++) found |= strcmp(names[i], name) == 0;
  CALL(RELEASE_PROVIDERS, (char **, int), names, count);
  return found;
}

static const char *provider_of(const char *delegate, const char **generic) {
  Text have = {0};
  add(&have, "");
  for (size_t i = 0; i < COUNT(PROVIDERS); i++) {
    bool there = has_provider(PROVIDERS[i].provider);
    if (there && strcmp(PROVIDERS[i].delegate, delegate) == 0)
      return *generic = PROVIDERS[i].generic, PROVIDERS[i].provider;
    if (there) addf(&have, "%s%s", have.size ? ", " : "", PROVIDERS[i].delegate);
  }
  delegate_missing("onnxruntime", delegate, have.data);
}

static void append_provider(void *options, const Json *trial, const char *provider, const char *generic,
                            const char *threads) {
  const char *keys[16], *values[16];
  size_t count = 0;
  if (provider == CPU) return;
  if (!generic) { /* NNAPI: 1 lets it compute in fp16, 4 keeps it from its own CPU reference, which is no accelerator */
    void *(*append)(void *, uint32_t) =
        (void *(*)(void *, uint32_t))dlsym(library, "OrtSessionOptionsAppendExecutionProvider_Nnapi");
    if (!append) fail("delegate_missing", NULL, "this build of ONNX Runtime exports no NNAPI");
    check(append(options, asks(trial, "precision", "fp16") ? 5u : 4u), "add NNAPI");
    return;
  }
  if (strcmp(generic, "XNNPACK") == 0) keys[count] = "intra_op_num_threads", values[count++] = threads;
  if (strcmp(generic, "QNN") == 0) {
    char *backend = textf("%s/libQnnHtp.so", folder);
    keys[count] = "backend_path", values[count++] = exists(backend) ? backend : "libQnnHtp.so";
    if (asks(trial, "precision", "fp16")) keys[count] = "enable_htp_fp16_precision", values[count++] = "1";
  }
  const Json *given = member(member(trial, "options"), "delegate_options");
  for (const Json *item = is_null(given) ? NULL : given->first;
       item && item->type == JSON_STRING && count < COUNT(keys); item = item->next)
    keys[count] = item->key, values[count++] = item->text;
  void *status = CALL(APPEND_PROVIDER, (void *, const char *, const char *const *, const char *const *, size_t),
                      options, generic, keys, values, count);
  if (status) fail("delegate_missing", NULL, "ONNX Runtime cannot use %s here: %s", provider, status_text(status));
}

static void *create(const char *model, const Json *trial, const char *profile_prefix) {
  static const struct {
    const char *name;
    int level;
  } levels[] = {{"disabled", 0}, {"basic", 1}, {"extended", 2}, {"all", 99}};
  void *options, *session;
  const char *delegate = member(trial, "delegate")->text, *generic = NULL, *provider = provider_of(delegate, &generic);
  const char *wanted = string_or(member(member(trial, "options"), "graph_optimization"), "all");
  int level = -1, threads = threads_of(trial);
  for (size_t i = 0; i < COUNT(levels); i++)
    if (strcmp(levels[i].name, wanted) == 0) level = levels[i].level;
  if (level < 0)
    fail("bad_job", NULL, "options.graph_optimization is %s; it is one of disabled, basic, extended, all", wanted);
  check(CALL(CREATE_SESSION_OPTIONS, (void **), &options), "make options");
  /* XNNPACK has a pool of its own; two pools would fight over the cores */
  check(CALL(SET_INTRA_THREADS, (void *, int), options, generic && strcmp(generic, "XNNPACK") == 0 ? 1 : threads),
        "set threads");
  check(CALL(SET_INTER_THREADS, (void *, int), options, 1), "set threads");
  check(CALL(SET_LOG_SEVERITY, (void *, int), options, 3), "set its log");
  check(CALL(SET_OPTIMIZATION, (void *, int), options, level), "set its optimisations");
  if (api_version >= ASSIGNMENT_API)
    check(
        CALL(ADD_CONFIG, (void *, const char *, const char *), options, "session.record_ep_graph_assignment_info", "1"),
        "record assignments");
  if (profile_prefix) check(CALL(ENABLE_PROFILING, (void *, const char *), options, profile_prefix), "profile");
  append_provider(options, trial, provider, generic, textf("%d", threads));
  void *status = CALL(CREATE_SESSION, (void *, const char *, void *, void **), environment, model, options, &session);
  if (status) load_failed(status, model, delegate);
  return session;
}

static void read_shape(void *shape, Dtype *dtype, int64_t *sizes, int *rank) {
  int type;
  size_t count;
  check(CALL(ELEMENT_TYPE, (void *, int *), shape, &type), "give a type");
  check(CALL(DIMENSION_COUNT, (void *, size_t *), shape, &count), "give a shape");
  if (count > MAX_RANK) fail("model_invalid", NULL, "the model has a tensor of %d dimensions", (int)count);
  check(CALL(DIMENSIONS, (void *, int64_t *, size_t), shape, sizes, count), "give a shape");
  *dtype = type >= 0 && type < (int)COUNT(DTYPES) ? DTYPES[type] : DTYPE_NONE;
  *rank = (int)count;
}

static Tensor *read_tensors(OrtSession *self, bool inputs, int *count) {
  size_t size;
  check(CALL(inputs ? INPUT_COUNT : OUTPUT_COUNT, (void *, size_t *), self->session, &size), "count tensors");
  Tensor *tensors = take(sizeof *tensors * size);
  for (size_t i = 0; i < size; i++) {
    char *name;
    void *type, *shape;
    check(CALL(inputs ? INPUT_NAME : OUTPUT_NAME, (void *, size_t, void *, char **), self->session, i, self->allocator,
               &name),
          "name a tensor");
    check(CALL(inputs ? INPUT_TYPE : OUTPUT_TYPE, (void *, size_t, void **), self->session, i, &type), "give a type");
    check(CALL(CAST_TO_TENSOR, (void *, void **), type, &shape), "give a type");
    if (!shape) fail("model_invalid", NULL, "%s %s of the model is no tensor", inputs ? "input" : "output", name);
    tensors[i].name = name;
    read_shape(shape, &tensors[i].dtype, tensors[i].shape, &tensors[i].rank);
    for (int d = 0; d < tensors[i].rank; d++)
      if (tensors[i].shape[d] < 0) tensors[i].shape[d] = -1;
    if (tensors[i].dtype == DTYPE_NONE)
      fail("op_unsupported", NULL, "tensor %s has a type that this agent does not handle", name);
    RELEASE(RELEASE_TYPE_INFO, type);
  }
  *count = (int)size;
  return tensors;
}

static bool run(Session *session) {
  OrtSession *self = (OrtSession *)session;
  void *status = CALL(RUN_WITH_BINDING, (void *, void *, void *), self->session, NULL, self->binding);
  if (status) session->problem = status_text(status);
  return !status;
}

static void *const *bound_outputs(OrtSession *self) {
  void **values;
  size_t count;
  check(CALL(BOUND_OUTPUTS, (void *, void *, void ***, size_t *), self->binding, self->allocator, &values, &count),
        "give its outputs");
  if ((int)count != self->base.output_count) fail("run_failed", NULL, "ONNX Runtime gave %d outputs", (int)count);
  return values;
}

/* Allocates the outputs before the runs, as soon as their shapes are known: from the file, or from the first run. */
static void bind_outputs(OrtSession *self) {
  bool fixed = true;
  if (self->outputs_known) return;
  for (int i = 0; i < self->base.output_count; i++)
    fixed = fixed && element_count(self->base.outputs[i].shape, self->base.outputs[i].rank) >= 0;
  void *const *ran = !fixed && self->bound_buffers ? bound_outputs(self) : NULL;
  CALL(CLEAR_OUTPUTS, (void *), self->binding);
  for (int i = 0; i < self->base.output_count; i++) {
    const Tensor *spec = &self->base.outputs[i];
    if (ran) {
      self->outputs[i] = ran[i];
    } else if (fixed) {
      check(CALL(CREATE_TENSOR, (void *, const int64_t *, size_t, int, void **), self->allocator, spec->shape,
                 (size_t)spec->rank, type_of(spec->dtype), &self->outputs[i]), "allocate");
    } else {
      check(CALL(BIND_OUTPUT_TO_DEVICE, (void *, const char *, void *), self->binding, spec->name, self->memory),
            "bind an output");
      continue;
    }
    check(CALL(BIND_OUTPUT, (void *, const char *, void *), self->binding, spec->name, self->outputs[i]),
          "bind an output");
  }
  self->outputs_known = fixed || ran;
}

/* The input values point at the agent's own buffers, which stay the same: filling them again binds anew. */
static void bind(Session *session, void *const *buffers) {
  OrtSession *self = (OrtSession *)session;
  bind_outputs(self);
  if (self->bound_buffers) return;
  self->bound_buffers = (void *)buffers;
  for (int i = 0; i < session->input_count; i++) {
    const Tensor *spec = &session->inputs[i];
    check(CALL(CREATE_TENSOR_WITH_DATA, (void *, void *, size_t, const int64_t *, size_t, int, void **), self->memory,
               buffers[i], tensor_bytes(spec), spec->shape, (size_t)spec->rank, type_of(spec->dtype), &self->inputs[i]),
          "bind an input");
    check(CALL(BIND_INPUT, (void *, const char *, void *), self->binding, spec->name, self->inputs[i]),
          "bind an input");
  }
}

static const void *output(Session *session, int index, Dtype *dtype, int64_t *shape, int *rank) {
  OrtSession *self = (OrtSession *)session;
  void *data, *info, *value = self->outputs_known ? self->outputs[index] : bound_outputs(self)[index];
  check(CALL(TENSOR_SHAPE, (void *, void **), value, &info), "give a shape");
  read_shape(info, dtype, shape, rank);
  RELEASE(RELEASE_SHAPE, info);
  check(CALL(TENSOR_DATA, (void *, void **), value, &data), "give an output");
  return data;
}

typedef struct {
  const char *names[16];
  int sums[16], count;
} Providers;

static void count_nodes(Providers *all, const char *name, int nodes) {
  int k = 0;
  while (k < all->count && strcmp(all->names[k], name)) k++;
  if (k == (int)COUNT(all->names)) return;
  if (k == all->count) all->names[all->count++] = name;
  all->sums[k] += nodes;
}

/* Counts the graph's nodes by the provider that they were given to. */
static void describe_assignment(OrtSession *self) {
  void *const *parts, *const *nodes;
  size_t count = 0, in_part;
  Session *session = &self->base;
  int total = 0, mine = 0, partitions = 0;
  Providers all = {0};
  if (self->provider == CPU) session->partitions = 1;
  if (api_version < ASSIGNMENT_API) return;
  if (CALL(ASSIGNMENT_INFO, (void *, void *const **, size_t *), self->session, &parts, &count)) return;
  for (size_t i = 0; i < count; i++) {
    const char *name;
    check(CALL(SUBGRAPH_PROVIDER, (const void *, const char **), parts[i], &name), "name a provider");
    check(CALL(SUBGRAPH_NODES, (const void *, void *const **, size_t *), parts[i], &nodes, &in_part), "give its nodes");
    total += (int)in_part;
    if (strcmp(name, self->provider) == 0) mine += (int)in_part, partitions++;
    count_nodes(&all, name, (int)in_part);
  }
  put(&session->details, "nodes_by_provider", "{");
  for (int k = 0; k < all.count; k++) put_int(&session->details, all.names[k], all.sums[k]);
  add(&session->details, "}");
  if (!total) return;
  session->nodes_total = total;
  session->nodes_delegated = mine;
  if (self->provider != CPU) session->partitions = partitions;
  session->delegation = mine == total ? "full" : mine ? "partial" : "fell_back";
  session->evidence_kind = "reported";
  if (!mine) session->delegate = "cpu:mlas", session->accelerator = cpu_name();
}

static bool profile(Session *session, void *const *buffers, Text *rows) {
  OrtSession *first = (OrtSession *)session, self = {.base = *session};
  char *path, *prefix = textf(".profile-%d", getpid());
  self.allocator = first->allocator;
  self.memory = first->memory;
  self.session = create(session->model, session->trial, prefix);
  self.inputs = take(sizeof *self.inputs * (size_t)session->input_count);
  self.outputs = take(sizeof *self.outputs * (size_t)session->output_count);
  check(CALL(CREATE_BINDING, (void *, void **), self.session, &self.binding), "bind");
  bind(&self.base, buffers);
  for (int i = 0; i < PROFILE_RUNS + 1; i++)
    if (!run(&self.base))
      fail("run_failed", NULL, "an inference of the profiled session failed: %s", self.base.problem);
  check(CALL(END_PROFILING, (void *, void *, char **), self.session, self.allocator, &path), "end its profile");
  first->profiled = true;
  bool any = read_onnxruntime_profile(path, first->provider, PROFILE_RUNS, &first->facts, rows);
  unlink(path);
  return any;
}

/* What only a profiled session shows: the types that the kernels worked on and, in builds that can't tell the
 * assignment, whether the provider ran at all. */
static void evidence(Session *session) {
  OrtSession *self = (OrtSession *)session;
  bool unknown = strcmp(session->delegation, "unknown") == 0;
  if (!self->profiled && (unknown || !asks(session->trial, "precision", "fp32"))) {
    Text rows = {0};
    profile(session, self->bound_buffers, &rows);
  }
  if (self->facts.executed) {
    session->precision = self->facts.executed;
    put(&session->details, "kernel_time_share", textf("{%s}", self->facts.shares.data));
    session->better = true;
  }
  if (unknown && self->profiled && !self->facts.provider_seen) {
    session->delegation = "fell_back";
    session->evidence_kind = "counted";
    session->delegate = "cpu:mlas";
    session->better = true;
  }
}

static Session *load(const char *model, const Json *trial) {
  Session *session = new_session(sizeof(OrtSession), model, trial);
  OrtSession *self = (OrtSession *)session;
  const char *generic = NULL;
  int before = thread_count();
  session->version = version;
  self->provider = provider_of(session->delegate, &generic);
  bool cpu = strncmp(session->delegate, "cpu:", 4) == 0;
  if (cpu) session->accelerator = cpu_name();
  self->session = create(model, trial, NULL);
  session->threads = thread_count() - before + 1;
  check(CALL(DEFAULT_ALLOCATOR, (void **), &self->allocator), "give its allocator");
  check(CALL(CREATE_CPU_MEMORY_INFO, (int, int, void **), 0, 0, &self->memory),
        "describe memory"); /* device allocator, default memory */
  check(CALL(CREATE_BINDING, (void *, void **), self->session, &self->binding), "bind");
  session->inputs = read_tensors(self, true, &session->input_count);
  session->outputs = read_tensors(self, false, &session->output_count);
  bool *changed = take((size_t)session->input_count + 1);
  want_shapes(session->inputs, session->input_count, trial, true, changed);
  self->inputs = take(sizeof *self->inputs * (size_t)session->input_count);
  self->outputs = take(sizeof *self->outputs * (size_t)session->output_count);
  session->run = run;
  session->bind = bind;
  session->output = output;
  session->evidence = evidence;
  session->precision = cpu && asks(trial, "precision", "fp32") ? "fp32" : NULL;
  describe_assignment(self);
  return session;
}

static void probe(Text *entry) {
  import(NULL);
  put_string(entry, "version", version);
  add(entry, ",\"formats\":[\"onnx\"],\"error\":null,\"delegates\":[");
  for (size_t i = 0; i < COUNT(PROVIDERS); i++) {
    bool there = has_provider(PROVIDERS[i].provider);
    add_delegate(entry, PROVIDERS[i].delegate, there && i < 2 ? cpu_name() : NULL, i ? NULL : "[\"fp32\",\"int8\"]",
                 there ? NULL : textf("this build of onnxruntime has no %s", PROVIDERS[i].provider));
  }
  add(entry, "]");
}

const Runtime onnxruntime_runtime = {"onnxruntime", "onnx", import, load, probe, profile};
