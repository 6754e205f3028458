"""How large half an hour at 0.2 ms an inference is: nine million samples through the null runtime's fake clock.

Prints the bytes on the device, in the sealed store, and the seconds of the report (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def folder_bytes(path: Path) -> int:
    """Return the size of all files under a folder; what goes away meanwhile counts as nothing."""
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def measure(minutes: float, home: Path) -> dict[str, float]:
    """Run, report and return the figures."""
    chance = random.Random(7)
    latency = [round(200_000 * chance.lognormvariate(0, 0.03)) for _ in range(4999)]
    model = home / "fast.null.json"
    model.write_text(json.dumps({"clock": "fake", "latency_ns": latency}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "harness"), "SOCBENCH_STORE": str(home / "store")}
    environment |= {"SOCBENCH_DEVICE_ROOT": str(home / "device"), "SOCBENCH_CACHE": str(home / "cache")}
    largest = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            largest[0] = max(largest[0], folder_bytes(home / "device" / "sessions"))

    thread = threading.Thread(target=watch)
    thread.start()
    began_s = time.monotonic()
    command = [sys.executable, "-m", "socbench", "sustained", str(model), "--duration", f"{minutes:g}m", "--json"]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    run_s = time.monotonic() - began_s
    done.set()
    thread.join()
    began_s = time.monotonic()
    command = [sys.executable, "-m", "socbench", "report", "latest", "-o", str(home / "report.html")]
    subprocess.run(command, env=environment, check=True)
    return {
        "samples": json.loads(out)[0]["samples"],
        "device_mb": round(largest[0] / 1e6, 1),
        "store_mb": round(folder_bytes(home / "store") / 1e6, 1),
        "run_s": round(run_s, 1),
        "report_s": round(time.monotonic() - began_s, 1),
    }


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="socbench-") as home:
        print(json.dumps(measure(options.minutes, Path(home))))


if __name__ == "__main__":
    main()
