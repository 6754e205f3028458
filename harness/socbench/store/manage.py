"""What is done to whole sessions: label, remove, seal, export, import, merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def default_store() -> Path:
    """Return ``SOCBENCH_STORE``, else ``socbench`` in the user's data folder."""
    raise NotImplementedError


def label(store: Path, selector: str, text: str | None) -> str:
    """Give a session a label (``None`` takes it away); returns the session's id."""
    raise NotImplementedError


def remove(store: Path, selector: str, *, force: bool = False) -> str:
    """Remove a session for good; refuses one that is running unless forced. Returns its id."""
    raise NotImplementedError


def seal(store: Path, selector: str) -> str:
    """Seal an interrupted session as it is; refuses one that is running (a live process holds it). Returns its id."""
    raise NotImplementedError


def export(store: Path, selectors: Sequence[str], target: Path) -> list[str]:
    """Write sessions to one ``.zip``, ``.tar``, ``.tar.gz`` or ``.tar.zst``-less archive; returns their ids."""
    raise NotImplementedError


def import_archive(store: Path, source: Path) -> list[str]:
    """Take the sessions of an archive into the store; returns ids. Refuses paths that escape and what is too large."""
    raise NotImplementedError


def merge(store: Path, other: Path) -> list[str]:
    """Copy the sessions of another store that this one lacks; returns their ids."""
    raise NotImplementedError
