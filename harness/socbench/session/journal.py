"""What came of a device so far: its journals, which repetitions are finished, where each trial's events lie."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from socbench.agents.base import Agent
from socbench.agents.follow import Followed, Head
from socbench.errors import ProtocolError
from socbench.records import Failure, Json, PlannedRepetition
from socbench.session.lease import slug
from socbench.transports.base import Deadline

_CUT_SHORT: Final = ("stopped", "orphaned", "agent_died")
"""Errors that say nothing of the repetition itself: it is run again."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_OUTPUT_LIMIT: Final = 4096
_EVERY: Final = "every trial"


class _Tensor(msgspec.Struct):
    sha256: str
    file: str


@dataclass
class DeviceJournal:
    """The journals of one device in one session, one a job, and an index over them.

    ``finished`` are repetitions that need not run again, ``failed`` the error of those of them that failed.
    ``begun`` are repetitions that a job started and that have not ended.
    """

    device: str
    folder: Path
    finished: set[PlannedRepetition] = field(default_factory=set)
    failed: dict[str, Failure] = field(default_factory=dict)
    begun: set[PlannedRepetition] = field(default_factory=set)
    voided: Counter[PlannedRepetition] = field(default_factory=Counter)
    delegation: dict[str, str] = field(default_factory=dict)
    job_error: Failure | None = None
    ended: str | None = None
    boot_id: str | None = None

    def __post_init__(self) -> None:
        self._spans: dict[str | None, list[tuple[Path, int, int]]] = defaultdict(list)
        self._wanted: dict[str, tuple[int, str]] = {}
        self._refused: dict[PlannedRepetition, Failure | None] = {}

    @classmethod
    def of(cls, journal: Path, device: str) -> DeviceJournal:
        """Return the journal of ``device`` in a session's journal folder, empty or not."""
        return cls(device, journal / slug(device))

    def jobs(self) -> list[Path]:
        """Return the event files of the jobs so far, oldest first."""
        return sorted(self.folder.glob("job-*.jsonl"))

    def job_path(self, number: int) -> Path:
        """Return the event file of job ``number``."""
        return self.folder / f"job-{number:03d}.jsonl"

    def begin_job(self) -> None:
        """Forget what ended the job before."""
        self.job_error = self.ended = None

    def add(self, path: Path, followed: Followed) -> None:
        """Take note of one event."""
        head = followed.head
        spans = self._spans[_EVERY if head.type in ("hello", "clock") else head.trial]
        if spans and spans[-1][0] == path and spans[-1][1] + spans[-1][2] == followed.offset:
            spans[-1] = (path, spans[-1][1], spans[-1][2] + followed.length)
        else:
            spans.append((path, followed.offset, followed.length))
        if head.type == "hello":
            self.boot_id = head.boot_id
        elif head.type == "end":
            self.ended = head.reason or "complete"
        if head.trial is None or head.repetition is None:
            if head.type == "error":
                self.job_error = _failure(head)
            return
        planned = PlannedRepetition(head.trial, head.repetition)
        if head.type == "program":
            self._program(path, followed, planned)
        self._note(int(path.stem.removeprefix("job-")), head, planned)

    def _note(self, job: int, head: Head, planned: PlannedRepetition) -> None:
        assert head.trial is not None
        if head.type == "loaded" and head.delegation is not None:
            self.delegation[head.trial] = head.delegation
        elif head.type == "outputs" and bytes(head.tensors):
            self._want(job, head.tensors)
        if head.type in ("done", "error"):
            self.begun.discard(planned)
            refused = self._refused.pop(planned, None)
            if head.type == "done":
                self.finished.add(planned)
                if refused is not None:
                    self.failed.setdefault(head.trial, refused)
            elif head.code not in _CUT_SHORT:
                self.finished.add(planned)
                self.failed.setdefault(head.trial, _failure(head))
        elif head.type == "phase" and head.phase != "cool_down":
            self.begun.add(planned)

    def void_begun(self) -> list[PlannedRepetition]:
        """Count what was under way when its agent died, and return it: it is void and will be run again."""
        void = sorted(self.begun, key=lambda planned: (planned.trial, planned.repetition))
        self.voided.update(void)
        self.begun.clear()
        return void

    def events(self, trial: str | None) -> Iterator[Json]:
        """Yield the events of a trial in order with those that concern every trial, or (``None``) those of none."""
        spans = [*self._spans[_EVERY], *self._spans[trial]]
        decode = msgspec.json.Decoder(dict).decode
        for path, offset, length in sorted(spans):
            with path.open("rb") as file:
                file.seek(offset)
                for line in file.read(length).splitlines():
                    yield decode(line)

    def _program(self, path: Path, followed: Followed, planned: PlannedRepetition) -> None:
        """Take note of what a vendor's program said: only its text tells whether it failed."""
        from socbench.store.events import read_program_event
        from socbench.store.members import Event

        with path.open("rb") as file:
            file.seek(followed.offset)
            event = Event(msgspec.json.decode(file.read(followed.length)), self.device)
        result, self._refused[planned] = read_program_event(event)
        self.delegation[planned.trial] = result.delegation

    def _want(self, job: int, tensors: msgspec.Raw) -> None:
        try:
            found = msgspec.json.decode(tensors, type=list[_Tensor])
        except msgspec.ValidationError as problem:
            raise ProtocolError(f"{self.device} sent outputs that are none: {str(problem)[:200]}") from problem
        for tensor in found[:_OUTPUT_LIMIT]:
            if not _SHA256.fullmatch(tensor.sha256) or tensor.file != f"out/{tensor.sha256}.bin":
                raise ProtocolError(f"{self.device} sent an output with an odd name: {tensor.file[:100]!r}")
            self._wanted[tensor.sha256] = (job, tensor.file)

    def pull_outputs(self, agent: Agent, folder_of: Callable[[int], PurePosixPath]) -> None:
        """Fetch the raw outputs that events named and that are not here yet; their hashes are checked.

        ``folder_of`` gives the folder on the device of a job by its number.
        """
        for sha256, (job, name) in list(self._wanted.items()):
            target = self.folder / "out" / f"{sha256}.bin"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _pull(agent, folder_of(job) / name, target)
                except FileNotFoundError:
                    self._wanted.pop(sha256)  # the device's folder is gone; the row keeps the hash
                    continue
                if hashlib.sha256(target.read_bytes()).hexdigest() != sha256:
                    target.unlink()
                    raise ProtocolError(f"output {sha256[:12]} of {self.device} has another content than its hash says")
            self._wanted.pop(sha256)

    def raw(self, sha256: str) -> bytes | None:
        """Return the bytes of an output, ``None`` where they were not fetched."""
        path = self.folder / "out" / f"{sha256}.bin"
        return path.read_bytes() if _SHA256.fullmatch(sha256) and path.exists() else None


def _pull(agent: Agent, source: PurePosixPath, target: Path) -> None:
    deadline = Deadline.after(600.0, f"output {target.name[:12]}")
    agent.channel.retry(lambda transport: transport.pull(source, target, deadline=deadline))


def _failure(head: Head) -> Failure:
    return Failure(head.code or "run_failed", (head.message or "the agent did not say why")[:4000], head.advice)
