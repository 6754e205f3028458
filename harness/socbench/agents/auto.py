"""The agent that suits a device: the Python one where there is a Python, else the native one (phones, bare boards)."""

from __future__ import annotations

from collections.abc import Callable

from socbench.agents.base import Agent
from socbench.agents.channel import Channel
from socbench.agents.native import NativeAgent
from socbench.agents.python import PythonAgent
from socbench.errors import AgentError
from socbench.transports.base import Deadline


class AutoAgent:
    """Chooses between the two agents of ours (an :class:`socbench.agents.base.AgentKind`); which one is said."""

    name = "auto"

    def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> Agent:
        """Put the agent on the device that it can run. Raises as :class:`PythonAgent` and :class:`NativeAgent` do."""
        try:
            return PythonAgent().install(channel, deadline=deadline, say=say)
        except AgentError as problem:
            if problem.code != "python_missing":
                raise
        say(f"{channel.address} has no Python: the native agent measures there")
        return NativeAgent().install(channel, deadline=deadline, say=say)
