"""Sessions in a temporary home: store, cache and devices of their own, models of the null runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from socbench.plan import RunRequest
from socbench.records import Failure, Plan, TrialPlan
from socbench.session import DeviceProgress, SessionResult, resume_session, run_session

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"min_time_s": 0.001, "min_count": 5}


@dataclass
class Heard:
    """A progress that keeps what it is told. ``on_phase`` is called with every update."""

    steps: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    updates: list[DeviceProgress] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    session: str = ""

    def step(self, text: str) -> None:
        self.steps.append(text)

    def planned(self, session: str, plan: Plan) -> None:
        self.session = session
        self.plans.append(plan)

    def update(self, state: DeviceProgress) -> None:
        self.updates.append(state)

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        self.ended.append((trial.model, status))

    def message(self, text: str) -> None:
        self.messages.append(text)


@dataclass
class Home:
    """Where one test's sessions live."""

    path: Path
    environment: dict[str, str]

    @property
    def store(self) -> Path:
        return self.path / "store"

    def null(self, name: str = "scripted", **script: Any) -> str:
        """Write a model of the null runtime and return its path."""
        path = self.path / f"{name}.null.json"
        path.write_text(json.dumps({"clock": "fake", "latency_ns": [1_000_000], **script}), encoding="utf-8")
        return str(path)

    def script(self, **fakes: Any) -> None:
        """Write the script of the fake devices."""
        Path(self.environment["SOCBENCH_FAKE_SCRIPT"]).write_text(json.dumps(fakes), encoding="utf-8")

    def run(self, *targets: str, heard: Heard | None = None, **choices: Any) -> SessionResult:
        """Run a session in this process; quick settings unless told."""
        choices = {"repeat": 2, **QUICK, "allow_emulated": True, **choices}
        return run_session(RunRequest(targets=targets, **choices), store=self.store, progress=heard or Heard())

    def resume(self, session: str, heard: Heard | None = None) -> SessionResult:
        return resume_session(session, store=self.store, progress=heard or Heard())

    def collect(self, session: str, *, wait: bool = True, heard: Heard | None = None) -> SessionResult:
        return resume_session(session, store=self.store, progress=heard or Heard(), collect=True, wait=wait)

    def start(self, *targets: str, options: tuple[str, ...] = ("--repeat", "3")) -> subprocess.Popen[str]:
        """Start ``socbench run`` as a process of its own."""
        quick = ("--min-time", "0.001", "--min-count", "5", "--allow-emulated")
        return self.start_command("run", *targets, *quick, *options)

    def start_command(self, *words: str) -> subprocess.Popen[str]:
        """Start ``socbench`` with ``words`` on this home's store."""
        return subprocess.Popen(
            [sys.executable, "-m", "socbench", *words, "--store", str(self.store)],
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT / "harness")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def session(self) -> str:
        """Return the id of the one session of the store."""
        (folder,) = (self.store / "sessions").iterdir()
        return folder.name

    def document(self, session: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.store / "sessions" / session / "session.json").read_text())
        return found

    def rows(self, session: str, table: str) -> list[dict[str, Any]]:
        """Return a table's rows, sealed or not."""
        import pyarrow.parquet as pq

        folder = self.store / "sessions" / session
        sealed = folder / f"{table}.parquet"
        files = [sealed] if sealed.exists() else sorted((folder / "parts").glob(f"*.{table}.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def journal_text(self, session: str) -> str:
        """Return everything that the journals of a session hold."""
        folder = self.store / "sessions" / session / "journal"
        return "".join(path.read_text(errors="replace") for path in sorted(folder.rglob("job-*.jsonl")))


def make_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Make a home and point this process's socbench at it."""
    environment = {
        "SOCBENCH_CACHE": str(tmp_path / "cache"),
        "SOCBENCH_STORE": str(tmp_path / "store"),
        "SOCBENCH_CONFIG": str(tmp_path / "config"),
        "SOCBENCH_DEVICE_ROOT": str(tmp_path / "device"),
        "SOCBENCH_FAKE_ROOT": str(tmp_path / "fakes"),
        "SOCBENCH_FAKE_SCRIPT": str(tmp_path / "fakes.json"),
    }
    (tmp_path / "fakes.json").write_text("{}", encoding="utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from socbench.transports import fake

    monkeypatch.setattr(fake, "_counters", {})
    return Home(tmp_path, environment)


def processes_of(home: Home) -> list[str]:
    """Return the command lines of living processes that name this home: agents, their children, hosts."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(str(home.path) in word for word in words):
            found.append(" ".join(words))
    return found


def wait_until(what: Any, seconds: float = 30.0) -> None:
    """Wait until ``what()`` is true; the limit only bounds a broken test."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal, return exit code, stdout and stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
