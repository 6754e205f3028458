"""What `make native` built, judged as the loaders of the devices would judge it."""

from __future__ import annotations

from pathlib import Path

import pytest
from elf import read_elf

BUILD = Path(__file__).resolve().parents[2] / "device_agents" / "native" / "build"
INTERPRETERS = {
    "linux-x86_64": "/lib64/ld-linux-x86-64.so.2",
    "linux-arm64": "/lib/ld-linux-aarch64.so.1",
    "linux-armv7": "/lib/ld-linux-armhf.so.3",
    "android-x86_64": "/system/bin/linker64",
    "android-arm64": "/system/bin/linker64",
    "android-armv7": "/system/bin/linker",
}
ANDROID = [target for target in INTERPRETERS if target.startswith("android-")]


def program(target):
    path = BUILD / f"socbench-agent-{target}"
    assert path.exists(), "build it first: make native"
    return path


@pytest.mark.parametrize("target", INTERPRETERS)
def test_each_target_is_a_small_position_independent_executable(target):
    path = program(target)
    elf = read_elf(path)
    assert path.stat().st_size < 200_000
    assert elf.machine == target.partition("-")[2]
    assert elf.kind == 3, "Android runs position-independent executables alone"
    assert elf.interpreter == INTERPRETERS[target]
    assert not elf.has_text_relocations
    assert not elf.writable_code


@pytest.mark.parametrize("target", ANDROID)
def test_an_android_build_needs_nothing_that_android_7_lacks(target, build_module):
    elf = read_elf(program(target))
    symbols = build_module.android_symbols()
    assert set(elf.needed) == set(symbols) == {"libc.so", "libdl.so", "libm.so"}
    allowed = {name for names in symbols.values() for name in names}
    assert elf.undefined - allowed == set()
    assert "clock_gettime" in elf.undefined, "the reader of symbols works"
    assert not elf.has_thread_storage, "Android knows thread-local storage of executables since 10 alone"
    assert len(elf.hashes) == 2, "both kinds of hash table"


@pytest.mark.parametrize("target", ANDROID)
def test_an_android_build_runs_with_pages_of_4_and_of_16_kilobytes(target):
    assert all(alignment % 16384 == 0 for alignment in read_elf(program(target)).alignments)


@pytest.mark.parametrize("target", [target for target in INTERPRETERS if target.startswith("linux-")])
def test_a_linux_build_runs_with_the_c_library_of_2012(target):
    elf = read_elf(program(target))
    versions = [tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in elf.version_names]
    assert versions
    assert max(versions) <= (2, 17)
    assert {name.partition(".so")[0] for name in elf.needed} <= {
        "libc",
        "libdl",
        "libm",
        "libpthread",
        "ld-linux-armhf",
    }
