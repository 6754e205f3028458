/* What litert_compiled.c and litert_profile.c share. The declarations restate, as far as they are used, those of
 * LiteRT's C headers (Apache-2.0, Copyright Google LLC; see NOTICE). */
#ifndef SOCBENCH_LITERT_COMPILED_H
#define SOCBENCH_LITERT_COMPILED_H

#include "litert.h"

typedef struct { int type; union { bool flag; int64_t integer; const char *string; } value; } Any;
typedef struct { int tag; Any value; } EnvironmentOption;
typedef struct { unsigned rank : 7, has_strides : 1; int32_t dimensions[8]; uint32_t strides[8]; } Layout;
typedef struct { int element_type; Layout layout; } RankedType;
typedef struct { float scale; int64_t zero_point; } PerTensor;
typedef struct { size_t total, in_use, private_bytes; } MemoryUsage;
typedef struct {
  const char *tag;
  int type;
  uint64_t start_us, elapsed_us;
  MemoryUsage begin, end;
  uint64_t metadata1, metadata2;
  int source;
} ProfilerEvent;
enum { ANY_STRING = 8, COMPILER_DIR = 0, DISPATCH_DIR = 1, RUNTIME_DIR = 22 };
enum { ACCELERATE_CPU = 1, ACCELERATE_GPU = 2, ACCELERATE_NPU = 4, READ_LOCK = 0, WRITE_LOCK = 1 };
enum { RUN_EVENT = 1, OPERATOR_EVENT = 2, INSIDE_DELEGATE_EVENT = 8 };

/* X(result, name, parameters): what is used of the library. */
#define FUNCTIONS(X)                                                                                       \
  X(int, CreateEnvironment, (int, const EnvironmentOption *, void **))                                     \
  X(int, CreateModelFromFile, (void *, const char *, void **))                                             \
  X(int, CreateOptions, (void **))                                                                         \
  X(int, SetOptionsHardwareAccelerators, (void *, int))                                                    \
  X(int, CreateOpaqueOptions, (const char *, void *, void (*)(void *), void **))                           \
  X(int, AddOpaqueOptions, (void *, void *))                                                               \
  X(int, CreateCompiledModel, (void *, void *, void *, void **))                                           \
  X(int, CompiledModelIsFullyAccelerated, (void *, bool *))                                                \
  X(int, CompiledModelIsNonCpuFullyAccelerated, (void *, bool *))                                          \
  X(int, GetModelSignature, (void *, size_t, void **))                                                     \
  X(int, GetNumSignatureInputs, (void *, size_t *))                                                        \
  X(int, GetNumSignatureOutputs, (void *, size_t *))                                                       \
  X(int, GetSignatureInputName, (void *, size_t, const char **))                                           \
  X(int, GetSignatureInputTensorByIndex, (void *, size_t, void **))                                        \
  X(int, GetSignatureOutputTensorByIndex, (void *, size_t, void **))                                       \
  X(int, GetTensorName, (void *, const char **))                                                           \
  X(int, GetRankedTensorType, (void *, RankedType *))                                                      \
  X(int, GetQuantizationTypeId, (void *, int *))                                                           \
  X(int, GetPerTensorQuantization, (void *, PerTensor *))                                                  \
  X(int, CompiledModelResizeInputTensorNonStrict, (void *, size_t, size_t, const int *, size_t))           \
  X(int, GetCompiledModelOutputTensorLayouts, (void *, size_t, size_t, Layout *, bool))                    \
  X(int, GetCompiledModelInputBufferRequirements, (void *, size_t, size_t, void **))                       \
  X(int, GetCompiledModelOutputBufferRequirements, (void *, size_t, size_t, void **))                      \
  X(int, CreateManagedTensorBufferFromRequirements, (void *, const RankedType *, void *, void **))         \
  X(int, LockTensorBuffer, (void *, void **, int))                                                         \
  X(int, UnlockTensorBuffer, (void *))                                                                     \
  X(int, RunCompiledModel, (void *, size_t, size_t, void **, size_t, void **))                             \
  X(int, GetNumAccelerators, (void *, size_t *))                                                           \
  X(int, GetAccelerator, (void *, size_t, void **))                                                        \
  X(int, GetAcceleratorName, (void *, const char **))                                                      \
  X(int, GetAcceleratorHardwareSupport, (void *, int *))                                                   \
  X(int, CompiledModelGetProfiler, (void *, void **))                                                      \
  X(int, StartProfiler, (void *))                                                                          \
  X(int, StopProfiler, (void *))                                                                           \
  X(int, GetNumProfilerEvents, (void *, int *))                                                            \
  X(int, GetProfilerEvents, (void *, int, ProfilerEvent *))
extern struct LiteRt {
#define DECLARE(result, name, parameters) result(*name) parameters;
  FUNCTIONS(DECLARE)
} lite;

typedef struct {
  Session base;
  void *environment, *model, *compiled, *signature;
  void **inputs, **outputs; /* tensor buffers */
  void **readable;
  Layout *layouts;
  bool *resized, profiled;
  int way, hardware; /* what it was compiled for, the CPU beside an accelerator included */
} CompiledSession;

int compile(CompiledSession *self, int hardware, bool profiled); /* LiteRT's status */
void make_buffers(CompiledSession *self);

#endif
