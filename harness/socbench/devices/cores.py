"""Core clusters, and what ``--cores big|little|MASK`` means on a device. Pure."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from socbench.errors import UsageError
from socbench.records import CoreCluster, Json

_MAX_CPU = 4096


def clusters_of(cpus: Iterable[Json], names: Mapping[int, str]) -> tuple[CoreCluster, ...]:
    """Return the clusters, slowest first, from ``identify``'s ``cpus`` and core names by CPU number.

    CPUs with the same maximum clock, capacity and core name are one cluster; where nothing tells them apart, all
    CPUs are one. ``names`` alone make the clusters of a device whose sysfs cannot be read.
    """
    seen: dict[int, Json] = {cpu: {} for cpu in names if 0 <= cpu < _MAX_CPU}
    for entry in cpus:
        cpu = entry.get("cpu")
        if isinstance(cpu, int) and 0 <= cpu < _MAX_CPU:
            seen[cpu] = entry
    groups: dict[tuple[int, int, str], list[int]] = defaultdict(list)
    for cpu, entry in seen.items():
        groups[_positive(entry.get("max_khz")), _positive(entry.get("capacity")), names.get(cpu, "")].append(cpu)
    _name_offline(groups)
    return tuple(
        CoreCluster(tuple(sorted(members)), name or None, max_khz or None)
        for (max_khz, _, name), members in sorted(groups.items(), key=lambda item: (item[0], item[1]))
    )


def _name_offline(groups: dict[tuple[int, int, str], list[int]]) -> None:
    """Move CPUs that show no core name (they are offline) to the one cluster that has their clock."""
    for key in [key for key in groups if key[0] and not key[2]]:
        same = [other for other in groups if other[0] == key[0] and other[2]]
        if len(same) == 1:
            groups[same[0]].extend(groups.pop(key))


def _positive(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def resolve_cores(
    choice: str | None, clusters: Sequence[CoreCluster], device: str = "the device"
) -> tuple[int, ...] | None:
    """Return the CPU numbers that ``choice`` means: ``big``, ``little``, a mask (``0xf0``) or a list (``0,2-3``).

    ``little`` is every CPU with the lowest maximum clock, ``big`` every other one (on a phone with one prime and three
    middle cores: all four of them). None for no choice.

    Raises:
        UsageError: the choice cannot be understood or names a CPU that the device does not have; ``big`` or ``little``
            where all cores are alike or their clocks are not known.
    """
    if choice is None:
        return None
    check_cores(choice)
    if choice in ("big", "little"):
        return _by_clock(choice, clusters, device)
    cpus = _listed(choice)
    known = {cpu for cluster in clusters for cpu in cluster.cpus}
    missing = sorted(set(cpus) - known)
    if known and missing:
        there = ",".join(map(str, sorted(known)))
        raise UsageError(f"--cores {choice} names CPU {missing[0]}, which {device} does not have: it has {there}")
    return cpus


def check_cores(choice: str) -> None:
    """Raise UsageError for a choice of cores that no device could understand."""
    if choice in ("big", "little") or _listed(choice):
        return
    near = difflib.get_close_matches(choice, ("big", "little"), n=1)
    meant = f"did you mean {near[0]}?" if near else "write one of them"
    raise UsageError(f"--cores {choice!r} is neither big, little, a mask such as 0xf0 nor a list such as 4-7: {meant}")


def _by_clock(choice: str, clusters: Sequence[CoreCluster], device: str) -> tuple[int, ...]:
    clocks = {cluster.max_khz for cluster in clusters}
    if not clocks or None in clocks:
        raise UsageError(
            f"--cores {choice}: the clocks of {device}'s cores cannot be read, name the CPUs instead (--cores 0-3)"
        )
    known = sorted(khz for khz in clocks if khz is not None)
    if len(known) == 1:
        raise UsageError(
            f"--cores {choice}: all cores of {device} have the same maximum clock, name the CPUs instead (--cores 0-3)"
        )
    chosen = (cluster for cluster in clusters if (cluster.max_khz == known[0]) == (choice == "little"))
    return tuple(sorted(cpu for cluster in chosen for cpu in cluster.cpus))


def _listed(choice: str) -> tuple[int, ...]:
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,1024}", choice):
        mask = int(choice, 16)
        return tuple(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)
    cpus: set[int] = set()
    for piece in choice.split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", piece.strip())
        if not found:
            return ()
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last >= _MAX_CPU:
            return ()
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))
