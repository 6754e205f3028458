"""The suite that every agent passes: an agent is a command line (docs/protocol.md, *Commands of an agent*)."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
PYTHON_AGENT = ROOT / "device_agents" / "python" / "agent.py"
NATIVE_AGENT = ROOT / "device_agents" / "native" / "build" / "socbench-agent-linux-x86_64"


def available_agents() -> dict[str, list[str]]:
    """Return the command lines of the agents that this checkout can start."""
    agents = {"python": [sys.executable, str(PYTHON_AGENT)]}
    if NATIVE_AGENT.exists():
        agents["native"] = [str(NATIVE_AGENT)]
    return agents


@dataclass
class Agent:
    """One agent at work in a scratch folder; ``mark`` is in the environment of every process that it starts."""

    name: str
    argv: list[str]
    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SOCBENCH_TEST_MARK": self.mark}

    def call(self, *arguments: str | Path, timeout_s: float = 60.0) -> tuple[int, Json | None]:
        """Run a command; returns its exit code and the object that it printed."""
        done = subprocess.run(
            [*self.argv, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=self.environment(),
            check=False,
        )
        assert done.stdout.count(b"\n") <= 1, "an agent prints at most one line"
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def job(self, document: Json, name: str = "job") -> Path:
        """Write a job folder."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "job.json").write_text(json.dumps(document))
        return folder

    def run(self, document: Json, name: str = "job") -> list[Json]:
        """Run a job in the foreground; returns its events."""
        folder = self.job(document, name)
        self.call("run", folder)
        return self.events(folder)

    def events(self, folder: Path) -> list[Json]:
        """Return the complete lines of the event file."""
        data = (folder / "events.jsonl").read_bytes()
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def wait_for(self, folder: Path, found: Callable[[list[Json]], bool], deadline_s: float = 30.0) -> list[Json]:
        """Return the events once ``found`` holds for them."""
        until = time.monotonic() + deadline_s
        while True:
            events = self.events(folder) if (folder / "events.jsonl").exists() else []
            if found(events):
                return events
            assert time.monotonic() < until, f"waited in vain; events: {[event['type'] for event in events]}"
            time.sleep(0.02)

    def processes(self) -> list[int]:
        """Return the living processes that carry our mark."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def wait_until_gone(self, deadline_s: float = 10.0) -> None:
        """Wait until no process of ours is left."""
        until = time.monotonic() + deadline_s
        while self.processes():
            assert time.monotonic() < until, f"left behind: {self.processes()}"
            time.sleep(0.02)


@pytest.fixture(params=available_agents().items(), ids=lambda item: item[0])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    """Each agent in turn; no test may leave a process behind."""
    name, argv = request.param
    agent = Agent(name, argv, tmp_path)
    yield agent
    agent.wait_until_gone()


SETTINGS = {
    "min_time_s": 0.05,
    "min_count": 10,
    "max_time_s": 20.0,
    "warmup_max_s": 1.0,
    "warmup_min_count": 5,
    "max_count": 100000,
    "rate_hz": None,
}


class Jobs:
    """Makes jobs of null trials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, script: Json) -> str:
        """Write a script of the null runtime, named by its content as in the blob store."""
        text = json.dumps(script)
        path = self.folder / (hashlib.sha256(text.encode()).hexdigest()[:16] + ".json")
        path.write_text(text)
        return str(path)

    def trial(self, script: Json, **changes: Any) -> Json:
        """Return a trial that runs a script; ``settings`` are merged into the defaults."""
        trial: Json = {
            "runtime": "null",
            "delegate": "cpu:null",
            "format": "null",
            "precision": "fp32",
            "model": self.model(script),
            "python": None,
            "runtime_dir": None,
            "threads": 1,
            "cores": None,
            "batch": 1,
            "shapes": {},
            "scenario": "single_stream",
            "settings": {**SETTINGS, **changes.pop("settings", {})},
            "probe": None,
            "dataset": None,
            "input_seed": 7,
            "profile": False,
            "options": {},
        }
        return {**trial, **changes}

    def job(self, *trials: Json, repetitions: int = 1, **changes: Any) -> Json:
        """Return a job that runs each trial ``repetitions`` times."""
        names = [f"t{index:03d}" for index in range(1, len(trials) + 1)]
        document: Json = {
            "protocol": 1,
            "session": "20261124-2250-test",
            "orphan_after_s": None,
            "telemetry": None,
            "trials": dict(zip(names, copy.deepcopy(trials), strict=True)),
            "repetitions": [
                {"trial": name, "repetition": number, "deadline_s": 60.0, "cool_down": None}
                for number in range(1, repetitions + 1)
                for name in names
            ],
        }
        return {**document, **changes}

    def null(self, script: Json, **changes: Any) -> Json:
        """Return a job of one repetition of one script."""
        return self.job(self.trial(script, **changes))


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def _of(events: list[Json], kind: str, **members: Any) -> list[Json]:
    return [
        event
        for event in events
        if event["type"] == kind and all(event.get(name) == value for name, value in members.items())
    ]


@pytest.fixture
def of() -> Callable[..., list[Json]]:
    """Select events by type and members."""
    return _of


@pytest.fixture
def one() -> Callable[..., Json]:
    """Select the one event of a type and members."""

    def select(events: list[Json], kind: str, **members: Any) -> Json:
        found = _of(events, kind, **members)
        assert len(found) == 1, f"{len(found)} events {kind} {members} in {events}"
        return found[0]

    return select
