/* What runtime_onnxruntime.c and onnxruntime_profile.c share. */
#ifndef SOCBENCH_ONNXRUNTIME_H
#define SOCBENCH_ONNXRUNTIME_H

#include "agent.h"

typedef struct {
  bool provider_seen;   /* the provider that was asked for ran something */
  const char *executed; /* the precision that most of the kernels' time went into, or NULL */
  Text shares;          /* members of an object: share of that time by precision */
} ProfileFacts;

/* Reads what a profiled session of `runs` and one run before them wrote; rows of `ops` go into `table`. False
 * without. */
bool read_onnxruntime_profile(const char *path, const char *provider, int runs, ProfileFacts *facts, Text *table);

#endif
