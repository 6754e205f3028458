"""Writes one session's folder: parts while it is open, one file a table once it is sealed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from socbench.records import Json

if TYPE_CHECKING:
    import pyarrow as pa


class SessionWriter:
    """The one writer of an open session. Every file is written under a temporary name and then renamed."""

    def __init__(self, folder: Path, document: Json) -> None:
        self.folder = folder
        self._document = document

    @classmethod
    def create(cls, store: Path, document: Json) -> SessionWriter:
        """Make ``STORE/sessions/SESSION/`` with its session.json; ``document`` needs ``session`` and ``status``.

        ``format`` is added. Raises StoreError when the folder exists or cannot be written.
        """
        raise NotImplementedError

    @classmethod
    def open(cls, folder: Path) -> SessionWriter:
        """Open an unsealed session to go on with it. StoreError when it is sealed, damaged or newer."""
        raise NotImplementedError

    @property
    def journal(self) -> Path:
        """Folder for the byte-exact copies of event files and raw outputs; gone once sealed."""
        return self.folder / "journal"

    @property
    def document(self) -> Json:
        """A copy of session.json as it stands."""
        raise NotImplementedError

    def parts(self) -> frozenset[str]:
        """Return ids of the trials whose part is complete (all tables there): they need not run again."""
        raise NotImplementedError

    def write_part(self, trial_id: str, tables: dict[str, pa.Table]) -> None:
        """Write the tables of one trial (or of ``references``, ``device:NAME``), replacing what was there."""
        raise NotImplementedError

    def update(self, **fields: object) -> None:
        """Replace members of session.json, atomically."""
        raise NotImplementedError

    def seal(self, status: str) -> None:
        """Compact the parts to one file a table, set ``status`` and ``ended``, remove parts/ and journal/.

        Idempotent: an interrupted seal is finished by the next. Afterwards every file is read-only.
        """
        raise NotImplementedError
