/* Reads job.json and refuses it by naming the first member that cannot be used. */
#include "agent.h"

#define JOB_LIMIT (64u << 20)

static void need(bool ok, const Json *value, const char *what, const char *where, ...)
    __attribute__((format(printf, 4, 5)));
static void need(bool ok, const Json *value, const char *what, const char *where, ...) {
  if (ok) return;
  Text shown = {0};
  char place[256];
  va_list list;
  va_start(list, where);
  vsnprintf(place, sizeof place, where, list);
  va_end(list);
  add_json(&shown, value);
  if (shown.size > 60) memcpy(shown.data + 57, "...", 4);
  fail("bad_job", NULL, "job.json: %s must be %s, not %s", place, what, shown.data);
}

static bool is_number(const Json *value, double low) {
  return value && value->type == JSON_NUMBER && value->number >= low && value->number < 1e12;
}

static bool is_int(const Json *value, int64_t low, int64_t high) {
  int64_t ignored;
  return int_in(value, low, high, &ignored);
}

static bool is_text(const Json *value) { return value && value->type == JSON_STRING && value->size && value->plain; }
static bool is_object(const Json *value) { return value && value->type == JSON_OBJECT; }

static bool is_shape(const Json *value) {
  bool ok = value && value->type == JSON_ARRAY && value->count <= MAX_RANK;
  for (const Json *size = ok ? value->first : NULL; size; size = size->next) ok = ok && is_int(size, 0, INT32_MAX);
  return ok;
}

static void check_inputs(const Json *given, const char *where) {
  if (is_null(given)) return;
  need(is_object(given), given, "an object or null", "%s", where);
  const Json *count = member(given, "count"), *inputs = member(given, "inputs");
  need(is_int(count, 1, INT64_MAX), count, "an integer of at least 1", "%s.count", where);
  const Json *keep = member(given, "keep");
  bool known = is_null(keep) || keep->type == JSON_ARRAY;
  for (const Json *word = known && keep ? keep->first : NULL; word; word = word->next) {
    const char *text = string_or(word, "");
    known = known && (strcmp(text, "all") == 0 || strcmp(text, "argmax") == 0 || strcmp(text, "none") == 0);
  }
  need(known, keep, "a list of all, argmax, none", "%s.keep", where);
  need(inputs && inputs->type == JSON_ARRAY && inputs->count, inputs, "a list of tensors", "%s.inputs", where);
  int index = 0;
  for (const Json *tensor = inputs->first; tensor; tensor = tensor->next, index++) {
    static const char *const texts[] = {"name", "dtype", "file"};
    need(is_object(tensor), tensor, "an object", "%s.inputs[%d]", where, index);
    for (size_t i = 0; i < COUNT(texts); i++)
      need(is_text(member(tensor, texts[i])), member(tensor, texts[i]), "a text", "%s.inputs[%d].%s", where, index,
           texts[i]);
    need(is_shape(member(tensor, "shape")), member(tensor, "shape"), "a list of sizes", "%s.inputs[%d].shape", where,
         index);
  }
}

static void check_settings(const Json *settings, const char *where) {
  static const char *const times[] = {"min_time_s", "max_time_s", "warmup_max_s"};
  static const struct {
    const char *name;
    int low;
  } counts[] = {{"min_count", 1}, {"warmup_min_count", 0}, {"max_count", 1}};
  need(is_object(settings), settings, "an object", "%s", where);
  for (size_t i = 0; i < COUNT(times); i++)
    need(is_number(member(settings, times[i]), 0), member(settings, times[i]), "a number of at least 0", "%s.%s", where,
         times[i]);
  for (size_t i = 0; i < COUNT(counts); i++)
    need(is_int(member(settings, counts[i].name), counts[i].low, INT64_MAX), member(settings, counts[i].name),
         counts[i].low ? "an integer from 1" : "an integer from 0", "%s.%s", where, counts[i].name);
  const Json *rate = member(settings, "rate_hz");
  need(is_null(rate) || is_number(rate, 1e-6), rate, "a number over 0 or null", "%s.rate_hz", where);
  const Json *limit = member(settings, "max_temperature_milli_c");
  need(is_null(limit) || is_int(limit, 1, INT64_MAX), limit, "an integer over 0 or null", "%s.max_temperature_milli_c",
       where);
  const Json *busy = member(settings, "busy_cores");
  need(is_null(busy) || is_int(busy, 1, MAX_CPUS), busy, "an integer from 1 to 4096 or null", "%s.busy_cores", where);
}

static void check_trial(const Json *trial, const char *where) {
  static const char *const texts[] = {"runtime", "delegate", "format", "precision", "model", "scenario"};
  static const char *const maybe[] = {"python", "runtime_dir"}, *const objects[] = {"options", "env"},
                           *const tensors[] = {"probe", "dataset"};
  need(is_object(trial), trial, "an object", "%s", where);
  for (size_t i = 0; i < COUNT(texts); i++)
    need(is_text(member(trial, texts[i])), member(trial, texts[i]), "a text", "%s.%s", where, texts[i]);
  for (size_t i = 0; i < COUNT(maybe); i++) {
    const Json *value = member(trial, maybe[i]);
    need(is_null(value) || (value->type == JSON_STRING && value->plain), value, "a text or null", "%s.%s", where,
         maybe[i]);
  }
  need(is_int(member(trial, "threads"), 1, 4096), member(trial, "threads"), "an integer from 1 to 4096", "%s.threads",
       where);
  const Json *batch = member(trial, "batch"), *cores = member(trial, "cores"), *shapes = member(trial, "shapes");
  need(!batch || is_int(batch, 1, INT64_MAX), batch, "an integer of at least 1", "%s.batch", where);
  bool ok = is_null(cores) || (cores->type == JSON_ARRAY && cores->count);
  for (const Json *cpu = ok && cores ? cores->first : NULL; cpu; cpu = cpu->next)
    ok = ok && is_int(cpu, 0, MAX_CPUS - 1);
  need(ok, cores, "a list of CPU numbers or null", "%s.cores", where);
  need(is_null(shapes) || is_object(shapes), shapes, "an object", "%s.shapes", where);
  for (const Json *shape = is_null(shapes) ? NULL : shapes->first; shape; shape = shape->next)
    need(is_shape(shape), shape, "a list of sizes", "%s.shapes.%s", where, shape->key);
  for (size_t i = 0; i < COUNT(objects); i++) {
    const Json *value = member(trial, objects[i]);
    need(is_null(value) || is_object(value), value, "an object", "%s.%s", where, objects[i]);
  }
  const Json *env = member(trial, "env");
  for (const Json *value = is_null(env) ? NULL : env->first; value; value = value->next)
    need(value->type == JSON_STRING && value->plain && *value->key && !strchr(value->key, '='), value, "a text",
         "%s.env.%s", where, value->key);
  check_settings(member(trial, "settings"), textf("%s.settings", where));
  for (size_t i = 0; i < COUNT(tensors); i++)
    check_inputs(member(trial, tensors[i]), textf("%s.%s", where, tensors[i]));
  uint64_t seed;
  const Json *given = member(trial, "input_seed");
  need(!given || uint_of(given, &seed), given, "an integer", "%s.input_seed", where);
  if (strcmp(member(trial, "scenario")->text, "accuracy") == 0)
    need(!is_null(member(trial, "dataset")), member(trial, "dataset"), "given for scenario accuracy", "%s.dataset",
         where);
}

static bool is_baseline(const Json *value) {
  static const char *const groups[] = {"temperatures", "caps"};
  const Json *status = member(value, "status");
  if (!is_object(value) || !(is_null(status) || is_int(status, INT64_MIN, INT64_MAX))) return false;
  for (size_t i = 0; i < COUNT(groups); i++) {
    const Json *group = member(value, groups[i]);
    if (!is_object(group)) return false;
    for (const Json *one = group->first; one; one = one->next)
      if (!is_int(one, INT64_MIN, INT64_MAX)) return false;
  }
  return true;
}

static void check_repetitions(const Json *repetitions, const Json *trials) {
  static const char *const cools[] = {"max_wait_s", "tolerance_milli_c", "fixed_s"};
  need(repetitions && repetitions->type == JSON_ARRAY, repetitions, "a list", "repetitions");
  int index = 0;
  for (const Json *entry = repetitions->first; entry; entry = entry->next, index++) {
    need(is_object(entry), entry, "an object", "repetitions[%d]", index);
    const Json *trial = member(entry, "trial"), *number = member(entry, "repetition"),
               *deadline = member(entry, "deadline_s");
    need(is_text(trial) && member(trials, trial->text), trial, "the name of a trial of this job",
         "repetitions[%d].trial", index);
    need(is_int(number, 0, INT32_MAX), number, "an integer of at least 0", "repetitions[%d].repetition", index);
    for (const Json *other = repetitions->first; other != entry; other = other->next)
      need(strcmp(member(other, "trial")->text, trial->text) || strcmp(member(other, "repetition")->text, number->text),
           number, "there only once", "repetitions[%d].repetition", index);
    need(is_number(deadline, 0) && deadline->number > 0, deadline, "a number over 0", "repetitions[%d].deadline_s",
         index);
    const Json *cool = member(entry, "cool_down");
    need(is_null(cool) || is_object(cool), cool, "an object or null", "repetitions[%d].cool_down", index);
    for (size_t i = 0; i < COUNT(cools); i++)
      if (!is_null(member(cool, cools[i])))
        need(is_number(member(cool, cools[i]), 0), member(cool, cools[i]), "a number of at least 0",
             "repetitions[%d].cool_down.%s", index, cools[i]);
    const Json *baseline = member(cool, "baseline");
    need(is_null(baseline) || is_baseline(baseline), baseline, "an object of temperatures, caps and status",
         "repetitions[%d].cool_down.baseline", index);
  }
}

static void check_job(const Json *job) {
  need(is_object(job), job, "an object", "the document");
  const Json *protocol = member(job, "protocol");
  if (!is_int(protocol, PROTOCOL, PROTOCOL)) {
    Text said = {0};
    add_json(&said, protocol);
    fail("protocol_version", "use host and agent of the same socbench version",
         "the job speaks protocol %s and this agent speaks %d", said.data, PROTOCOL);
  }
  const Json *session = member(job, "session"), *orphan = member(job, "orphan_after_s"),
             *telemetry = member(job, "telemetry");
  need(session && session->type == JSON_STRING, session, "a text", "session");
  need(is_null(orphan) || (is_number(orphan, 0) && orphan->number > 0), orphan, "a number over 0 or null",
       "orphan_after_s");
  need(is_null(telemetry) || is_object(telemetry), telemetry, "an object or null", "telemetry");
  static const char *const intervals[] = {"interval_s", "slow_interval_s"};
  for (size_t i = 0; i < COUNT(intervals); i++)
    need(!member(telemetry, intervals[i]) || is_number(member(telemetry, intervals[i]), 0.01),
         member(telemetry, intervals[i]), "a number of at least 0.01", "telemetry.%s", intervals[i]);
  const Json *after = member(telemetry, "after_s");
  need(!after || is_number(after, 0), after, "a number of at least 0", "telemetry.after_s");
  const Json *trials = member(job, "trials");
  need(is_object(trials), trials, "an object", "trials");
  for (const Json *trial = trials->first; trial; trial = trial->next)
    check_trial(trial, textf("trials.%s", trial->key));
  check_repetitions(member(job, "repetitions"), trials);
}

Json *load_job(const char *folder) {
  const char *problem;
  char *path = textf("%s/job.json", folder);
  Text text = {0};
  if (!read_file(path, JOB_LIMIT, &text)) fail("bad_job", NULL, "%s cannot be read: %s", path, strerror(errno));
  Json *job = json_parse(text.data, text.size, &problem);
  if (!job) fail("bad_job", NULL, "%s is not a JSON document: it has %s", path, problem);
  check_job(job);
  return job;
}
