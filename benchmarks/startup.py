"""What ``socbench --help`` costs, in bare interpreter starts (``python -c pass``), the two alternated.

    python benchmarks/startup.py [--rounds 30] [--limit 12]

Prints the medians, the ratio of the medians and the ratio's spread over the rounds; exits with 1 when the ratio is
above the limit. Both children run the interpreter of this one, so run it with the one that socbench is installed in.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

COMMANDS = {
    "pass": ["-c", "pass"],
    "--version": ["-m", "socbench", "--version"],
    "--help": ["-m", "socbench", "--help"],
    "run --help": ["-m", "socbench", "run", "--help"],
    "results --help": ["-m", "socbench", "results", "--help"],
}
LIMIT = 12.0


def seconds_of(arguments: Sequence[str], environment: dict[str, str]) -> float:
    """Return the wall-clock time of one child, which must succeed."""
    start = time.perf_counter_ns()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter_ns() - start) / 1e9


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the times of every command, one of each a round, so that a slow moment of the machine meets all alike."""
    environment = dict(os.environ)
    for arguments in COMMANDS.values():
        seconds_of(arguments, environment)  # the first start of each writes byte code and fills the page cache
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds_of(arguments, environment))
    return times


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="rounds (default 30)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="N", help=f"bare starts (default {LIMIT:g})")
    parser.add_argument("--json", action="store_true", help="print one JSON object a command")
    options = parser.parse_args()
    times = measure(options.rounds)
    bare = statistics.median(times["pass"])
    rows = []
    for name, values in times.items():
        ratios = sorted(value / start for value, start in zip(values, times["pass"], strict=True))
        rows.append(
            {
                "command": name,
                "median_s": statistics.median(values),
                "bare_starts": statistics.median(values) / bare,
                "bare_starts_p10": ratios[len(ratios) // 10],
                "bare_starts_p90": ratios[-1 - len(ratios) // 10],
            }
        )
    if options.json:
        print(json.dumps(rows))
    else:
        print(f"{'command':<16}{'median':>10}{'bare starts':>14}   10 % to 90 % of the rounds")
        for row in rows:
            spread = f"{row['bare_starts_p10']:.1f} to {row['bare_starts_p90']:.1f}"
            print(f"{row['command']:<16}{row['median_s']:>8.3f} s{row['bare_starts']:>14.1f}   {spread}")
    reached = next(row["bare_starts"] for row in rows if row["command"] == "--help")
    print(f"--help: {reached:.1f} bare starts, limit {options.limit:g}", file=sys.stderr)
    return 0 if reached <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
