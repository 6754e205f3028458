"""What a session must remember to be resumed by another process: ``journal/plan.json``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from socbench.agents.job import TrialFiles
from socbench.errors import StoreError
from socbench.plan import RunRequest
from socbench.records import Plan

_NAME: Final = "plan.json"


@dataclass(frozen=True)
class SavedSession:
    """A session as it was planned."""

    session: str
    request: RunRequest
    plan: Plan
    files: dict[str, TrialFiles]
    input_seed: int


def save(journal: Path, saved: SavedSession) -> None:
    """Write ``saved`` to the session's journal folder. StoreError when that fails."""
    path = journal / _NAME
    partial = path.with_name(f".{_NAME}.{os.getpid()}")
    try:
        partial.write_bytes(msgspec.json.encode(saved, enc_hook=_plain))
        partial.replace(path)
    except OSError as problem:
        raise StoreError(f"{path} can't be written ({problem.strerror})") from problem


def load_saved(journal: Path, session: str) -> SavedSession:
    """Return what was saved. StoreError when the session died before it was planned, or the file is damaged."""
    try:
        return msgspec.json.decode((journal / _NAME).read_bytes(), type=SavedSession, dec_hook=_path)
    except FileNotFoundError:
        raise StoreError(
            f"session {session} can't be resumed, it ended before anything was planned: "
            f"remove it with socbench results rm {session}"
        ) from None
    except (OSError, msgspec.DecodeError) as problem:
        raise StoreError(f"session {session} can't be resumed, its plan can't be read: {problem}") from problem


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in {_NAME}")


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no place in {_NAME}")
