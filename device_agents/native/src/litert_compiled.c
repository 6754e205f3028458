/* LiteRT's compiled models: the LiteRt* functions of libLiteRt.so. */
#include "litert_compiled.h"

struct LiteRt lite;

static const struct { const char *delegate, *kernels, *library; int hardware;
} WAYS[] = {{"cpu:xnnpack", "delegate", NULL, ACCELERATE_CPU},
            {"cpu:builtin", "builtin", NULL, ACCELERATE_CPU},
            {"cpu:reference", "reference", NULL, ACCELERATE_CPU},
            {"gpu:opencl", NULL, "libLiteRtClGlAccelerator.so libLiteRtOpenClAccelerator.so libLiteRtGpuAccelerator.so",
             ACCELERATE_GPU},
            {"gpu:webgpu", NULL, "libLiteRtWebGpuAccelerator.so", ACCELERATE_GPU},
            {"npu:qualcomm", NULL, "libLiteRtDispatch_Qualcomm.so", ACCELERATE_NPU},
            {"npu:mediatek", NULL, "libLiteRtDispatch_MediaTek.so libLiteRtDispatch_Mediatek.so", ACCELERATE_NPU},
            {"npu:google", NULL, "libLiteRtDispatch_GoogleTensor.so", ACCELERATE_NPU},
            {"npu:samsung", NULL, "libLiteRtDispatch_Samsung.so", ACCELERATE_NPU},
            {"npu:intel", NULL, "libLiteRtDispatch_IntelOpenvino.so", ACCELERATE_NPU}};

static char *folder;

void compiled_import(const char *path, const char *where) {
  void *library = open_library(path, path);
  folder = copy_of(where, strlen(where));
#define RESOLVE(result, name, parameters) *(void **)&lite.name = litert_symbol(library, "LiteRt" #name, path);
  FUNCTIONS(RESOLVE)
}

static int way_of(const char *delegate) {
  for (size_t i = 0; i < COUNT(WAYS); i++)
    if (strcmp(WAYS[i].delegate, delegate) == 0) return (int)i;
  return -1;
}

bool compiled_has(const char *delegate) {
  int way = way_of(delegate);
  if (way < 0 || !WAYS[way].library) return way >= 0;
  for (const char *at = WAYS[way].library; *at; at += strcspn(at, " "), at += *at == ' ')
    if (exists(textf("%s/%s", folder, copy_of(at, strcspn(at, " "))))) return true;
  return false;
}

static void check(int status, const char *what) {
  if (status) fail("run_failed", NULL, "LiteRT failed to %s (status %d)", what, status);
}

static void keep(void *payload) { (void)payload; }

static void add_options(void *options, const char *kind, char *toml) {
  void *opaque;
  check(lite.CreateOpaqueOptions(kind, toml, keep, &opaque), "make options");
  check(lite.AddOpaqueOptions(options, opaque), "take options");
}

static void *environment_of(void) {
  EnvironmentOption options[] = {{RUNTIME_DIR, {ANY_STRING, {.string = folder}}},
                                 {DISPATCH_DIR, {ANY_STRING, {.string = folder}}},
                                 {COMPILER_DIR, {ANY_STRING, {.string = folder}}}};
  void *environment;
  check(lite.CreateEnvironment((int)COUNT(options), options, &environment), "start");
  return environment;
}

static const char *accelerator_name(void *environment, int hardware) {
  size_t count = 0;
  lite.GetNumAccelerators(environment, &count);
  for (size_t i = 0; i < count; i++) {
    void *accelerator;
    const char *name = NULL;
    int bits = 0;
    if (lite.GetAccelerator(environment, i, &accelerator) || lite.GetAcceleratorHardwareSupport(accelerator, &bits))
      continue;
    if (bits & hardware && !lite.GetAcceleratorName(accelerator, &name)) return name;
  }
  return NULL;
}

int compile(CompiledSession *self, int hardware, bool profiled) {
  void *options;
  const Json *trial = self->base.trial;
  check(lite.CreateOptions(&options), "make options");
  check(lite.SetOptionsHardwareAccelerators(options, hardware), "choose an accelerator");
  const char *kernels = WAYS[self->way].kernels ? WAYS[self->way].kernels : "delegate";
  add_options(options, "xnnpack", textf("kernel_mode = \"%s\"\nnum_threads = %d\n", kernels, threads_of(trial)));
  if (hardware & ACCELERATE_GPU)
    add_options(options, "gpu_options", textf("precision = %d\n", asks(trial, "precision", "fp32") ? 2 : 1));
  if (profiled) add_options(options, "runtime_options_string", textf("enable_profiling = true\n"));
  return lite.CreateCompiledModel(self->environment, self->model, options, &self->compiled);
}

static void read_tensor(void *tensor, Tensor *into) {
  RankedType type;
  const char *name;
  int quantization = 0;
  PerTensor scale;
  check(lite.GetTensorName(tensor, &name), "name a tensor");
  check(lite.GetRankedTensorType(tensor, &type), "give a type");
  into->name = copy_of(name, strlen(name));
  into->dtype = litert_dtype(type.element_type);
  into->rank = type.layout.rank;
  for (int d = 0; d < into->rank; d++) into->shape[d] = type.layout.dimensions[d] < 0 ? -1 : type.layout.dimensions[d];
  if (into->dtype == DTYPE_NONE)
    fail("op_unsupported", NULL, "tensor %s has a type that this agent does not handle", name);
  if (lite.GetQuantizationTypeId(tensor, &quantization) == 0 && quantization == 1 &&
      lite.GetPerTensorQuantization(tensor, &scale) == 0 && scale.scale != 0) {
    into->quantized = true;
    into->scale = scale.scale;
    into->zero_point = scale.zero_point;
  }
}

static void read_tensors(CompiledSession *self) {
  Session *session = &self->base;
  size_t inputs, outputs;
  check(lite.GetModelSignature(self->model, 0, &self->signature), "give its signature");
  check(lite.GetNumSignatureInputs(self->signature, &inputs), "count its inputs");
  check(lite.GetNumSignatureOutputs(self->signature, &outputs), "count its outputs");
  session->inputs = take(sizeof(Tensor) * inputs);
  session->outputs = take(sizeof(Tensor) * outputs);
  for (size_t i = 0; i < inputs; i++) {
    void *tensor;
    check(lite.GetSignatureInputTensorByIndex(self->signature, i, &tensor), "give an input");
    read_tensor(tensor, &session->inputs[i]);
    lite.GetSignatureInputName(self->signature, i, &session->inputs[i].alias);
  }
  for (size_t i = 0; i < outputs; i++) {
    void *tensor;
    check(lite.GetSignatureOutputTensorByIndex(self->signature, i, &tensor), "give an output");
    read_tensor(tensor, &session->outputs[i]);
  }
  session->input_count = (int)inputs;
  session->output_count = (int)outputs;
  self->resized = take(inputs + 1);
  want_shapes(session->inputs, session->input_count, session->trial, false, self->resized);
}

static void *make_buffer(CompiledSession *self, bool input, size_t index) {
  void *tensor, *requirements, *buffer;
  RankedType type;
  check((input ? lite.GetSignatureInputTensorByIndex : lite.GetSignatureOutputTensorByIndex)(self->signature, index,
                                                                                             &tensor),
        "give a tensor");
  check(lite.GetRankedTensorType(tensor, &type), "give a type");
  if (input)
    for (int d = 0; d < self->base.inputs[index].rank; d++)
      type.layout.dimensions[d] = (int32_t)self->base.inputs[index].shape[d];
  else
    type.layout = self->layouts[index];
  check((input ? lite.GetCompiledModelInputBufferRequirements : lite.GetCompiledModelOutputBufferRequirements)(
            self->compiled, 0, index, &requirements),
        "describe a buffer");
  check(lite.CreateManagedTensorBufferFromRequirements(self->environment, &type, requirements, &buffer), "allocate");
  return buffer;
}

void make_buffers(CompiledSession *self) {
  Session *session = &self->base;
  for (int i = 0; i < session->input_count; i++) {
    int sizes[MAX_RANK];
    for (int d = 0; d < session->inputs[i].rank; d++) sizes[d] = (int)session->inputs[i].shape[d];
    if (self->resized[i] && lite.CompiledModelResizeInputTensorNonStrict(self->compiled, 0, (size_t)i, sizes,
                                                                         (size_t)session->inputs[i].rank))
      fail("shape_mismatch", NULL, "input %s of %s cannot take the shape asked for", session->inputs[i].name,
           base_name(session->model));
  }
  self->layouts = take(sizeof *self->layouts * (size_t)session->output_count);
  self->inputs = take(sizeof *self->inputs * (size_t)session->input_count);
  self->outputs = take(sizeof *self->outputs * (size_t)session->output_count);
  self->readable = take(sizeof *self->readable * (size_t)session->output_count);
  if (lite.GetCompiledModelOutputTensorLayouts(self->compiled, 0, (size_t)session->output_count, self->layouts, true))
    fail("shape_mismatch", NULL, "%s cannot take the shapes asked for", base_name(session->model));
  for (int i = 0; i < session->input_count; i++) self->inputs[i] = make_buffer(self, true, (size_t)i);
  for (int i = 0; i < session->output_count; i++) self->outputs[i] = make_buffer(self, false, (size_t)i);
}

/* Outputs lie in buffers that are made before the run: one whose size the model itself computes has none. */
static char *problem_of(const Session *session, int status) {
  for (int i = 0; i < session->output_count; i++)
    if (element_count(session->outputs[i].shape, session->outputs[i].rank) < 0)
      return textf("LiteRT's status is %d; the file leaves the shape of output %s open, and compiled models have no room "
                   "for one that is computed as it runs: use --agent python, or the model as .onnx",
                   status, session->outputs[i].name);
  return textf("LiteRT's status is %d", status);
}

static bool run_only(Session *session) {
  CompiledSession *self = (CompiledSession *)session;
  int status = lite.RunCompiledModel(self->compiled, 0, (size_t)session->input_count, self->inputs,
                                     (size_t)session->output_count, self->outputs);
  if (status) session->problem = problem_of(session, status);
  return status == 0;
}

/* An accelerator's run returns before its work is done: an inference is over when its outputs can be read. */
static bool run_and_read(Session *session) {
  CompiledSession *self = (CompiledSession *)session;
  if (!run_only(session)) return false;
  for (int i = 0; i < session->output_count; i++) {
    int status = lite.LockTensorBuffer(self->outputs[i], &self->readable[i], READ_LOCK);
    if (status == 0) status = lite.UnlockTensorBuffer(self->outputs[i]);
    if (status) return session->problem = textf("an output can't be read (LiteRT's status %d)", status), false;
  }
  return true;
}

static void bind(Session *session, void *const *buffers) {
  CompiledSession *self = (CompiledSession *)session;
  for (int i = 0; i < session->input_count; i++) {
    void *into;
    check(lite.LockTensorBuffer(self->inputs[i], &into, WRITE_LOCK), "take an input");
    memcpy(into, buffers[i], tensor_bytes(&session->inputs[i]));
    check(lite.UnlockTensorBuffer(self->inputs[i]), "take an input");
  }
}

static const void *output(Session *session, int index, Dtype *dtype, int64_t *shape, int *rank) {
  CompiledSession *self = (CompiledSession *)session;
  static void *copies[64];
  void *data;
  *dtype = session->outputs[index].dtype;
  *rank = self->layouts[index].rank;
  for (int d = 0; d < *rank; d++) shape[d] = self->layouts[index].dimensions[d];
  int64_t elements = element_count(shape, *rank);
  if (elements < 0 || index >= (int)COUNT(copies))
    fail("run_failed", NULL, "output %s can't be read", session->outputs[index].name);
  size_t size = (size_t)elements * dtype_size(*dtype);
  free(copies[index]);
  copies[index] = take(size);
  check(lite.LockTensorBuffer(self->outputs[index], &data, READ_LOCK), "give an output");
  memcpy(copies[index], data, size);
  check(lite.UnlockTensorBuffer(self->outputs[index]), "give an output");
  return copies[index];
}

/* Says what ran: the flags of the compiled model, and the counts of the log where it has them. */
static void describe(CompiledSession *self, const char *log, const TfliteFacts *facts) {
  Session *session = &self->base;
  bool full = false, without_cpu = false, cpu = self->hardware == ACCELERATE_CPU;
  bool alone = cpu || !(self->hardware & ACCELERATE_CPU);
  lite.CompiledModelIsFullyAccelerated(self->compiled, &full);
  lite.CompiledModelIsNonCpuFullyAccelerated(self->compiled, &without_cpu);
  put_bool(&session->details, "fully_accelerated", full);
  put_bool(&session->details, "non_cpu_fully_accelerated", without_cpu);
  put(&session->details, "macs_by_precision", facts->macs.size ? facts->macs.data : "{}");
  litert_described(session, log, facts);
  if (cpu) {
    session->precision = facts->precision;
    session->accelerator = cpu_name();
    bool delegated = self->way == 0;
    if (!delegated || full)
      session->nodes_delegated = session->nodes_total, session->delegation = "full",
      session->evidence_kind = "reported";
    if (!delegated) session->partitions = 1;
    return;
  }
  session->accelerator = accelerator_name(self->environment, WAYS[self->way].hardware);
  if (without_cpu)
    session->nodes_delegated = session->nodes_total, session->delegation = "full", session->evidence_kind = "reported";
  else if (strcmp(session->delegation, "full") == 0 && !alone)
    session->delegation = "unknown", session->evidence_kind = "none";
}

static void evidence(Session *session) {
  CompiledSession *self = (CompiledSession *)session;
  Text rows = {0};
  if (!self->profiled && strcmp(session->delegation, "unknown") == 0) {
    void **buffers = take(sizeof *buffers * (size_t)session->input_count);
    for (int i = 0; i < session->input_count; i++) buffers[i] = take(tensor_bytes(&session->inputs[i]));
    compiled_profile(session, buffers, &rows);
  }
}

/* Compiles for the delegate alone; where that fails, beside the CPU: then it is said that some were left to it. */
static int compile_for_delegate(CompiledSession *self) {
  self->hardware = WAYS[self->way].hardware;
  int status = compile(self, self->hardware, false);
  if (!status || self->hardware == ACCELERATE_CPU) return status;
  self->hardware |= ACCELERATE_CPU;
  return compile(self, self->hardware, false);
}

Session *compiled_load(const char *model, const Json *trial) {
  Session *session = new_session(sizeof(CompiledSession), model, trial);
  CompiledSession *self = (CompiledSession *)session;
  TfliteFacts facts = {0};
  int before = thread_count();
  session->version = litert_version(folder);
  self->way = way_of(session->delegate);
  if (!tflite_facts(model, &facts))
    fail("model_invalid", NULL, "%s is not a model that LiteRT can load: it is no .tflite file", base_name(model));
  capture_log_begin();
  self->environment = environment_of();
  int status = lite.CreateModelFromFile(self->environment, model, &self->model);
  int64_t begin_ns = monotonic_ns();
  if (!status) {
    read_tensors(self);
    status = compile_for_delegate(self);
  }
  session->compile_ns = monotonic_ns() - begin_ns;
  if (!status) make_buffers(self);
  char *log = capture_log_end();
  if (status) litert_failed(model, session->delegate, log, false);
  session->threads = thread_count() - before + 1;
  session->run = self->hardware == ACCELERATE_CPU ? run_only : run_and_read;
  session->bind = bind;
  session->output = output;
  session->evidence = evidence;
  describe(self, log, &facts);
  return session;
}
