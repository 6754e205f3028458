"""What the kernel lets the processes of a device's shell use (cpuset, uclamp), and those of an app in front. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from socbench.devices.parse import clean
from socbench.records import Json, Scheduling

_CPU_LIST: Final = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_UCLAMP_FULL: Final = 1024
"""Utilisation of the largest core at its highest clock, as the kernel counts it for a task."""


def scheduling_of(facts: Json) -> Scheduling | None:
    """Return what ``facts`` say, ``None`` where they say nothing of it.

    The CPUs are those of the process itself (``Cpus_allowed_list``: cpuset and affinity together), else its cpuset's.
    uclamp is what applies to the task where the kernel shows it, else what its group was given.
    """
    told = facts.get("scheduling")
    said: Mapping[str, object] = told if isinstance(told, dict) else {}
    allowed = re.search(r"^Cpus_allowed_list:[ \t]*(\S+)", str(facts.get("process_status") or ""), re.MULTILINE)
    found = Scheduling(
        cpuset=clean(str(said.get("cpuset") or ""), 120),
        cpus=_cpus(allowed[1] if allowed else None) or _cpus(said.get("own_cpus")),
        uclamp_min_permille=_uclamp(said, "min"),
        uclamp_max_permille=_uclamp(said, "max"),
        app_cpus=_cpus(said.get("app_cpus")),
        app_uclamp_min_permille=_share(said.get("app_min")),
        app_uclamp_max_permille=_share(said.get("app_max")),
    )
    return found if found != Scheduling() else None


def _cpus(text: object) -> str | None:
    line = str(text or "").strip()
    return line if len(line) <= 200 and _CPU_LIST.fullmatch(line) else None


def _uclamp(said: Mapping[str, object], which: str) -> int | None:
    of_task = str(said.get(f"task_{which}") or "").strip()
    if re.fullmatch(r"[0-9]{1,4}", of_task) and int(of_task) <= _UCLAMP_FULL:
        return round(int(of_task) * 1000 / _UCLAMP_FULL)
    return _share(said.get(f"own_{which}"))


def _share(text: object) -> int | None:
    """Return a group's ``cpu.uclamp.min`` or ``.max`` (``max``, or per cent with two decimals) in thousandths."""
    line = str(text or "").strip()
    if line == "max":
        return 1000
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,2})?", line) or float(line) > 100:
        return None
    return round(float(line) * 10)
