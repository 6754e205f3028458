"""What is done to a device outside of a session, while no session has it: setting it up, freeing room."""

from __future__ import annotations

from collections.abc import Sequence

from socbench.agents.channel import Channel
from socbench.agents.clean import Thing, remove, survey
from socbench.agents.python import PythonAgent, probe
from socbench.agents.setup import DEFAULT, SetUp, set_up
from socbench.devices.config import load_config
from socbench.devices.facts import read_facts
from socbench.devices.identity import identify
from socbench.errors import FailedError
from socbench.records import Json
from socbench.session.devices import hold_device, open_jobs
from socbench.session.progress import Progress
from socbench.session.state import LockedProgress
from socbench.transports.base import Deadline


def set_up_device(name: str, runtimes: Sequence[str], *, offline: bool, wait: bool, progress: Progress) -> list[Json]:
    """Put runtimes on a board and prove that they import there.

    Returns ``{runtime, version, state, reason, source}`` of each; ``source`` is where its packages came from.

    Raises as :func:`socbench.agents.setup.set_up`, and FailedError when a run has the device.
    """
    shown = LockedProgress(progress)
    address = load_config().find(name).address
    wanted = tuple(runtimes) or DEFAULT
    with hold_device(address, wait=wait, say=shown.message, step=shown.step) as channel:
        _refuse_running(channel)
        made = set_up(channel, wanted, offline=offline, say=shown.step)
        deadline = Deadline.after(600.0, f"the runtimes on {address}")
        agent = PythonAgent().install(channel, deadline=deadline, say=shown.step)
        shown.step(f"trying the runtimes on {address}")
        facts = channel.retry(lambda transport: read_facts(transport, deadline))
        found = probe(agent, identify(facts, address).key, None, wanted, deadline=deadline)
    entries = {str(entry.get("runtime")): entry for entry in found}
    return [_row(runtime, entries.get(runtime, {}), made) for runtime in wanted]


def _refuse_running(channel: Channel) -> None:
    """Raise FailedError while a detached run, or what a dead host left, is under way on the device."""
    for job, _, alive in open_jobs(channel):
        if not alive:
            continue
        session = job.partition(".")[0]
        raise FailedError(
            f"{channel.address} has a run of session {session} that was not ended: fetch it with socbench collect "
            f"{session}, or wait until it is done"
        )


def _row(runtime: str, entry: Json, made: SetUp) -> Json:
    error = entry.get("error")
    works = bool(entry) and not error
    said = str(error.get("message")) if isinstance(error, dict) else "the agent does not know it"
    return {
        "runtime": runtime,
        "version": entry.get("version") if works else None,
        "state": "works" if works else "unavailable",
        "reason": None if works else made.missing.get(runtime) or said,
        "source": made.source if works else None,
    }


def clean_device(
    name: str, *, keep_bytes: int, everything: bool, dry_run: bool, wait: bool, progress: Progress
) -> list[Thing]:
    """Free room on a device; returns what was there, and of what stays why. FailedError when a run has the device."""
    shown = LockedProgress(progress)
    address = load_config().find(name).address
    with hold_device(address, wait=wait, say=shown.message, step=shown.step) as channel:
        _refuse_running(channel)
        things = survey(channel, keep_bytes=keep_bytes, everything=everything)
        if not dry_run:
            remove(channel, [thing for thing in things if thing.keep is None])
    return things
