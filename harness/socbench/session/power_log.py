"""Puts the log of an external power meter into a session, on the device's own clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from socbench.analysis.energy import EXTERNAL, device_times, parse_power_log
from socbench.errors import UsageError
from socbench.session.state import SessionState

if TYPE_CHECKING:
    import pyarrow as pa

_LIMIT_BYTES = 512 * 1024 * 1024


def check_power_log(path: Path, devices: tuple[str, ...]) -> None:
    """Raise UsageError before anything runs when ``path`` can't be a power log, or whose it is can't be told."""
    if len(devices) > 1:
        raise UsageError(f"--power-log {path} is the log of one meter: name one device, not {len(devices)}")
    read_power_log(path, empty_too=True)


def read_power_log(path: Path, *, empty_too: bool = False) -> str:
    """Return the text of a power log. UsageError when it can't be read or is none."""
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise UsageError(f"--power-log {path} has over 512 MB: log fewer readings a second, 10 are enough")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"--power-log {path} is not there: start the meter's log before the run") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"--power-log {path} can't be read as text: {problem}") from problem
    if text.strip() or not empty_too:
        parse_power_log(text, str(path), empty_too=empty_too)
    return text


def attach_power_log(state: SessionState, path: Path) -> str:
    """Write the readings that lie in the session to its store and return the sentence that says so.

    Raises UsageError when the log is none, or none of its readings was taken while the device was measured.
    """
    device = next(iter(state.plan.order))
    wall_ns, power_uw = parse_power_log(read_power_log(path), str(path))
    pairs = [(pair["monotonic_ns"], pair["wall_ns"]) for pair in state.clocks.get(device, ()) if pair["wall_ns"]]
    if not pairs:
        raise UsageError(f"--power-log {path}: {device} told no time of day, so its readings can't be placed")
    t_ns = device_times(wall_ns, pairs)
    start_ns, end_ns = pairs[0][0], pairs[-1][0] + 120_000_000_000
    inside = (t_ns >= start_ns) & (t_ns <= end_ns)
    if not inside.any():
        raise UsageError(
            f"--power-log {path}: none of its {len(t_ns)} readings was taken while {device} was measured: "
            "check the meter's clock (times are seconds since 1970, or ISO 8601 with a time zone)"
        )
    state.write_part("power-log", {"telemetry": _table(device, path.name, t_ns[inside], power_uw[inside])})
    return f"{int(inside.sum())} readings of {path.name} belong to this session"


def _table(device: str, name: str, t_ns: object, power_uw: object) -> pa.Table:
    import numpy as np

    from socbench.store.schema import from_rows

    source = EXTERNAL + "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[:80]
    pairs = zip(np.asarray(t_ns).tolist(), np.asarray(power_uw).tolist(), strict=True)
    return from_rows(
        "telemetry",
        [{"device": device, "t_ns": t, "kind": "power_uw", "source": source, "value": value} for t, value in pairs],
    )
