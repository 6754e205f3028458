"""What every command prints with: facts on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socbench.records import Failure


def message(text: str) -> None:
    """Print a message on standard error, on one line and without what a terminal would act upon."""
    print(printable(" ".join(text.split())), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return ``text`` without control characters: names of devices and models come from outside."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def failure_text(failure: Failure) -> str:
    """Return why something failed or was left out, and what to do about it, as one sentence."""
    end = "" if failure.message.endswith((".", "!", "?")) else ";"
    return f"{failure.message}{end} {failure.advice}" if failure.advice else failure.message


def print_json(objects: Iterable[Any]) -> None:
    """Print a JSON array, one object a line; what JSON has no word for (NaN, infinity) is null."""
    lines = [json.dumps(_plain(item), ensure_ascii=False, allow_nan=False) for item in objects]
    print("[" + ",\n ".join(lines) + "]")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        # NaN and the infinities are the only floats that differ from themselves minus themselves plus nothing.
        return value if value - value == 0 else None
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item"):
        return _plain(value.item())  # a NumPy scalar
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
