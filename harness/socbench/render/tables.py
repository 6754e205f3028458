"""One schema of columns for the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from socbench.records import ComparedPair, Device, Json, SessionInfo, TrialRow


def rows_json(rows: Sequence[TrialRow]) -> list[Json]:
    """The rows as ``results trials --json`` prints them; not known is ``None``, never NaN."""
    raise NotImplementedError


def compare_json(pairs: Sequence[ComparedPair]) -> list[Json]:
    """The pairs as ``compare --json`` prints them."""
    raise NotImplementedError


def sessions_json(sessions: Sequence[SessionInfo]) -> list[Json]:
    """The sessions as ``results list --json`` prints them."""
    raise NotImplementedError


def devices_json(devices: Sequence[Device]) -> list[Json]:
    """The devices as ``devices --json`` prints them."""
    raise NotImplementedError


def rows_markdown(rows: Sequence[TrialRow], models: Json | None = None) -> str:
    """The main tables as Markdown, one a model; ``models`` is ``SessionInfo.models`` (for titles)."""
    raise NotImplementedError


def rows_csv(rows: Sequence[TrialRow]) -> str:
    """Every field of every row as CSV (header line, raw units, empty where not known)."""
    raise NotImplementedError
