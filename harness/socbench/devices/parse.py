"""Reads the texts that devices print: getprop, cpuinfo, battery, device trees. Pure, and never trusts a text.

Every function takes whatever came (wrong shell prompts, CR LF, cut files, other encodings) and returns what it
could make out; what it could not make out is left away, nothing is guessed and nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from socbench.devices.data import cpu_part_name

_PROPERTY = re.compile(r"^\[([A-Za-z0-9_.\-@:/ ]+)\]: \[(.*)$")


def decode(text: bytes) -> str:
    """Return device output as text: UTF-16 with a byte order mark (a Windows shell's copy), else UTF-8, lossy."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    return text.decode("utf-8", "replace")


def clean(value: str | None, limit: int = 200) -> str | None:
    """Return a device's word about itself as one printable line of at most ``limit`` characters; None when empty."""
    if value is None:
        return None
    line = "".join(c if c.isprintable() else " " for c in value)
    return " ".join(line.split())[:limit] or None


def parse_getprop(text: str) -> dict[str, str]:
    """Return the properties of ``getprop``'s list (or of a build.prop); a value may run over several lines.

    Lines before the first property (a shell prompt, a warning) are ignored. A property begins with ``[name]: [`` at
    the start of a line and ends with ``]`` at the end of the last line before the next property, which is the only
    rule that survives values that themselves contain a line ``]``.
    """
    values: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        found = _PROPERTY.match(line)
        if found:
            current = values.setdefault(found[1], [])
            current[:] = [found[2]]
        elif current is not None:
            current.append(line)
    if not values:
        return _parse_build_prop(text)
    return {name: _without_bracket("\n".join(lines)) for name, lines in values.items()}


def _without_bracket(value: str) -> str:
    end = value.rfind("]")
    return value[:end] if end >= 0 else value


def _parse_build_prop(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs if re.fullmatch(r"[A-Za-z0-9_.\-]+", name.strip())}


@dataclass(frozen=True)
class CpuInfo:
    """What /proc/cpuinfo says: ``parts`` by CPU number as (implementer, part), the rest as printed; None: not said."""

    parts: dict[int, tuple[int, int]]
    model_name: str | None = None
    vendor: str | None = None
    hardware: str | None = None
    machine: str | None = None
    serial: str | None = None
    features: tuple[str, ...] = ()
    processors: int = 0

    @property
    def is_x86(self) -> bool:
        """Whether the text is an x86 kernel's."""
        return self.vendor is not None and not self.parts


def parse_cpuinfo(text: str) -> CpuInfo:
    """Return the facts in /proc/cpuinfo of any architecture; only online CPUs are in it.

    Old Arm kernels list the processors first and then one block for all of them: the only block that names a part
    stands for every processor that has none of its own.
    """
    single: dict[str, str] = {}
    parts: dict[int, tuple[int, int]] = {}
    listed: set[int] = set()
    block: dict[str, str] = {}
    shared: tuple[int, int] | None = None
    for line in [*text.replace("\r", "\n").split("\n"), ""]:
        key, colon, value = (piece.strip() for piece in line.partition(":"))
        if not colon:
            shared = _end_block(block, parts, listed) or shared
            block = {}
            continue
        if key == "processor" and "processor" in block:
            shared = _end_block(block, parts, listed) or shared
            block = {}
        block.setdefault(key, value)
        single.setdefault(key, value)
    if shared is None and len(parts) == 1:
        shared = next(iter(parts.values()))
    if shared is not None:
        parts.update({cpu: shared for cpu in listed if cpu not in parts})
    flags = single.get("flags") or single.get("Features") or single.get("features") or ""
    model_name = single.get("model name") or single.get("Processor") or single.get("uarch")
    return CpuInfo(
        parts=parts,
        model_name=clean(model_name),
        vendor=clean(single.get("vendor_id")),
        hardware=clean(single.get("Hardware")),
        machine=clean(single.get("Model") or single.get("machine")),
        serial=clean(single.get("Serial")),
        features=tuple(dict.fromkeys(flags.split()))[:512],
        processors=len(listed),
    )


def _end_block(block: dict[str, str], parts: dict[int, tuple[int, int]], listed: set[int]) -> tuple[int, int] | None:
    """Take one block in; return its part when the block belongs to no single processor."""
    cpu = number(block.get("processor"))
    if cpu is not None and 0 <= cpu < 4096:
        listed.add(cpu)
    implementer, part = number(block.get("CPU implementer")), number(block.get("CPU part"))
    if implementer is None or part is None:
        return None
    if cpu is None or cpu not in listed:
        return (implementer, part)
    parts[cpu] = (implementer, part)
    return None


def number(text: str | None) -> int | None:
    """Return ``12``, ``0x41`` or `` 7 `` as an integer, None for anything else."""
    try:
        return int((text or "").strip(), 0)
    except ValueError:
        return None


def part_name(implementer: int, part: int) -> str | None:
    """Return the core's name by implementer and part together: a part number alone is ambiguous across implementers."""
    return cpu_part_name(implementer, part)


def parse_os_release(text: str) -> str | None:
    """Return PRETTY_NAME, else NAME, of an os-release file."""
    fields = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            fields[name.strip()] = value.strip().strip("\"'")
    return clean(fields.get("PRETTY_NAME") or fields.get("NAME"))


def strings(raw: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return a device tree's string list: NUL-separated text, a list, or one string."""
    pieces = (raw or "").split("\0") if isinstance(raw, str) or raw is None else list(raw)
    return tuple(piece for piece in (clean(str(p)) for p in pieces) if piece)


@dataclass(frozen=True)
class Battery:
    """What ``dumpsys battery`` says, None where it does not: per mille of charge, and where power comes from."""

    permille: int | None = None
    temperature_milli_c: int | None = None
    source: str | None = None


def parse_battery(text: str) -> Battery:
    """Return the state in ``dumpsys battery``; whole keys only (``level`` is not ``Capacity level``)."""
    fields: dict[str, str] = {}
    for line in text.replace("\r", "\n").split("\n"):
        key, colon, value = (piece.strip() for piece in line.partition(":"))
        if colon:
            fields.setdefault(key, value)
    level, scale = number(fields.get("level")), number(fields.get("scale")) or 100
    permille = round(1000 * level / scale) if level is not None and scale > 0 and 0 <= level <= scale else None
    tenths = number(fields.get("temperature"))
    temperature = tenths * 100 if tenths is not None and -400 < tenths < 1500 and tenths != 0 else None
    powered = [(name, fields.get(f"{name} powered") == "true") for name in ("AC", "USB", "Wireless")]
    source = next((name.lower() for name, on in powered if on), None)
    if source is None and any(f"{name} powered" in fields for name, _ in powered):
        source = "battery"
    return Battery(permille, temperature, source)
