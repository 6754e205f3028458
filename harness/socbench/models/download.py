"""Fetches one file by URL: resumed where it was cut off, checked by hash, kept in the cache."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from socbench.cache import cache_folder, sha256_of_file
from socbench.errors import FailedError, ModelError
from socbench.models.packages import check_sha256

TIMEOUT_S = 30.0
LIMIT_BYTES = 4 * 1024**3
_BLOCK_BYTES = 1 << 20
_TRIES = 3


def download(url: str, sha256: str) -> Path:
    """Return the file at ``url`` from the cache, fetched when it is not there or not whole.

    What an earlier try got is kept and continued (HTTP Range). Raises ModelError for a URL that is not http(s),
    FailedError when it cannot be fetched or has another hash.
    """
    check_sha256(url, sha256)
    if not url.startswith(("https://", "http://")):
        raise ModelError(f"{url} is no address that socbench fetches from; it must begin with https://")
    folder = cache_folder("downloads")
    kept, partial = folder / sha256, folder / f"{sha256}.part"
    if kept.is_file() and sha256_of_file(kept) == sha256:
        return kept
    kept.unlink(missing_ok=True)
    _fetch(url, partial)
    found = sha256_of_file(partial)
    if found != sha256:
        partial.unlink()
        raise FailedError(f"{url} has not the sha256 {sha256} that the card names (it is {found}), so it is not used")
    partial.rename(kept)
    return kept


def _fetch(url: str, partial: Path) -> None:
    problem: Exception | None = None
    for _ in range(_TRIES):
        try:
            _continue(url, partial)
            return
        except urllib.error.HTTPError as wrong:
            if wrong.code == 416:  # there is nothing behind what is there
                return
            raise FailedError(f"{url} cannot be fetched: the server says {wrong.code} {wrong.reason}") from wrong
        except (OSError, http.client.HTTPException) as broken:
            problem = broken
    reason = getattr(problem, "reason", problem)
    raise FailedError(
        f"{url} cannot be fetched: {reason}; is there a network (or a proxy in https_proxy)? "
        "What has come so far is kept, and the next try goes on from there"
    ) from problem


def _continue(url: str, partial: Path) -> None:
    """Append what is missing; begin again where the server does not take a Range."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        mode = "ab" if have and answer.status == 206 else "wb"
        expected = answer.headers.get("Content-Length")
        got = 0
        with partial.open(mode) as file:
            while block := answer.read(_BLOCK_BYTES):
                got += len(block)
                if got > LIMIT_BYTES:
                    raise FailedError(f"{url} is larger than {LIMIT_BYTES} bytes, which no model here is")
                file.write(block)
    if expected is not None and got < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - got)
