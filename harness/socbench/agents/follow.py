"""Follows the event file of a job into a byte-exact copy on the host; every event is given out exactly once.

The copy's size is the offset from which to read on, so nothing else must be remembered: after a broken connection, or
after the host was killed, following goes on where the copy ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from socbench.agents.base import Agent
from socbench.errors import AgentError, ChannelError, ProtocolError, StoreError
from socbench.transports.base import Deadline

LINE_LIMIT_BYTES: Final = 16 * 1024 * 1024
JOURNAL_LIMIT_BYTES: Final = 8 * 1024**3
_STATUS_S: Final = 20.0
_FIRST_DOUBT_S: Final = 3.0
_LONGEST_DOUBT_S: Final = 30.0


class Head(msgspec.Struct, frozen=True):
    """What a session must know of an event while it runs; the rest is skipped without being decoded."""

    seq: int
    type: str
    t_ns: int
    trial: str | None = None
    repetition: int | None = None
    phase: str | None = None
    code: str | None = None
    message: str | None = None
    advice: str | None = None
    reason: str | None = None
    delegation: str | None = None
    boot_id: str | None = None
    tensors: msgspec.Raw = msgspec.Raw()
    rows: msgspec.Raw = msgspec.Raw()
    latency_ns: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True)
class Followed:
    """One event and where its line lies in the journal."""

    head: Head
    offset: int
    length: int


class JobFollower:
    """Follows one job. ``ended`` is true once its last event was read."""

    def __init__(self, agent: Agent, job: PurePosixPath, journal: Path, *, heartbeat_s: float) -> None:
        self.agent = agent
        self.job = job
        self.journal = journal
        self.ended = False
        self._heartbeat_s = heartbeat_s
        self._size = 0
        self._seq = 0
        self._partial = b""
        self._decode = msgspec.json.Decoder(Head).decode

    def stored(self) -> Iterator[Followed]:
        """Yield what the journal holds already; to be called once, before ``follow``."""
        if not self.journal.exists():
            return
        with self.journal.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield from self._events(chunk)

    def follow(self, *, stop: threading.Event, until: Deadline | None = None) -> Iterator[Followed | None]:
        """Yield what arrives, ``None`` now and then while nothing does, until the job ends or ``stop`` is set.

        ``until`` bounds it where the end is awaited. A broken channel is opened again.

        Raises:
            AgentError: the agent is gone without having ended its job (code ``agent_died``).
            ProtocolError: the device sends nonsense, or more than it may.
            ChannelError: the device could not be reached again.
            StoreError: the journal's disk is full; what was not stored is still on the device.
        """
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        watch = _Watch(self)
        reopened = False
        with self.journal.open("ab", buffering=0) as copy:
            while not self.ended and not stop.is_set():
                try:
                    if reopened:
                        watch.check_nothing_lost(self._size)
                    yield from self._one_stream(copy, watch, stop, until)
                    if until is not None and not until.remaining_s:
                        return
                except ChannelError as problem:
                    self.agent.channel.reopen(problem)
                    watch.something_came()
                    reopened = True

    def _one_stream(
        self, copy: Any, watch: _Watch, stop: threading.Event, until: Deadline | None
    ) -> Iterator[Followed | None]:
        path = self.job / "events.jsonl"
        stream = self.agent.channel.transport.follow(path, self._size, stop=stop)
        try:
            for chunk in stream:
                if chunk:
                    self._keep(copy, chunk)
                    watch.something_came()
                    yield from self._events(chunk)
                else:
                    yield None
                if self.ended or (until is not None and not until.remaining_s):
                    return
                watch.look(self._size)
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()

    def _keep(self, copy: Any, chunk: bytes) -> None:
        """Write all of a chunk to the journal; what fits of it stays, and the next follower goes on from there."""
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[copy.write(rest) :]
        except OSError as problem:
            raise StoreError(
                f"what {self.agent.channel.address} sends can't be stored in {self.journal}: {problem.strerror}"
            ) from problem

    def _events(self, chunk: bytes) -> Iterator[Followed]:
        start = self._size - len(self._partial)
        self._size += len(chunk)
        address = self.agent.channel.address
        if self._size > JOURNAL_LIMIT_BYTES:
            raise ProtocolError(f"{address} sent more than {JOURNAL_LIMIT_BYTES} bytes of events: it was stopped there")
        lines = (self._partial + chunk).split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            yield Followed(self._head(line), start, len(line) + 1)
            start += len(line) + 1
        if len(self._partial) > LINE_LIMIT_BYTES:
            raise ProtocolError(f"{address} sent an event of more than {LINE_LIMIT_BYTES} bytes: that is no agent")

    def _head(self, line: bytes) -> Head:
        address = self.agent.channel.address
        try:
            head = self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise ProtocolError(
                f"{address} sent an event that is none after event {self._seq} ({str(problem)[:200]})"
            ) from problem
        if head.seq != self._seq + 1:
            raise ProtocolError(f"{address} sent event {head.seq} after event {self._seq}: its event file was changed")
        self._seq = head.seq
        self.ended = self.ended or head.type == "end"
        return head


class _Watch:
    """Keeps the agent's lease fresh, and has doubts when nothing arrives: the channel's own state is no liveness."""

    def __init__(self, follower: JobFollower) -> None:
        self._follower = follower
        self._touched_s = 0.0
        self._heard_s = time.monotonic()
        self._doubt_s = _FIRST_DOUBT_S

    def something_came(self) -> None:
        self._heard_s = time.monotonic()
        self._doubt_s = _FIRST_DOUBT_S

    def look(self, size: int) -> None:
        """Touch the lease when it is time; ask for the agent's state when it was silent for long.

        Raises ChannelError when the device has written what did not arrive, AgentError when the agent is gone.
        """
        now_s = time.monotonic()
        follower = self._follower
        channel = follower.agent.channel
        if now_s - self._touched_s >= follower._heartbeat_s:
            self._touched_s = now_s
            lease = str(follower.job / "lease")
            channel.transport.run(["touch", lease], deadline=Deadline.after(_STATUS_S, "the lease to be renewed"))
        if now_s - self._heard_s < self._doubt_s:
            return
        self._heard_s, self._doubt_s = now_s, min(2 * self._doubt_s, _LONGEST_DOUBT_S)
        written, running = self._ask(size)
        if written > size:
            raise ChannelError(f"{channel.address} has {written - size} bytes of events that do not arrive")
        if not running:
            raise AgentError(f"the agent on {channel.address} died in the middle of its job", code="agent_died")

    def check_nothing_lost(self, size: int) -> None:
        """Look, before a reopened channel is read on, whether the device still has the ``size`` bytes that came.

        One that lost its power has forgotten what its disk did not have yet; ``tail`` would begin such a file anew.

        Raises AgentError (code ``agent_died``), ProtocolError where the agent still runs.
        """
        self._ask(size)

    def _ask(self, size: int) -> tuple[int, bool]:
        """Return how many bytes of events the device has, and whether the agent runs. They can't become fewer."""
        agent = self._follower.agent
        state = agent.status_once(self._follower.job, deadline=Deadline.after(_STATUS_S, "the agent's state"))
        written, running = state.get("events_bytes"), bool(state.get("running"))
        written = written if isinstance(written, int) else size
        address = agent.channel.address
        if written < size and running:
            raise ProtocolError(f"{address} has fewer events than it sent: its event file was changed")
        if written < size:
            raise AgentError(f"the agent on {address} died, and its last events with it", code="agent_died")
        return written, running
