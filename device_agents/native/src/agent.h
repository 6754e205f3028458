/* The native agent: what its files share. The contract is docs/protocol.md; device_agents/python is the other agent. */
#ifndef SOCBENCH_AGENT_H
#define SOCBENCH_AGENT_H

#include "sys.h"

#define AGENT_VERSION "0.1.0"
#define PROTOCOL 1
#define MAX_RANK 8
#define MAX_CPUS 4096
#define TAIL_CHARS 4000
#define TOO_WARM "too_warm" /* the file by which the supervisor tells a repetition to stop measuring */
#define SECOND_NS INT64_C(1000000000)
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* --- errors (util.c): every process of the agent does one thing, so a failure ends it, as its role asks --- */
typedef void FailHandler(const char *code, const char *message, const char *advice);
extern FailHandler *on_fail;
_Noreturn void fail(const char *code, const char *advice, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- growing text (util.c) -------------------------------------------------------------------------------------- */
typedef struct {
  char *data; /* always ends with a NUL that `size` does not count */
  size_t size, room;
} Text;
void add_bytes(Text *text, const void *data, size_t size);
void add(Text *text, const char *string);
void addf(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void drop_front(Text *text, size_t size);
char *textf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- JSON (json.c) ---------------------------------------------------------------------------------------------- */
typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;
typedef struct Json {
  JsonType type;
  bool truth, integer, plain; /* plain: a string without NUL */
  double number;
  const char *text; /* of a string: decoded, with a NUL at the end; of a number: as it was written */
  size_t size;
  const char *key;            /* in an object */
  struct Json *first, *next;  /* members */
  int count;
} Json;
Json *json_parse(const char *text, size_t size, const char **problem);
void json_free(Json *value);
const Json *member(const Json *object, const char *name);
const char *string_or(const Json *value, const char *otherwise);
double number_or(const Json *value, double otherwise);
bool int_in(const Json *value, int64_t low, int64_t high, int64_t *result);
bool uint_of(const Json *value, uint64_t *result);
bool is_null(const Json *value); /* also of a member that is not there */
void add_quoted(Text *text, const char *string, size_t size);
void add_string(Text *text, const char *string); /* null for NULL */
void add_json(Text *text, const Json *value);
void add_int_or_null(Text *text, int64_t value, bool known);
void comma(Text *text);
void put(Text *text, const char *name, const char *json); /* a member of an object; of "" the value follows */
void put_string(Text *text, const char *name, const char *value);
void put_int(Text *text, const char *name, int64_t value);
void put_known(Text *text, const char *name, int64_t value, bool known);
void put_bool(Text *text, const char *name, bool value);

/* --- the system (util.c) ---------------------------------------------------------------------------------------- */
int64_t clock_ns(int clock);
int64_t monotonic_ns(void);
int64_t boot_ns(void);
void sleep_ns(int64_t ns);
void *take(size_t size); /* zeroed; fails with out_of_memory */
char *copy_of(const char *string, size_t size);
bool read_file(const char *path, size_t limit, Text *into);
bool exists(const char *path);
char *file_text(const char *path, size_t limit); /* NULL when it can't be read */
char *stripped_text(const char *path);
bool read_integer(const char *path, int64_t *value);
bool write_all(int fd, const void *data, size_t size);
bool no_space(void); /* errno says that a disk or a quota is full */
const char *sysfs(const char *format, ...) __attribute__((format(printf, 1, 2)));
char **list_folder(const char *path, const char *prefix, int *count); /* names, sorted as people count */
bool find_line(const char *text, const char *start, const char **rest);
bool contains_i(const char *text, const char *part);
bool contains_any(const char *text, const char *const *parts, size_t count);
bool ends_with(const char *text, const char *end);
const char *base_name(const char *path);
char *boot_id(void);
char *program_path(void);
const char *signal_name(int number);
char *cpu_name(void);
int thread_count(void);
typedef struct {
  uint32_t state[8];
  uint64_t size;
  uint8_t block[64];
} Sha256;
void sha256_begin(Sha256 *sum);
void sha256_add(Sha256 *sum, const void *data, size_t size);
void sha256_end(Sha256 *sum, char hex[65]);

/* --- processes (process.c) -------------------------------------------------------------------------------------- */
typedef struct {
  int pid, events, output; /* the pipes are -1 once they are closed */
  Text buffer, tail;
  bool ended;
  int status;
} Child;
bool child_start(Child *child, char *const argv[], char *const env[], const char *folder, bool own);
bool child_follow(Child *child, int64_t timeout_ns, size_t limit);
size_t child_read(int *fd, char *piece, size_t room);
bool child_ended(Child *child);
void child_kill(Child *child);
void child_reap(Child *child);
void child_close(Child *child);
char **child_environment(const Json *trial);
int64_t oom_kills(void);
bool capture(char *const argv[], int64_t timeout_ns, size_t limit, Text *into, int *ended);

/* --- tensors (tensor.c) ----------------------------------------------------------------------------------------- */
typedef enum {
  DTYPE_NONE, FLOAT32, FLOAT16, BFLOAT16, FLOAT64, INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, UINT64, BOOL
} Dtype;
typedef struct {
  char *name;
  const char *alias; /* its name in the model's signature, or NULL */
  Dtype dtype;
  int rank;
  int64_t shape[MAX_RANK]; /* -1: dynamic */
  bool quantized;
  double scale;
  int64_t zero_point;
} Tensor;
Dtype dtype_of(const char *name);
const char *dtype_name(Dtype dtype);
size_t dtype_size(Dtype dtype);
size_t tensor_bytes(const Tensor *tensor);
bool is_float(Dtype dtype);
double get_element(Dtype dtype, const void *data, size_t index);
void put_element(Dtype dtype, void *data, size_t index, double value);
int64_t element_count(const int64_t *shape, int rank); /* -1: too many, or dynamic */
void add_shape(Text *text, const int64_t *shape, int rank);
void add_tensors(Text *text, const Tensor *tensors, int count);
void want_shapes(Tensor *tensors, int count, const Json *trial, bool fixed_only, bool *changed);
void seeded_tensor(uint64_t seed, const Tensor *tensor, const int64_t *shape, void *data);
typedef struct {
  Tensor spec;
  const uint8_t *data;
  size_t one_bytes;
} Given;
typedef struct {
  int64_t count;
  int tensors;
  Given *given;
} Inputs;
Inputs read_inputs(const Json *document, const char *where, const Json *trial, const Tensor *model, int count);

/* --- runtimes --------------------------------------------------------------------------------------------------- */
typedef struct Session Session;
struct Session {
  const Json *trial;
  const char *model;
  bool (*run)(Session *);                        /* one inference to completion; false: `problem` says why */
  void (*bind)(Session *, void *const *buffers); /* in the model's order, of its types and shapes */
  const void *(*output)(Session *, int index, Dtype *dtype, int64_t *shape, int *rank);
  void (*evidence)(Session *);                   /* sets `better` when more is known after everything timed */
  int64_t (*clock)(Session *);                   /* null runtime only */
  void (*wait_until)(Session *, int64_t due_ns);
  void (*on_phase)(Session *, const char *phase);
  const char *problem;
  Tensor *inputs, *outputs;
  int input_count, output_count;
  bool better;                                   /* `evidence` found more than was said */
  const Json *script;                            /* null runtime only: members of `loaded` to override */
  const char *version, *delegate, *accelerator, *delegation, *evidence_kind, *precision;
  bool emulated;
  int64_t compile_ns;                            /* -1: not known; so are the three below */
  int nodes_total, nodes_delegated, partitions, threads;
  Text details;
};
typedef struct {
  const char *name, *format;
  void (*import)(const Json *trial);
  Session *(*load)(const char *model, const Json *trial);
  void (*probe)(Text *entry);
  bool (*profile)(Session *, void *const *buffers, Text *rows);
} Runtime;
void bind_input(Session *session, const Inputs *inputs, int64_t index, void **buffers); /* tensor.c */
extern const Runtime null_runtime, onnxruntime_runtime, litert_runtime;
extern int current_repetition;
const Runtime *find_runtime(const char *name);
char *runtime_names(void);
Session *new_session(size_t size, const char *model, const Json *trial); /* what is not known of it is said so */
int threads_of(const Json *trial);
bool asks(const Json *trial, const char *name, const char *value); /* whether a member is this text */
void add_delegate(Text *entry, const char *name, const char *accelerator, const char *precisions, const char *reason);
void add_op_row(Text *rows, int index, const char *op, const char *name, const char *unit, int64_t ns, int calls);
char *find_library(const Json *trial, const char *const *names, char **folder); /* NULL: nowhere */
void *open_library(const char *path, const char *what);
_Noreturn void delegate_missing(const char *runtime, const char *delegate, const char *have);
void capture_log_begin(void);
char *capture_log_end(void);

/* What a .tflite file says of itself (tflite_file.c). */
typedef struct {
  int nodes;
  const char *precision;
  Text macs; /* JSON: multiply-accumulates by precision */
} TfliteFacts;
bool tflite_facts(const char *path, TfliteFacts *facts);

/* --- parts of the agent ----------------------------------------------------------------------------------------- */
Json *load_job(const char *folder);                                   /* job.c; fails with bad_job, protocol_version */
int child_main(const char *folder, int index, int fd);                /* child.c */
int supervise(const char *folder);                                    /* supervisor.c */
void write_refusal(const char *folder, const char *code, const char *message, const char *advice);
void refuse_used(const char *folder);
_Noreturn void folder_unwritable(const char *folder); /* says why, by errno */
int serve_telemetry(double interval_s, double slow_interval_s, int fd); /* telemetry.c */
int64_t cpu_ticks(int pid);
typedef void TakeGroup(void *to, const char *path, int64_t throttled_ns);
void for_cpu_groups(int pid, TakeGroup *take_group, void *to); /* counters.c */
void put_power(Text *text);                                    /* android.c */
typedef struct {
  char *name;
  int64_t value;
  bool cap; /* of a clock; else a temperature */
} Reading;
typedef struct {
  Reading *readings;
  int count;
  bool has_status;
  int64_t status;
} Cooling;
bool read_cooling(Cooling *state); /* cooling.c */
void told_cooling(const Json *told, Cooling *state);
void free_cooling(Cooling *state);
void put_cooling(Text *text, const char *name, const Cooling *state);
int put_not_cool(Text *text, const Cooling *baseline, const Cooling *state, double tolerance_milli_c);
void identify(Text *into);                                            /* identify.c */
int gpu_facts(int fd);

#endif
