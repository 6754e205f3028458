"""Where socbench keeps what it fetched and made: ``SOCBENCH_CACHE``, else the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from socbench.errors import FailedError

_BLOCK_BYTES = 1 << 20


def cache_folder(kind: str) -> Path:
    """Return the folder for things of one kind (``variants``, ``packages``, ``references``), made when it is missing.

    Raises FailedError when it cannot be made.
    """
    root = os.environ.get("SOCBENCH_CACHE")
    if not root:
        import platformdirs

        root = platformdirs.user_cache_dir("socbench", appauthor=False)
    folder = Path(root).expanduser() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise FailedError(
            f"the cache folder {folder} cannot be made ({problem.strerror}); name another one in SOCBENCH_CACHE"
        ) from problem
    return folder


def sha256_of_file(path: Path) -> str:
    """Return the hex digest of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_files(paths: list[Path]) -> str:
    """Return the digest that a variant carries: that of its file, or of the digests of file and companions in order."""
    if len(paths) == 1:
        return sha256_of_file(paths[0])
    return hashlib.sha256("".join(sha256_of_file(path) for path in paths).encode()).hexdigest()


def digest_of(value: Any) -> str:
    """Return the digest of a JSON value that does not depend on the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
