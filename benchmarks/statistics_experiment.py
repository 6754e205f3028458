"""How often the statistics are right: simulated comparisons, intervals and verdicts with known truth.

    python benchmarks/statistics_experiment.py [--quick] [--json docs/data/statistics.json] [--markdown FILE]

Only the measured numbers are simulated; every statistic, decision and verdict is made by ``socbench.analysis``. Seeded,
one core, some minutes. What the noise looks like is said at :class:`Noise`; docs/methodology.md holds the result.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal
from socbench.analysis import compare, statistics
from socbench.analysis.history import levels as levels_of
from socbench.analysis.verdicts import RepetitionFacts, TrialFacts, verdict

Floats = npt.NDArray[np.float64]
MARGIN = 0.03
SAMPLES = 100


@dataclass(frozen=True)
class Noise:
    """Noise on the logarithm of a latency, as fractions.

    ``within``: a sample, autocorrelated by ``correlation`` (AR(1)); ``spikes``: share of samples that take 1.2 to 3
    times as long; ``repetition``: a process's own level; ``outlying``: share of repetitions that are slower by 2 to
    10 % throughout; ``drift``: change of the device over the whole session, up or down; ``session``: a day's own level.
    """

    within: float = 0.02
    correlation: float = 0.5
    spikes: float = 0.01
    repetition: float = 0.02
    outlying: float = 0.01
    drift: float = 0.01
    session: float = 0.02
    heavy: bool = False


def samples(random: np.random.Generator, shape: tuple[int, ...], noise: Noise) -> Floats:
    """Logarithms of samples within one process, without any level: the last axis is time."""
    steps = random.standard_normal(shape) * np.sqrt(1 - noise.correlation**2)
    steps[..., 0] = random.standard_normal(shape[:-1])  # starts in its stationary state
    logs: Floats = noise.within * signal.lfilter([1], [1, -noise.correlation], steps, axis=-1)
    spiky = random.random(shape) < noise.spikes
    return logs + spiky * np.log(random.uniform(1.2, 3, shape))


def levels(random: np.random.Generator, shape: tuple[int, ...], noise: Noise) -> Floats:
    """Logarithms of the levels of repetitions."""
    if noise.heavy:  # Student's t with 5 degrees of freedom, of the same standard deviation
        own = random.standard_t(5, shape) / np.sqrt(5 / 3)
    else:
        own = random.standard_normal(shape)
    hit = random.random(shape) < noise.outlying
    return noise.repetition * own + hit * random.uniform(0.02, 0.10, shape)


def medians(random: np.random.Generator, shape: tuple[int, ...], noise: Noise) -> Floats:
    """Medians of repetitions, in ns, around 1 ms."""
    inside = np.median(samples(random, (*shape, SAMPLES), noise), axis=-1)
    return 1e6 * np.exp(levels(random, shape, noise) + inside)


def session(random: np.random.Generator, count: int, repetitions: int, noise: Noise, *, alternate: bool) -> Floats:
    """Medians of two arms in one session: ``(count, 2, repetitions)``. Interleaved: each repetition of one arm has one
    of the other beside it, in random order (``--ab`` and a session's plan alike); the drift runs through all of them.
    """
    made = medians(random, (count, 2, repetitions), noise)
    order = random.permuted(np.broadcast_to([0, 1], (count, repetitions, 2)), axis=-1).swapaxes(1, 2)
    if alternate:  # ABBA: each arm is first as often as the other
        order = np.broadcast_to(np.array([[k % 2, 1 - k % 2] for k in range(repetitions)]).T, order.shape)
    position = (2 * np.arange(repetitions) + order) / (2 * repetitions)
    drift = noise.drift * random.standard_normal((count, 1, 1)) * position
    return np.asarray(made * np.exp(drift + noise.session * random.standard_normal((count, 1, 1))))


Decide = Callable[[Floats, Floats], str]


def by_repetitions(base: Floats, candidate: Floats) -> str:
    """Decision of ``compare`` on two rows of one session."""
    found = statistics.ratio(base.tolist(), candidate.tolist())
    return compare.decide(found, MARGIN) if found else "cannot_tell"


def by_pairs(base: Floats, candidate: Floats) -> str:
    """Decision of ``compare`` on a session run with ``--ab``."""
    found = statistics.paired_ratio(base.tolist(), candidate.tolist())
    return compare.decide(found, MARGIN) if found else "cannot_tell"


def counted(decisions: list[str]) -> dict[str, float]:
    """Shares of the decisions."""
    names = ("faster", "slower", "no_difference", "cannot_tell")
    return {name: decisions.count(name) / len(decisions) for name in names}


def decided(pairs: Floats, decide: Decide, effect: float = 1.0) -> dict[str, float]:
    """Shares of decisions when the second arm is ``effect`` times as slow."""
    return counted([decide(pair[0], effect * pair[1]) for pair in pairs])


def mixed(random: np.random.Generator, count: int, make: Callable[[int, Noise], Floats]) -> Floats:
    """Simulations under a mixture of noises: repetition-level 0.5 to 4 %, autocorrelation 0 to 0.9."""
    noises = [
        Noise(repetition=r, correlation=c, heavy=h)
        for r in (0.005, 0.01, 0.02, 0.04)
        for c in (0.0, 0.5, 0.9)
        for h in (False, True)
    ]
    parts = [
        make(part.size, noise)
        for part, noise in zip(np.array_split(np.arange(count), len(noises)), noises, strict=True)
    ]
    return np.concatenate(parts)


def across(random: np.random.Generator, count: int, history: int) -> dict[str, float]:
    """A/A between two sessions, with so many earlier sessions of the same key."""
    decisions = []
    noise = Noise()
    for _ in range(count):
        made = session(random, history + 2, 5, noise, alternate=False)[:, 0]
        found = statistics.ratio(made[-2].tolist(), made[-1].tolist())
        assert found is not None
        earlier = [statistics.geometric_mean(one.tolist()) for one in made[:-2]]
        enough = len(earlier) >= compare.NEEDED_HISTORY
        found = statistics.across_sessions(found, levels_of(earlier)) if enough else statistics.without_history(found)
        decisions.append(compare.decide(found, MARGIN))
    return counted(decisions)


def naive(random: np.random.Generator, count: int, effect: float) -> dict[str, dict[str, float]]:
    """One run each: the means of 50 compared as they are, and a bootstrap over the samples of one run."""
    noise = Noise()
    shift = levels(random, (count, 2), noise)[..., None]
    runs = np.exp(shift + samples(random, (count, 2, 50), noise))
    runs[:, 1] *= effect
    means = runs.mean(-1)
    ratio = means[:, 1] / means[:, 0]
    told = np.where(ratio > 1 + MARGIN, "slower", np.where(ratio < 1 / (1 + MARGIN), "faster", "no_difference"))
    bootstrapped = []
    for one in runs:
        picks = random.integers(0, 50, (2, 300, 50))
        drawn = [np.median(np.log(arm)[pick], axis=-1) for arm, pick in zip(one, picks, strict=True)]
        low, high = np.exp(np.quantile(drawn[1] - drawn[0], [0.025, 0.975]))
        bootstrapped.append(compare.decide(statistics.Ratio(1.0, float(low), float(high), None, None), MARGIN))
    return {"mean_of_50_one_run": counted(told.tolist()), "bootstrap_over_one_run": counted(bootstrapped)}


def coverage(random: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """How often the 95 % interval of the headline holds the truth, by repetitions, autocorrelation and noise."""
    cells = []
    for correlation in (0.0, 0.5, 0.9):
        for repetition in (0.005, 0.02, 0.05):
            for heavy in (False, True):
                noise = Noise(correlation=correlation, repetition=repetition, outlying=0.0, heavy=heavy)
                # The level that a repetition's median has in the mean; spikes lift it a little over 1 ms.
                truth = float(np.exp(np.mean(np.median(samples(random, (100_000, SAMPLES), noise), axis=-1)))) * 1e6
                for repetitions in (3, 5, 10, 20):
                    cells.append(_cell(random, count, repetitions, noise, truth))
    return cells


def _cell(random: np.random.Generator, count: int, repetitions: int, noise: Noise, truth: float) -> dict[str, Any]:
    held = bootstrap = 0
    made = medians(random, (count, repetitions), noise)
    picks = random.integers(0, repetitions, (200, repetitions))
    for one in made:
        found = statistics.centre(one.tolist())
        assert found is not None
        held += (found.low or 0) <= truth <= (found.high or 0)
        low, high = np.quantile(np.exp(np.log(one)[picks].mean(-1)), [0.025, 0.975])
        bootstrap += bool(low <= truth <= high)
    return {
        "repetitions": repetitions,
        "correlation": noise.correlation,
        "repetition_noise": noise.repetition,
        "tails": "heavy" if noise.heavy else "normal",
        "coverage": held / count,
        "bootstrap_coverage": bootstrap / count,
    }


def quiet_trial(random: np.random.Generator, repetitions: int, noise: Noise) -> TrialFacts:
    """A trial on a device where nothing else runs but its system: few switches, up to 8 % of a core busy."""
    logs = levels(random, (repetitions, 1), noise) + samples(random, (repetitions, 300), noise)
    return facts(random, 1e6 * np.exp(logs), others=random.uniform(0.0, 0.08), switches_per_s=random.gamma(2, 2))


def facts(
    random: np.random.Generator,
    latency: Floats,
    *,
    others: float,
    switches_per_s: float,
    cpu_share: float = 0.998,
    quota: float = 0.0,
) -> TrialFacts:
    """What socbench knows of a trial with these latencies and that much going on beside it."""
    done = []
    for number, one in enumerate(latency, 1):
        wall = float(one.sum())
        cpu = wall * cpu_share
        done.append(
            RepetitionFacts(
                repetition=number,
                shape=statistics.shape(one),
                measured_ns=int(wall),
                measured_count=one.size,
                warmup_steady=bool(random.random() < 0.97),
                cpu_ns=int(cpu),
                involuntary_switches=int(random.poisson(switches_per_s * wall / 1e9)),
                busy_ns=int(cpu + others * wall),
                quota_throttled_ns=int(quota * wall),
                threads_effective=1,
                delegation="full",
                precision_effective="fp32",
            )
        )
    return TrialFacts(
        "done", "single_stream", "local", "cpu:mlas", "fp32", 1, tuple(done), device_cores=4, min_count=50
    )


def loaded_trial(random: np.random.Generator, kind: str, noise: Noise) -> tuple[TrialFacts, float]:
    """A trial with a competing load, and by how much it was slowed (a fraction)."""
    logs = levels(random, (5, 1), noise) + samples(random, (5, 300), noise)
    clean = 1e6 * np.exp(logs)
    if kind == "one_process_a_core":  # a fair scheduler gives half the time, in slices of 3 ms
        share = random.uniform(0.4, 0.6)
        waits = (random.random(clean.shape) < clean / 3e6) * 3e6 * (1 - share) / share
        made = facts(random, clean + waits, others=3 + share, switches_per_s=random.uniform(80, 200), cpu_share=share)
        return made, float((clean + waits).mean() / clean.mean() - 1)
    if kind == "memory_bandwidth":  # on other cores: no switch, only slower and a busy neighbour
        slow = random.uniform(1.0, 1.6)
        cores = random.uniform(0.8, 3.0)
        return facts(random, clean * slow, others=cores, switches_per_s=random.gamma(2, 2)), slow - 1
    if kind == "bursts":  # 5 to 20 times a second on this core, waiting for a share of 2 to 40 %
        duty, rate = random.uniform(0.02, 0.4), random.uniform(5, 20)
        wait = duty / (1 - duty)
        hit = random.random(clean.shape) < rate * clean / 1e9
        waits = hit * (wait / (rate / 1e9))
        made = facts(random, clean + waits, others=duty, switches_per_s=rate * random.uniform(1, 2), cpu_share=1 - duty)
        return made, wait
    quota = random.uniform(0.02, 0.6)  # the group is stopped for this share of each 100 ms
    hit = random.random(clean.shape) < clean / 1e8
    waits = hit * 1e8 * quota / (1 - quota)
    made = facts(random, clean + waits, others=0.03, switches_per_s=12.0, cpu_share=1 - quota, quota=quota)
    return made, quota / (1 - quota)


LOADS = ("one_process_a_core", "memory_bandwidth", "bursts", "cpu_quota")
FITTING = {
    "one_process_a_core": {"preempted", "background_load"},
    "memory_bandwidth": {"background_load"},
    "bursts": {"preempted", "background_load"},
    "cpu_quota": {"cpu_quota", "preempted"},
}


def verdicts(random: np.random.Generator, count: int) -> dict[str, Any]:
    """Shares of trials marked suspect or invalid: quiet ones, and ones slowed by more than 3 %."""
    result: dict[str, Any] = {}
    for repetitions in (3, 5):
        marked = 0
        for _ in range(count):
            noise = Noise(repetition=random.choice([0.005, 0.01, 0.02]), correlation=random.choice([0.0, 0.5, 0.9]))
            found = verdict(quiet_trial(random, repetitions, noise))
            marked += found is not None and found.verdict != "valid"
        result[f"quiet_{repetitions}_repetitions"] = marked / count
    for kind in LOADS:
        slowed = marked = 0
        for _ in range(count // 2):
            facts_of, slowdown = loaded_trial(random, kind, Noise(repetition=0.01))
            if slowdown > 0.03:
                found = verdict(facts_of)
                codes = {reason.code for reason in found.reasons} if found else set()
                slowed += 1
                marked += bool(codes & FITTING[kind])
        result[kind] = marked / slowed
    return result


def experiment(*, quick: bool, seed: int = 20261124) -> dict[str, Any]:
    """The whole experiment; ``quick`` makes a tenth of the simulations."""
    random = np.random.default_rng(seed)
    many, cell = (500, 200) if quick else (5000, 2000)

    def one_session(repetitions: int, *, alternate: bool) -> Floats:
        def make(count: int, noise: Noise) -> Floats:
            return session(random, count, repetitions, noise, alternate=alternate)

        return mixed(random, many, make)

    plain = replace(Noise(), repetition=0.02)
    fives = session(random, many, 5, plain, alternate=False)
    pairs = session(random, many, 14, plain, alternate=True)
    return {
        "simulations": {"comparisons": many, "interval_cell": cell, "samples_a_repetition": SAMPLES, "seed": seed},
        "a_a": {
            "one_session_5_repetitions": decided(one_session(5, alternate=False), by_repetitions),
            "ab_14_pairs": decided(one_session(14, alternate=True), by_pairs),
            "two_sessions_no_history": across(random, many, 0),
            "two_sessions_3_earlier": across(random, many, 3),
            "two_sessions_10_earlier": across(random, many, 10),
            **naive(random, many, 1.0),
        },
        "a_b": {
            "ab_14_pairs_3_percent": decided(pairs, by_pairs, 1.03),
            "one_session_5_repetitions_10_percent": decided(fives, by_repetitions, 1.10),
            "one_session_5_repetitions_3_percent": decided(fives, by_repetitions, 1.03),
            **{f"{name}_3_percent": shares for name, shares in naive(random, many, 1.03).items()},
        },
        "intervals": coverage(random, cell),
        "verdicts": verdicts(random, cell),
    }


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown tables."""
    lines = []
    for title, name in (("A thing with itself", "a_a"), ("A true difference", "a_b")):
        lines += [f"| {title} | faster | slower | no difference | cannot tell |", "| --- | --- | --- | --- | --- |"]
        for label, shares in result[name].items():
            numbers = " | ".join(
                f"{100 * shares[key]:.1f} %" for key in ("faster", "slower", "no_difference", "cannot_tell")
            )
            lines.append(f"| {label.replace('_', ' ')} | {numbers} |")
        lines.append("")
    lines += [
        "| Interval of 95 %, repetitions | lowest | highest | bootstrap over the same: lowest |",
        "| --- | --- | --- | --- |",
    ]
    for repetitions in (3, 5, 10, 20):
        cells = [cell for cell in result["intervals"] if cell["repetitions"] == repetitions]
        held = [100 * cell["coverage"] for cell in cells]
        least = min(100 * cell["bootstrap_coverage"] for cell in cells)
        lines.append(f"| {repetitions} | {min(held):.1f} % | {max(held):.1f} % | {least:.1f} % |")
    lines += ["", "| Trials marked suspect or invalid | share |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {100 * share:.1f} % |" for name, share in result["verdicts"].items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the experiment, print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulations")
    parser.add_argument("--json", type=Path, help="write the result as JSON")
    parser.add_argument("--markdown", type=Path, help="write the tables as Markdown")
    chosen = parser.parse_args()
    began = time.monotonic()
    result = experiment(quick=chosen.quick)
    print(tables(result))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if chosen.markdown:
        chosen.markdown.write_text(tables(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
