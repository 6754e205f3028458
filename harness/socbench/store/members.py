"""Reads members of an agent's event with their types checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from socbench.errors import ProtocolError
from socbench.records import Json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TEXT_LIMIT = 100_000


class Event:
    """One event of a device. A member that is absent or null reads as ``None``; one of another type is nonsense."""

    def __init__(self, raw: object, device: str) -> None:
        self.device = device
        if not isinstance(raw, dict):
            raise ProtocolError(f"device {device} sent {str(raw)[:60]!r} where an object belongs; update its agent")
        self.raw: Json = raw

    def nonsense(self, name: str, what: str) -> ProtocolError:
        """Return the error that says which member of which event is wrong."""
        kind, seq = str(self.raw.get("type", "item"))[:40], str(self.raw.get("seq", "?"))[:20]
        return ProtocolError(
            f"device {self.device} sent a broken {kind!r} event (seq {seq}): {name} {what}; "
            f"run `socbench devices setup {self.device}` to put a fresh agent there"
        )

    def integer(self, name: str, limit: int = 2**63 - 1) -> int | None:
        """Return an integer of at most ``limit``."""
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value <= limit:
            raise self.nonsense(name, f"is {str(value)[:60]!r}, not an integer up to {limit}")
        return value

    def text(self, name: str) -> str | None:
        """Return a text, cut at 100,000 characters, without half characters that no file could hold."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.nonsense(name, f"is {str(value)[:60]!r}, not a text")
        return value[:_TEXT_LIMIT].encode("utf-8", "replace").decode()

    def boolean(self, name: str) -> bool | None:
        """Return a boolean."""
        value = self.raw.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.nonsense(name, f"is {str(value)[:60]!r}, not true or false")

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return one of ``choices``."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise self.nonsense(name, f"is {value[:60]!r}, not one of {', '.join(choices)}")
        return value

    def object(self, name: str) -> Json | None:
        """Return an object."""
        value = self.raw.get(name)
        if value is None or isinstance(value, dict):
            return value
        raise self.nonsense(name, f"is {str(value)[:60]!r}, not an object")

    def integers(self, name: str) -> npt.NDArray[np.int64] | None:
        """Return a list of non-negative integers as an int64 array."""
        import numpy as np

        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.nonsense(name, "is not a list")
        if not value:
            return np.empty(0, np.int64)
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError) as error:
            raise self.nonsense(name, "is not a list of integers") from error
        if array.dtype != np.int64 or array.ndim != 1 or array.min() < 0:
            raise self.nonsense(name, "is not a list of non-negative integers")
        return array

    def rows(self, name: str, least: int, most: int) -> list[list[Any]]:
        """Return a list of lists, each of ``least`` to ``most`` members."""
        value = self.raw.get(name)
        if not isinstance(value, list):
            raise self.nonsense(name, "is not a list of rows")
        for row in value:
            if not isinstance(row, list) or not least <= len(row) <= most:
                raise self.nonsense(name, f"has a row that is not a list of {least} to {most} members")
        return value
