"""What a device's drivers say of its accelerators: OpenCL, Vulkan, GLES, NNAPI, NPU libraries that lie there.

The native agent asks the drivers (in a process of its own, as they may crash); GLES is what Android's compositor says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from socbench.devices.parse import clean
from socbench.records import Json

_ROWS: Final = 200
_MEMBERS: Final = {
    "opencl": ("name", "vendor", "driver", "version"),
    "vulkan": ("name", "api", "driver", "vendor_id", "device_id", "device_type"),
    "nnapi": ("name", "version", "type"),
}
"""Interfaces and what is kept of each; ``null`` where the device has no such interface."""
_LIBRARIES: Final = {
    "Qnn": "qnn",
    "Snpe": "snpe",
    "neuron": "neuron",
    "enn": "enn",
    "edgetpu": "edgetpu",
    "armnn": "armnn",
    "OpenCL": "opencl",
}


def accelerators_of(facts: Mapping[str, object], told: object) -> Json:
    """Return what is known, from the host's facts of a device and the member ``accelerators`` of the agent's.

    ``opencl``, ``vulkan``, ``nnapi``: lists of objects, ``None`` where nobody could say; ``libraries``: paths by kind
    (``qnn``, ``neuron``, ...); ``gles``: the compositor's line. A device's words are made printable and cut.
    """
    given = told if isinstance(told, dict) else {}
    found: Json = {"gles": clean(str(facts["gles"]), 200) if facts.get("gles") else None}
    for interface, members in _MEMBERS.items():
        rows = given.get(interface)
        found[interface] = [_row(row, members) for row in rows[:_ROWS]] if isinstance(rows, list) else None
    libraries: dict[str, list[str]] = {}
    paths = given.get("libraries")
    for path in paths[:_ROWS] if isinstance(paths, list) else ():
        kind = _kind(str(path))
        if kind is not None:
            libraries.setdefault(kind, []).append(clean(str(path), 200) or "")
    found["libraries"] = libraries if isinstance(paths, list) else None
    return found


def _row(row: object, members: tuple[str, ...]) -> Json:
    given = row if isinstance(row, dict) else {}
    return {name: _plain(given.get(name)) for name in members}


def _plain(value: object) -> int | str | None:
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    return clean(value, 200) if isinstance(value, str) else None


def _kind(path: str) -> str | None:
    found = re.search(r"/lib([A-Za-z]+)[^/]*$", path)
    name = found[1] if found else ""
    return next((kind for start, kind in _LIBRARIES.items() if name.startswith(start)), None)


def gles_gpu(line: object) -> str | None:
    """Return the GPU that a line ``GLES: VENDOR, RENDERER, OpenGL ES ...`` names: ``Adreno 730``, ``Mali-G78``."""
    found = re.match(r"(?:GLES: )?([^,]+), (.+?), OpenGL ES", clean(str(line or ""), 300) or "")
    if found is None:
        return None
    return clean(re.sub(r"\s*\((?:TM|R)\)", "", found[2]), 80)
