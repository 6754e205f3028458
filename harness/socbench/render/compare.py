"""Prints comparisons: Markdown for a pull request, JUnit XML for CI, a section of HTML."""

from __future__ import annotations

from collections.abc import Sequence

from socbench.records import ComparedPair


def compare_markdown(
    pairs: Sequence[ComparedPair], *, base: str = "base", candidate: str = "candidate", fail_above: float | None = None
) -> str:
    """The comparison as it reads well in a pull request; ``fail_above`` is a fraction (0.05)."""
    raise NotImplementedError


def compare_junit(pairs: Sequence[ComparedPair], *, fail_above: float = 0.0, strict: bool = False) -> str:
    """JUnit XML, one test case a pair; fails as the gate of ``--fail-above`` does."""
    raise NotImplementedError
