/* The TFLite interpreter through its C API. The declarations restate, as far as they are used, those of TensorFlow
 * Lite's C headers (Apache-2.0, Copyright The TensorFlow Authors; see NOTICE). Structures that a later version may
 * have made longer are declared with room to spare: the library fills in as much as it knows. */
#include "litert.h"

typedef struct { float scale; int32_t zero_point; } Quantization;
typedef union {
  struct {
    int32_t precision_loss_allowed, preference, priority1, priority2, priority3;
    int64_t flags;
    int32_t max_partitions;
    const char *serialization_dir, *model_token;
  } set;
  uint8_t room[256];
} GpuOptions;
typedef union {
  struct {
    int preference;
    const char *accelerator, *cache_dir, *model_token;
    int disallow_cpu, allow_fp16, max_partitions;
    void *support_library;
  } set;
  uint8_t room[256];
} NnapiOptions;
typedef union {
  struct { int32_t threads; } set;
  uint8_t room[256];
} XnnpackOptions;
enum { GPU_QUANTISED = 1, GPU_OPENCL_ONLY = 2, GPU_GL_ONLY = 4, MAX_PRECISION = 1, MIN_LATENCY = 2, SUSTAINED = 1 };

#define FUNCTIONS(X)                                              \
  X(const char *, Version, (void))                                \
  X(void *, ModelCreateFromFile, (const char *))                  \
  X(void *, InterpreterOptionsCreate, (void))                     \
  X(void, InterpreterOptionsSetNumThreads, (void *, int32_t))     \
  X(void, InterpreterOptionsAddDelegate, (void *, void *))        \
  X(void *, InterpreterCreate, (const void *, const void *))      \
  X(int, InterpreterAllocateTensors, (void *))                    \
  X(int, InterpreterInvoke, (void *))                             \
  X(int, InterpreterResizeInputTensor, (void *, int32_t, const int *, int32_t)) \
  X(int32_t, InterpreterGetInputTensorCount, (const void *))      \
  X(int32_t, InterpreterGetOutputTensorCount, (const void *))     \
  X(void *, InterpreterGetInputTensor, (const void *, int32_t))   \
  X(const void *, InterpreterGetOutputTensor, (const void *, int32_t)) \
  X(int, TensorType, (const void *))                              \
  X(int32_t, TensorNumDims, (const void *))                       \
  X(int32_t, TensorDim, (const void *, int32_t))                  \
  X(size_t, TensorByteSize, (const void *))                       \
  X(void *, TensorData, (const void *))                           \
  X(const char *, TensorName, (const void *))                     \
  X(Quantization, TensorQuantizationParams, (const void *))
static struct {
#define DECLARE(result, name, parameters) result(*name) parameters;
  FUNCTIONS(DECLARE)
} lite;

static const struct {
  const char *name, *file;
} EXTERNAL[] = {{"qualcomm", "libQnnTFLiteDelegate.so"},
                {"mediatek", "libneuron_delegate.so"},
                {"edgetpu", "libedgetpu.so.1"},
                {"armnn", "libarmnnDelegate.so"}};

typedef struct {
  Session base;
  void *interpreter;
} InterpreterSession;

static void *library;
static char *folder, delegate_problem[512];
static bool imported;

void interpreter_import(const char *path, const char *where) {
  library = open_library(path, path);
  folder = copy_of(where, strlen(where));
#define RESOLVE(result, name, parameters) *(void **)&lite.name = litert_symbol(library, "TfLite" #name, path);
  FUNCTIONS(RESOLVE)
  imported = true;
}

const char *interpreter_version(void) { return lite.Version(); }

static char *external_path(const char *delegate) {
  const char *name = delegate + 4;
  if (strncmp(delegate, "npu:", 4) || strchr(name, '/') || !folder) return NULL;
  for (size_t i = 0; i < COUNT(EXTERNAL); i++)
    if (strcmp(EXTERNAL[i].name, name) == 0) name = EXTERNAL[i].file;
  char *path = textf("%s/%s", folder, name);
  return exists(path) ? path : NULL;
}

/* Before the library is open: whether it is the one to ask for this delegate. */
bool interpreter_has(const char *delegate) {
  static const char *const names[] = {"cpu:xnnpack", "gpu:opencl", "gpu:gl", "nnapi"};
  static const char *const symbols[] = {"TfLiteXNNPackDelegateCreate", "TfLiteGpuDelegateV2Create",
                                        "TfLiteGpuDelegateV2Create", "TfLiteNnapiDelegateCreate"};
  for (size_t i = 0; i < COUNT(names); i++)
    if (strcmp(names[i], delegate) == 0) {
      bool beside =
          folder && strncmp(delegate, "gpu:", 4) == 0 && exists(textf("%s/libtensorflowlite_gpu_jni.so", folder));
      return !imported || beside || dlsym(library, symbols[i]);
    }
  return imported ? external_path(delegate) != NULL : strncmp(delegate, "npu:", 4) == 0;
}

static void keep_problem(const char *problem) { snprintf(delegate_problem, sizeof delegate_problem, "%s", problem); }

static void *external_delegate(const Json *trial, const char *path) {
  const char *keys[16], *values[16];
  size_t count = 0;
  void *plugin = open_library(path, path);
  void *(*create)(const char *const *, const char *const *, size_t, void (*)(const char *)) =
      (void *(*)(const char *const *, const char *const *, size_t, void (*)(const char *)))dlsym(
          plugin, "tflite_plugin_create_delegate");
  if (!create) fail("delegate_missing", NULL, "%s is no TFLite delegate: it lacks tflite_plugin_create_delegate", path);
  if (ends_with(path, "libQnnTFLiteDelegate.so")) keys[count] = "backend_type", values[count++] = "htp";
  const Json *given = member(member(trial, "options"), "delegate_options");
  for (const Json *item = is_null(given) ? NULL : given->first;
       item && item->type == JSON_STRING && count < COUNT(keys); item = item->next)
    keys[count] = item->key, values[count++] = item->text;
  return create(keys, values, count, keep_problem);
}

static void *symbol_of(const char *name, const char *beside) {
  void *found = dlsym(library, name);
  char *path = textf("%s/%s", folder, beside);
  if (!found && exists(path)) found = dlsym(open_library(path, path), name);
  if (!found) fail("delegate_missing", NULL, "this build of TFLite has no %s", name);
  return found;
}

static void *make_delegate(const Json *trial, int32_t threads) {
  const char *delegate = member(trial, "delegate")->text;
  bool exact = asks(trial, "precision", "fp32"), sustained = asks(trial, "scenario", "sustained");
  if (strcmp(delegate, "cpu:xnnpack") == 0) {
    XnnpackOptions options = ((XnnpackOptions(*)(void))symbol_of("TfLiteXNNPackDelegateOptionsDefault", ""))();
    options.set.threads = threads;
    return ((void *(*)(const void *))symbol_of("TfLiteXNNPackDelegateCreate", ""))(&options);
  }
  if (strncmp(delegate, "gpu:", 4) == 0) {
    static const char gpu[] = "libtensorflowlite_gpu_jni.so";
    GpuOptions options = ((GpuOptions(*)(void))symbol_of("TfLiteGpuDelegateOptionsV2Default", gpu))();
    options.set.precision_loss_allowed = !exact;
    options.set.preference = sustained ? SUSTAINED : 0;
    options.set.priority1 = exact ? MAX_PRECISION : MIN_LATENCY;
    options.set.flags = GPU_QUANTISED | (strcmp(delegate, "gpu:gl") == 0 ? GPU_GL_ONLY : GPU_OPENCL_ONLY);
    return ((void *(*)(const void *))symbol_of("TfLiteGpuDelegateV2Create", gpu))(&options);
  }
  if (strcmp(delegate, "nnapi") == 0) {
    NnapiOptions options = ((NnapiOptions(*)(void))symbol_of("TfLiteNnapiDelegateOptionsDefault", ""))();
    options.set.preference = sustained ? 2 : 1;
    options.set.accelerator = string_or(member(member(trial, "options"), "accelerator"), NULL);
    options.set.disallow_cpu = 1; /* NNAPI's own CPU reference is no accelerator */
    options.set.allow_fp16 = !exact;
    return ((void *(*)(const void *))symbol_of("TfLiteNnapiDelegateCreate", ""))(&options);
  }
  return external_delegate(trial, external_path(delegate));
}

static void read_tensor(const void *tensor, Tensor *into) {
  const char *name = lite.TensorName(tensor);
  Quantization scale = lite.TensorQuantizationParams(tensor);
  into->name = copy_of(name ? name : "", name ? strlen(name) : 0);
  into->dtype = litert_dtype(lite.TensorType(tensor));
  into->rank = lite.TensorNumDims(tensor);
  if (into->dtype == DTYPE_NONE || into->rank < 0 || into->rank > MAX_RANK)
    fail("op_unsupported", NULL, "tensor %s has a type or rank that this agent does not handle", into->name);
  for (int d = 0; d < into->rank; d++) into->shape[d] = lite.TensorDim(tensor, d);
  into->quantized = scale.scale != 0;
  into->scale = scale.scale;
  into->zero_point = scale.zero_point;
}

static bool run(Session *session) {
  int status = lite.InterpreterInvoke(((InterpreterSession *)session)->interpreter);
  if (status) session->problem = textf("TFLite's status is %d", status);
  return status == 0;
}

static void bind(Session *session, void *const *buffers) {
  for (int i = 0; i < session->input_count; i++) {
    void *tensor = lite.InterpreterGetInputTensor(((InterpreterSession *)session)->interpreter, i);
    memcpy(lite.TensorData(tensor), buffers[i], lite.TensorByteSize(tensor));
  }
}

static const void *output(Session *session, int index, Dtype *dtype, int64_t *shape, int *rank) {
  const void *tensor = lite.InterpreterGetOutputTensor(((InterpreterSession *)session)->interpreter, index);
  Tensor spec = {0};
  read_tensor(tensor, &spec);
  *dtype = spec.dtype;
  *rank = spec.rank;
  memcpy(shape, spec.shape, sizeof spec.shape);
  free(spec.name);
  return lite.TensorData(tensor);
}

/* Reads the inputs and gives them the shapes that the trial asks for; whether any was changed. */
static bool resize_inputs(InterpreterSession *self) {
  Session *session = &self->base;
  bool any = false;
  session->input_count = lite.InterpreterGetInputTensorCount(self->interpreter);
  session->inputs = take(sizeof(Tensor) * (size_t)session->input_count);
  bool *resized = take((size_t)session->input_count + 1);
  for (int i = 0; i < session->input_count; i++)
    read_tensor(lite.InterpreterGetInputTensor(self->interpreter, i), &session->inputs[i]);
  want_shapes(session->inputs, session->input_count, session->trial, false, resized);
  for (int i = 0; i < session->input_count; i++) {
    const Tensor *input = &session->inputs[i];
    int sizes[MAX_RANK];
    for (int d = 0; d < input->rank; d++) sizes[d] = (int)input->shape[d];
    if (resized[i]) lite.InterpreterResizeInputTensor(self->interpreter, i, sizes, input->rank);
    any |= resized[i];
  }
  return any;
}

/* Makes the interpreter with its delegate; what is missing then tells what failed. */
static void make_interpreter(InterpreterSession *self, void *model, void *delegate) {
  void *options = lite.InterpreterOptionsCreate();
  lite.InterpreterOptionsSetNumThreads(options, threads_of(self->base.trial));
  lite.InterpreterOptionsAddDelegate(options, delegate);
  self->interpreter = lite.InterpreterCreate(model, options);
}

static void read_outputs(InterpreterSession *self) {
  Session *session = &self->base;
  session->output_count = lite.InterpreterGetOutputTensorCount(self->interpreter);
  session->outputs = take(sizeof(Tensor) * (size_t)session->output_count);
  for (int i = 0; i < session->output_count; i++)
    read_tensor(lite.InterpreterGetOutputTensor(self->interpreter, i), &session->outputs[i]);
}

/* Whether the model loads when nothing is delegated: then it is the delegate that refuses it. */
static bool loads_without_delegate(void *model) {
  void *interpreter = model ? lite.InterpreterCreate(model, lite.InterpreterOptionsCreate()) : NULL;
  return interpreter && lite.InterpreterAllocateTensors(interpreter) == 0;
}

Session *interpreter_load(const char *path, const Json *trial) {
  Session *session = new_session(sizeof(InterpreterSession), path, trial);
  InterpreterSession *self = (InterpreterSession *)session;
  TfliteFacts facts = {0};
  int before = thread_count();
  bool cpu = strncmp(session->delegate, "cpu:", 4) == 0, resized = false;
  session->version = lite.Version();
  if (!tflite_facts(path, &facts))
    fail("model_invalid", NULL, "%s is not a model that LiteRT can load: it is no .tflite file", base_name(path));
  capture_log_begin();
  void *model = lite.ModelCreateFromFile(path);
  int64_t begin_ns = monotonic_ns();
  void *delegate = model ? make_delegate(trial, threads_of(trial)) : NULL;
  if (delegate) make_interpreter(self, model, delegate);
  if (self->interpreter) {
    resized = resize_inputs(self);
    if (lite.InterpreterAllocateTensors(self->interpreter)) self->interpreter = NULL;
  }
  session->compile_ns = monotonic_ns() - begin_ns;
  char *log = capture_log_end();
  const char *problem = *delegate_problem ? delegate_problem : litert_why(log);
  if (model && !delegate) fail("delegate_missing", NULL, "%s cannot be used here: %s", session->delegate, problem);
  if (!self->interpreter && !resized && loads_without_delegate(model))
    fail("delegate_missing", NULL, "%s refuses %s: %s", session->delegate, base_name(path), litert_why(log));
  if (!self->interpreter) litert_failed(path, session->delegate, log, resized);
  session->threads = thread_count() - before + 1;
  read_outputs(self);
  session->run = run;
  session->bind = bind;
  session->output = output;
  litert_described(session, log, &facts);
  put(&session->details, "macs_by_precision", facts.macs.size ? facts.macs.data : "{}");
  if (cpu) session->accelerator = cpu_name(), session->precision = facts.precision;
  if (strcmp(session->delegation, "fell_back") == 0)
    session->delegate = "cpu:builtin", session->accelerator = cpu_name();
  return session;
}
