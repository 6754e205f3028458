"""Devices: what is attached, what each one is, how to reach it.

``discover`` lists them, ``probe`` asks one, ``identify`` turns raw facts into a record, ``open_device`` opens a channel
with the settings of ``devices.toml``, ``resolve_cores`` says which CPUs ``--cores`` means.
"""

from socbench.devices.config import DevicesConfig, load_config
from socbench.devices.cores import resolve_cores
from socbench.devices.discovery import discover, open_device, probe, this_machine
from socbench.devices.facts import local_facts, read_facts
from socbench.devices.identity import identify

__all__ = [
    "DevicesConfig",
    "discover",
    "identify",
    "load_config",
    "local_facts",
    "open_device",
    "probe",
    "read_facts",
    "resolve_cores",
    "this_machine",
]
