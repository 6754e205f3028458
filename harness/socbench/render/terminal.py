"""Prints to a terminal: at most 100 columns, no colour when piped or under NO_COLOR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console

from socbench.records import ComparedPair, Device, Json, ReportData, SessionInfo


def make_console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (standard output) of at most 100 columns that never wraps piped lines at 80."""
    raise NotImplementedError


def print_results(console: Console, data: ReportData) -> None:
    """The answer in sentences, one table a model, and each warning with its advice."""
    raise NotImplementedError


def print_compare(
    console: Console, pairs: Sequence[ComparedPair], *, base: str = "base", candidate: str = "candidate"
) -> None:
    """The conclusion, the table of pairs, and what could not be compared and why."""
    raise NotImplementedError


def print_sessions(console: Console, sessions: Sequence[SessionInfo]) -> None:
    """One line a session, newest first."""
    raise NotImplementedError


def print_devices(console: Console, devices: Sequence[Device]) -> None:
    """One line a device: ready, or why not and what to do."""
    raise NotImplementedError


def print_models(console: Console, models: Sequence[Json]) -> None:
    """One line a model; the dicts are those of ``models list --json``."""
    raise NotImplementedError


def print_doctor(console: Console, checks: Sequence[Json]) -> None:
    """One line a runtime and delegate; the dicts are those of ``doctor --json``."""
    raise NotImplementedError
