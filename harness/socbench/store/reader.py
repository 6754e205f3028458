"""Finds sessions and queries many of them as one database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socbench.content import content
from socbench.errors import SelectorError, StoreError
from socbench.records import FORMAT_VERSION, Json
from socbench.store.files import is_held

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

_DOCUMENT_LIMIT_BYTES = 64 * 1024 * 1024
_NAMED = 5


class StoreWarning(UserWarning):
    """Something in the store was left out; the text names it and says why."""


def find_sessions(store: Path) -> list[Path]:
    """Return the folders of all sessions, oldest first (by ``started``, then id); unreadable ones come first."""
    folders = [path for path in (store / "sessions").glob("*") if (path / "session.json").is_file()]

    def started(folder: Path) -> tuple[str, str]:
        try:
            return str(read_document(folder).get("started") or ""), folder.name
        except StoreError:
            return "", folder.name

    return sorted(folders, key=started)


def read_document(folder: Path) -> Json:
    """Return session.json. StoreError when it is missing, damaged or of a newer format.

    A session whose writer is gone (killed, not detached) reads as ``interrupted``.
    """
    path = folder / "session.json"
    try:
        with path.open("rb") as stream:
            data = stream.read(_DOCUMENT_LIMIT_BYTES)
        loaded = json.loads(data)
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is no session: it has no session.json") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}); restore it or remove the session's folder") from error
    document: Json = loaded if isinstance(loaded, dict) else {}
    version = document.get("format")
    if isinstance(version, bool) or not isinstance(version, int):
        raise StoreError(f"{path} is damaged (no format version); restore it or remove the session's folder")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"session {folder.name} has format {version} and this socbench reads up to {FORMAT_VERSION}; "
            "update socbench: pip install --upgrade socbench"
        )
    if document.get("status") == "running" and not document.get("detached") and not is_held(folder):
        document["status"] = "interrupted"
    return document


def resolve(store: Path, selector: str | None = None) -> Path:
    """Return the one session that ``selector`` names: id, unique prefix, label or ``latest`` (the default).

    SelectorError when none fits or more than one does; it names the candidates.
    """
    folders = find_sessions(store)
    if not folders:
        raise SelectorError(f"no sessions in {store}; measure something first: socbench run")
    if selector is None or selector == "latest":
        return folders[-1]
    by_id = {folder.name: folder for folder in folders}
    if selector in by_id:
        return by_id[selector]
    labelled = [folder for folder in folders if _label(folder) == selector]
    found = labelled or ([folder for folder in folders if folder.name.startswith(selector)] if selector else [])
    if len(found) == 1:
        return found[0]
    if found:
        kind = "label" if labelled else "prefix"
        raise SelectorError(f"{kind} {selector!r} fits {len(found)} sessions ({_names(found)}); give one's id")
    raise SelectorError(
        f"no session, prefix or label {selector!r} in {store}; the last are {_names(folders[-_NAMED:])}"
    )


def resolve_many(store: Path, selectors: Sequence[str] = ()) -> list[Path]:
    """Return the sessions that the selectors name, in their order, each once; none: ``latest``."""
    return list(dict.fromkeys(resolve(store, selector) for selector in selectors or ["latest"]))


def _label(folder: Path) -> str | None:
    try:
        label = read_document(folder).get("label")
    except StoreError:
        return None
    return label if isinstance(label, str) else None


def _names(folders: Sequence[Path]) -> str:
    names = ", ".join(folder.name for folder in folders[:_NAMED])
    return names + (f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else "")


@dataclass
class Database:
    """A read-only DuckDB connection over sessions; use as a context manager.

    Views ``trials``, ``repetitions``, ``samples``, ``telemetry``, ``ops``, ``outputs`` have the tables' columns after
    ``session``; ``sessions`` has one row a session; results/schema.sql adds views with percentiles. ``warnings`` names
    the files that were skipped, and why.
    """

    connection: duckdb.DuckDBPyConnection
    folders: tuple[Path, ...]
    warnings: list[str] = field(default_factory=list)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Return a query's answer as dictionaries; a file that turns out damaged is skipped and warned of."""
        answer = self._execute(query, parameters)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def arrays(self, query: str, parameters: Sequence[object] = ()) -> dict[str, Any]:
        """Return a query's answer as NumPy arrays by column."""
        return dict(self._execute(query, parameters).fetchnumpy())

    def frame(self, query: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """Return a query's answer as a pandas data frame."""
        return self._execute(query, parameters).df()

    def _execute(self, query: str, parameters: Sequence[object]) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            return self.connection.execute(query, list(parameters))
        except duckdb.Error as error:
            at_fault = (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException)
            damaged = {} if isinstance(error, at_fault) else damaged_files(self.folders)
            fresh = [text for path, text in damaged.items() if text not in self.warnings]
            if not fresh:
                raise StoreError(f"the query failed: {str(error).strip().splitlines()[0]}") from error
            self.connection.close()
            self.connection = _connection(self.folders, frozenset(damaged))
            self.warnings.extend(fresh)
            return self._execute(query, parameters)

    def sql(self, query: str) -> pd.DataFrame:
        """Return the answer of a user's query: one SELECT (or EXPLAIN, SHOW, DESCRIBE); anything else is refused."""
        import duckdb

        try:
            statements = duckdb.extract_statements(query)
        except duckdb.Error as error:
            raise SelectorError(f"the query is no SQL: {str(error).strip().splitlines()[0]}") from error
        allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(statements) != 1 or statements[0].type not in allowed:
            raise SelectorError("the store is read-only: give one SELECT statement")
        return self.frame(query)


def connect(folders: Sequence[Path]) -> Database:
    """Open sessions (sealed or not) as one database. No file outside them can be read through it.

    StoreError for a session of a newer format; a damaged Parquet file is skipped and named in ``warnings``.
    """
    unique = tuple(dict.fromkeys(folders))
    damaged = damaged_files(unique, footers_only=True)
    return Database(_connection(unique, frozenset(damaged)), unique, list(damaged.values()))


def table_files(folder: Path, table: str) -> list[Path]:
    """Return the files that hold ``table``: the parts of an open session, or the one file of a sealed one."""
    parts = folder / "parts"
    if parts.is_dir():
        return sorted(path for path in parts.glob(f"*.{table}.parquet") if not path.name.startswith("."))
    sealed = folder / f"{table}.parquet"
    return [sealed] if sealed.is_file() else []


def damaged_files(folders: Sequence[Path], *, footers_only: bool = False) -> dict[Path, str]:
    """Return Parquet files that cannot be read (or are newer), each with the sentence that says so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from socbench.store.schema import ADDED, FORMAT_KEY, TABLES, schema

    found: dict[Path, str] = {}
    for folder in folders:
        for table in TABLES:
            for path in table_files(folder, table):
                try:
                    with pq.ParquetFile(path) as file:
                        there = file.schema_arrow
                        if not footers_only:
                            for batch in file.iter_batches(1 << 16):
                                batch.validate()
                except (pa.ArrowException, OSError, ValueError) as error:
                    reason = (str(error).splitlines() or ["unreadable"])[0][:200]
                    found[path] = f"{path} is damaged and was skipped ({reason})"
                    continue
                version = (there.metadata or {}).get(FORMAT_KEY, b"0")
                lacking = sorted(set(schema(table).names) - set(there.names) - ADDED.get(table, frozenset()))
                if version.isdigit() and int(version) > FORMAT_VERSION:
                    found[path] = f"{path} has format {version.decode()}, newer than this socbench reads; skipped"
                elif lacking:
                    found[path] = f"{path} lacks the columns {', '.join(lacking)} and was skipped"
    return found


def _connection(folders: Sequence[Path], skipped: frozenset[Path]) -> duckdb.DuckDBPyConnection:
    """Return an in-memory database with the views, shut off from every file that is not in ``folders``."""
    import duckdb

    from socbench.store.schema import TABLES

    connection = duckdb.connect(":memory:")
    documents = [read_document(folder) for folder in folders]
    connection.execute(
        "CREATE TABLE sessions (session TEXT, label TEXT, status TEXT, started TEXT, ended TEXT, socbench_version TEXT)"
    )
    names = ("label", "status", "started", "ended", "socbench_version")
    for folder, document in zip(folders, documents, strict=True):
        values = [folder.name, *(document.get(name) for name in names)]
        connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", values)
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS {_view(folders, table, skipped)}")
    connection.execute((content("results") / "schema.sql").read_text(encoding="utf-8"))
    allowed = ", ".join(_literal(f"{folder.resolve().as_posix()}/") for folder in folders)
    connection.execute(f"SET allowed_directories = [{allowed}]")
    # A path in which pattern characters are escaped counts as another path.
    files = [path for folder in folders for table in TABLES for path in table_files(folder, table)]
    escaped = {_unglobbed(path.resolve().as_posix()) for path in files} - {path.resolve().as_posix() for path in files}
    connection.execute(f"SET allowed_paths = [{', '.join(map(_literal, sorted(escaped)))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _view(folders: Sequence[Path], table: str, skipped: frozenset[Path]) -> str:
    """Return the query of one table's view: sealed files and parts, the session's id read off the path."""
    from socbench.store.schema import ADDED, schema

    queries = []
    columns = ", ".join(f'"{name}"' for name in schema(table).names)
    for depth, is_open in ((-2, False), (-3, True)):
        files = [
            path.resolve()
            for folder in folders
            if (folder / "parts").is_dir() == is_open
            for path in table_files(folder, table)
            if path not in skipped
        ]
        if files:
            names = ", ".join(_literal(_unglobbed(path.as_posix())) for path in files)
            options = "filename = true, hive_partitioning = false"
            source = f"read_parquet([{names}], {options})"
            if table in ADDED:  # a column that no file or only some have is null where it is missing
                files_query = f"SELECT * FROM read_parquet([{names}], {options}, union_by_name = true)"
                source = f"({_typed_nothing(table)} WHERE false UNION ALL BY NAME {files_query})"
            queries.append(f"SELECT split_part(filename, '/', {depth}) AS session, {columns} FROM {source}")
    return " UNION ALL ".join(queries) or f"SELECT * FROM ({_typed_nothing(table)}) WHERE false"


def _typed_nothing(table: str) -> str:
    from socbench.store.schema import schema

    sql_types = {"int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN"}
    special = {"shape": "BIGINT[]", "data": "BLOB"}
    columns = ["NULL::TEXT AS session"]
    for column in schema(table):
        kind = special.get(column.name) or sql_types.get(str(column.type), "TEXT")
        columns.append(f'NULL::{kind} AS "{column.name}"')
    return "SELECT " + ", ".join(columns)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _unglobbed(path: str) -> str:
    """Return a path in which DuckDB takes nothing for a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)
