"""The answer in sentences, written from the rows."""

from __future__ import annotations

from collections.abc import Sequence

from socbench.records import ComparedPair, ReportData


def answer(data: ReportData) -> list[str]:
    """Two to five sentences for each model and device: what to pick, how sure that is, what can't be told."""
    raise NotImplementedError


def compare_answer(pairs: Sequence[ComparedPair], *, base: str = "base", candidate: str = "candidate") -> list[str]:
    """The conclusion of a comparison."""
    raise NotImplementedError
