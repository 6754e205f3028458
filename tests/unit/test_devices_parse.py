"""Parsers of device texts against the shapes that real phones print (values recorded, texts written for the test)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socbench.devices.parse import (
    decode,
    parse_battery,
    parse_cpuinfo,
    parse_getprop,
    parse_os_release,
    strings,
)

GETPROP = """user@phone:/ $ getprop
[gsm.operator.alpha]: [Anbieter, Süd [roaming]]
[persist.sys.boot.reason.history]: [reboot,1700000000
cold,1690000000
]
[persist.odd]: [first
]
last]
[ro.empty]: []
[ro.product.model]: [moto g power (2022)]
[ro.soc.model]: [MT6765H]
"""


def test_properties_may_be_empty_and_run_over_lines() -> None:
    assert parse_getprop(GETPROP) == {
        "gsm.operator.alpha": "Anbieter, Süd [roaming]",
        "persist.sys.boot.reason.history": "reboot,1700000000\ncold,1690000000\n",
        "persist.odd": "first\n]\nlast",
        "ro.empty": "",
        "ro.product.model": "moto g power (2022)",
        "ro.soc.model": "MT6765H",
    }


def test_copy_of_a_windows_shell_is_read_as_well() -> None:
    saved = GETPROP.replace("\n", "\r\n").encode("utf-16")
    assert parse_getprop(decode(saved)) == parse_getprop(GETPROP)


def test_build_prop_is_read_too() -> None:
    assert parse_getprop("# begin\nro.board.platform=exynos5\nro.x = y=z\n") == {
        "ro.board.platform": "exynos5",
        "ro.x": "y=z",
    }


def test_cpuinfo_of_two_implementers() -> None:
    block = "processor\t: {}\nFeatures\t: fp asimd\nCPU implementer\t: {}\nCPU part\t: {}\n\n"
    text = "".join(block.format(cpu, "0x41", "0xd03") for cpu in range(4))
    text += "".join(block.format(cpu, "0x53", "0x001") for cpu in range(4, 8))
    info = parse_cpuinfo(text)
    assert info.parts == {**dict.fromkeys(range(4), (0x41, 0xD03)), **dict.fromkeys(range(4, 8), (0x53, 0x001))}
    assert info.features == ("fp", "asimd")
    assert not info.is_x86


def test_cpuinfo_of_an_old_kernel_lists_processors_first() -> None:
    text = "Processor\t: AArch64 Processor rev 4 (aarch64)\n"
    text += "".join(f"processor\t: {cpu}\n" for cpu in range(8))
    text += (
        "Features\t: fp\nCPU implementer\t: 0x41\nCPU architecture: AArch64\nCPU part\t: 0xd03\n\nHardware\t: hi6250\n"
    )
    info = parse_cpuinfo(text)
    assert info.parts == dict.fromkeys(range(8), (0x41, 0xD03))
    assert (info.hardware, info.processors) == ("hi6250", 8)


def test_cpuinfo_with_one_block_for_all_after_an_empty_line() -> None:
    text = "processor\t: 0\n\nprocessor\t: 1\n\nCPU implementer : 0x51\nCPU part : 0x802\n"
    assert parse_cpuinfo(text).parts == {0: (0x51, 0x802), 1: (0x51, 0x802)}


def test_cpuinfo_of_a_pc() -> None:
    info = parse_cpuinfo(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor\n"
    )
    assert (info.vendor, info.model_name, info.is_x86) == ("AuthenticAMD", "AMD EPYC", True)
    assert "hypervisor" in info.features


BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Capacity level: -1
  pad level: -1
  status: 2
  level: 87
  scale: 100
  temperature: 312
  Time when the latest updated value was sent (a sentence: with a colon): 0
LLB MAN:
"""


@pytest.mark.parametrize("text", [BATTERY, BATTERY.replace("\n", "\r\n"), BATTERY.replace("  ", "\t")])
def test_battery_reads_whole_keys_only(text: str) -> None:
    found = parse_battery(text)
    assert (found.permille, found.temperature_milli_c, found.source) == (870, 31_200, "usb")


@pytest.mark.parametrize(
    ("line", "permille"),
    [("level: 50\nscale: 200", 250), ("level: -1", None), ("level: 101", None), ("level: x", None), ("", None)],
)
def test_battery_level_that_makes_no_sense_is_not_known(line: str, permille: int | None) -> None:
    assert parse_battery(line).permille == permille


def test_battery_of_an_unplugged_phone() -> None:
    assert parse_battery("AC powered: false\nUSB powered: false\n").source == "battery"
    assert parse_battery("level: 5\n").source is None


def test_os_release_and_device_tree_strings() -> None:
    assert parse_os_release('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n') == (
        "Debian GNU/Linux 12 (bookworm)"
    )
    assert strings("brcm,bcm2712\0raspberrypi,5\0") == ("brcm,bcm2712", "raspberrypi,5")
    assert strings(None) == ()


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=400))
def test_no_text_makes_a_parser_fail(text: str) -> None:
    assert isinstance(parse_getprop(text), dict)
    assert isinstance(parse_cpuinfo(text).parts, dict)
    assert parse_battery(text).source in (None, "ac", "usb", "wireless", "battery")
    parse_os_release(text)
    assert all(piece.isprintable() and piece for piece in strings(text))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True),
        st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), max_size=40),
        min_size=1,
    )
)
def test_what_getprop_prints_is_what_is_read(values: dict[str, str]) -> None:
    text = "".join(f"[{name}]: [{value}]\n" for name, value in values.items())
    assert parse_getprop(text) == values
