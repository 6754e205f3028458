"""Fetches the vendors' own runtime libraries for the native agent: from AARs, wheels and npm packages, by lock file.

Libraries lie in ``CACHE/vendor/PLATFORM``. What the lock file (``device_agents/native/vendor.lock.json``) knows no
hash of is recorded at the first fetch, told, and must be the same ever after.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from socbench.cache import cache_folder, sha256_of_file
from socbench.content import content
from socbench.errors import EnvironmentsError, UsageError

LIMIT_BYTES: Final = 1024**3
_DEADLINE_S: Final = 600.0
_MAVEN: Final = {"com.google.ai.edge.litert": "https://dl.google.com/android/maven2"}
_MAVEN_CENTRAL: Final = "https://repo1.maven.org/maven2"
_NPM: Final = "https://registry.npmjs.org"
_MACHINES: Final = {"arm64": (2, 183), "x86_64": (2, 62), "armv7": (1, 40)}
"""ELF class and machine of an architecture."""
_ABIS: Final = {"arm64": "arm64-v8a", "x86_64": "x86_64", "armv7": "armeabi-v7a"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Archive:
    """One package of a vendor. ``files``: for each platform the libraries to take, by the member that holds each."""

    id: str
    runtime: str
    version: str
    source: str
    sha256: str | None
    licence: str
    standard: bool
    files: Mapping[str, Mapping[str, str]]

    @property
    def url(self) -> str | None:
        """Where it is downloaded from; None where pip fetches it."""
        kind, *words = self.source.split(":")
        if kind == "maven":
            group, name, version = words
            base = _MAVEN.get(group, _MAVEN_CENTRAL)
            return f"{base}/{group.replace('.', '/')}/{name}/{version}/{name}-{version}.aar"
        if kind == "npm":
            name, version = words
            return f"{_NPM}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        return None


def lock(path: Path | None = None) -> list[Archive]:
    """Return the archives of the lock file."""
    document = json.loads((path or content("device_agents") / "native" / "vendor.lock.json").read_text("utf-8"))
    return [Archive(**entry) for entry in document["archives"]]


def platforms() -> list[str]:
    """Return every platform that something can be fetched for."""
    return sorted({platform for archive in lock() for platform in archive.files})


def library_folder(platform: str) -> Path | None:
    """Return the folder with the fetched libraries of a platform, None when nothing was fetched for it."""
    folder = cache_folder("vendor") / platform
    return folder if folder.is_dir() and any(folder.glob("*.so*")) else None


def fetch(
    platform: str,
    *,
    only: Sequence[str] = (),
    local: Sequence[Path] = (),
    say: Callable[[str], None] = lambda _: None,
    archives: Sequence[Archive] | None = None,
) -> Path:
    """Put the libraries of a platform into the cache; returns their folder.

    ``only`` names archives by their id (else every standard one), ``local`` are files that were downloaded by hand.

    Raises UsageError for a platform, archive or file that cannot be used, EnvironmentsError when one cannot be fetched
    or is not what the lock file or an earlier fetch says.
    """
    known = list(lock() if archives is None else archives)
    if platform not in {name for archive in known for name in archive.files}:
        names = sorted({name for archive in known for name in archive.files})
        raise UsageError(f"there are no runtimes for {platform!r}: there are some for {', '.join(names)}")
    folder = cache_folder("vendor") / platform
    folder.mkdir(parents=True, exist_ok=True)
    if local:
        for path in local:
            _take_local(path, platform, known, folder, say)
        return folder
    for archive in _chosen(platform, known, only):
        try:
            _take(archive, platform, _download(archive, say), folder, say)
        except EnvironmentsError as problem:
            if len(known) == 1 or only:
                raise
            raise EnvironmentsError(
                f"{problem}: download it elsewhere and name the file: socbench runtimes fetch {platform} --from FILE"
            ) from problem
    return folder


def _chosen(platform: str, known: Sequence[Archive], only: Sequence[str]) -> list[Archive]:
    here = {archive.id: archive for archive in known if platform in archive.files}
    unknown = [name for name in only if name not in here]
    if unknown:
        raise UsageError(f"there is no archive {unknown[0]!r} for {platform}: there are {', '.join(here)}")
    return [here[name] for name in only] if only else [archive for archive in here.values() if archive.standard]


def _take_local(path: Path, platform: str, known: Sequence[Archive], folder: Path, say: Callable[[str], None]) -> None:
    """Take a file that the user has: an archive of the lock file by its hash or name, or the libraries in any AAR."""
    if not path.is_file():
        raise UsageError(f"{path} is no file: name an AAR, wheel or npm package that was downloaded")
    digest = sha256_of_file(path)
    for archive in known:
        named = archive.url is not None and archive.url.rpartition("/")[2] == path.name
        if platform in archive.files and (archive.sha256 == digest or named):
            return _take(archive, platform, path, folder, say)
    abi = _ABIS[platform.partition("-")[2]]
    members = [name for name in _names(path) if f"/{abi}/" in f"/{name}" and name.endswith(".so")]
    if not members:
        raise UsageError(f"{path.name} holds no libraries for {platform} (none in a folder {abi}/)")
    say(f"{path.name}  sha256 {digest}  (not in the lock file: taken as it is)")
    for member in members:
        _extract(path, member, folder / _safe(member.rpartition("/")[2]), platform)
    return None


def _take(archive: Archive, platform: str, path: Path, folder: Path, say: Callable[[str], None]) -> None:
    _check_hash(archive, path, say)
    for name, member in archive.files[platform].items():
        _extract(path, member, folder / _safe(name), platform)
    (folder / f"{archive.runtime}.version").write_text(f"{archive.version}\n", encoding="utf-8")
    say(f"{archive.id} {archive.version} ({archive.licence}): {', '.join(archive.files[platform])}")


def _check_hash(archive: Archive, path: Path, say: Callable[[str], None]) -> None:
    """Compare with the lock file, or with what the first fetch recorded."""
    digest = sha256_of_file(path)
    record = cache_folder("vendor") / "recorded.json"
    try:
        recorded = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        recorded = {}
    key = f"{archive.id} {archive.source}"
    wanted = archive.sha256 or recorded.get(key)
    if wanted is None:
        say(f"{archive.id}: sha256 {digest} (first fetch: recorded; nobody verified it)")
        partial = record.with_name(f".{record.name}.{os.getpid()}")
        partial.write_text(json.dumps({**recorded, key: digest}, indent=1), encoding="utf-8")
        partial.replace(record)
    elif wanted != digest:
        where = "the lock file" if archive.sha256 else "an earlier fetch"
        raise EnvironmentsError(f"{path.name} has the sha256 {digest}, {where} says {wanted}: it is not used")


def _download(archive: Archive, say: Callable[[str], None]) -> Path:
    """Return the archive in the cache, downloaded when it is not there."""
    folder = cache_folder("vendor") / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{archive.id}-{archive.version}.archive"
    if kept.is_file():
        return kept
    partial = kept.with_name(f".{kept.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        if archive.url is None:
            say(f"fetching {archive.id} {archive.version} with pip")
            _with_pip(archive, partial)
        else:
            say(f"fetching {archive.url}")
            _with_http(archive.url, partial)
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)
    return kept


def _with_http(url: str, into: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, into.open("wb") as file:
            size = 0
            while block := answer.read(1 << 20):
                size += len(block)
                if size > LIMIT_BYTES:
                    raise EnvironmentsError(f"{url} is larger than {LIMIT_BYTES} bytes: it was stopped there")
                file.write(block)
    except (urllib.error.URLError, TimeoutError, OSError) as problem:
        raise EnvironmentsError(f"{url} cannot be fetched ({getattr(problem, 'reason', problem)})") from problem


def _with_pip(archive: Archive, into: Path) -> None:
    _, name, version, python, platform = archive.source.split(":")
    folder = into.with_name(f"{into.name}.d")
    argv = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps", "-q"]
    argv += ["--only-binary", ":all:", "--python-version", python.removeprefix("cp3").join(("3.", ""))]
    argv += ["--platform", platform, "-d", str(folder), f"{name}=={version}"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=_DEADLINE_S, check=False)
        found = sorted(folder.glob("*.whl"))
        if done.returncode or not found:
            said = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["nothing"]
            raise EnvironmentsError(f"{name} {version} for {platform} cannot be fetched: pip said: {said[-1][:300]}")
        found[0].replace(into)
    except subprocess.TimeoutExpired as problem:
        raise EnvironmentsError(f"pip did not fetch {name} within {_DEADLINE_S:.0f} s; try again") from problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise EnvironmentsError(f"{name!r} cannot be the name of a library")
    return name


def _names(path: Path) -> list[str]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        with tarfile.open(path) as archive_:
            return [member.name for member in archive_ if member.isreg()]
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as problem:
        raise UsageError(f"{path.name} is neither a zip file (AAR, wheel) nor a tar file ({problem})") from problem


def _extract(path: Path, member: str, into: Path, platform: str) -> None:
    """Write one member of an archive to ``into``, a name of ours: no path of the archive is ever used."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(member)
                data = archive.read(info) if info.file_size <= LIMIT_BYTES else b""
        else:
            with tarfile.open(path) as archive_:
                entry = archive_.getmember(member)
                stream = archive_.extractfile(entry) if entry.isreg() and entry.size <= LIMIT_BYTES else None
                data = stream.read() if stream is not None else b""
    except KeyError as problem:
        raise EnvironmentsError(f"{path.name} holds no {member}: it is another package or version") from problem
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as problem:
        raise EnvironmentsError(f"{path.name} cannot be read ({problem})") from problem
    elf_class, machine = _MACHINES[platform.partition("-")[2]]
    if data[:4] != b"\x7fELF" or (data[4], int.from_bytes(data[18:20], "little")) != (elf_class, machine):
        raise EnvironmentsError(f"{member} in {path.name} is no library for {platform}")
    partial = into.with_name(f".{into.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(into)
