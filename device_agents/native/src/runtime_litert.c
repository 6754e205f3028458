/* LiteRT (TFLite). Its two C APIs are two libraries, and each has delegates that the other lacks: libLiteRt.so
 * (compiled models: CPU, GPU, NPU by its vendor) and libtensorflowlite_jni.so or _c.so (the interpreter: XNNPACK,
 * GPU, NNAPI, any external delegate). `options.api` (`compiled`, `interpreter`) chooses where both have the delegate. */
#include "litert.h"

static const char *const COMPILED[] = {"libLiteRt.so", NULL};
static const char *const INTERPRETER[] = {"libtensorflowlite_c.so", "libtensorflowlite_jni.so", "libtensorflowlite.so",
                                          NULL};
static const char *const DELEGATES[] = {"cpu:xnnpack",  "cpu:builtin", "cpu:reference", "gpu:opencl",
                                        "gpu:gl",       "gpu:webgpu",  "nnapi",         "npu:qualcomm",
                                        "npu:mediatek", "npu:google",  "npu:samsung",   "npu:intel"};
static bool has_compiled, has_interpreter;
static const char *compiled_folder;

static const Dtype DTYPES[] = {DTYPE_NONE, FLOAT32,    INT32,  UINT8,   INT64,      DTYPE_NONE, BOOL,
                               INT16,      DTYPE_NONE, INT8,   FLOAT16, FLOAT64,    DTYPE_NONE, UINT64,
                               DTYPE_NONE, DTYPE_NONE, UINT32, UINT16,  DTYPE_NONE, BFLOAT16};

Dtype litert_dtype(int type) { return type >= 0 && type < (int)COUNT(DTYPES) ? DTYPES[type] : DTYPE_NONE; }

void *litert_symbol(void *library, const char *name, const char *path) {
  void *symbol = dlsym(library, name);
  if (!symbol)
    fail("runtime_broken", "fetch the version that this agent knows: socbench runtimes fetch PLATFORM",
         "%s lacks %s: it is another version or build", path, name);
  return symbol;
}

/* Reads what the runtime logged of the first graph: "Replacing N out of M node(s) ... yielding P partitions", "N nodes
 * delegated out of M nodes with P partitions", "selected N ops, from a total of M ops. resulted in P partitions". */
bool litert_has_counts(const char *log, bool xnnpack, int *nodes, int *total, int *partitions) {
  static const struct { const char *lead, *between, *before_partitions;
  } lines[] = {{"Replacing ", " out of ", "yielding "},
               {" delegate: ", " nodes delegated out of ", " nodes with "},
               {"selected ", " ops, from a total of ", "resulted in "}};
  for (size_t i = 0; i < COUNT(lines); i++) {
    int sum = 0, parts = 0;
    bool any = false;
    for (const char *at = log; (at = strstr(at, lines[i].lead)); at++) {
      const char *number = at + strlen(lines[i].lead), *middle = strstr(number, lines[i].between),
                 *end = strchr(number, '\n');
      const char *last = middle ? strstr(middle, lines[i].before_partitions) : NULL, *line = at, *name;
      while (line > log && line[-1] != '\n') line--;
      if (line[0] && line[1] == '/') continue; /* logcat's copy of a line */
      /* XNNPACK may take what the delegate asked for left over: that is the CPU */
      if (!xnnpack && (name = strstr(line, "XNNPack")) && (!end || name < end)) continue;
      if (!middle || !last || (end && (middle > end || last > end)) || *number < '0' || *number > '9') continue;
      sum += atoi(number);
      *total = atoi(middle + strlen(lines[i].between));
      parts += atoi(last + strlen(lines[i].before_partitions));
      any = true;
    }
    if (any) return *nodes = sum, *partitions = parts, true;
  }
  return false;
}

/* Fills in what the file and the log tell; the caller has set `delegate`. */
void litert_described(Session *session, const char *log, const TfliteFacts *facts) {
  int nodes, total, partitions;
  session->nodes_total = facts->nodes ? facts->nodes : -1;
  bool xnnpack = strcmp(session->delegate, "cpu:xnnpack") == 0;
  if (litert_has_counts(log, xnnpack, &nodes, &total, &partitions)) {
    session->nodes_total = total;
    session->nodes_delegated = nodes;
    session->partitions = partitions;
    session->delegation = nodes == total ? "full" : nodes ? "partial" : "fell_back";
    session->evidence_kind = "reported";
  }
#if defined(SOCBENCH_BARE_BIONIC) || defined(__ANDROID__)
  /* On Android these lines are always logged; where there is none, the delegate took nothing */
  else if (strstr(log, "Initialized TensorFlow Lite runtime")) {
    session->nodes_delegated = session->partitions = 0;
    session->delegation = "fell_back";
    session->evidence_kind = "inferred";
  }
#endif
}

/* Of what is logged only an error says why. */
const char *litert_why(const char *log) {
  const char *last = "it does not say why";
  for (const char *line = log; (line = strstr(line, "ERROR: ")); line++) last = line + 7;
  return textf("%.*s", strcspn(last, "\n") < 500 ? (int)strcspn(last, "\n") : 500, last);
}

void litert_failed(const char *model, const char *delegate, const char *log, bool resized) {
  const char *name = base_name(model), *said = litert_why(log);
  if (contains_i(log, "out of memory") || contains_i(log, "bad_alloc"))
    fail("out_of_memory", NULL, "LiteRT has no memory for %s: %s", name, said);
  if (contains_i(log, "unresolved custom op") || contains_i(log, "find op for builtin") ||
      contains_i(log, "builtin opcode"))
    fail("op_unsupported", NULL, "LiteRT lacks an operator of %s: %s", name, said);
  if (strncmp(delegate, "cpu:", 4))
    fail("delegate_missing", NULL, "%s refuses %s: %s", delegate, name, said);
  if (resized) fail("shape_mismatch", NULL, "%s cannot take the shapes asked for: %s", name, said);
  fail("model_invalid", NULL, "%s is not a model that LiteRT can load: %s", name, said);
}

/* libLiteRt.so does not tell its version: read it off the wheel beside it, or the file that the fetcher leaves. */
const char *litert_version(const char *folder) {
  int count;
  char *text = stripped_text(textf("%s/litert.version", folder)),
       **names = list_folder(textf("%s/..", folder), "ai_edge_litert-", &count);
  for (int i = 0; i < count && !text; i++)
    if (ends_with(names[i], ".dist-info")) text = copy_of(names[i] + 15, strlen(names[i]) - 15 - 10);
  return text;
}

static void import(const Json *trial) {
  char *folder, *path;
  const char *delegate = string_or(member(trial, "delegate"), ""),
             *api = string_or(member(member(trial, "options"), "api"), "");
  if (strcmp(api, "compiled") && (path = find_library(trial, INTERPRETER, &folder))) {
    bool needed = strcmp(api, "interpreter") == 0 || !trial || interpreter_has(delegate);
    if (needed) interpreter_import(path, folder), has_interpreter = true;
  }
  if (!(has_interpreter && trial) && strcmp(api, "interpreter") && (path = find_library(trial, COMPILED, &folder))) {
    compiled_import(path, folder);
    compiled_folder = folder;
    has_compiled = true;
  }
  if (!has_compiled && !has_interpreter && (path = find_library(trial, INTERPRETER, &folder)))
    interpreter_import(path, folder), has_interpreter = true; /* it lacks the delegate, which will be said */
  if (!has_compiled && !has_interpreter)
    fail("runtime_missing", "socbench runtimes fetch PLATFORM, or name the folder that holds it in SOCBENCH_RUNTIMES",
         "none of libLiteRt.so, libtensorflowlite_c.so and libtensorflowlite_jni.so is on this device");
}

static bool available(const char *delegate) {
  return (has_interpreter && interpreter_has(delegate)) || (has_compiled && compiled_has(delegate));
}

static Session *load(const char *model, const Json *trial) {
  const char *delegate = member(trial, "delegate")->text;
  if (has_interpreter && interpreter_has(delegate)) return interpreter_load(model, trial);
  if (has_compiled && compiled_has(delegate)) return compiled_load(model, trial);
  Text have = {0};
  add(&have, "");
  for (size_t i = 0; i < COUNT(DELEGATES); i++)
    if (available(DELEGATES[i])) addf(&have, "%s%s", have.size ? ", " : "", DELEGATES[i]);
  delegate_missing("litert", delegate, have.data);
}

static bool profile(Session *session, void *const *buffers, Text *rows) {
  return has_compiled && compiled_profile(session, buffers, rows);
}

static void probe(Text *entry) {
  import(NULL);
  put_string(entry, "version", has_interpreter ? interpreter_version() : litert_version(compiled_folder));
  add(entry, ",\"formats\":[\"tflite\"],\"error\":null,\"delegates\":[");
  for (size_t i = 0; i < COUNT(DELEGATES); i++) {
    bool cpu = strncmp(DELEGATES[i], "cpu:", 4) == 0, there = available(DELEGATES[i]);
    add_delegate(entry, DELEGATES[i], cpu && there ? cpu_name() : NULL,
                 cpu ? "[\"fp32\",\"int8\",\"int8_dynamic\"]" : NULL,
                 there ? NULL : "its library is not beside the runtime's");
  }
  add(entry, "]");
}

const Runtime litert_runtime = {"litert", "tflite", import, load, probe, profile};
