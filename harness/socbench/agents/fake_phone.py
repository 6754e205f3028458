"""Puts the agent of a simulated phone behind ``fake:phone-N`` (an :class:`socbench.agents.base.AgentKind`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from socbench.agents.base import Agent
from socbench.agents.channel import Channel
from socbench.cache import digest_of
from socbench.transports.base import Deadline


class FakePhoneAgent:
    """Nothing is copied: the program lies in the package and runs on this machine."""

    name = "fake-phone"

    def __init__(self, number: int) -> None:
        self.number = number

    def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> Agent:
        """Return the agent of this phone."""
        from socbench.devices import fake_phone, simulated

        sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (fake_phone, simulated)]
        program = str(Path(str(fake_phone.__file__)).resolve())
        argv = (sys.executable, program, str(self.number))
        return Agent(channel, argv, digest_of({"sources": sources}), sys.executable)
