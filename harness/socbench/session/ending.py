"""How a session ends: sealed, interrupted, or going on by itself."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from socbench.errors import ChannelError, Interrupted, StoreError, UsageError
from socbench.session.devices import OpenDevice
from socbench.session.requests import store_option
from socbench.session.state import SessionState
from socbench.session.worker import DeviceWorker
from socbench.store.writer import now
from socbench.transports.base import Deadline


@dataclass(frozen=True)
class SessionResult:
    """How a session ended. ``status`` is session.json's; ``exit_code`` is the command's (0, 1 or 130)."""

    session: str
    status: str
    exit_code: int
    folder: Path


def finish(state: SessionState, devices: list[OpenDevice], workers: list[DeviceWorker]) -> SessionResult:
    """Seal what is complete; leave open, and say how to go on with, what was interrupted or goes on by itself."""
    folder = state.writer.folder
    if not any(isinstance(worker.problem, StoreError) for worker in workers):
        state.writer.update(clocks={**state.writer.document.get("clocks", {}), **state.clocks})
        _note_order(state, workers)
    unfinished = any(isinstance(worker.problem, (Interrupted, ChannelError, StoreError)) for worker in workers)
    if unfinished:
        return _leave_open(state, workers)
    if state.request.power_log is not None:
        _attach(state, state.request.power_log)
    failed = "failed" in state.statuses.values()
    status = "complete_with_failures" if failed else "complete"
    state.writer.seal(status)
    for device in devices:
        _tidy(device, state.session)
    return SessionResult(state.session, status, 1 if failed else 0, folder)


def _leave_open(state: SessionState, workers: list[DeviceWorker]) -> SessionResult:
    """Say how to go on with a session that is not finished: it goes on by itself, or it was interrupted."""
    done = sum(len(worker.journal.finished) for worker in workers)
    total = sum(len(worker.order) for worker in workers)
    kept = f"{done} of {total} repetitions are kept"
    option = store_option(state.request.argv, state.writer.folder.parents[1])
    code = 130 if state.stop.is_set() else 1
    if any(worker.goes_on for worker in workers):
        state.writer.update(status="running", ended=None)
        state.progress.message(
            f"session {state.session} is still being measured: {kept}; "
            f"fetch the rest later with: socbench collect {state.session}{option}"
        )
        return SessionResult(state.session, "running", code, state.writer.folder)
    with suppress(StoreError):  # on a full disk; a session whose writer is gone reads as interrupted all the same
        state.writer.update(status="interrupted", ended=now(), detached=False)
    state.progress.message(
        f"session {state.session} was interrupted: {kept}; go on with: socbench run --resume {state.session}{option}"
    )
    return SessionResult(state.session, "interrupted", code, state.writer.folder)


def _note_order(state: SessionState, workers: list[DeviceWorker]) -> None:
    """Add the repetitions that ``--precision-target`` asked for to the order that session.json tells."""
    plan = dict(state.writer.document.get("plan", {}))
    plan["order"] = {worker.address: [[p.trial, p.repetition] for p in worker.order] for worker in workers}
    if plan != state.writer.document.get("plan"):
        state.writer.update(plan=plan)


def _attach(state: SessionState, path: Path) -> None:
    """Add the power meter's log; one that does not fit costs its readings, not what was measured."""
    from socbench.session.power_log import attach_power_log

    try:
        state.progress.message(attach_power_log(state, path))
    except UsageError as problem:
        state.progress.message(str(problem))


def _tidy(device: OpenDevice, session: str) -> None:
    """Remove the session's job folders from the device: everything in them is in the store."""
    command = ["sh", "-c", 'rm -rf "$1" "$1".*', "sh", str(device.channel.transport.root / "sessions" / session)]
    with suppress(ChannelError):
        device.channel.transport.run(command, deadline=Deadline.after(60.0, "the session's folders to be removed"))
