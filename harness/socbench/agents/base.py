"""The host's side of an agent's commands (docs/protocol.md, *Commands*): the same for the Python and the native one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from socbench.agents.channel import Channel
from socbench.errors import AgentError, ChannelError, ProtocolError
from socbench.records import PROTOCOL_VERSION, Json
from socbench.transports.base import Completed, Deadline

_ANSWER_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Agent:
    """An agent that lies ready on a device. ``identity`` is what changes when its answers may: hashes and versions."""

    channel: Channel
    argv: tuple[str, ...]
    identity: str
    python: str | None = None

    @property
    def root(self) -> PurePosixPath:
        """Socbench's folder on the device."""
        return self.channel.transport.root

    def call(self, *arguments: str, deadline: Deadline) -> Json:
        """Return the agent's answer to one command.

        Raises AgentError with the code and advice that it gave, ProtocolError when that is no agent's answer.
        """
        return self.channel.retry(lambda _: self._run_once(*arguments, deadline=deadline))

    def _run_once(self, *arguments: str, deadline: Deadline) -> Json:
        command = [*self.argv, *arguments]
        done = self.channel.transport.run(
            command, deadline=deadline, env=self._environment(), limit_bytes=_ANSWER_LIMIT_BYTES
        )
        return parse_answer(self.channel.address, arguments[0], done)

    def _environment(self) -> dict[str, str]:
        """Return what keeps runtimes inside socbench's folder: ONNX Runtime for one writes a cache of its own.

        This machine is the user's own: there runtimes keep their caches where they always do.
        """
        return {} if self.channel.address == "local" else {"XDG_CACHE_HOME": str(self.root / "cache")}

    def check_version(self, *, deadline: Deadline) -> None:
        """Raise ProtocolError when the agent does not speak this host's protocol version."""
        protocols = self.call("version", deadline=deadline).get("protocols")
        if not isinstance(protocols, list) or PROTOCOL_VERSION not in protocols:
            raise ProtocolError(
                f"the agent on {self.channel.address} speaks protocol {protocols}, this socbench {PROTOCOL_VERSION}: "
                f"run socbench devices setup {self.channel.address}",
                code="protocol_version",
            )

    def adapted(self, document: Json) -> Json:
        """Return a job document as this agent wants it."""
        return document

    def start(self, job: PurePosixPath, *, deadline: Deadline) -> None:
        """Start the job that lies in the folder ``job``, unless it was started already (the channel broke then)."""
        try:
            self._run_once("start", str(job), deadline=deadline)
        except ChannelError as problem:
            self.channel.reopen(problem)
            known = self.status(job, deadline=deadline)
            if not known.get("running") and not known.get("events_bytes"):
                self.call("start", str(job), deadline=deadline)

    def status(self, job: PurePosixPath, *, deadline: Deadline) -> Json:
        """Return ``{"running", "pid", "events_bytes", "ended"}`` of a job."""
        return self.call("status", str(job), deadline=deadline)

    def status_once(self, job: PurePosixPath, *, deadline: Deadline) -> Json:
        """Return what ``status`` does, and raise ChannelError when the channel breaks instead of opening it again."""
        return self._run_once("status", str(job), deadline=deadline)

    def stop(self, job: PurePosixPath, *, deadline: Deadline) -> None:
        """End a job; afterwards no process of it is left."""
        self.call("stop", str(job), deadline=deadline)


class AgentKind(Protocol):
    """How one kind of agent (Python, native) comes to lie ready on a device."""

    name: str

    def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> Agent:
        """Put the agent on the device unless it is there. AgentError when the device can't run it."""
        ...


def parse_answer(address: str, command: str, done: Completed) -> Json:
    """Return the JSON object that an agent printed; see :meth:`Agent.call` for what it raises."""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
    try:
        answer = json.loads(done.stdout) if not done.truncated else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ProtocolError(
            f"the agent on {address} did not answer {command!r} (exit code {done.exit_code}, it said: {said[0][:300]})",
            code="no_answer",
        )
    error = answer.get("error")
    if done.exit_code or isinstance(error, dict):
        error = error if isinstance(error, dict) else {}
        raise AgentError(
            f"the agent on {address} failed in {command!r}: {str(error.get('message', said[0]))[:1000]}",
            code=str(error.get("code", "agent_failed")),
            advice=None if error.get("advice") is None else str(error["advice"])[:1000],
        )
    return answer
