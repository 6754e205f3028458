"""Writes one session's folder: parts while it is open, one file a table once it is sealed.

A folder is sealed when it has no ``parts/``. Parts are written plain (they are read once, soon), tables compressed.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from socbench.errors import StoreError
from socbench.records import FORMAT_VERSION, Json
from socbench.store.files import (
    LOCK,
    SessionLock,
    json_bytes,
    part_id,
    part_stem,
    unwritable,
    write_atomically,
)

if TYPE_CHECKING:
    import pyarrow as pa

SESSION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PARTS: Final = "parts"
_ROWS_AT_ONCE: Final = 1 << 20


class SessionWriter:
    """The one writer of an open session. Every file is written under a temporary name and then renamed.

    Made by :meth:`create` or :meth:`open`; a context manager that lets go of the session's lock, sealed or not.
    """

    def __init__(self, folder: Path, document: Json, lock: SessionLock) -> None:
        self.folder = folder
        self._document = document
        self._lock = lock

    @classmethod
    def create(cls, store: Path, document: Json) -> SessionWriter:
        """Make ``STORE/sessions/SESSION/`` with its session.json; ``document`` needs ``session`` and ``status``.

        ``format`` is added. Raises StoreError when the folder exists or cannot be written.
        """
        session = str(document["session"])
        if not SESSION_ID.fullmatch(session):
            raise StoreError(f"session id {session!r} cannot be a folder's name; use letters, digits, '.', '_' and '-'")
        folder = store / "sessions" / session
        try:
            folder.mkdir(parents=True)
            (folder / PARTS).mkdir()
            (folder / "journal").mkdir()
        except FileExistsError as error:
            raise StoreError(f"session {session} exists already in {store}; resume it or remove it") from error
        except OSError as error:
            raise unwritable(folder, error) from error
        writer = cls(folder, {"format": FORMAT_VERSION, **copy.deepcopy(document)}, _locked(folder))
        writer.update()
        return writer

    @classmethod
    def open(cls, folder: Path) -> SessionWriter:
        """Open an unsealed session to go on with it. StoreError when it is sealed, in use, damaged or newer."""
        from socbench.store.reader import read_document

        document = read_document(folder)
        if not (folder / PARTS).is_dir():
            raise StoreError(f"session {folder.name} is sealed and never changes; start a new one")
        return cls(folder, document, _locked(folder))

    def __enter__(self) -> SessionWriter:
        return self

    def __exit__(self, _type: type[BaseException] | None, _: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the session; unsealed, it can be opened again."""
        self._lock.release()

    @property
    def journal(self) -> Path:
        """Folder for the byte-exact copies of event files and raw outputs; gone once sealed."""
        return self.folder / "journal"

    @property
    def document(self) -> Json:
        """A copy of session.json as it stands."""
        return copy.deepcopy(self._document)

    def parts(self) -> frozenset[str]:
        """Return ids of the trials whose part is complete (all tables there): they need not run again."""
        ending = ".trials.parquet"
        names = (path.name for path in (self.folder / PARTS).glob(f"*{ending}"))
        return frozenset(part_id(name.removesuffix(ending)) for name in names if not name.startswith("."))

    def write_part(self, trial_id: str, tables: dict[str, pa.Table]) -> None:
        """Write the tables of one trial (or of ``references``, ``device:NAME``), replacing what was there.

        The table ``trials`` comes last: where it lies, the part is complete.
        """
        from socbench.store.schema import schema

        stem = part_stem(trial_id)
        for table in sorted(tables, key=lambda name: name == "trials"):
            if tables[table].num_rows:
                rows = tables[table].cast(schema(table))
                _write_tables(self.folder / PARTS / f"{stem}.{table}.parquet", table, [rows], sealed=False)

    def update(self, **fields: object) -> None:
        """Replace members of session.json, atomically."""
        document = {**self._document, **fields}
        write_atomically(self.folder / "session.json", json_bytes(document))
        self._document = document

    def seal(self, status: str) -> None:
        """Compact the parts to one file a table, set ``status`` and ``ended``, remove parts/ and journal/.

        Idempotent: an interrupted seal is finished by the next. Afterwards every file is read-only. A part that
        cannot be read raises StoreError that names it, and nothing is removed.
        """
        from socbench.store.schema import TABLES

        parts = self.folder / PARTS
        if not parts.is_dir():
            return
        for table in TABLES:
            _write_tables(self.folder / f"{table}.parquet", table, _parts_of(parts, table), sealed=True)
        self.update(status=status, ended=self._document.get("ended") or now())
        # From this rename on the session is sealed; before it the parts are what counts.
        gone = self.folder / ".gone"
        shutil.rmtree(gone, ignore_errors=True)
        parts.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        shutil.rmtree(self.journal, ignore_errors=True)
        self.close()
        (self.folder / LOCK).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            path.chmod(0o444)


def replace_table(folder: Path, table: str, keep: Callable[[pa.Table], pa.Table], added: pa.Table) -> None:
    """Rewrite one table of a sealed session: what ``keep`` leaves of each row group, then ``added``. Atomic.

    Raises StoreError when the table can't be read or the new one can't be written; the old one is then untouched.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from socbench.store.schema import schema

    path = folder / f"{table}.parquet"

    def rows() -> Iterator[pa.Table]:
        try:
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    yield keep(file.read_row_group(number).cast(schema(table)))
        except FileNotFoundError:
            pass  # a session without such rows need not have the file
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{path} is damaged ({_first_line(error)}); nothing was changed") from error
        yield added.cast(schema(table))

    _write_tables(path, table, rows(), sealed=True)
    path.chmod(0o444)


def now() -> str:
    """Return the time of day as the store writes it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _locked(folder: Path) -> SessionLock:
    lock = SessionLock(folder)
    if not lock.acquire():
        raise StoreError(f"session {folder.name} is being written by another process; wait for it or stop it")
    return lock


def _parts_of(parts: Path, table: str) -> Iterator[pa.Table]:
    """Yield the rows of a table from all parts, in the order of the parts' names, some million at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from socbench.store.schema import schema

    wanted, waiting, rows = schema(table), list[Any](), 0
    seen: set[str] = set()
    for path in sorted(parts.glob(f"*.{table}.parquet")):
        if path.name.startswith("."):
            continue
        try:
            part = pq.ParquetFile(path, memory_map=True).read().cast(wanted)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"part {path} is damaged ({_first_line(error)}); remove it and seal again") from error
        waiting.append(_without_repeated_data(part, seen) if table == "outputs" else part)
        rows += part.num_rows
        if rows >= _ROWS_AT_ONCE or table == "outputs":
            yield pa.concat_tables(waiting).unify_dictionaries()
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries()


def _without_repeated_data(outputs: pa.Table, seen: set[str]) -> pa.Table:
    """Null the bytes of outputs whose sha256 an earlier row of the session holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keep = []
    for sha256, there in zip(outputs["sha256"].to_pylist(), pc.is_valid(outputs["data"]).to_pylist(), strict=True):
        keep.append(there and sha256 not in seen)
        if there:
            seen.add(sha256)
    data = pc.if_else(pa.array(keep, type=pa.bool_()), outputs["data"], pa.scalar(None, outputs["data"].type))
    return outputs.set_column(outputs.schema.get_field_index("data"), outputs.schema.field("data"), data)


def _write_tables(path: Path, table: str, tables: list[pa.Table] | Iterator[pa.Table], *, sealed: bool) -> None:
    """Write tables of one schema as the row groups of one Parquet file, under a temporary name, then rename."""
    import pyarrow.parquet as pq

    from socbench.store.schema import schema

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with (
            temporary.open("wb") as stream,
            pq.ParquetWriter(stream, schema(table), **_options(table, sealed=sealed)) as writer,
        ):
            for rows in tables:
                writer.write_table(rows, row_group_size=_ROWS_AT_ONCE)
        if sealed:
            _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _options(table: str, *, sealed: bool) -> dict[str, Any]:
    """How a table is encoded. Times grow by small steps, so differences of neighbours pack them best."""
    if not sealed:
        return {"compression": "none", "use_dictionary": ["trial"] if table == "samples" else False}
    if table == "samples":
        return {
            "compression": "zstd",
            "compression_level": 1,
            "use_dictionary": ["trial"],
            "column_encoding": {"start_ns": "DELTA_BINARY_PACKED", "latency_ns": "DELTA_BINARY_PACKED"},
        }
    return {"compression": "zstd", "compression_level": 3}


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
