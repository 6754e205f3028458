"""The log that a power meter writes while a session runs: looked at before it, put into the session at its end."""

from __future__ import annotations

from pathlib import Path

from socbench.errors import UsageError
from socbench.session.state import SessionState
from socbench.store.power import part_of, placed, read_power_log


def check_power_log(path: Path, devices: tuple[str, ...]) -> None:
    """Raise UsageError before anything runs when ``path`` can't be a power log, or whose it is can't be told."""
    if len(devices) > 1:
        raise UsageError(f"--power-log {path} is the log of one meter: name one device, not {len(devices)}")
    read_power_log(path, empty_too=True)


def attach_power_log(state: SessionState, path: Path) -> str:
    """Write the readings that lie in the session to its store and return the sentence that says so.

    Raises UsageError when the log is none, or none of its readings was taken while the device was measured.
    """
    device = next(iter(state.plan.order))
    table, count = placed(path, device, state.clocks.get(device, ()))
    state.write_part(part_of(device, str(table["source"][0].as_py())), {"telemetry": table})
    return f"{table.num_rows:,} of {count:,} readings of {path.name} belong to this session"
