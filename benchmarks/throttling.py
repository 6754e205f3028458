"""Checks the analysis of sustained runs against simulated phones whose truth is known (docs/benchmarks.md).

Prints a table; ``--json FILE`` also writes the figures. Nothing is timed: the result depends on the seed alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from socbench.analysis.throttling import analyse_sustained
from socbench.devices.simulated import inferences, random_phones, simulate, truth_of

TIME_S, TIME_SHARE, SLOWDOWN_SHARE = 5.0, 0.02, 0.01


def judge(count: int, seed: int, duration_s: float = 1800.0) -> dict[str, float]:
    """Return counts and shares over ``count`` phones that run for ``duration_s`` of simulated time."""
    phones = random_phones(count, seed)
    run = simulate(phones, duration_s)
    figures = dict.fromkeys(
        ("throttling", "dated", "missed", "steady", "claimed_on_steady", "slowdown_right", "baseline_unknown"), 0
    )
    for phone in range(count):
        start_ns, latency_ns, true_s = inferences(phones, run, phone, seed=phone)
        truth = truth_of(start_ns, true_s, float(phones.base_latency_s[phone]), float(phones.noise_cv[phone]))
        found = analyse_sustained(start_ns, latency_ns)
        if found.slowdown is None:
            figures["baseline_unknown"] += 1
        else:
            figures["slowdown_right"] += abs(found.slowdown / truth.slowdown - 1) <= SLOWDOWN_SHARE
        if truth.throttle_at_s is None:
            figures["steady"] += 1
            figures["claimed_on_steady"] += found.throttle_at_s is not None
            continue
        figures["throttling"] += 1
        if found.throttle_at_s is None:
            figures["missed"] += 1
        else:
            error_s = abs(found.throttle_at_s - truth.throttle_at_s)
            figures["dated"] += error_s <= max(TIME_S, TIME_SHARE * truth.throttle_at_s)
    return {"phones": count, "seed": seed, **figures}


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phones", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    f = judge(options.phones, options.seed)
    known = f["phones"] - f["baseline_unknown"]
    rows = [
        ("time to throttle within 5 s or 2 %", f["dated"], f["throttling"], "at least 95 %"),
        ("slow-down within 1 %", f["slowdown_right"], known, "at least 95 %"),
        (
            "no throttling claimed on phones that do not throttle",
            f["steady"] - f["claimed_on_steady"],
            f["steady"],
            "at least 99 %",
        ),
    ]
    print("| figure | right | of | share | goal |\n| --- | ---: | ---: | ---: | --- |")
    for name, right, total, goal in rows:
        print(f"| {name} | {right} | {total} | {100 * right / total:.1f} % | {goal} |")
    if options.json:
        options.json.write_text(json.dumps(f, indent=1) + "\n")


if __name__ == "__main__":
    main()
