"""Identification: SoC by names, clocks and cores; a stable key; what counts as emulated; which CPUs are big."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socbench.devices import identify, load_config, resolve_cores
from socbench.devices.accelerators import accelerators_of
from socbench.devices.cores import clusters_of
from socbench.devices.data import cpu_part_name, socs
from socbench.devices.discovery import battery_advice
from socbench.devices.identity import device_key, emulation
from socbench.errors import UsageError
from socbench.records import CoreCluster, Scheduling

ARM = ["Linux", "localhost", "5.15.0", "#1", "aarch64"]


def phone(parts: list[tuple[str, str]] | None = None, clocks: list[int] | None = None, **properties: str) -> Any:
    """Facts of an Android phone; ``parts`` and ``clocks`` CPU by CPU; property names with _ for dots."""
    blocks = [
        f"processor\t: {cpu}\nCPU implementer\t: {implementer}\nCPU part\t: {part}\n\n"
        for cpu, (implementer, part) in enumerate(parts or [])
    ]
    return {
        "uname": ARM,
        "cpuinfo": "".join(blocks),
        "cpus": [{"cpu": cpu, "max_khz": khz} for cpu, khz in enumerate(clocks or [])],
        "getprop": {name.replace("__", "."): value for name, value in properties.items()},
    }


def board(model: str, *compatible: str) -> Any:
    return {"uname": ARM, "device_tree": {"model": model, "compatible": list(compatible)}}


@pytest.mark.parametrize(
    ("said", "status", "found"),
    [
        ({}, "", None),
        ({"cpuset": "/"}, "Name:\tsh\nCpus_allowed_list:\t0-3,8\n", Scheduling("/", "0-3,8")),
        ({"own_cpus": "0-7", "own_min": "0.00", "own_max": "max"}, "", Scheduling(None, "0-7", 0, 1000)),
        ({"own_min": "5.00", "own_max": "max", "task_min": "0", "task_max": "512"}, "", Scheduling(None, None, 0, 500)),
        (
            {"app_cpus": "0-8", "app_min": "12.50", "app_max": "99.95"},
            "",
            Scheduling(app_cpus="0-8", app_uclamp_min_permille=125, app_uclamp_max_permille=1000),
        ),
        ({"own_cpus": "0-7;rm", "own_min": "-1", "own_max": "101", "task_min": "2000"}, "", None),
        ("nonsense", "", None),
    ],
)
def test_what_the_kernel_lets_a_process_use_is_read_in_thousandths(
    said: object, status: str, found: Scheduling | None
) -> None:
    assert identify({"scheduling": said, "process_status": status}, "adb:1").scheduling == found


S8GEN3 = [2_265_600] * 2 + [3_148_800] * 3 + [2_956_800] * 2 + [3_302_400]


@pytest.mark.parametrize(
    ("facts", "vendor", "soc"),
    [
        (phone(ro__soc__model="SM8650", ro__board__platform="pineapple"), "Qualcomm", "Snapdragon 8 Gen 3 (SM8650)"),
        (phone(ro__soc__model="SM8635", ro__board__platform="pineapple"), "Qualcomm", "Snapdragon 8s Gen 3 (SM8635)"),
        (phone(clocks=S8GEN3, ro__board__platform="pineapple"), "Qualcomm", "Snapdragon 8 Gen 3 (SM8650)"),
        (phone(ro__soc__model="MT6781V/CDZAMB-H"), "MediaTek", "Helio G96 (MT6781)"),
        (phone(ro__soc__model="Tensor G3", ro__hardware="husky"), "Google", "Google Tensor G3"),
        (phone(ro__board__platform="zuma", ro__hardware="husky"), "Google", "Google Tensor G3"),
        (phone(ro__hardware="kirin970"), "HiSilicon", "Kirin 970 (kirin970)"),
        (phone(ro__chipname="exynos7885", ro__board__platform="exynos5"), "Samsung", "Exynos 7885/7884/7904 (s5e7885)"),
        (phone([("0x41", "0xd03")] * 8, ro__board__platform="hi6250"), "HiSilicon", "Kirin 650/655/658/659 (kirin650)"),
        (board("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712"), "Broadcom", None),
        (board("MT6769V/CB", "mediatek,MT6768"), "MediaTek", "Helio G80/G85/G88/G70 (MT6769)"),
        (board("Orin", "nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"), "NVIDIA", None),
        (phone(ro__board__platform="qcom-next", ro__soc__manufacturer="QTI"), "Qualcomm", "qcom-next"),
    ],
)
def test_soc_is_found_by_its_names(facts: Any, vendor: str, soc: str | None) -> None:
    device = identify(facts, "adb:X")
    assert device.soc_vendor == vendor
    assert device.soc is not None
    assert "ambiguous" not in device.soc
    if soc is not None:
        assert device.soc == soc


def test_platform_of_several_chips_is_said_to_be_ambiguous_and_gives_no_facts() -> None:
    device = identify(phone(ro__board__platform="taro"), "adb:X")
    assert device.soc is not None
    assert device.soc.startswith("ambiguous: Snapdragon 8 Gen 1 (SM8450) or Snapdragon 8+ Gen 1 (SM8475) or ")
    assert (device.soc_vendor, device.gpu, device.npu) == ("Qualcomm", None, None)


def test_every_model_of_the_table_finds_itself() -> None:
    android = [row for row in socs() if row.vendor in ("Qualcomm", "MediaTek", "Samsung", "HiSilicon", "Unisoc")]
    assert len(android) > 100
    for row in android:
        device = identify(phone(ro__soc__model=row.model), "adb:X")
        assert device.soc is not None
        assert (device.soc_vendor, device.gpu, device.npu) == (row.vendor, row.gpu, row.npu), row.model


def test_every_fact_of_the_table_has_a_source() -> None:
    assert all(row.source for row in socs())
    assert cpu_part_name(0x41, 0xD0B) == "Cortex-A76"
    assert cpu_part_name(0x53, 0x001) != cpu_part_name(0x51, 0x001)


def test_phone_is_named_as_its_maker_sells_it() -> None:
    named = {"ro__product__manufacturer": "Xiaomi", "ro__product__model": "2206123SC"}
    assert identify(phone(**named), "adb:X").name == "Xiaomi 2206123SC"
    assert identify(phone(**named, ro__product__marketname="Xiaomi 12S"), "adb:X").name == "Xiaomi 12S"
    same = phone(ro__product__manufacturer="Infinix", ro__product__model="Infinix X670")
    assert identify(same, "adb:X").name == "Infinix X670"


@pytest.mark.parametrize(
    ("gles", "gpu"),
    [
        ("GLES: Qualcomm, Adreno (TM) 730, OpenGL ES 3.2 V@0615.60 (GIT@16c1863, I6928db2619)", "Adreno 730"),
        ("GLES: ARM, Mali-G720-Immortalis MC12, OpenGL ES 3.2 v1.r44p1-01eac0", "Mali-G720-Immortalis MC12"),
        ("GLES: Google (Google Inc.), Android Emulator OpenGL ES Translator (x), OpenGL ES 3.1",
         "Android Emulator OpenGL ES Translator (x)"),
        ("GLES: ARM, Mali-G715, OpenGL ES 3.2 v1.r44p1-00pxl0", "Mali-G715 MP7"),
        ("GLES: nonsense", "Mali-G715 MP7"),
        (7, "Mali-G715 MP7"),
        (None, "Mali-G715 MP7"),
    ],
)  # fmt: skip
def test_the_gpu_is_what_draws_the_screen_and_the_table_only_adds_to_it(gles: object, gpu: str) -> None:
    facts = {**phone(ro__soc__model="Tensor G3", ro__hardware="husky"), "gles": gles}
    assert identify(facts, "adb:1").gpu == gpu


def test_accelerators_are_told_by_interface_and_libraries_by_kind() -> None:
    told = {
        "opencl": [{"platform": 0, "name": "QUALCOMM Adreno(TM)", "driver": "OpenCL 3.0\nQUALCOMM build", "odd": [1]}],
        "vulkan": [{"name": "Adreno (TM) 730", "api": "1.3.128", "driver": 2149544057, "vendor_id": 20803}],
        "nnapi": None,
        "libraries": ["/vendor/lib64/libQnnHtp.so", "/vendor/lib64/libneuronusdk_runtime.mtk.so", "/usr/lib/libodd.so"],
    }
    found = accelerators_of({"gles": "GLES: ARM, Mali-G78, OpenGL ES 3.2"}, told)
    assert found["gles"] == "GLES: ARM, Mali-G78, OpenGL ES 3.2"
    assert found["opencl"] == [
        {"name": "QUALCOMM Adreno(TM)", "vendor": None, "driver": "OpenCL 3.0 QUALCOMM build", "version": None}
    ]
    assert (found["vulkan"][0]["driver"], found["nnapi"]) == (2149544057, None)
    assert found["libraries"] == {
        "qnn": ["/vendor/lib64/libQnnHtp.so"],
        "neuron": ["/vendor/lib64/libneuronusdk_runtime.mtk.so"],
    }


@pytest.mark.parametrize("told", [None, 3, [], {"opencl": 5, "libraries": "x"}, {"vulkan": [None, 1, {"name": {}}]}])
def test_no_word_of_a_driver_makes_identification_fail(told: object) -> None:
    found = accelerators_of({}, told)
    assert set(found) == {"gles", "opencl", "vulkan", "nnapi", "libraries"}
    assert found["libraries"] is None


def test_hostile_names_become_one_printable_line() -> None:
    facts = phone(ro__product__model="a\n\x1b[31mred\0" + "x" * 500, ro__soc__model="\x07evil\nlines")
    device = identify(facts, "adb:X")
    assert device.name.isprintable()
    assert len(device.name) <= 100
    assert device.soc == "evil lines"


def test_thirty_two_bit_userland_on_a_sixty_four_bit_kernel_is_armv7l() -> None:
    assert identify({"uname": ARM, "long_bit": 32}, "ssh:x").abi == "armv7l"
    assert identify({"uname": ARM, "long_bit": 64}, "ssh:x").abi == "aarch64"


def test_key_is_stable_across_os_updates_and_is_not_the_serial() -> None:
    old = phone(ro__serialno="R5CT1234567", ro__build__version__release="13", ro__product__device="dm1q")
    new = phone(ro__serialno="R5CT1234567", ro__build__version__release="15", ro__product__device="dm1q")
    other = phone(ro__serialno="R5CT1234568", ro__product__device="dm1q")
    assert device_key(old) == device_key(new) != device_key(other)
    assert len(device_key(old)) == 16
    assert "R5CT" not in json.dumps(dataclasses.asdict(identify(old, "adb:1")))


@pytest.mark.parametrize("nothing", ["", "unknown", "0000000000000000", "0123456789ABCDEF" * 0])
def test_serial_that_is_none_is_not_used(nothing: str) -> None:
    ids = {"machine_id": "aa" * 16}
    with_machine = {**phone(ro__serialno=nothing), "ids": ids}
    assert device_key(with_machine) == device_key({**phone(), "ids": ids})
    assert device_key(with_machine) != device_key({**phone(), "ids": {"machine_id": "bb" * 16}})


def test_emulated_userland_on_this_host_is_another_device_than_the_host() -> None:
    ids = {"machine_id": "aa" * 16}
    host = {"uname": [*ARM[:4], "x86_64"], "ids": ids}
    assert device_key(host) != device_key({"uname": ARM, "ids": ids})


X86_CPU = "processor : 0\nvendor_id : GenuineIntel\nmodel name : {}\nflags : fpu hypervisor\n"


@pytest.mark.parametrize(
    ("facts", "emulated"),
    [
        ({"uname": ARM, "kernel_arch": "x86_64"}, True),
        ({"uname": ARM, "cpuinfo": X86_CPU.format("Intel")}, True),
        ({"uname": ARM, "process_status": "x86_Thread_features:\n"}, True),
        ({"uname": [*ARM[:4], "armv7l"], "kernel_arch": "aarch64"}, False),
        ({"uname": ARM, "kernel_arch": "aarch64"}, False),
        ({"uname": [*ARM[:4], "x86_64"], "cpuinfo": X86_CPU.format("QEMU Virtual CPU version 2.5+")}, True),
        ({"uname": [*ARM[:4], "x86_64"], "dmi": {"sys_vendor": "QEMU"}, "clocksource": "tsc acpi_pm"}, True),
        ({"uname": [*ARM[:4], "x86_64"], "dmi": {"sys_vendor": "QEMU"}, "clocksource": "kvm-clock tsc"}, False),
        (board("linux,dummy-virt", "linux,dummy-virt"), True),
        (board("Raspberry Pi 4 Model B", "brcm,bcm2711"), False),
        (phone(ro__kernel__qemu="1"), True),
        (phone(ro__kernel__qemu__gles="0", ro__hardware="qcom"), False),
        ({"uname": [*ARM[:4], "x86_64"], "cpuinfo": X86_CPU.format("Intel Xeon")}, False),
    ],
)
def test_emulation_is_told_from_real_machines_and_virtual_ones(facts: Any, emulated: bool) -> None:
    assert (emulation(facts) is not None) is emulated
    assert identify(facts, "ssh:x").emulated is emulated


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "uname": st.lists(st.text(max_size=10), max_size=6),
            "cpuinfo": st.text(max_size=200),
            "getprop": st.dictionaries(st.sampled_from(["ro.soc.model", "ro.serialno", "ro.x"]), st.text(max_size=30)),
            "gpus": st.lists(st.text(max_size=30), max_size=3),
            "lspci": st.lists(st.text(max_size=30), max_size=3),
            "os_release": st.text(max_size=60),
            "meminfo_total_kb": st.none() | st.integers(),
        },
    )
)
def test_no_facts_make_identification_fail(facts: Any) -> None:
    device = identify(facts, "ssh:x")
    assert len(device.key) == 16
    assert device.name


def test_clusters_are_told_apart_by_clock_and_by_part() -> None:
    same_clock = [{"cpu": cpu, "max_khz": 1_800_000} for cpu in range(4)]
    names = {0: "Cortex-A53", 1: "Cortex-A53", 2: "Cortex-A73", 3: "Cortex-A73"}
    assert [cluster.cpus for cluster in clusters_of(same_clock, names)] == [(0, 1), (2, 3)]
    tensor = [{"cpu": c, "max_khz": k} for c, k in enumerate([1704000] * 4 + [2367000] * 4 + [2914000])]
    assert [cluster.cpus for cluster in clusters_of(tensor, {})] == [(0, 1, 2, 3), (4, 5, 6, 7), (8,)]


def test_offline_cpu_belongs_to_the_cluster_with_its_clock() -> None:
    cpus = [{"cpu": cpu, "max_khz": 1_704_000} for cpu in range(4)]
    names = dict.fromkeys(range(3), "Cortex-A510")
    assert clusters_of(cpus, names) == (CoreCluster((0, 1, 2, 3), "Cortex-A510", 1_704_000),)


THREE = (
    CoreCluster((0, 1, 2, 3), "Cortex-A55", 1_804_800),
    CoreCluster((4, 5, 6), "Cortex-A78", 2_419_200),
    CoreCluster((7,), "Cortex-X1", 2_841_600),
)


@pytest.mark.parametrize(
    ("choice", "cpus"),
    [
        (None, None),
        ("little", (0, 1, 2, 3)),
        ("big", (4, 5, 6, 7)),
        ("0xf0", (4, 5, 6, 7)),
        ("0x1", (0,)),
        ("0,2-4", (0, 2, 3, 4)),
        ("7", (7,)),
    ],
)
def test_cores_are_chosen_by_cluster_mask_or_list(choice: str | None, cpus: tuple[int, ...] | None) -> None:
    assert resolve_cores(choice, THREE) == cpus


@pytest.mark.parametrize(
    ("choice", "clusters", "words"),
    [
        ("huge", THREE, "is neither big, little"),
        ("0x", THREE, "is neither"),
        ("0x0", THREE, "is neither"),
        ("3-1", THREE, "is neither"),
        ("8", THREE, "names CPU 8, which the phone does not have: it has 0,1,2,3,4,5,6,7"),
        ("big", (CoreCluster((0, 1), None, 2_000_000),), "same maximum clock"),
        ("big", (CoreCluster((0, 1), None, None),), "cannot be read"),
        ("little", (), "cannot be read"),
    ],
)
def test_cores_that_cannot_be_chosen_are_said(choice: str, clusters: tuple[CoreCluster, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_cores(choice, clusters, "the phone")


@pytest.mark.parametrize(("level", "advised"), [(19, True), (20, False), (100, False)])
def test_low_battery_is_advised_on(level: int, advised: bool) -> None:
    advice = battery_advice({"battery": f"  level: {level}\n  scale: 100\n"})
    assert (advice is not None) is advised
    assert advice is None or f"{level} %" in advice


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "devices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_configured_devices_are_read_with_their_settings(tmp_path: Path) -> None:
    path = written(tmp_path, '[board]\naddress = "ssh:pi@board:2222"\nidentity_file = "~/.ssh/board"\n')
    found = load_config(path).find("board")
    assert (found.address, found.identity_file, found.proxy_jump) == ("ssh:pi@board:2222", "~/.ssh/board", None)
    assert load_config(path).find("ssh:pi@board:2222") == found
    assert load_config(path).find("adb:OTHER").address == "adb:OTHER"
    assert load_config(tmp_path / "none.toml").devices == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("board = 1", "a device is a table"),
        ("[board]\n", "there is no address"),
        ('[board]\naddress = "telnet:x"\n', "'telnet:x' is none of"),
        ('[board]\naddress = "ssh:"\n', "'ssh:' is none of"),
        ('[board]\naddress = "ssh:x"\nport = 22\n', "'port' is not a setting"),
        ('[board]\naddress = "ssh:x"\nidentity_file = 3\n', "identity_file must be text"),
        ('[p]\naddress = "adb:x"\nidentity_file = "k"\n', "identity_file means nothing for adb"),
        ('[p]\naddress = "adb:x"\ncompression = "gzip"\n', "'gzip' is none of none, zstd"),
        ('[p]\naddress = "adb:x"\nroot = "data"\n', "absolute path"),
        ("[board\n", "not valid TOML"),
    ],
)
def test_broken_configuration_names_file_device_and_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=words) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
