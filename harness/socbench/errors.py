"""Every exception that socbench raises on purpose, in one tree.

SocbenchError                  anything below; the outermost command prints it as one sentence
├── UsageError                 wrong usage or input: exit code 2
│   ├── ModelError             a model file or card that cannot be used
│   └── SelectorError          a session, label or device that cannot be found
├── FailedError                the work itself failed: exit code 1
│   ├── StoreError             the results store cannot be read or written
│   ├── EnvironmentsError      an environment or runtime cannot be installed
│   └── AgentError             the agent answered, and what it answered is a failure: record it
│       └── ProtocolError      the agent speaks another protocol version, or nonsense
├── ChannelError               the channel to the device broke: reconnect, nothing is known to have failed
│   ├── DeadlineError          the device did not answer in time
│   └── DeviceStateError       the device is there and not usable (unauthorized, offline, no permission)
└── Interrupted                Ctrl-C or SIGTERM: exit code 130

"The agent says that it failed" and "the channel broke" have different consequences, so they are different
classes: the first is recorded against the trial, the second leads to a reconnect.
"""

from __future__ import annotations


class SocbenchError(Exception):
    """Base of all; ``str()`` is one sentence that names the thing, says what is wrong and what to do."""

    exit_code = 1


class UsageError(SocbenchError):
    """The command line or its input is wrong."""

    exit_code = 2


class ModelError(UsageError):
    """A model file or a model card cannot be used."""


class SelectorError(UsageError):
    """No session, label, device or trial fits what was asked for, or more than one does."""


class FailedError(SocbenchError):
    """What was asked for was understood and failed."""


class StoreError(FailedError):
    """The results store cannot be read or written."""


class EnvironmentsError(FailedError):
    """An environment or a runtime cannot be made ready."""


class AgentError(FailedError):
    """The agent on the device says that it failed; carries the code and the advice of its event."""

    def __init__(self, message: str, *, code: str = "agent_failed", advice: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.advice = advice


class ProtocolError(AgentError):
    """The other side speaks another protocol version, or does not speak it at all."""


class ChannelError(SocbenchError):
    """The channel to a device broke; what runs there may well go on."""


class DeadlineError(ChannelError):
    """The device did not answer before the deadline."""


class DeviceStateError(ChannelError):
    """The device is known and cannot be used as it is (unauthorized, offline, no permission)."""


class Interrupted(SocbenchError):
    """The user stopped the command; what was finished is kept."""

    exit_code = 130
