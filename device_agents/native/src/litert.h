/* What runtime_litert.c (which API serves a delegate), litert_compiled.c and litert_interpreter.c share. */
#ifndef SOCBENCH_LITERT_H
#define SOCBENCH_LITERT_H

#include "agent.h"

Dtype litert_dtype(int type); /* TfLiteType and LiteRtElementType are the same numbers */
void *litert_symbol(void *library, const char *name, const char *path);
void litert_described(Session *session, const char *log, const TfliteFacts *facts); /* reads the counts off the log */
bool litert_has_counts(const char *log, bool xnnpack, int *nodes, int *total, int *partitions);
const char *litert_why(const char *log); /* the last error in it */
_Noreturn void litert_failed(const char *model, const char *delegate, const char *log, bool resized);
const char *litert_version(const char *folder);

void compiled_import(const char *path, const char *folder);
Session *compiled_load(const char *model, const Json *trial);
bool compiled_has(const char *delegate); /* in this library and folder */
bool compiled_profile(Session *session, void *const *buffers, Text *rows);

void interpreter_import(const char *path, const char *folder);
Session *interpreter_load(const char *model, const Json *trial);
bool interpreter_has(const char *delegate);
const char *interpreter_version(void);

#endif
