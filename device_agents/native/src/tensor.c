/* Element types, shapes, and the inputs of a repetition: read from files or made from the seed, fitted to the model. */
#include "agent.h"

static const struct { const char *name; uint8_t size; } TYPES[] = {
    [DTYPE_NONE] = {"none", 0}, [FLOAT32] = {"float32", 4}, [FLOAT16] = {"float16", 2}, [BFLOAT16] = {"bfloat16", 2},
    [FLOAT64] = {"float64", 8}, [INT8] = {"int8", 1},       [UINT8] = {"uint8", 1},     [INT16] = {"int16", 2},
    [UINT16] = {"uint16", 2},   [INT32] = {"int32", 4},     [UINT32] = {"uint32", 4},   [INT64] = {"int64", 8},
    [UINT64] = {"uint64", 8},   [BOOL] = {"bool", 1}};

Dtype dtype_of(const char *name) {
  for (int i = FLOAT32; i <= BOOL; i++)
    if (strcmp(name, TYPES[i].name) == 0) return (Dtype)i;
  return DTYPE_NONE;
}

const char *dtype_name(Dtype dtype) { return TYPES[dtype].name; }
size_t dtype_size(Dtype dtype) { return TYPES[dtype].size; }
bool is_float(Dtype dtype) { return dtype == FLOAT32 || dtype == FLOAT16 || dtype == BFLOAT16 || dtype == FLOAT64; }

static double half_to_double(uint16_t half) {
  int exponent = half >> 10 & 31, fraction = half & 1023;
  double value = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
                                : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
  return half & 0x8000 ? -value : value;
}

/* Rounds half to even, straight from double: by way of float would round twice. */
static uint16_t double_to_half(double value) {
  uint16_t sign = signbit(value) ? 0x8000 : 0;
  double size = fabs(value);
  int exponent;
  if (size != size) return sign | 0x7E00;
  if (size >= 65520.0) return sign | 0x7C00;
  if (size < ldexp(1, -14)) return (uint16_t)(sign | (uint16_t)rint(ldexp(size, 24)));
  frexp(size, &exponent);
  return (uint16_t)(sign | (((exponent + 14) << 10) + (int)rint(ldexp(size, 11 - exponent)) - 1024));
}

double get_element(Dtype dtype, const void *data, size_t index) {
  const uint8_t *at = (const uint8_t *)data + index * dtype_size(dtype);
  union {
    float f;
    double d;
    int16_t i16;
    uint16_t u16;
    int32_t i32;
    uint32_t u32;
    int64_t i64;
    uint64_t u64;
  } bits = {0};
  memcpy(&bits, at, dtype_size(dtype));
  switch (dtype) {
    case FLOAT32: return bits.f;
    case FLOAT16: return half_to_double(bits.u16);
    case BFLOAT16: return bits.u32 <<= 16, bits.f;
    case FLOAT64: return bits.d;
    case INT8: return (int8_t)*at;
    case INT16: return bits.i16;
    case UINT16: return bits.u16;
    case INT32: return bits.i32;
    case UINT32: return bits.u32;
    case INT64: return (double)bits.i64;
    case UINT64: return (double)bits.u64;
    default: return *at;
  }
}

void put_element(Dtype dtype, void *data, size_t index, double value) {
  uint8_t *at = (uint8_t *)data + index * dtype_size(dtype);
  union { float f; double d; uint16_t u16; uint32_t u32; int64_t i64; uint64_t u64; } bits = {0};
  int64_t whole = value > -9.2e18 && value < 9.2e18 ? (int64_t)value : 0;
  if (dtype == FLOAT32) bits.f = (float)value;
  else if (dtype == FLOAT16) bits.u16 = double_to_half(value);
  else if (dtype == BFLOAT16) bits.f = (float)value, bits.u32 = (bits.u32 + 0x7FFF + (bits.u32 >> 16 & 1)) >> 16;
  else if (dtype == FLOAT64) bits.d = value;
  else if (dtype == BOOL) bits.u64 = value != 0;
  else bits.i64 = whole;
  memcpy(at, &bits, dtype_size(dtype)); /* all targets are little-endian */
}

int64_t element_count(const int64_t *shape, int rank) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++) {
    if (shape[i] < 0 || (shape[i] && count > INT64_C(0x7FFFFFFF) / shape[i])) return -1;
    count *= shape[i];
  }
  return count;
}

size_t tensor_bytes(const Tensor *tensor) {
  return (size_t)element_count(tensor->shape, tensor->rank) * dtype_size(tensor->dtype);
}

void add_shape(Text *text, const int64_t *shape, int rank) {
  add(text, "[");
  for (int i = 0; i < rank; i++) {
    comma(text);
    add_int_or_null(text, shape[i], shape[i] >= 0);
  }
  add(text, "]");
}

void add_tensors(Text *text, const Tensor *tensors, int count) {
  add(text, "[");
  for (int i = 0; i < count; i++) {
    comma(text);
    add(text, "{");
    put_string(text, "name", tensors[i].name);
    put_string(text, "dtype", dtype_name(tensors[i].dtype));
    put(text, "shape", "");
    add_shape(text, tensors[i].shape, tensors[i].rank);
    put(text, "scale", tensors[i].quantized ? "" : "null");
    if (tensors[i].quantized) addf(text, "%.17g", tensors[i].scale);
    put_known(text, "zero_point", tensors[i].zero_point, tensors[i].quantized);
    add(text, "}");
  }
  add(text, "]");
}

static char *shape_text(const int64_t *shape, int rank) {
  Text text = {0};
  add_shape(&text, shape, rank);
  return text.data;
}

static _Noreturn void misfit(const char *name, const int64_t *shape, int rank, const Tensor *own) {
  fail("shape_mismatch", NULL, "input %s is %s and cannot be %s", name, shape_text(own->shape, own->rank),
       shape_text(shape, rank));
}

static bool is_named(const Tensor *tensor, const char *name) {
  return strcmp(tensor->name, name) == 0 || (tensor->alias && strcmp(tensor->alias, name) == 0);
}

static char *names_of(const Tensor *tensors, int count) {
  Text text = {0};
  add(&text, "");
  for (int i = 0; i < count; i++) addf(&text, "%s%s", i ? ", " : "", tensors[i].name);
  return text.data;
}

/* Puts the shapes that the trial asks for into the inputs and tells which changed. `fixed_only`: a fixed dimension of
 * the file can't be changed. A dynamic first dimension takes the batch; any other must be given. */
void want_shapes(Tensor *tensors, int count, const Json *trial, bool fixed_only, bool *changed) {
  const Json *shapes = member(trial, "shapes");
  int given = shapes ? shapes->count : 0;
  int64_t batch = 1;
  int_in(member(trial, "batch"), 1, INT32_MAX, &batch);
  for (const Json *item = given ? shapes->first : NULL; item && !(count == 1 && given == 1); item = item->next) {
    bool known = false;
    for (int i = 0; i < count; i++) known |= is_named(&tensors[i], item->key);
    if (!known)
      fail("shape_mismatch", NULL, "the model has no input called %s; it has %s", item->key, names_of(tensors, count));
  }
  for (int i = 0; i < count; i++) {
    Tensor *own = &tensors[i];
    const Json *wanted = NULL;
    for (const Json *item = given ? shapes->first : NULL; item; item = item->next)
      if (is_named(own, item->key) || (count == 1 && given == 1)) wanted = item;
    int64_t shape[MAX_RANK];
    int rank = own->rank;
    memcpy(shape, own->shape, sizeof shape);
    if (wanted) {
      rank = 0;
      for (const Json *size = wanted->first; size && rank < MAX_RANK; size = size->next)
        int_in(size, 0, INT32_MAX, &shape[rank++]);
    }
    if (rank != own->rank) misfit(own->name, shape, rank, own);
    if (!wanted && rank && (own->shape[0] < 0 || batch > 1)) shape[0] = batch;
    changed[i] = false;
    for (int d = 0; d < rank; d++) {
      if (shape[d] < 0) {
        Text advice = {0};
        addf(&advice, "give it: --shape %s=", own->name);
        for (int k = 0; k < rank; k++)
          own->shape[k] < 0 ? addf(&advice, "%sN", k ? "," : "")
                            : addf(&advice, "%s%lld", k ? "," : "", (long long)own->shape[k]);
        fail("shape_mismatch", advice.data, "input %s has dynamic dimensions: %s", own->name,
             shape_text(own->shape, rank));
      }
      if (shape[d] != own->shape[d]) {
        if (fixed_only && own->shape[d] >= 0) misfit(own->name, shape, rank, own);
        changed[i] = true;
      }
    }
    memcpy(own->shape, shape, sizeof shape);
  }
}

/* SplitMix64 (Steele, Lea, Flood 2014; Vigna's reference code): the inputs of docs/protocol.md, *Seeded inputs*. */
void seeded_tensor(uint64_t seed, const Tensor *tensor, const int64_t *shape, void *data) {
  int64_t count = element_count(shape, tensor->rank);
  if (count < 0)
    fail("shape_mismatch", NULL, "an input of shape %s is too large to make", shape_text(shape, tensor->rank));
  for (int64_t i = 0; i < count; i++) {
    uint64_t z = seed += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    if (is_float(tensor->dtype)) put_element(tensor->dtype, data, (size_t)i, (double)(z >> 40) / 8388608.0 - 1.0);
    else if (tensor->dtype == INT8 || tensor->dtype == UINT8) ((uint8_t *)data)[i] = (uint8_t)z;
    else if (tensor->dtype == BOOL) ((uint8_t *)data)[i] = z & 1;
    else put_element(tensor->dtype, data, (size_t)i, (double)(z % 128));
  }
}

static void map_file(Given *given, const char *where, int index, const char *path, int64_t count) {
  int64_t elements = element_count(given->spec.shape, given->spec.rank);
  if (elements < 0) fail("bad_job", NULL, "%s.inputs[%d].shape is too large", where, index);
  given->one_bytes = (size_t)elements * dtype_size(given->spec.dtype);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat facts;
  if (fd < 0 || fstat(fd, &facts) < 0)
    fail("bad_job", NULL, "%s.inputs[%d].file: %s: %s", where, index, path, strerror(errno));
  if (given->one_bytes && count > (int64_t)(INT64_MAX / (int64_t)given->one_bytes))
    fail("bad_job", NULL, "%s.count is too large", where);
  int64_t need = count * (int64_t)given->one_bytes;
  if ((int64_t)facts.st_size != need || need > (int64_t)(SIZE_MAX / 2))
    fail("bad_job", NULL, "%s.inputs[%d].file: %s has %lld bytes, %lld inputs of %s %s take %lld", where, index, path,
         (long long)facts.st_size, (long long)count, dtype_name(given->spec.dtype),
         shape_text(given->spec.shape, given->spec.rank), (long long)need);
  if (!need) {
    given->data = (const uint8_t *)"";
    return;
  }
  void *data = mmap(NULL, (size_t)need, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) fail("out_of_memory", NULL, "%s cannot be mapped: %s", path, strerror(errno));
  close(fd);
  given->data = data;
}

Inputs read_inputs(const Json *document, const char *where, const Json *trial, const Tensor *model, int count) {
  Inputs inputs = {.count = 1, .tensors = count};
  uint64_t seed = 0;
  uint_of(member(trial, "input_seed"), &seed);
  if (!is_null(document)) {
    inputs.tensors = member(document, "inputs")->count;
    int_in(member(document, "count"), 1, INT64_MAX, &inputs.count);
  }
  inputs.given = take(sizeof *inputs.given * (size_t)inputs.tensors);
  const Json *item = is_null(document) ? NULL : member(document, "inputs")->first;
  for (int i = 0; i < inputs.tensors; i++) {
    Given *given = &inputs.given[i];
    if (is_null(document)) {
      given->spec = model[i];
      for (int d = 0; d < model[i].rank; d++)
        if (given->spec.shape[d] < 0) given->spec.shape[d] = 1;
      if (model[i].dtype == DTYPE_NONE || model[i].dtype == BFLOAT16)
        fail("shape_mismatch", "give an input file", "no input of type %s can be made from a seed",
             dtype_name(model[i].dtype));
      int64_t elements = element_count(given->spec.shape, given->spec.rank);
      given->one_bytes = elements < 0 ? 0 : (size_t)elements * dtype_size(model[i].dtype);
      void *data = take(given->one_bytes);
      seeded_tensor(seed + (uint64_t)i, &given->spec, given->spec.shape, data);
      given->data = data;
      continue;
    }
    given->spec.name = (char *)string_or(member(item, "name"), "");
    given->spec.dtype = dtype_of(string_or(member(item, "dtype"), ""));
    if (given->spec.dtype == DTYPE_NONE)
      fail("bad_job", NULL, "%s.inputs[%d].dtype: %s is no type", where, i, string_or(member(item, "dtype"), ""));
    for (const Json *size = member(item, "shape")->first; size; size = size->next)
      int_in(size, 0, INT32_MAX, &given->spec.shape[given->spec.rank++]);
    map_file(given, where, i, string_or(member(item, "file"), ""), inputs.count);
    item = item->next;
  }
  return inputs;
}

static void fit(const Tensor *own, const Given *given, const uint8_t *data, void *into) {
  const Tensor *spec = &given->spec;
  bool same = own->rank == spec->rank;
  for (int d = 0; same && d < own->rank; d++) same = own->shape[d] < 0 || own->shape[d] == spec->shape[d];
  if (!same) misfit(own->name, spec->shape, spec->rank, own);
  int64_t count = element_count(spec->shape, spec->rank);
  if (own->dtype == spec->dtype) {
    memcpy(into, data, given->one_bytes);
  } else if (is_float(spec->dtype) && is_float(own->dtype)) {
    for (int64_t i = 0; i < count; i++)
      put_element(own->dtype, into, (size_t)i, get_element(spec->dtype, data, (size_t)i));
  } else if (is_float(spec->dtype) && own->quantized && own->dtype >= INT8 && own->dtype <= UINT32) {
    bool is_unsigned = own->dtype == UINT8 || own->dtype == UINT16 || own->dtype == UINT32;
    double span = ldexp(1, (int)dtype_size(own->dtype) * 8), low = is_unsigned ? 0 : -span / 2, high = low + span - 1;
    for (int64_t i = 0; i < count; i++) {
      double value = rint(get_element(spec->dtype, data, (size_t)i) / own->scale) + (double)own->zero_point;
      put_element(own->dtype, into, (size_t)i, value < low ? low : value > high ? high : value);
    }
  } else {
    fail("shape_mismatch", NULL, "input %s is %s and cannot be %s", own->name, dtype_name(own->dtype),
         dtype_name(spec->dtype));
  }
}

/* Fills the model's input buffers with input `index`: by name, but a model of one input takes the one tensor there is.
 * Floats for an integer input with a scale are quantised: round half to even, saturated. */
static void fit_inputs(const Inputs *inputs, int64_t index, const Tensor *model, int count, void **buffers) {
  for (int i = 0; i < count; i++) {
    const Given *given = count == 1 && inputs->tensors == 1 ? &inputs->given[0] : NULL;
    Text names = {0};
    add(&names, "");
    for (int k = 0; k < inputs->tensors && !given; k++) {
      if (is_named(&model[i], inputs->given[k].spec.name)) given = &inputs->given[k];
      addf(&names, "%s%s", k ? ", " : "", inputs->given[k].spec.name);
    }
    if (!given)
      fail("shape_mismatch", NULL, "no input was given for %s; given were %s", model[i].name,
           names.size ? names.data : "none");
    free(names.data);
    fit(&model[i], given, given->data + (size_t)index * given->one_bytes, buffers[i]);
  }
}

/* Fits input `index` into the buffers and gives them to the runtime. */
void bind_input(Session *session, const Inputs *inputs, int64_t index, void **buffers) {
  fit_inputs(inputs, index, session->inputs, session->input_count, buffers);
  session->bind(session, buffers);
}
