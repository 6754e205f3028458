/* A fake external delegate of TFLite: it takes every node, computes nothing and answers with zeros.

   FIRST_MS: how long its first inference takes, as if it compiled shaders there.
   Structures are the beginnings of those in TensorFlow Lite's common.h (C API, 2.x), as far as they are used. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#ifndef FIRST_MS
#define FIRST_MS 0
#endif

typedef struct { int size; int data[]; } IntArray;

typedef struct {
  int type;
  void* data;
  IntArray* dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  void* delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  struct { int type; void* params; } quantization;
  void* sparsity;
  const IntArray* dims_signature;
} Tensor;

typedef struct { IntArray *inputs, *outputs; } Node;

typedef struct Context Context;

typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  void *ResizeTensor, *ReportError, *AddTensors, *GetNodeAndRegistration;
  int (*ReplaceNodeSubsetsWithDelegateKernels)(Context*, Registration, const IntArray*, void* delegate);
};

typedef struct Delegate {
  void* data;
  int (*Prepare)(Context*, struct Delegate*);
  void *CopyFrom, *CopyTo, *Free;
  int64_t flags;
  void* opaque_delegate_builder;
} Delegate;

static int runs;

static int invoke(Context* context, Node* node) {
  if (runs++ == 0 && FIRST_MS) {
    struct timespec wait = {FIRST_MS / 1000, FIRST_MS % 1000 * 1000000L};
    nanosleep(&wait, NULL);
  }
  for (int i = 0; i < node->outputs->size; i++) {
    Tensor* output = &context->tensors[node->outputs->data[i]];
    memset(output->data, 0, output->bytes);
  }
  return 0;
}

static int prepare_node(Context* context, Node* node) {
  (void)context, (void)node;
  return 0;
}

static int prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (context->GetExecutionPlan(context, &plan)) return 1;
  Registration kernel = {.prepare = prepare_node, .invoke = invoke, .custom_name = "FakeDelegate", .version = 1};
  return context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, plan, delegate);
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  (void)keys, (void)values, (void)count, (void)report;
  static Delegate delegate = {.Prepare = prepare};
  return &delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { (void)delegate; }
