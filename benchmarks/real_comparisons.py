"""How often comparisons and verdicts are right on this machine: real runs, real analysis, known truth.

    python benchmarks/real_comparisons.py PART [--count N] [--json docs/data/real_comparisons.json]

Parts: ``aa`` compares a model with itself (``socbench run --ab``, 14 pairs), ``ab`` with itself plus a busy wait of a
known length in every inference, ``loads`` runs it while something else runs, ``quiet`` without, ``summary`` prints
the tables of docs/benchmarks.md. Every result is appended to the JSON file at once, so a part can be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]
MODEL: Final = ("resnet8", "--runtime", "litert", "--precision", "fp32", "--scenario", "single_stream")
ARM: Final = "runtime=litert"
MIN_TIME_S: Final = 0.15
EFFECT: Final = 0.03
SLOWED: Final = 0.03
MARGIN: Final = 0.03
QUOTA_GROUP: Final = Path("/sys/fs/cgroup/cpu/socbench-experiment")
LOADS: Final = ("one_process_a_core", "memory_bandwidth", "bursts", "cpu_quota")
FITTING: Final = {
    "one_process_a_core": {"preempted", "background_load"},
    "memory_bandwidth": {"background_load", "preempted"},
    "bursts": {"preempted", "background_load"},
    "cpu_quota": {"cpu_quota", "preempted"},
}


# --- running the command ---------------------------------------------------------------------------------


def socbench(*words: str, store: Path, before: Callable[[], None] | None = None) -> Any:
    """Run the command as a user does, in a process of its own; returns what it prints as JSON."""
    command = [sys.executable, "-m", "socbench", *words, "--store", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=before, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return json.loads(done.stdout)


def run_with_spin_wait(spin_wait_ns: int, store: Path) -> None:
    """``socbench run --ab`` in a process whose second arm waits busily: the option of the job that agents know."""
    from socbench.cli.progress import watching
    from socbench.plan import RunRequest
    from socbench.session import run as session_run
    from socbench.session import run_session
    from socbench.session.models import Gatherer

    class Slowing(Gatherer):
        def gather(self, plan: Any, devices: Any) -> Any:
            gathered = super().gather(plan, devices)
            for trial in plan.trials:
                if trial.ab_arm == "B" and trial.trial in gathered.files:
                    options = {"spin_wait_ns": spin_wait_ns}
                    gathered.files[trial.trial] = replace(gathered.files[trial.trial], options=options)
            return gathered

    session_run.Gatherer = Slowing  # type: ignore[misc]
    request = RunRequest(
        targets=("resnet8",), precisions=("fp32",), scenarios=("single_stream",), ab=(ARM, ARM), min_time_s=MIN_TIME_S
    )
    with watching() as progress:
        run_session(request, store=store, progress=progress)


# --- one comparison, and the naive ways beside it --------------------------------------------------------


def compared(store: Path) -> Json:
    """What socbench decides of the latest session, and what one run of each arm would have said."""
    from socbench import results

    (pair,) = socbench("compare", "latest", store=store)
    rows = {row.ab_arm: row for row in results.trial_rows(store)}
    samples = results.open_results(store).samples("latest")
    first = [
        samples[(samples.trial == rows[arm].trial) & (samples.repetition == 1) & (samples.phase == 2)]
        .latency_ns.to_numpy()
        .astype(float)
        for arm in "AB"
    ]
    return {
        "decision": pair["decision"],
        "ratio": pair["ratio"],
        "ratio_low": pair["ratio_low"],
        "ratio_high": pair["ratio_high"],
        "base_p50_ns": pair["base_p50_ns"],
        "verdicts": [rows[arm].verdict for arm in "AB"],
        "mean_of_50_one_run": _naive_mean(*first),
        "bootstrap_over_one_run": _naive_bootstrap(*first),
    }


def _naive_mean(base: Any, candidate: Any) -> str:
    ratio = candidate[:50].mean() / base[:50].mean()
    return "slower" if ratio > 1 + MARGIN else "faster" if ratio < 1 / (1 + MARGIN) else "no_difference"


def _naive_bootstrap(base: Any, candidate: Any) -> str:
    import numpy as np
    from socbench.analysis import compare, statistics

    generator = np.random.default_rng(1)
    drawn = [
        np.median(arm[generator.integers(0, arm.size, (500, arm.size))], axis=1)
        for arm in (base[:500], candidate[:500])
    ]
    low, high = np.quantile(drawn[1] / drawn[0], [0.025, 0.975])
    return compare.decide(statistics.Ratio(1.0, float(low), float(high), None, None), MARGIN)


def one_aa() -> Json:
    """Compare a model with itself."""
    with tempfile.TemporaryDirectory(prefix="socbench-aa-") as folder:
        socbench("run", *MODEL, "--ab", ARM, ARM, "--min-time", str(MIN_TIME_S), store=Path(folder))
        return compared(Path(folder))


def one_ab(spin_wait_ns: int) -> Json:
    """Compare a model with itself and a known wait."""
    with tempfile.TemporaryDirectory(prefix="socbench-ab-") as folder:
        command = [sys.executable, __file__, "spin", "--spin-wait-ns", str(spin_wait_ns), "--store", folder]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        found = compared(Path(folder))
    return {**found, "spin_wait_ns": spin_wait_ns, "true_ratio": 1 + spin_wait_ns / found["base_p50_ns"]}


# --- loads -----------------------------------------------------------------------------------------------


def burn(kind: str, seed: int) -> None:
    """Be the competing load, until killed."""
    chance = random.Random(seed)
    if kind == "memory_bandwidth":
        import numpy as np

        source = np.ones(16 * 1024 * 1024)
        target = np.empty_like(source)
        while True:
            np.copyto(target, source)
    rate_hz, duty = chance.uniform(5, 20), chance.uniform(0.05, 0.5)
    while True:
        if kind == "bursts":
            time.sleep((1 - duty) / rate_hz)
        until = time.perf_counter() + duty / rate_hz
        while time.perf_counter() < until:
            pass


@contextmanager
def loaded(kind: str, seed: int) -> Iterator[Callable[[], None] | None]:
    """Have a load running; yields what a child must call to be in the group with the quota."""
    chance = random.Random(seed)
    if kind == "cpu_quota":
        QUOTA_GROUP.mkdir(exist_ok=True)
        share = chance.uniform(0.3, 0.95)
        (QUOTA_GROUP / "cpu.cfs_quota_us").write_text(str(int(100_000 * share)))
        try:
            yield lambda: (QUOTA_GROUP / "cgroup.procs").write_text("0") and None
        finally:
            for _ in range(50):  # until the last process of the agent has gone
                with suppress(OSError):
                    QUOTA_GROUP.rmdir()
                    break
                time.sleep(0.2)
        return
    command = [sys.executable, __file__, "burn", "--kind", kind]
    count = {"one_process_a_core": os.cpu_count() or 1, "memory_bandwidth": 1, "bursts": os.cpu_count() or 1}[kind]
    burning = [subprocess.Popen([*command, "--seed", str(seed + index)]) for index in range(count)]
    try:
        time.sleep(0.5)
        yield None
    finally:
        for process in burning:
            process.kill()
            process.wait()


def one_trial(kind: str | None, seed: int) -> Json:
    """One trial of three repetitions, with a load or without: how long an inference took, what the verdict was."""
    from socbench import results

    with tempfile.TemporaryDirectory(prefix="socbench-load-") as folder:
        store = Path(folder)
        words = ("run", *MODEL, "--repeat", "3", "--min-time", "0.3")
        if kind is None:
            socbench(*words, store=store)
        else:
            with loaded(kind, seed) as before:
                socbench(*words, store=store, before=before)
        (row,) = results.trial_rows(store)
        facts = results.open_results(store).sql(
            "SELECT sum(measured_ns) AS wall, sum(measured_count) AS count, sum(cpu_ns) AS cpu, "
            "sum(run_delay_ns) AS waited, sum(involuntary_switches) AS switches, sum(busy_ns) AS busy, "
            "sum(quota_throttled_ns) AS throttled FROM repetitions"
        ).iloc[0]  # fmt: skip
    wall = float(facts["wall"])
    shares = {name: None if facts[name] != facts[name] else round(float(facts[name]) / wall, 5)
              for name in ("cpu", "waited", "busy", "throttled")}  # fmt: skip
    return {
        "kind": kind,
        "p50_ns": row.latency_p50_ns,
        "mean_ns": wall / float(facts["count"]),
        "switches_per_s": round(float(facts["switches"]) / (wall / 1e9), 1),
        **{f"{name}_share": share for name, share in shares.items()},
        "verdict": row.verdict,
        "reasons": [reason.code for reason in row.reasons if reason.level != "note"],
    }


# --- keeping results -------------------------------------------------------------------------------------


def read(path: Path) -> Json:
    """The results so far."""
    if path.is_file():
        loaded_: Json = json.loads(path.read_text(encoding="utf-8"))
        return loaded_
    return {"machine": _machine(), "aa": [], "ab": [], "loads": [], "quiet": []}


def keep(path: Path, part: str, result: Json) -> None:
    """Append one result; the file is whole at every moment."""
    document = read(path)
    document[part].append({**result, "load_average": round(os.getloadavg()[0], 2)})
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def _machine() -> Json:
    import platform

    return {"system": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()}


def missing(document: Json, part: str, count: int) -> list[str | None]:
    """What is still to be measured of a part: for ``loads`` the kinds in turn."""
    if part != "loads":
        return [None] * (count - len(document[part]))
    there = Counter(result["kind"] for result in document["loads"])
    kinds = [kind for kind in LOADS if kind != "cpu_quota" or os.access(QUOTA_GROUP.parent, os.W_OK)]
    return [kind for number in range(count) for kind in kinds if there[kind] <= number]


def summary(document: Json) -> str:
    """The tables of docs/benchmarks.md."""
    lines = [
        "| 50 real comparisons | faster | slower | no difference | can't tell |",
        "| --- | --: | --: | --: | --: |",
    ]
    for part, title in (("aa", "a thing with itself"), ("ab", "3 % slower")):
        ways = (("decision", "`run --ab`"), ("mean_of_50_one_run", "mean of 50, one run each"),
                ("bootstrap_over_one_run", "bootstrap over one run's samples"))  # fmt: skip
        for name, way in ways:
            told = Counter(result[name] for result in document[part])
            numbers = " | ".join(str(told[key]) for key in ("faster", "slower", "no_difference", "cannot_tell"))
            lines.append(f"| {title}: {way} | {numbers} |")
    # The machine is shared: what is undisturbed is the lower quarter of the trials without a load of ours.
    clean = sorted(result["mean_ns"] for result in document["quiet"])
    quiet_ns = clean[len(clean) // 4] if clean else float("nan")
    lines += ["", "| Load | trials | slowed by over 3 % | of these marked, with a fitting reason | slow-down, median |",
              "| --- | --: | --: | --: | --: |"]  # fmt: skip
    for kind in LOADS:
        trials = [result for result in document["loads"] if result["kind"] == kind]
        slowed = [result for result in trials if result["mean_ns"] / quiet_ns > 1 + SLOWED]
        marked = [result for result in slowed if FITTING[kind] & set(result["reasons"])]
        factors = sorted(result["mean_ns"] / quiet_ns for result in slowed)
        middle = f"{factors[len(factors) // 2]:.2f} times" if factors else ""
        lines.append(f"| {kind.replace('_', ' ')} | {len(trials)} | {len(slowed)} | {len(marked)} | {middle} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure what is missing of a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("aa", "ab", "loads", "quiet", "summary", "spin", "burn"))
    parser.add_argument("--count", type=int, default=50, help="results of the part (for loads: of each load)")
    parser.add_argument("--json", type=Path, default=Path("docs/data/real_comparisons.json"))
    for name in ("--spin-wait-ns", "--seed"):
        parser.add_argument(name, type=int, default=0, help=argparse.SUPPRESS)
    for name in ("--kind", "--store"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part == "spin":
        run_with_spin_wait(chosen.spin_wait_ns, Path(chosen.store))
        return 0
    if chosen.part == "burn":
        burn(chosen.kind, chosen.seed)
    if chosen.part == "summary":
        print(summary(read(chosen.json)), end="")
        return 0
    for number, kind in enumerate(missing(read(chosen.json), chosen.part, chosen.count)):
        document = read(chosen.json)
        if chosen.part == "aa":
            result = one_aa()
        elif chosen.part == "ab":
            medians = sorted(one["base_p50_ns"] for one in document["aa"])
            result = one_ab(round(EFFECT * medians[len(medians) // 2]))
        else:
            result = one_trial(kind, seed=1000 * len(document[chosen.part]) + number)
        keep(chosen.json, chosen.part, result)
        told = result.get("decision") or f"{kind or 'quiet'}: {result['mean_ns'] / 1e3:.1f} µs, {result['reasons']}"
        print(time.strftime("%H:%M:%S"), chosen.part, told, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
