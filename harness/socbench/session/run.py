"""Runs a plan: one worker thread a device; what was finished is in the store, whatever happens next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from socbench.plan import RunRequest
from socbench.records import Plan
from socbench.session.progress import Progress


@dataclass(frozen=True)
class SessionResult:
    """How a session ended. ``status`` is session.json's; ``exit_code`` is the command's (0, 1 or 130)."""

    session: str
    status: str
    exit_code: int
    folder: Path


def run_session(request: RunRequest, *, store: Path, progress: Progress) -> SessionResult:
    """Plan, check, run and seal one session in the store folder ``store``.

    Ctrl-C keeps what is finished: the agents are stopped, the session is left ``interrupted`` and can be resumed.

    Raises:
        UsageError: the request can't be planned (an unknown name, a file that is no model): nothing was run.
        StoreError: the store can't be written: said before the first inference.
        FailedError: a device is leased and ``request.wait`` is false, or no device could be reached.
    """
    raise NotImplementedError


def resume_session(session: str, *, store: Path, progress: Progress) -> SessionResult:
    """Go on with an interrupted session: read on what its devices have, run what is missing, seal.

    ``session`` is an id or unique prefix. SelectorError when there is none, UsageError when it is already sealed.
    """
    raise NotImplementedError


def plan_session(request: RunRequest, *, progress: Progress) -> Plan:
    """Return the plan that ``run_session`` would run (``--plan-only``); probes devices, builds and runs nothing."""
    raise NotImplementedError
