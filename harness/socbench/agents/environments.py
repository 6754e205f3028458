"""The agent of this machine, started in an environment that socbench made: to ask it what the runtimes there can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from socbench.agents.base import Agent
from socbench.cache import digest_of
from socbench.environments.catalogue import Environment
from socbench.environments.install import child_env, folder_of, known_environments, python_of


def installed_for(runtimes: Sequence[str]) -> list[Environment]:
    """Return the installed environments of these runtimes, in the catalogue's order."""
    return [one for one in known_environments() if one.runtime in runtimes and python_of(one) is not None]


def agent_in(agent: Agent, environment: Environment) -> Agent:
    """Return ``agent`` as it runs in an environment: its interpreter and its variables, none of the host's packages."""
    variables = {"SOCBENCH_ENVIRONMENT": environment.name, "PYTHONNOUSERSITE": "1", **child_env(environment)}
    words = [f"{name}={value}" for name, value in variables.items()]
    argv = ("env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", *words, str(python_of(environment)), *agent.argv[1:])
    identity = digest_of({"agent": agent.argv[1:], "environment": folder_of(environment).name, "env": variables})
    return dataclasses.replace(agent, argv=argv, identity=identity, python=str(python_of(environment)))
