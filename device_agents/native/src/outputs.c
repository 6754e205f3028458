/* The answers themselves, for checking: written to files that are named by their content. */
#include "child.h"

typedef struct {
  int fd;
  char *path;
  Sha256 sum;
  Dtype dtype;
  int rank;
  int64_t shape[MAX_RANK];
} OutputFile;

static _Noreturn void unwritable(const char *path) {
  bool full = no_space();
  const char *reason = strerror(errno);
  unlink(path);
  fail(full ? "disk_full" : "run_failed", full ? "free space on the device" : NULL, "%s cannot be written: %s", path,
       reason);
}

/* Puts the index of the largest element along the last axis in place of the elements. */
static const void *largest(const void *data, Dtype *dtype, int64_t *shape, int *rank) {
  static int32_t *indices;
  int64_t along = *rank ? shape[*rank - 1] : 1, rows = *rank ? element_count(shape, *rank - 1) : 1;
  free(indices);
  indices = take(sizeof *indices * (size_t)(rows > 0 ? rows : 1));
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 1; i < along; i++) {
      double best = get_element(*dtype, data, (size_t)(row * along + indices[row]));
      double value = get_element(*dtype, data, (size_t)(row * along + i));
      bool first_nan = value != value && best == best; /* counts as largest, as in NumPy */
      if (value > best || first_nan) indices[row] = (int32_t)i;
    }
  *dtype = INT32;
  if (*rank) --*rank;
  return indices;
}

static void open_output(OutputFile *file, const char *stage, int number) {
  sha256_begin(&file->sum);
  file->path = textf("out/.%d.%s.%d", getpid(), stage, number);
  file->fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file->fd < 0) unwritable(file->path);
}

static void write_output(OutputFile *file, Session *session, int number, const char *stage, const char *keep) {
  int64_t shape[MAX_RANK];
  int rank;
  Dtype dtype;
  const char *name = session->outputs[number].name;
  const void *data = session->output(session, number, &dtype, shape, &rank);
  if (element_count(shape, rank) < 0) fail("run_failed", NULL, "output %s is too large", name);
  if (strcmp(keep, "argmax") == 0) data = largest(data, &dtype, shape, &rank);
  size_t size = (size_t)element_count(shape, rank) * dtype_size(dtype);
  if (!file->path) {
    open_output(file, stage, number);
    file->dtype = dtype;
    file->rank = rank;
    memcpy(file->shape, shape, sizeof shape);
  } else if (rank != file->rank || memcmp(shape, file->shape, sizeof *shape * (size_t)rank) != 0) {
    fail("run_failed", NULL, "output %s changed its shape between two inputs", name);
  }
  if (!write_all(file->fd, data, size)) unwritable(file->path);
  sha256_add(&file->sum, data, size);
}

/* Names the file by its content and describes it. */
static void close_output(OutputFile *file, const char *name, Text *event) {
  char hex[65];
  sha256_end(&file->sum, hex);
  char *target = textf("out/%s.bin", hex);
  if (close(file->fd) || rename(file->path, target)) unwritable(file->path);
  comma(event);
  add(event, "{");
  put_string(event, "name", name);
  put_string(event, "dtype", dtype_name(file->dtype));
  put(event, "shape", "");
  add_shape(event, file->shape, file->rank);
  put_string(event, "sha256", hex);
  put_string(event, "file", target);
  add(event, "}");
}

void write_outputs(Session *session, const Inputs *inputs, void **buffers, const char *stage, const Json *keep) {
  OutputFile *files = take(sizeof *files * (size_t)session->output_count);
  Text event = {0};
  mkdir("out", 0755);
  for (int64_t index = 0; index < inputs->count; index++) {
    bind_input(session, inputs, index, buffers);
    if (!session->run(session)) run_failed(session);
    const Json *wanted = is_null(keep) ? NULL : keep->first;
    for (int i = 0; i < session->output_count; i++, wanted = wanted ? wanted->next : NULL) {
      const char *word = string_or(wanted, "all");
      if (strcmp(word, "none")) write_output(&files[i], session, i, stage, word);
    }
  }
  begin_line(&event, "outputs");
  put_string(&event, "stage", stage);
  put_int(&event, "count", inputs->count);
  put(&event, "tensors", "[");
  for (int i = 0; i < session->output_count; i++)
    if (files[i].path) close_output(&files[i], session->outputs[i].name, &event);
  add(&event, "]");
  send_line(&event);
  free(files);
}
