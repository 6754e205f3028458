"""The public results API: what a notebook, the command line and the renderers read sessions with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socbench.records import ComparedPair, ReportData, SessionInfo, TrialRow

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """A results store. Selectors are a session id, a unique prefix, a label or ``latest``; ``None`` is all sessions."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def sessions(self) -> pd.DataFrame:
        """One row a session: session, label, status, started, ended, devices, trials."""
        raise NotImplementedError

    def trials(self, selector: str | None = None) -> pd.DataFrame:
        """One row a trial, columns as TrialRow (``reasons`` are codes)."""
        raise NotImplementedError

    def samples(self, selector: str | None = None, trial: str | None = None) -> pd.DataFrame:
        """Every single latency: session, trial, repetition, phase, start_ns, latency_ns, late_ns."""
        raise NotImplementedError

    def telemetry(self, selector: str | None = None) -> pd.DataFrame:
        """What was read off the devices: session, device, trial, repetition, t_ns, kind, source, value, reason."""
        raise NotImplementedError

    def sql(self, query: str) -> pd.DataFrame:
        """Answer of a DuckDB query over the views of :class:`socbench.store.reader.Database`."""
        raise NotImplementedError


def open_results(store: str | Path | None = None) -> Results:
    """Open a results store; the default is ``SOCBENCH_STORE``, else the user's data folder."""
    raise NotImplementedError


def session_info(store: Path, selector: str | None = None) -> SessionInfo:
    """Return what session.json says of one session (default ``latest``)."""
    raise NotImplementedError


def session_list(store: Path) -> list[SessionInfo]:
    """Return all sessions, oldest first; damaged or newer ones are left out with a warning (StoreWarning)."""
    raise NotImplementedError


def trial_rows(store: Path, selector: str | None = None) -> list[TrialRow]:
    """Return every row of one session (default ``latest``), in the plan's order, with statistics and verdicts."""
    raise NotImplementedError


def report_data(store: Path, selectors: Sequence[str] = ()) -> ReportData:
    """Return everything that a renderer needs of sessions (default ``latest``)."""
    raise NotImplementedError


def compare_rows(
    store: Path,
    base: str | None = None,
    candidate: str | None = None,
    *,
    by: str | None = None,
    allow: Sequence[str] = (),
    margin: float = 0.03,
) -> list[ComparedPair]:
    """Compare two sessions, or with ``by`` (``runtime``, ``delegate``, ``precision``, ``device``, ``variant`` ...) the
    rows of one session with each other; a session run with ``--ab`` compares its two arms. ``allow`` names
    conditions that may differ. SelectorError for what isn't found, UsageError when not one pair is comparable.
    """
    raise NotImplementedError


def history(store: Path, model: str, *, device: str | None = None) -> list[dict[str, Any]]:
    """Return the keys of ``model`` over all sessions: each with its points in time and the steps found in them."""
    raise NotImplementedError
