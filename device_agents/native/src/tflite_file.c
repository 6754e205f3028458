/* What a .tflite file says of itself: its nodes, and the precision by the types that the heavy nodes read. The file
 * is a flatbuffer (schema.fbs of TFLite): tables whose fields are found by number. Every read is checked against the
 * end. */
#include "agent.h"

typedef struct {
  const uint8_t *data;
  size_t size;
} File;
typedef struct {
  size_t at;
  bool ok;
} Table; /* also a vector */

static uint32_t u32(const File *file, size_t at) {
  uint32_t value = 0;
  if (at <= file->size && file->size - at >= 4) memcpy(&value, file->data + at, 4);
  return value;
}

static Table follow(const File *file, size_t at) {
  uint32_t offset = u32(file, at);
  bool ok = offset && offset <= file->size && at <= file->size - offset;
  return (Table){ok ? at + offset : 0, ok};
}

/* Where field `number` of a table lies; 0 when it has none. */
static size_t field(const File *file, Table table, int number) {
  int32_t back = (int32_t)u32(file, table.at);
  int64_t vtable = (int64_t)table.at - back;
  uint16_t size, offset;
  if (!table.ok || vtable < 0 || vtable + 4 > (int64_t)file->size) return 0;
  memcpy(&size, file->data + vtable, 2);
  size_t entry = 4 + 2 * (size_t)number;
  if (entry + 2 > size || (size_t)vtable + entry + 2 > file->size) return 0;
  memcpy(&offset, file->data + vtable + entry, 2);
  return offset ? table.at + offset : 0;
}

static Table child(const File *file, Table table, int number) {
  size_t at = field(file, table, number);
  return at ? follow(file, at) : (Table){0, false};
}

static int length(const File *file, Table vector) {
  uint32_t count = vector.ok ? u32(file, vector.at) : 0;
  return count < file->size ? (int)count : 0;
}

static Table item(const File *file, Table vector, int index) { return follow(file, vector.at + 4 + 4 * (size_t)index); }
static int32_t int_item(const File *file, Table vector, int index) {
  return index < length(file, vector) ? (int32_t)u32(file, vector.at + 4 + 4 * (size_t)index) : -1;
}

static int byte_field(const File *file, Table table, int number) {
  size_t at = field(file, table, number);
  return at && at < file->size ? (int8_t)file->data[at] : 0;
}

/* The builtin operator's code: the newer 32-bit field, or the older byte. */
static int operator_code(const File *file, Table codes, Table node) {
  size_t at = field(file, node, 0);
  uint32_t index = at ? u32(file, at) : 0;
  if ((int)index >= length(file, codes)) return -1;
  Table code = item(file, codes, (int)index);
  size_t newer = field(file, code, 3);
  int older = byte_field(file, code, 0), value = newer ? (int)u32(file, newer) : 0;
  return value > older ? value : older;
}

static int64_t sizes(const File *file, Table tensor, int64_t *last) {
  Table shape = child(file, tensor, 0);
  int64_t product = 1;
  *last = 1;
  for (int i = 0; i < length(file, shape) && i < MAX_RANK; i++) {
    *last = int_item(file, shape, i);
    product *= *last > 0 && product < INT64_C(1) << 40 ? *last : 1;
  }
  return product;
}

enum { CONV_2D = 3, DEPTHWISE = 4, FULLY_CONNECTED = 9, TRANSPOSE_CONV = 67, BATCH_MATMUL = 126, CONV_3D = 132 };
enum { TYPE_FLOAT16 = 1, TYPE_UINT8 = 3, TYPE_INT16 = 7, TYPE_INT8 = 9 };

static const char *precision_of(int data, int weights) {
  if (data == TYPE_INT16) return "int16x8";
  if (data == TYPE_INT8 || data == TYPE_UINT8) return "int8";
  if (weights == TYPE_INT8 || weights == TYPE_UINT8) return "int8_dynamic";
  return data == TYPE_FLOAT16 ? "fp16" : "fp32";
}

static void read_facts(const File *file, TfliteFacts *facts) {
  static const char *const names[] = {"fp32", "fp16", "int8", "int8_dynamic", "int16x8"};
  int64_t macs[COUNT(names)] = {0}, last, ignored;
  Table model = follow(file, 0), codes = child(file, model, 1), graphs = child(file, model, 2);
  Table graph = length(file, graphs) ? item(file, graphs, 0) : (Table){0, false};
  Table tensors = child(file, graph, 0), nodes = child(file, graph, 3);
  facts->nodes = length(file, nodes);
  for (int i = 0; i < facts->nodes; i++) {
    Table node = item(file, nodes, i), inputs = child(file, node, 1), outputs = child(file, node, 2);
    int code = operator_code(file, codes, node), data_at = code == TRANSPOSE_CONV ? 2 : 0;
    bool heavy = code == CONV_2D || code == DEPTHWISE || code == FULLY_CONNECTED || code == TRANSPOSE_CONV ||
                 code == BATCH_MATMUL || code == CONV_3D;
    int data = int_item(file, inputs, data_at), weights = int_item(file, inputs, 1),
        output = int_item(file, outputs, 0), count = length(file, tensors);
    if (!heavy || data < 0 || weights < 0 || output < 0 || data >= count || weights >= count || output >= count)
      continue;
    Table w = item(file, tensors, weights), y = item(file, tensors, output);
    const char *precision = precision_of(byte_field(file, item(file, tensors, data), 1), byte_field(file, w, 1));
    int64_t size = sizes(file, y, &last);
    for (size_t k = 0; k < COUNT(names); k++)
      if (strcmp(names[k], precision) == 0) macs[k] += sizes(file, w, &ignored) * size / (last > 0 ? last : 1);
  }
  size_t heaviest = 0;
  add(&facts->macs, "{");
  for (size_t k = 0; k < COUNT(names); k++) {
    if (macs[k] > macs[heaviest]) heaviest = k;
    if (macs[k]) addf(&facts->macs, "%s\"%s\":%lld", facts->macs.size > 1 ? "," : "", names[k], (long long)macs[k]);
  }
  add(&facts->macs, "}");
  facts->precision = names[heaviest];
}

bool tflite_facts(const char *path, TfliteFacts *facts) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status)) return false;
  void *data = status.st_size >= 8 ? mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  close(fd);
  if (data == MAP_FAILED) return false;
  File file = {data, (size_t)status.st_size};
  bool is_one = memcmp(file.data + 4, "TFL3", 4) == 0;
  if (is_one) read_facts(&file, facts);
  munmap(data, (size_t)status.st_size);
  return is_one;
}
