"""Reads of an ELF file what its loader reads: enough to say whether a device's loader would take it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "x86_64", 183: "arm64", 40: "armv7"}
_LOAD, _DYNAMIC, _INTERPRETER, _TLS = 1, 2, 3, 7
_NEEDED, _HASH, _STRINGS, _SYMBOLS, _TEXT_RELOCATIONS, _GNU_HASH = 1, 4, 5, 6, 22, 0x6FFFFEF5


@dataclass(frozen=True)
class Elf:
    """``kind`` 3 is position-independent; ``undefined`` are the names that other libraries must have."""

    machine: str
    bits: int
    kind: int
    interpreter: str
    needed: tuple[str, ...]
    alignments: tuple[int, ...]
    undefined: frozenset[str]
    hashes: frozenset[int]
    has_text_relocations: bool
    has_thread_storage: bool
    writable_code: bool
    version_names: frozenset[str]


def read_elf(path: Path) -> Elf:
    """Return the facts of an executable or library. AssertionError when it is no little-endian ELF file."""
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF", f"{path} is no ELF file"
    assert data[5] == 1
    wide = data[4] == 2
    kind, machine = struct.unpack_from("<HH", data, 16)
    offset = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)[0]
    entry_size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    segments = []
    for index in range(count):
        at = offset + index * entry_size
        if wide:
            type_, flags, file_at, address, _, size, _, align = struct.unpack_from("<IIQQQQQQ", data, at)
        else:
            type_, file_at, address, _, size, _, flags, align = struct.unpack_from("<IIIIIIII", data, at)
        segments.append((type_, flags, file_at, address, size, align))
    loads = [segment for segment in segments if segment[0] == _LOAD]

    def to_file(address: int) -> int:
        for _, _, file_at, start, size, _ in loads:
            if start <= address < start + size:
                return file_at + address - start
        raise AssertionError(f"{path} points outside itself")

    def text(at: int) -> str:
        return data[at : data.index(b"\0", at)].decode("ascii")

    interpreter = "".join(text(segment[2]) for segment in segments if segment[0] == _INTERPRETER)
    dynamic = next(segment for segment in segments if segment[0] == _DYNAMIC)
    width = 16 if wide else 8
    tags = [struct.unpack_from("<qQ" if wide else "<iI", data, dynamic[2] + i) for i in range(0, dynamic[4], width)]
    by_tag = dict(reversed(tags))
    strings, symbols = to_file(by_tag[_STRINGS]), to_file(by_tag[_SYMBOLS])
    # the symbol table has no size of its own; the older hash table tells its length, else it ends where strings begin
    length = struct.unpack_from("<I", data, to_file(by_tag[_HASH]) + 4)[0] if _HASH in by_tag else None
    size = 24 if wide else 16
    undefined = set()
    for index in range(1, length if length is not None else (strings - symbols) // size):
        at = symbols + index * size
        section = struct.unpack_from("<H", data, at + (6 if wide else 14))[0]
        if section == 0:
            undefined.add(text(strings + struct.unpack_from("<I", data, at)[0]))
    size_of_strings = by_tag[10]
    names = data[strings : strings + size_of_strings].split(b"\0")
    return Elf(
        MACHINES[machine],
        64 if wide else 32,
        kind,
        interpreter,
        tuple(text(strings + value) for tag, value in tags if tag == _NEEDED),
        tuple(segment[5] for segment in loads),
        frozenset(undefined - {""}),
        frozenset(tag for tag in by_tag if tag in (_HASH, _GNU_HASH)),
        _TEXT_RELOCATIONS in by_tag,
        any(segment[0] == _TLS for segment in segments),
        any(segment[1] & 3 == 3 for segment in loads),
        frozenset(name.decode() for name in names if name.startswith(b"GLIBC_")),
    )
