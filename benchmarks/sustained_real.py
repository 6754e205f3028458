"""Real sustained runs on this machine with an injected slow-down that must be found, dated and explained.

``contention``: two busy loops start in the middle of the run, pinned to the core of the repetition.
``quota``: the repetition's control group gets half of a core (needs a writable cgroup).
``--reserve`` first puts the repetition into a control group that comes before everything else on its core, for machines
that others use at the same time; the loops then join it.
Prints one line of JSON a run (docs/benchmarks.md): ``dated_within_2_s`` and ``cause_right`` say whether the run is
dated by the injected step, ``step_found`` whether that is among its steps within 2 s, 20 % large, with the right cause:
on a machine whose neighbours slow it down for half a minute before, the run is rightly dated by them. Exits with 1 when
a step was not found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUOTA_US, PERIOD_US = 50_000, 100_000
BUSY = "while True: pass"
CAUSES = {"contention": "contention", "quota": "cpu_quota"}
WITHIN_S, LEAST = 2.0, 1.2


def run(kind: str, duration_s: float, at_s: float, model: str, home: Path, *, reserve: bool = False) -> dict[str, Any]:
    """Run once and return what was injected and what was found; times on this machine's monotonic clock."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "harness"), "SOCBENCH_STORE": str(home / "store")}
    environment["SOCBENCH_DEVICE_ROOT"] = str(home / "device")
    command = [sys.executable, "-m", "socbench", "sustained", model, "--duration", f"{duration_s:g}s", "--cores", "0"]
    process = subprocess.Popen(
        [*command, "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    undo: list[Callable[[], Any]] = []
    try:
        child = _wait_for_measuring(home)
        group = _group(child, undo) if reserve or kind == "quota" else None
        time.sleep(at_s)
        injected_ns = time.monotonic_ns()
        _inject(kind, child, group, undo)
        answer = process.communicate(timeout=duration_s + 300)[0]
    finally:
        process.kill()
        for action in reversed(undo):
            action()
    (found,) = json.loads(answer)
    start_ns = _first_sample_ns(home)
    seen = [one for one in found["steps"] or [] if abs(one["at_s"] - (injected_ns - start_ns) / 1e9) <= WITHIN_S]
    step = max(seen, key=lambda one: one["lasting_ratio"], default=None)
    names = ("baseline_p50_ns", "sustained_p50_ns", "slowdown", "pace_slowdown", "throttle_at_s", "cause", "throttled")
    injected_at_s, at = (injected_ns - start_ns) / 1e9, found["throttle_at_s"]
    return {
        "kind": kind,
        "duration_s": duration_s,
        "load_average": os.getloadavg()[2],
        "injected_at_s": round(injected_at_s, 2),
        "dated_within_2_s": at is not None and abs(at - injected_at_s) <= WITHIN_S,
        "cause_right": found["cause"] == CAUSES[kind],
        "step_found": step is not None and step["lasting_ratio"] >= LEAST and step["cause"] == CAUSES[kind],
        "step": step,
        **{name: found[name] for name in (*names, "evidence", "samples", "status")},
    }


def _wait_for_measuring(home: Path) -> int:
    """Return the pid of the repetition once it measures."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for path in (home / "device" / "sessions").glob("*/events.jsonl"):
            if '"phase":"measured"' in path.read_text(errors="replace"):
                supervisor = int((path.parent / "pid").read_text())
                children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
                named = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
                return next(int(pid) for pid, words in named.items() if b"\0child\0" in words)
        time.sleep(0.05)
    raise SystemExit("nothing was measured within two minutes")


def _inject(kind: str, child: int, group: Path | None, undo: list[Callable[[], Any]]) -> None:
    if kind == "quota":
        assert group is not None
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        else:
            (group / "cpu.max").write_text(f"{QUOTA_US} {PERIOD_US}")
        return
    for _ in range(2):
        loop = subprocess.Popen([sys.executable, "-c", BUSY])
        undo += [loop.wait, loop.kill]
        os.sched_setaffinity(loop.pid, os.sched_getaffinity(child))
        if group is not None:
            (group / "cgroup.procs").write_text(str(loop.pid))


def _group(child: int, undo: list[Callable[[], Any]]) -> Path:
    """Move the repetition into a control group of its own (v2 or v1) of the largest weight."""
    first = Path("/sys/fs/cgroup/cpu")
    group = (first if (first / "cgroup.procs").exists() else Path("/sys/fs/cgroup")) / f"socbench-{os.getpid()}"
    group.mkdir()
    undo.append(lambda: _remove(group))
    shares = group / "cpu.shares"
    (shares if shares.exists() else group / "cpu.weight").write_text("262144" if shares.exists() else "10000")
    (group / "cgroup.procs").write_text(str(child))
    return group


def _remove(group: Path) -> None:
    until = time.monotonic() + 10
    while (group / "cgroup.procs").read_text().strip() and time.monotonic() < until:
        time.sleep(0.05)
    group.rmdir()


def _first_sample_ns(home: Path) -> int:
    import pyarrow.parquet as pq

    (path,) = (home / "store" / "sessions").glob("*/samples.parquet")
    table = pq.read_table(path, columns=["start_ns", "phase"])
    return int(min(t for t, p in zip(*(table[c].to_pylist() for c in ("start_ns", "phase")), strict=True) if p == 2))


def main() -> None:
    """Run the experiments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--at-minute", type=float, default=6.0)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--reserve", action="store_true")
    parser.add_argument("--kind", choices=("contention", "quota"), action="append")
    options = parser.parse_args()
    all_found = True
    for kind in options.kind or ("contention", "quota"):
        with tempfile.TemporaryDirectory(prefix="socbench-") as home:
            times = (60 * options.minutes, 60 * options.at_minute)
            found = run(kind, *times, options.model, Path(home), reserve=options.reserve)
        print(json.dumps(found), flush=True)
        all_found &= found["step_found"]
    sys.exit(0 if all_found else 1)


if __name__ == "__main__":
    main()
