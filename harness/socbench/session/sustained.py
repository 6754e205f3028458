"""What a run that lasts needs of a session beside the usual: room on the disks, and the picture while it goes on."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from socbench.agents.channel import Channel
from socbench.agents.provision import free_bytes
from socbench.errors import AgentError, StoreError
from socbench.plan import RunRequest
from socbench.records import Json, TrialPlan
from socbench.transports.base import Deadline

_SAMPLES_HZ: Final = 1000.0
"""How often a model is taken to run before anything is known of it: 1 ms an inference is a fast one."""
_DEVICE_BYTES: Final = 14
"""An inference in an event file: two decimal numbers and their commas."""
_STORE_BYTES: Final = 50
"""An inference in the store while a session is open: the device's text, the plain part, the sealed table."""
_TELEMETRY_BYTES_S: Final = 4000.0
_RECENT_S: Final = 10.0
_BEGINNING_BYTES: Final = 1 << 20
_FIXED_MOST_S: Final = 10.0
_BASELINE_S: Final = 60.0
_BASELINE_LEAST_S: Final = 10.0
_HEAT: Final = ("clock_cap_khz", "gpu_clock_cap_khz", "thermal_status")
_CAPPED: Final = 0.97


def bytes_needed(trials: Iterable[TrialPlan], bytes_a_sample: int) -> int:
    """Return about how much the samples and the telemetry of the sustained trials take."""
    settings = [trial.settings for trial in trials if trial.scenario == "sustained" and trial.excluded is None]
    return sum(
        int(one.min_time_s * ((one.rate_hz or _SAMPLES_HZ) * bytes_a_sample + _TELEMETRY_BYTES_S)) for one in settings
    )


def check_store_room(store: Path, trials: Iterable[TrialPlan]) -> None:
    """Raise StoreError when the store's disk has no room for what the sustained trials will measure."""
    needed, free = bytes_needed(trials, _STORE_BYTES), shutil.disk_usage(store).free
    if needed > free:
        raise StoreError(
            f"the disk of the results store {store} has {free / 1e6:.0f} MB free and this run may need "
            f"{needed / 1e6:.0f} MB: make room there, choose a shorter --duration or another --store"
        )


def check_device_room(channel: Channel, trials: Iterable[TrialPlan]) -> None:
    """Raise AgentError (code ``disk_full``) when a device has no room for the events of its sustained trials."""
    needed = bytes_needed(trials, _DEVICE_BYTES)
    if not needed:
        return
    free = free_bytes(channel, deadline=Deadline.after(60.0, "the device's free space"))
    if free is not None and needed > free:
        raise AgentError(
            f"{channel.address} has {free / 1e6:.0f} MB free and this run may need {needed / 1e6:.0f} MB: "
            "make room there or choose a shorter --duration",
            code="disk_full",
            advice=f"socbench devices clean {channel.address}",
        )


def first_baseline(journal: Path) -> Json:
    """Return the member ``baseline`` of ``cool_down`` as a device's first job told it; nothing before it has.

    A job that goes on with a session (an agent died, a session is resumed) finds the device warm: what the whole
    session began with counts, not what it finds.
    """
    if not journal.exists():
        return {}
    with journal.open("rb") as stream:
        lines = stream.read(_BEGINNING_BYTES).split(b"\n")[:-1]
    for line in lines:
        if b'"cool_down"' not in line:
            continue
        try:
            told = msgspec.json.decode(line, type=_CoolDown).detail.baseline
        except msgspec.DecodeError:
            continue
        if told is not None:
            return {"baseline": msgspec.to_builtins(told)}
    return {}


class _Baseline(msgspec.Struct):
    temperatures: dict[str, int]
    caps: dict[str, int]
    status: int | None = None


class _Detail(msgspec.Struct):
    baseline: _Baseline | None = None


class _CoolDown(msgspec.Struct):
    detail: _Detail


def fixed_wait(request: RunRequest, shares_host: bool) -> Json:
    """Return the member of ``cool_down`` for a device that tells no temperature: five times what is measured.

    Ten seconds at most, and none on this machine (its fans follow its own sensors) or in the suite ``quick``.
    """
    if shares_host or request.suite == "quick":
        return {}
    return {"fixed_s": min(_FIXED_MOST_S, 5.0 * (request.min_time_s or 1.0))}


class SustainedWatch:
    """The state of one sustained repetition as its samples come in; times are the device's own.

    ``latency_ns`` is the median of the last ten seconds, ``slowdown`` that over the first minute's (known after ten
    seconds), ``left_s`` what is left of the duration, ``throttled`` by what heat shows itself now, if it does.
    """

    def __init__(self, trial: TrialPlan) -> None:
        self.trial = trial
        self.latency_ns: float | None = None
        self.slowdown: float | None = None
        self.left_s: float | None = None
        self._first: dict[str, int] = {}
        self._heat: dict[str, str] = {}
        self._first_ns: int | None = None
        self._recent: deque[tuple[int, float]] = deque()
        self._baseline: list[float] = []

    @property
    def throttled(self) -> str:
        """``clock limit lowered to 1.65 GHz``, ``thermal status 2``, or nothing."""
        return next((words for words in self._heat.values() if words), "")

    def telemetry(self, rows: msgspec.Raw) -> None:
        """Take the rows of a telemetry event; what is no row is passed over."""
        try:
            found = msgspec.json.decode(rows, type=list[list[int | float | str | None]])
        except msgspec.DecodeError:
            return
        for row in found:
            if len(row) < 4 or not isinstance(row[3], int) or row[1] not in _HEAT:
                continue
            kind, name = str(row[1]), f"{row[1]} {row[2]}"
            first = self._first.setdefault(name, row[3])
            if kind == "thermal_status":
                self._heat[name] = f"thermal status {row[3]}" if row[3] > first else ""
            else:
                capped = row[3] < _CAPPED * first
                self._heat[name] = f"clock limit lowered to {row[3] / 1e6:.2f} GHz" if capped else ""

    def samples(self, t_ns: int, latency_ns: msgspec.Raw) -> None:
        """Take a batch of measured samples (their JSON list); what is no list of numbers is passed over."""
        try:
            values = msgspec.json.decode(latency_ns, type=list[int])
        except msgspec.DecodeError:
            return
        if not values:
            return
        self._first_ns = t_ns if self._first_ns is None else self._first_ns
        since_s = (t_ns - self._first_ns) / 1e9
        middle = float(median(values))
        self._recent.append((t_ns, middle))
        while self._recent[0][0] < t_ns - _RECENT_S * 1e9:
            self._recent.popleft()
        if since_s <= _BASELINE_S:
            self._baseline.append(middle)
        self.latency_ns = float(median(value for _, value in self._recent))
        if since_s >= _BASELINE_LEAST_S:
            self.slowdown = self.latency_ns / max(1.0, float(median(self._baseline)))
        self.left_s = max(0.0, self.trial.settings.min_time_s - since_s)
