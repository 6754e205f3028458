"""Finds sessions and queries many of them as one database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from socbench.records import Json

if TYPE_CHECKING:
    import duckdb


def find_sessions(store: Path) -> list[Path]:
    """Return the folders of all sessions, oldest first (by ``started``, then id)."""
    raise NotImplementedError


def read_document(folder: Path) -> Json:
    """Return session.json. StoreError when it is missing, damaged or of a newer format."""
    raise NotImplementedError


def resolve(store: Path, selector: str | None = None) -> Path:
    """Return the one session that ``selector`` names: id, unique prefix, label or ``latest`` (the default).

    SelectorError when none fits or more than one does; it names the candidates.
    """
    raise NotImplementedError


def resolve_many(store: Path, selectors: Sequence[str]) -> list[Path]:
    """Return the sessions that the selectors name, in their order, each once; none: ``latest``."""
    raise NotImplementedError


@dataclass
class Database:
    """A read-only DuckDB connection over sessions; use as a context manager.

    Views ``trials``, ``repetitions``, ``samples``, ``telemetry``, ``ops``, ``outputs`` have the tables' columns after
    ``session``; ``sessions`` has one row a session. ``warnings`` names the files that were skipped, and why.
    """

    connection: duckdb.DuckDBPyConnection
    warnings: tuple[str, ...] = ()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def connect(folders: Sequence[Path]) -> Database:
    """Open sessions (sealed or not) as one database. No file outside them can be read through it.

    StoreError for a session of a newer format; a damaged Parquet file is skipped and named in ``warnings``.
    """
    raise NotImplementedError
