"""Writes a report in the format that the target's ending asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from socbench.records import ComparedPair, ReportData


def write_report(data: ReportData, target: Path, *, compare: Sequence[ComparedPair] | None = None) -> list[Path]:
    """Write ``data`` to ``target`` (.html .md .csv .json .png .svg .pdf by its ending); return every file written.

    A picture ending writes the leading figure to ``target`` and the others beside it (``STEM-NAME.png``).
    Raises ``UsageError`` for another ending or nothing to show, ``FailedError`` if the target cannot be written.
    """
    raise NotImplementedError
