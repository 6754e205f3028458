"""What telemetry costs: the median latency with it on and off, alternated in blocks within one process.

One process spins inferences of a fixed amount of work; the agent's telemetry process (files twice a second) is stopped
and continued (SIGSTOP, SIGCONT) every block. Prints the change of the median and the CPU time of telemetry
(docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

AGENT = Path(__file__).resolve().parents[1] / "device_agents" / "python" / "agent.py"


def block(seconds: float, size: int) -> float:
    """Run inferences (sums over a list) for a time; returns their median in ns."""
    data = list(range(size))
    found = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.perf_counter_ns()
        sum(data)
        found.append(time.perf_counter_ns() - begin)
    return statistics.median(found)


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(pairs: int, seconds: float) -> dict[str, object]:
    """Alternate blocks without and with telemetry; returns the change in per cent with its 95 % interval."""
    reading, writing = os.pipe()
    command = [sys.executable, str(AGENT), "telemetry", "0.5", "10", str(writing)]
    telemetry = subprocess.Popen(command, pass_fds=(writing,))
    os.close(writing)

    def drain() -> None:
        while os.read(reading, 1 << 16):
            pass

    threading.Thread(target=drain, daemon=True).start()
    time.sleep(2.0)
    size = int(20_000 * 500_000 / block(1.0, 20_000))  # half a millisecond
    changes, on_s, used_s = [], 0.0, 0.0
    for number in range(pairs):
        medians = {}
        for on in (number % 2 == 0, number % 2 == 1):
            telemetry.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
            before_s = cpu_s(telemetry.pid)
            medians[on] = block(seconds, size)
            used_s += cpu_s(telemetry.pid) - before_s
            on_s += seconds if on else 0.0
        changes.append(100 * (medians[True] / medians[False] - 1))
    telemetry.kill()
    telemetry.wait()
    changes.sort()
    # The interval of a median by order statistics (David and Nagaraja, Order Statistics, 7.1): slow phases of the
    # machine put some pairs far out, which a standard deviation would follow.
    below = max(0, int(pairs / 2 - 0.98 * pairs**0.5))
    return {
        "pairs": pairs,
        "block_s": seconds,
        "median_change_percent": round(statistics.median(changes), 3),
        "interval_95_percent": [round(changes[below], 3), round(changes[pairs - 1 - below], 3)],
        "core_percent": round(100 * used_s / on_s, 2),
    }


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    print(json.dumps(measure(options.pairs, options.seconds)))


if __name__ == "__main__":
    main()
