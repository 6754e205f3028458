"""What the workers of one session share: its plan, its writer, its progress, and the wish to stop."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from socbench.agents.job import TrialFiles
from socbench.plan import RunRequest
from socbench.records import Failure, Plan, TrialPlan
from socbench.session.prepared import Prepared
from socbench.session.progress import DeviceProgress, Progress

if TYPE_CHECKING:
    from socbench.store.writer import SessionWriter


class LockedProgress:
    """Passes calls on, one at a time, and from the moment it is closed none."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._lock = threading.Lock()

    def step(self, text: str) -> None:
        """Pass on."""
        with self._lock:
            self._inner.step(text)

    def planned(self, session: str, plan: Plan) -> None:
        """Pass on."""
        with self._lock:
            self._inner.planned(session, plan)

    def update(self, state: DeviceProgress) -> None:
        """Pass on."""
        with self._lock:
            self._inner.update(state)

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        """Pass on."""
        with self._lock:
            self._inner.trial_ended(trial, status, failure)

    def message(self, text: str) -> None:
        """Pass on."""
        with self._lock:
            self._inner.message(text)


@dataclass
class SessionState:
    """One session under way. ``statuses`` holds how each trial that ended did."""

    session: str
    request: RunRequest
    plan: Plan
    files: Mapping[str, TrialFiles]
    input_seed: int
    writer: SessionWriter
    progress: Progress
    stop: threading.Event
    statuses: dict[str, str] = field(default_factory=dict)
    clocks: dict[str, list[Any]] = field(default_factory=dict)
    prepared: Prepared | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "store"))

    def __post_init__(self) -> None:
        self.trials = {trial.trial: trial for trial in self.plan.trials}

    def write_part(self, part: str, tables: dict[str, Any]) -> None:
        """Write one part of the session; workers take turns."""
        with self.lock:
            self.writer.write_part(part, tables)

    def job_folder(self, root: PurePosixPath, number: int) -> PurePosixPath:
        """Return the folder on a device of this session's job ``number`` (1, 2 ...)."""
        return root / "sessions" / (self.session if number == 1 else f"{self.session}.{number}")
