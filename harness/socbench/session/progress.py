"""What a running session tells the one who watches; the command line draws it, a log prints it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol, TextIO

from socbench.records import Failure, Plan, TrialPlan


@dataclass(frozen=True)
class DeviceProgress:
    """Where one device is: the repetition under way, how far the device's work is, what is known of its state.

    ``phase`` is a phase of docs/protocol.md or ``provision``, ``waiting``, ``reconnecting``, ``ended``.
    ``latency_ns``, ``slowdown`` (now over the first minute) and ``throttled`` (by what heat shows itself: a lower clock
    limit, a higher thermal status; empty when by nothing) are told of sustained runs.
    """

    device: str
    phase: str
    done: int
    total: int
    trial: TrialPlan | None = None
    repetition: int | None = None
    inferences_per_s: float | None = None
    temperature_milli_c: int | None = None
    left_s: float | None = None
    detail: str = ""
    latency_ns: float | None = None
    slowdown: float | None = None
    throttled: str = ""


class Progress(Protocol):
    """Called from the workers' threads, one call at a time (the session holds a lock); must return quickly."""

    def step(self, text: str) -> None:
        """Say which step of the preparation began (probing, building, checking), one sentence without a full stop."""
        ...

    def planned(self, session: str, plan: Plan) -> None:
        """Say what will be done, before the first inference."""
        ...

    def update(self, state: DeviceProgress) -> None:
        """Say where a device is; at most about ten times a second a device."""
        ...

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        """Say that the last repetition of a trial ended: ``done``, ``failed`` or ``interrupted``."""
        ...

    def message(self, text: str) -> None:
        """Say one sentence that the user should read (waiting for a lease, a reconnect, a repetition run again)."""
        ...


class LogProgress:
    """Progress as plain lines on a text stream, for logs and pipes: one line a step, trial and message."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def step(self, text: str) -> None:
        """Print the step."""
        self._line(f"{text} ...")

    def planned(self, session: str, plan: Plan) -> None:
        """Print the session's id and the size of the plan."""
        count = sum(len(order) for order in plan.order.values())
        excluded = sum(trial.excluded is not None for trial in plan.trials)
        estimate = f", about {plan.estimate_s:.0f} s" if plan.estimate_s else ""
        trials = len(plan.trials) - excluded
        size = f"{trials} trial{'s' * (trials != 1)}, {count} repetition{'s' * (count != 1)}"
        self._line(f"session {session}: {size}, {excluded} left out{estimate}")

    def update(self, state: DeviceProgress) -> None:
        """Print nothing: a log has no live line."""

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        """Print the trial and how it ended."""
        name = f"{trial.device} {trial.model} {trial.variant} {trial.runtime} {trial.delegate} {trial.scenario}"
        self._line(f"{name}: {status}" + (f": {failure.message}" if failure else ""))

    def message(self, text: str) -> None:
        """Print the sentence."""
        self._line(text)


class SilentProgress(LogProgress):
    """Says nothing."""

    def _line(self, text: str) -> None:
        del text
