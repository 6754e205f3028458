"""What is done to whole sessions: label, remove, seal, export, import, merge."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final

from socbench.errors import StoreError, UsageError
from socbench.records import Json
from socbench.store.files import is_held, json_bytes, unwritable, write_atomically
from socbench.store.reader import find_sessions, read_document, resolve, resolve_many
from socbench.store.writer import SESSION_ID, SessionWriter

IMPORT_LIMIT_BYTES: Final = 50 * 1024**3
IMPORT_LIMIT_FILES: Final = 100_000
_ENDINGS: Final = (".zip", ".tar", ".tar.gz", ".tgz")


def default_store() -> Path:
    """Return ``SOCBENCH_STORE``, else ``socbench`` in the user's data folder."""
    chosen = os.environ.get("SOCBENCH_STORE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("socbench", appauthor=False))


def label(store: Path, selector: str, text: str | None) -> str:
    """Give a session a label (``None`` takes it away); returns the session's id.

    The label is the one thing of a sealed session that may change.
    """
    folder = resolve(store, selector)
    if is_held(folder):
        raise StoreError(f"session {folder.name} is running; label it when it has ended")
    if text == "latest" or (text is not None and not text.strip()):
        raise UsageError(f"{text!r} cannot be a label; choose a word that is not 'latest'")
    document = read_document(folder)
    document["label"] = text
    write_atomically(folder / "session.json", json_bytes(document))
    return folder.name


def remove(store: Path, selector: str, *, force: bool = False) -> str:
    """Remove a session for good; refuses one that is running unless forced. Returns its id."""
    folder = resolve(store, selector)
    if not force:
        _refuse_running(folder, "remove it with --force")
    # Renamed first: what is half removed is no session any more.
    gone = folder.with_name(f".{folder.name}.gone")
    try:
        folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise StoreError(f"cannot remove session {folder.name}: {error.strerror or error}") from error
    return folder.name


def seal(store: Path, selector: str) -> str:
    """Seal an interrupted session as it is; refuses one that is running. Returns its id."""
    folder = resolve(store, selector)
    _refuse_running(folder, "stop it first")
    if (folder / "parts").is_dir():
        with SessionWriter.open(folder) as writer:
            writer.seal("interrupted" if writer.document["status"] == "running" else str(writer.document["status"]))
    return folder.name


def _refuse_running(folder: Path, otherwise: str) -> None:
    try:
        running = is_held(folder) or read_document(folder).get("status") == "running"
    except StoreError:
        running = False
    if running:
        raise StoreError(f"session {folder.name} is running; wait for its end or {otherwise}")


def export(store: Path, selectors: Sequence[str], target: Path) -> list[str]:
    """Write sessions to one ``.zip``, ``.tar`` or ``.tar.gz`` (``.tgz``) archive; returns their ids."""
    if not target.name.endswith(_ENDINGS):
        raise UsageError(f"cannot export to {target.name!r}; its ending must be one of {', '.join(_ENDINGS)}")
    folders = resolve_many(store, selectors)
    for folder in folders:
        _refuse_running(folder, "stop it first")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _pack(folders, temporary, target.name)
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return [folder.name for folder in folders]


def _pack(folders: Sequence[Path], temporary: Path, name: str) -> None:
    files = [(path, path.relative_to(folder.parent).as_posix()) for folder in folders for path in _files(folder)]
    if name.endswith(".zip"):
        # Parquet is compressed already.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for path, inside in files:
                archive.write(path, inside)
        return
    compressed = name.endswith(("gz",))
    with tarfile.open(temporary, "w:gz" if compressed else "w") as tar:
        for path, inside in files:
            tar.add(path, inside, recursive=False)


def _files(folder: Path) -> list[Path]:
    """Return what of a session travels: its plain files, but no journal, lock or temporary file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    kept = (path for path in files if not path.name.startswith(".") and path.name != "lock")
    return [path for path in kept if "journal" not in path.relative_to(folder).parts]


def import_archive(store: Path, source: Path) -> list[str]:
    """Take the sessions of an archive into the store; returns the ids of those that it lacked.

    Refuses members that are no plain files, paths that lead out of the archive, and what is too large. What was
    ``running`` or ``interrupted`` where it came from is ``imported`` here: nobody can go on with it.
    """
    sessions = store / "sessions"
    try:
        sessions.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=sessions) as scratch:
            folder = Path(scratch)
            _unpack(source, folder)
            found = sorted(path.parent for path in folder.rglob("session.json"))
            if not found:
                raise StoreError(f"{source} holds no session; it must be an archive made by `socbench results export`")
            return _take(found, sessions, Path.rename)
    except FileNotFoundError as error:
        raise UsageError(f"{source} does not exist; give the path of an exported archive") from error
    except OSError as error:
        raise unwritable(sessions, error) from error


def merge(store: Path, other: Path) -> list[str]:
    """Copy the sessions of another store that this one lacks; returns their ids."""
    folders = find_sessions(other)
    if not folders:
        raise UsageError(f"{other} is no results store: it has no sessions/*/session.json")
    for folder in folders:
        _refuse_running(folder, "stop it first")
    sessions = store / "sessions"
    try:
        sessions.mkdir(parents=True, exist_ok=True)
        return _take(folders, sessions, _copy)
    except OSError as error:
        raise unwritable(sessions, error) from error


def _copy(folder: Path, target: Path) -> None:
    for path in _files(folder):
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _take(folders: Sequence[Path], sessions: Path, bring: Callable[[Path, Path], object]) -> list[str]:
    """Bring session folders into ``sessions``; one that is there already stays as it is."""
    taken = []
    for folder in folders:
        document = read_document(folder)
        session = str(document.get("session"))
        if not SESSION_ID.fullmatch(session):
            raise StoreError(f"{folder.name} names a session {session[:60]!r} that cannot be a folder; not imported")
        if (sessions / session).exists():
            continue
        arriving = sessions / f".{session}.arriving"
        shutil.rmtree(arriving, ignore_errors=True)
        bring(folder, arriving)
        _mark_imported(arriving, document)
        arriving.rename(sessions / session)
        taken.append(session)
    return taken


def _mark_imported(folder: Path, document: Json) -> None:
    shutil.rmtree(folder / "journal", ignore_errors=True)
    if document.get("status") in ("running", "interrupted"):
        write_atomically(folder / "session.json", json_bytes({**document, "status": "imported"}))
    for path in folder.glob("*.parquet"):
        path.chmod(0o444)


def _unpack(source: Path, target: Path) -> None:
    """Write an archive's members below ``target``. Members stream through a limit: sizes in headers may lie."""
    left = IMPORT_LIMIT_BYTES
    try:
        for number, (name, stream) in enumerate(_members(source)):
            place = target / _inside(source, name)
            if number >= IMPORT_LIMIT_FILES:
                raise StoreError(f"{source} holds over {IMPORT_LIMIT_FILES} files; not imported")
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as out:
                while block := stream.read(1 << 20):
                    left -= len(block)
                    if left < 0:
                        raise StoreError(f"{source} unpacks to over {IMPORT_LIMIT_BYTES >> 30} GiB; not imported")
                    out.write(block)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"{source} is damaged or no archive ({error}); export it again") from error
    except FileExistsError as error:
        raise StoreError(f"{source} holds one path twice or a file as a folder; not imported") from error


def _members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of an archive's plain files; anything else in it is refused."""
    with source.open("rb") as probe:
        is_zip = probe.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                kind = (entry.external_attr >> 16) & 0o170000
                if kind not in (0, 0o100000, 0o040000):
                    raise StoreError(f"{source} holds {entry.filename[:100]!r}, which is no plain file; not imported")
                if not entry.is_dir():
                    with archive.open(entry) as stream:
                        yield entry.filename, stream
        return
    with tarfile.open(source, "r:*") as tar:
        for member in tar:
            if member.isdir():
                continue
            stream_or_none = tar.extractfile(member) if member.isreg() else None
            if stream_or_none is None:
                raise StoreError(f"{source} holds {member.name[:100]!r}, which is no plain file; not imported")
            yield member.name, stream_or_none


def _inside(source: Path, name: str) -> PurePosixPath:
    """Return a member's path when it stays inside; archives from Windows may use backslashes, which escape there."""
    path = PurePosixPath(name)
    bad = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
    if bad or not path.parts or len(name) > 1000:
        raise StoreError(f"{source} holds the path {name[:100]!r}, which leads out of the archive; not imported")
    return path
