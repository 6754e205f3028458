"""Turns a device's events into what the user sees: phase, inferences a second, temperature, time left."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from socbench.agents.follow import Head
from socbench.records import PlannedRepetition
from socbench.session.progress import DeviceProgress
from socbench.session.state import SessionState
from socbench.session.sustained import SustainedWatch

_EVERY_S: Final = 0.1
_OUTER: Final = re.compile(r"skin|shell|batt|surface|case", re.IGNORECASE)


class DeviceWatch:
    """Keeps the picture of one device and passes it on, at most ten times a second."""

    def __init__(self, state: SessionState, device: str, order: Sequence[PlannedRepetition]) -> None:
        self._state = state
        self._now = DeviceProgress(device, "waiting", 0, len(order))
        self._shown_s = 0.0
        self._began_s = time.monotonic()
        self._done_before: int | None = None
        self._rate_since_s = time.monotonic()
        self._count = 0
        self._sustained: SustainedWatch | None = None
        self._unprotected = False
        self._phase_before = ""

    def phase(self, name: str, detail: str = "") -> None:
        """Say what the host itself does with the device."""
        self._show(replace(self._now, phase=name, detail=detail), force=True)

    def extend(self, count: int) -> None:
        """Take note of repetitions that were added to the plan."""
        self._now = replace(self._now, total=self._now.total + count)

    def away(self, gone: bool) -> None:
        """Say that the device cannot be reached for now, or is back; what it does meanwhile is not known."""
        if gone and self._now.phase != "reconnecting":
            self._phase_before = self._now.phase
            self._show(replace(self._now, phase="reconnecting", inferences_per_s=None), force=True)
        elif not gone and self._now.phase == "reconnecting":
            self.phase(self._phase_before, self._now.detail)

    def ended(self) -> None:
        """Say that nothing more comes from this device."""
        ended = replace(self._now, phase="ended", trial=None, repetition=None, inferences_per_s=None, left_s=0.0)
        self._show(ended, force=True)

    def event(self, head: Head, done: int) -> None:
        """Take one event; ``done`` is the number of repetitions that are finished."""
        now = self._now
        if head.type == "phase" and head.trial is not None:
            trial = self._state.trials.get(head.trial)
            same = (head.trial, head.repetition) == (now.trial.trial if now.trial else None, now.repetition)
            rate = now.inferences_per_s if same else None
            now = replace(
                now, phase=head.phase or "", trial=trial, repetition=head.repetition, inferences_per_s=rate, detail=""
            )
            self._rate_since_s, self._count = time.monotonic(), 0
            lasting = trial is not None and trial.scenario == "sustained" and head.phase == "measure"
            self._sustained = SustainedWatch(trial) if trial is not None and lasting else None
            now = replace(now, latency_ns=None, slowdown=None, throttled="")
        elif head.type == "samples" and bytes(head.latency_ns):
            now = replace(now, inferences_per_s=self._rate(bytes(head.latency_ns).count(b",") + 1))
        elif head.type == "telemetry" and bytes(head.rows):
            now = replace(now, temperature_milli_c=_hottest(head.rows) or now.temperature_milli_c)
            if self._sustained is not None:
                self._sustained.telemetry(head.rows)
        if head.type == "samples" and self._sustained is not None:
            now = self._lasting(now, self._sustained, head)
        now = replace(now, done=done, left_s=self._left(done))
        self._show(now, force=head.type == "phase")

    def _lasting(self, now: DeviceProgress, watch: SustainedWatch, head: Head) -> DeviceProgress:
        """Take samples of a sustained run; say once when its limit of temperature can't work."""
        watch.samples(head.t_ns, head.latency_ns)
        limited = watch.trial.settings.max_temperature_milli_c is not None
        if limited and now.temperature_milli_c is None and watch.slowdown is not None and not self._unprotected:
            self._unprotected = True
            self._state.progress.message(f"{now.device} tells no temperature: --max-temp can't stop this run")
        return replace(now, latency_ns=watch.latency_ns, slowdown=watch.slowdown, throttled=watch.throttled)

    def _rate(self, count: int) -> float | None:
        self._count += count
        seconds = time.monotonic() - self._rate_since_s
        return self._count / seconds if seconds > 0.2 else self._now.inferences_per_s

    def _left(self, done: int) -> float | None:
        """Return what is left at the pace so far, before the first repetition what the plan estimates."""
        if self._sustained is not None and self._sustained.left_s is not None:
            return self._sustained.left_s
        if self._done_before is None:
            self._done_before = done
        paced = done - self._done_before
        if paced == 0:
            return self._state.plan.estimate_s
        return (time.monotonic() - self._began_s) / paced * (self._now.total - done)

    def _show(self, now: DeviceProgress, *, force: bool) -> None:
        self._now = now
        if force or time.monotonic() - self._shown_s >= _EVERY_S:
            self._shown_s = time.monotonic()
            self._state.progress.update(now)


def _hottest(rows: msgspec.Raw) -> int | None:
    """Return the highest temperature of a telemetry event, of skin and battery where there are any.

    These are what --max-temp looks at; what is no temperature is passed over.
    """
    try:
        found = msgspec.json.decode(rows, type=list[list[int | float | str | None]])
    except msgspec.DecodeError:
        return None
    values = [
        (bool(_OUTER.search(str(row[2]))), row[3])
        for row in found
        if len(row) > 3 and row[1] == "temperature_milli_c" and isinstance(row[3], int) and 0 < row[3] < 120_000
    ]
    return max(values, default=(False, None))[1]
