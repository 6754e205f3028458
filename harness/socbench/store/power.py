"""The log of an external power meter: read from its file, placed on a device's clock, put into a session.

A session that is sealed takes it too: the meter's readings are the one thing beside its label that may come later.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from socbench.analysis.energy import EXTERNAL, Ints, device_times, parse_power_log
from socbench.errors import StoreError, UsageError
from socbench.records import Json
from socbench.store.files import LOCK, SessionLock, is_held, json_bytes, write_atomically
from socbench.store.reader import read_document, resolve
from socbench.store.writer import SessionWriter, now, replace_table

if TYPE_CHECKING:
    import pyarrow as pa

LIMIT_BYTES: Final = 64 * 1024 * 1024
"""A day of ten readings a second takes a third of it."""
AFTER_LAST_CLOCK_NS: Final = 120_000_000_000
"""Pairs of clocks come each minute: so long after the last one its device may still have been measured."""


@dataclass(frozen=True)
class Attached:
    """What became of a log: the session, its device, and how many of the log's readings were taken meanwhile."""

    session: str
    device: str
    readings: int
    of: int


def read_power_log(path: Path, *, empty_too: bool = False) -> tuple[Ints, Ints]:
    """Return (ns since 1970, power in uW) of a meter's file. UsageError when it can't be read or is no such log."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"the power log {path} is no file: name the meter's CSV file")
        if facts.st_size > LIMIT_BYTES:
            raise UsageError(
                f"the power log {path} has over {LIMIT_BYTES >> 20} MB: log fewer readings a second, 10 are enough"
            )
        with path.open("rb") as stream:
            text = stream.read(LIMIT_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"the power log {path} is not there: name the file that the meter writes") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"the power log {path} can't be read as text: {problem}") from problem
    return parse_power_log(text, str(path), empty_too=empty_too)


def placed(path: Path, device: str, clocks: Sequence[Json]) -> tuple[pa.Table, int]:
    """Return the readings that were taken while ``device`` was measured, as telemetry, and how many the log has.

    ``clocks`` are the device's pairs of clocks. UsageError when the log is none, or none of it is of that time.
    """
    wall_ns, power_uw = read_power_log(path)
    pairs = [(pair["monotonic_ns"], pair["wall_ns"]) for pair in clocks if pair.get("wall_ns")]
    if not pairs:
        raise UsageError(f"the power log {path} can't be placed: {device} told no time of day while it was measured")
    first, last = (pick(wall for _, wall in pairs) for pick in (min, max))
    inside = (wall_ns >= first) & (wall_ns <= last + AFTER_LAST_CLOCK_NS)
    if not inside.any():
        raise UsageError(
            f"the power log {path} has {len(wall_ns)} readings and none was taken while {device} was measured: "
            "check the meter's clock (times are seconds since 1970, or ISO 8601 with a time zone)"
        )
    return _table(device, path.name, device_times(wall_ns[inside], pairs), power_uw[inside]), len(wall_ns)


def attach(store: Path, selector: str, path: Path, device: str | None = None) -> Attached:
    """Put a meter's log into a session that has ended; a log of the same name and device replaces the earlier one.

    ``device`` may be left out where the session has one. Raises UsageError for a log that can't be used or a device
    that the session has not, StoreError for a session that is running or can't be written.
    """
    folder = resolve(store, selector)
    document = read_document(folder)
    if is_held(folder) or document.get("status") == "running":
        raise StoreError(f"session {folder.name} is running; attach the power log when it has ended")
    clocks = document.get("clocks") or {}
    known = [str(entry.get("device")) for entry in document.get("devices") or ()]
    chosen = device or (known[0] if len(known) == 1 else None)
    if chosen is None or chosen not in known:
        wrong = f"has no device {device!r}" if device else f"has {len(known)} devices"
        raise UsageError(f"session {folder.name} {wrong}: name the one that the meter was on, -d {', '.join(known)}")
    table, count = placed(path, chosen, clocks.get(chosen) or ())
    _add(folder, document, table)
    return Attached(folder.name, chosen, table.num_rows, count)


def _add(folder: Path, document: Json, table: pa.Table) -> None:
    (device, source), readings = _identity(table), table.num_rows
    note = {"device": device, "source": source, "readings": readings, "attached": now()}
    logs = [one for one in document.get("power_logs") or () if (one["device"], one["source"]) != (device, source)]
    if (folder / "parts").is_dir():
        with SessionWriter.open(folder) as writer:
            writer.write_part(part_of(device, source), {"telemetry": table})
            writer.update(power_logs=[*logs, note])
        return
    lock = SessionLock(folder)
    if not lock.acquire():
        raise StoreError(f"session {folder.name} is being written by another process; try again")
    try:
        replace_table(folder, "telemetry", lambda rows: _without(rows, device, source), table)
        write_atomically(folder / "session.json", json_bytes({**document, "power_logs": [*logs, note]}))
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def part_of(device: str, source: str) -> str:
    """Return the name of the part that holds a device's log in an open session."""
    return f"power-log:{device}:{source}"


def _identity(table: pa.Table) -> tuple[str, str]:
    return str(table["device"][0].as_py()), str(table["source"][0].as_py())


def _without(rows: pa.Table, device: str, source: str) -> pa.Table:
    import pyarrow.compute as pc

    # A sensor that could not be read has no null source; a null device or source is another's row.
    same = pc.and_(pc.equal(rows["device"], device), pc.equal(rows["source"], source))
    return rows.filter(pc.invert(pc.fill_null(same, False)))


def _table(device: str, name: str, t_ns: Any, power_uw: Any) -> pa.Table:
    from socbench.store.schema import from_rows

    source = EXTERNAL + "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[:80]
    pairs = zip(t_ns.tolist(), power_uw.tolist(), strict=True)
    return from_rows(
        "telemetry",
        [{"device": device, "t_ns": t, "kind": "power_uw", "source": source, "value": value} for t, value in pairs],
    )
