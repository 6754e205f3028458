/* A fake TensorFlow Lite for tests: its C API with one input and one output of four floats, which are copied. What it
 * says it delegated is scripted by FAKE_TFLITE; it logs as the real one does on Android. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { float scale; int zero_point; } Quantization;
static float input[4], output[4];
static int delegated;
static const char *way(void) { return getenv("FAKE_TFLITE") ? getenv("FAKE_TFLITE") : "full"; }
const char *TfLiteVersion(void) { return "9.9.9-fake"; }
void *TfLiteModelCreateFromFile(const char *path) { return strcmp(way(), "no model") ? (void *)path : NULL; }
void *TfLiteInterpreterOptionsCreate(void) { return delegated = 0, &delegated; }
void TfLiteInterpreterOptionsSetNumThreads(void *options, int threads) {}
void TfLiteInterpreterOptionsAddDelegate(void *options, void *delegate) { delegated = 1; }
void *TfLiteInterpreterCreate(const void *model, const void *options) { return input; }
int TfLiteInterpreterAllocateTensors(void *interpreter) {
  if (strcmp(way(), "crash") == 0) {
    fprintf(stderr, "vendor driver: no such handle\n");
    *(volatile int *)8 = 1;
  }
  if (strcmp(way(), "refuse quietly") == 0) return delegated;
  if (strcmp(way(), "refuse") == 0) {
    fprintf(stderr, "ERROR: Following operations are not supported by the delegate:\nERROR: CUMSUM: not supported\n");
    return 1;
  }
  if (strcmp(way(), "full") == 0) {
    fprintf(stderr, "I/tflite  (77): Replacing 5 out of 5 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for the whole graph.\n");
    fprintf(stderr, "VERBOSE: Replacing 5 out of 5 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for the whole graph.\n");
  }
  if (strcmp(way(), "half") == 0) {
    fprintf(stderr, "VERBOSE: Replacing 3 out of 5 node(s) with delegate (FakeDelegate) node, yielding 2 partitions for subgraph 0 (main).\n");
    fprintf(stderr, "VERBOSE: Replacing 2 out of 2 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0 (main).\n");
  }
  return 0;
}
int TfLiteInterpreterInvoke(void *interpreter) { return memcpy(output, input, sizeof input), strcmp(way(), "fails late") == 0; }
int TfLiteInterpreterResizeInputTensor(void *interpreter, int index, const int *sizes, int count) { return 1; }
int TfLiteInterpreterGetInputTensorCount(const void *interpreter) { return 1; }
int TfLiteInterpreterGetOutputTensorCount(const void *interpreter) { return 1; }
void *TfLiteInterpreterGetInputTensor(const void *interpreter, int index) { return input; }
const void *TfLiteInterpreterGetOutputTensor(const void *interpreter, int index) { return output; }
int TfLiteTensorType(const void *tensor) { return 1; }
int TfLiteTensorNumDims(const void *tensor) { return 2; }
int TfLiteTensorDim(const void *tensor, int index) { return index ? 4 : 1; }
size_t TfLiteTensorByteSize(const void *tensor) { return sizeof input; }
void *TfLiteTensorData(const void *tensor) { return (void *)tensor; }
const char *TfLiteTensorName(const void *tensor) { return tensor == input ? "x" : "y"; }
Quantization TfLiteTensorQuantizationParams(const void *tensor) { return (Quantization){0, 0}; }
typedef struct { int threads; char more[60]; } Options;
Options TfLiteXNNPackDelegateOptionsDefault(void) { return (Options){0}; }
void *TfLiteXNNPackDelegateCreate(const Options *options) { return strcmp(way(), "no delegate") ? &delegated : NULL; }
