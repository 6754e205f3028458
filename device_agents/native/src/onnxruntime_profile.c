/* The profile that ONNX Runtime writes (Chrome's trace format): a row an operator, and the precisions of kernels. */
#include "onnxruntime.h"

typedef struct {
  char *name;
  const char *op, *provider;
  double us;
  int calls;
} Row;
typedef struct {
  Row *rows;
  int count, room;
} Rows;
typedef struct {
  const char *names[8];
  double weights[8], whole;
  int count;
} Shares;

/* In what an operator computed, by the type of its first input; NULL for what does no heavy work. */
static const char *precision_of(const char *op, const Json *arguments) {
  static const char *const heavy[] = {"Conv", "Gemm", "MatMul", "Attention", "LSTM", "GRU", "RNN"};
  static const struct { const char *type, *precision; } types[] = {
      {"float", "fp32"}, {"float16", "fp16"}, {"bfloat16", "bf16"}, {"int8", "int8"}, {"uint8", "int8"}};
  const Json *inputs = member(arguments, "input_type_shape");
  const char *type = is_null(inputs) || !inputs->first || !inputs->first->first ? NULL : inputs->first->first->key;
  bool counts = false;
  for (size_t i = 0; i < COUNT(heavy); i++) counts |= strstr(op, heavy[i]) != NULL;
  if (!counts || !type) return NULL;
  if (strcmp(op, "MatMulNBits") == 0) return "int4_weights";
  bool whole_numbers = strcmp(op, "MatMulInteger") == 0 || strcmp(op, "ConvInteger") == 0;
  if (whole_numbers || strncmp(op, "Dynamic", 7) == 0) return "int8_dynamic";
  for (size_t i = 0; i < COUNT(types); i++)
    if (strcmp(type, types[i].type) == 0) return types[i].precision;
  return NULL;
}

/* The row of an operator, by its name; a new one where there was none. */
static Row *row_of(Rows *all, const char *name, size_t size) {
  for (int i = 0; i < all->count; i++)
    if (strncmp(all->rows[i].name, name, size) == 0 && !all->rows[i].name[size]) return &all->rows[i];
  if (all->count == all->room) {
    all->rows = realloc(all->rows, sizeof(Row) * (size_t)(all->room = all->room * 2 + 64));
    if (!all->rows) fail("out_of_memory", NULL, "the process ran out of memory");
  }
  all->rows[all->count] = (Row){copy_of(name, size), NULL, NULL, 0, 0};
  return &all->rows[all->count++];
}

static void add_share(Shares *shares, const char *precision, double us) {
  int k = 0;
  while (k < shares->count && strcmp(shares->names[k], precision)) k++;
  if (k == (int)COUNT(shares->names)) return;
  if (k == shares->count) shares->names[shares->count++] = precision;
  shares->weights[k] += us + 0.01;
  shares->whole += us + 0.01;
}

static double end_of_first_run(const Json *events) {
  for (const Json *event = events->first; event; event = event->next)
    if (asks(event, "name", "model_run")) return number_or(member(event, "ts"), 0) + number_or(member(event, "dur"), 0);
  return 0;
}

/* Takes a kernel's event: category Node, name NODE_kernel_time. */
static void take_kernel(const Json *event, Rows *rows, Shares *shares) {
  static const char ending[] = "_kernel_time";
  const char *name = string_or(member(event, "name"), "");
  const Json *arguments = member(event, "args");
  if (!asks(event, "cat", "Node") || !ends_with(name, ending)) return;
  const char *op = string_or(member(arguments, "op_name"), ""), *precision = precision_of(op, arguments);
  double us = number_or(member(event, "dur"), 0);
  Row *row = row_of(rows, name, strlen(name) - strlen(ending));
  row->op = op;
  row->provider = string_or(member(arguments, "provider"), "");
  row->us += us;
  row->calls++;
  if (precision) add_share(shares, precision, us);
}

static void tell_shares(const Shares *shares, ProfileFacts *facts) {
  int heaviest = 0;
  for (int k = 0; k < shares->count; k++) {
    if (shares->weights[k] > shares->weights[heaviest]) heaviest = k;
    put(&facts->shares, shares->names[k], "");
    addf(&facts->shares, "%.4f", shares->weights[k] / shares->whole);
  }
  if (shares->count) facts->executed = shares->names[heaviest];
}

bool read_onnxruntime_profile(const char *path, const char *provider, int runs, ProfileFacts *facts, Text *table) {
  const char *problem;
  Rows rows = {0};
  Shares shares = {0};
  Text text = {0};
  if (!read_file(path, 256u << 20, &text)) return false;
  Json *events = json_parse(text.data, text.size, &problem);
  if (!events || events->type != JSON_ARRAY) return false;
  double first_end = end_of_first_run(events);
  for (const Json *event = events->first; event; event = event->next)
    if (number_or(member(event, "ts"), 0) >= first_end) take_kernel(event, &rows, &shares);
  add(table, "[");
  for (int i = 0; i < rows.count; i++) {
    const Row *row = &rows.rows[i];
    add_op_row(table, i, row->op, row->name, row->provider, (int64_t)(row->us * 1000 / runs), row->calls / runs);
    facts->provider_seen |= strcmp(row->provider, provider) == 0;
  }
  add(table, "]");
  tell_shares(&shares, facts);
  return rows.count > 0;
}
