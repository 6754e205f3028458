"""Turns agent events (docs/protocol.md) into the tables of a session. Pure: what it reads is handed to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from socbench.records import Failure, Json, Status, TrialPlan

if TYPE_CHECKING:
    import pyarrow as pa

Raw = Callable[[str], bytes | None]
"""Gives the raw output bytes of a sha256 (from ``journal/``), ``None`` where they were not fetched."""


def read_events(path: Path, device: str) -> Iterator[Json]:
    """Yield the events of a journal file, one JSON object a line; a last line without its newline is not yet one.

    Raises ProtocolError naming device and line when a line is no JSON object.
    """
    raise NotImplementedError


def trial_tables(
    trial: TrialPlan,
    events: Iterable[Json],
    *,
    raw: Raw,
    planned: int | None = None,
    status: Status | None = None,
    error: Failure | None = None,
) -> dict[str, pa.Table]:
    """Return the six tables of one trial from its device's events (others' events are passed over).

    Of a repetition that was run more than once the last attempt counts (a new ``hello`` voids what was unfinished).
    Status, unless given: ``failed`` when a repetition failed (its error is the trial's), ``interrupted`` when fewer
    than ``planned`` were done, else ``done``. Raises ProtocolError naming the device when an event is nonsense.
    """
    raise NotImplementedError


def untried_tables(trial: TrialPlan, status: Status, error: Failure | None = None) -> dict[str, pa.Table]:
    """Return the tables of a trial that never ran: excluded (``trial.excluded`` is its error) or interrupted."""
    raise NotImplementedError


def device_tables(device: str, events: Iterable[Json]) -> dict[str, pa.Table]:
    """Return the ``telemetry`` between repetitions of one device (rows of no trial); part id ``device:NAME``."""
    raise NotImplementedError


def reference_tables(references: Iterable[tuple[str, list[Json]]], raw: Raw) -> dict[str, pa.Table]:
    """Return the ``outputs`` rows of references: pairs of ``reference:NAME`` and tensors as in an ``outputs`` event.

    A tensor is ``{"name", "dtype", "shape" (of one), "count", "sha256"}``. Part id ``references``.
    """
    raise NotImplementedError


def clock_pairs(events: Iterable[Json]) -> list[Json]:
    """Return ``{"monotonic_ns", "wall_ns", "gap_ns"}`` of the ``clock`` events, for ``session.json`` ``clocks``."""
    raise NotImplementedError
