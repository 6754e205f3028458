"""A device that sleeps, and a time of day that is set, while something is measured.

A library put in front of libc's ``clock_gettime`` shifts clocks by what a file says: a suspend as Linux shows it (the
clock since boot and the time of day jump, the monotonic one stands still), or a time of day that was set.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MS = 1_000_000
S = 1_000_000_000
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static long shift(const char *name) {
  const char *path = getenv(name);
  FILE *file = path ? fopen(path, "r") : NULL;
  long seconds = 0;
  if (file) {
    if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
    fclose(file);
  }
  return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, now);
  if (clock == CLOCK_BOOTTIME) now->tv_sec += shift("TEST_SLEPT");
  if (clock == CLOCK_REALTIME) now->tv_sec += shift("TEST_SLEPT") + shift("TEST_SET");
  return status;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clocks")
    (folder / "clocks.c").write_text(SHIM)
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "clocks.so"), str(folder / "clocks.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "clocks.so"


def shifted(agent, jobs, shim, tmp_path, monkeypatch, name, seconds):
    """Run a job of 2.5 s and shift clocks once it measures; returns its events."""
    files = {variable: tmp_path / variable for variable in ("TEST_SLEPT", "TEST_SET")}
    for variable, path in files.items():
        path.write_text("0")
        monkeypatch.setenv(variable, str(path))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    script = {"clock": "real", "latency_ns": 5 * MS}
    folder = agent.job(jobs.null(script, settings={"min_time_s": 2.5, "max_time_s": 2.5}))
    agent.call("start", folder)
    agent.wait_for(folder, lambda events: any(event.get("phase") == "measured" for event in events))
    scratch = tmp_path / "next"
    scratch.write_text(str(seconds))
    os.replace(scratch, files[name])
    return agent.wait_for(folder, lambda events: events[-1]["type"] == "end")


def test_a_device_that_sleeps_is_noticed_and_the_gap_is_said(agent, jobs, of, one, shim, tmp_path, monkeypatch):
    events = shifted(agent, jobs, shim, tmp_path, monkeypatch, "TEST_SLEPT", 300)
    first, second = of(events, "clock")
    assert "gap_ns" not in first
    assert 300 * S <= second["gap_ns"] < 310 * S
    slept = (second["wall_ns"] - first["wall_ns"]) - (second["monotonic_ns"] - first["monotonic_ns"])
    assert slept == pytest.approx(300 * S, abs=0.1 * S)
    assert one(events, "done")["stopped_by"] in ("min", "max_time"), "the samples' clock did not move"


@pytest.mark.parametrize("seconds", [4000, -4000])
def test_a_time_of_day_that_is_set_gives_a_pair_of_each_side_and_voids_nothing(
    agent, jobs, of, one, shim, tmp_path, monkeypatch, seconds
):
    events = shifted(agent, jobs, shim, tmp_path, monkeypatch, "TEST_SET", seconds)
    first, second = of(events, "clock")
    assert "gap_ns" not in second
    moved = (second["wall_ns"] - first["wall_ns"]) - (second["monotonic_ns"] - first["monotonic_ns"])
    assert moved == pytest.approx(seconds * S, abs=0.1 * S)
    batches = of(events, "samples", phase="measured")
    assert all(0 <= gap < S for batch in batches for gap in batch["gap_ns"])
    assert one(events, "done")
