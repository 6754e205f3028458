"""Turns raw facts into a Device record: name, SoC, clusters, GPU, NPU, a stable key, emulated or not. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from socbench.devices.accelerators import gles_gpu
from socbench.devices.cores import clusters_of
from socbench.devices.data import cpu_part_name
from socbench.devices.parse import CpuInfo, clean, parse_cpuinfo, parse_os_release
from socbench.devices.scheduling import scheduling_of
from socbench.devices.soc import SocMatch, match_soc
from socbench.records import CoreCluster, Device, Json

_KEY_SALT = "socbench device key 1"
_MARKET_NAMES = (
    "ro.product.marketname",
    "ro.product.odm.marketname",
    "ro.product.vendor.marketname",
    "ro.vendor.oplus.market.name",
    "ro.config.marketing_name",
    "ro.product.system.marketname",
    "ro.product.product.marketname",
)
_CPU_VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon", "CentaurHauls": "Zhaoxin"}
_PCI_VENDORS = {0x8086: "Intel", 0x1002: "AMD", 0x10DE: "NVIDIA", 0x1022: "AMD", 0x1AF4: "virtio", 0x1234: "QEMU"}
_NO_SERIAL = re.compile(r"(?i)^(0+|unknown|redacted|none|null|to be filled.*|default.*|emulator\w*)?$")


def identify(facts: Json, address: str, *, state: str = "ready", advice: str | None = None) -> Device:
    """Return the Device record that ``facts`` (docs/protocol.md, *Identity*) describe, reached at ``address``.

    Facts may come from the agent or from ``read_facts``; any of them may be missing or nonsense. ``key`` is a salted
    hash of hardware ids and never contains one.
    """
    info = parse_cpuinfo(str(facts.get("cpuinfo") or ""))
    clusters = clusters_of(facts.get("cpus") or (), _core_names(facts, info))
    clusters = clusters or tuple(_counted(facts, info))
    soc = _soc(facts, info, clusters)
    uname = [str(piece) for piece in facts.get("uname") or ()]
    kernel = uname[2] if len(uname) > 2 else None
    memory = facts.get("meminfo_total_kb")
    return Device(
        device=address,
        key=device_key(facts),
        name=_name(facts, info, address),
        soc_vendor=soc.vendor,
        soc=soc.name,
        gpu=_gpu(facts, soc),
        npu=_npu(facts, soc),
        os=_os(facts),
        os_build=_os_build(facts, uname),
        kernel=clean(kernel),
        abi=_abi(facts, uname),
        page_size_bytes=facts.get("page_size"),
        ram_bytes=memory * 1024 if isinstance(memory, int) and memory > 0 else None,
        cores=clusters,
        cpu_features=info.features,
        emulated=emulation(facts) is not None,
        state=state,
        advice=advice,
        scheduling=scheduling_of(facts),
    )


def device_key(facts: Json) -> str:
    """Return 16 hexadecimal digits that stay the same for one device: across reboots, addresses and OS updates.

    A salted SHA-256 of the best id there is: the phone's or board's serial number, else the machine id, else the
    lowest MAC address, else what the device looks like (then two equal devices share a key). The architecture is in
    it, so that an emulated userland on this host is another device than the host.
    """
    properties = facts.get("getprop") or {}
    ids = facts.get("ids") or {}
    info = parse_cpuinfo(str(facts.get("cpuinfo") or ""))
    choices = [
        ("serial", properties.get("ro.serialno") or properties.get("ro.boot.serialno")),
        ("serial", ids.get("serial")),
        ("serial", info.serial),
        ("machine", ids.get("machine_id")),
        ("mac", min((m for m in ids.get("macs") or () if not _NO_SERIAL.match(m.replace(":", ""))), default=None)),
    ]
    kind, value = next(((k, v) for k, v in choices if v and not _NO_SERIAL.match(str(v).strip())), ("looks", None))
    if value is None:
        dmi = facts.get("dmi") or {}
        looks = [
            *dmi.values(),
            (facts.get("device_tree") or {}).get("model"),
            info.model_name,
            (facts.get("uname") or [""] * 2)[1:2],
        ]
        value = "|".join(str(piece) for piece in looks)
    uname = facts.get("uname") or [None]
    text = "\0".join(
        (_KEY_SALT, kind, str(uname[-1]), str(properties.get("ro.product.device") or ""), str(value).strip())
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def emulation(facts: Json) -> str | None:
    """Return why the device counts as emulated (QEMU in software, qemu-user, Android's emulator), None if not.

    A hardware-assisted virtual machine is not emulated: its latencies are its own. QEMU on Arm does not show whether
    it is hardware-assisted, and is taken for emulated.
    """
    properties = facts.get("getprop") or {}
    if "1" in (properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu")) or properties.get("ro.hardware") in (
        "ranchu",
        "goldfish",
    ):
        return "the Android emulator"
    machine = str((facts.get("uname") or [""])[-1])
    info = parse_cpuinfo(str(facts.get("cpuinfo") or ""))
    kernel_arch = str(facts.get("kernel_arch") or "") or (
        "x86_64" if "x86_Thread_features" in str(facts.get("process_status") or "") else ""
    )
    if kernel_arch and _family(kernel_arch) != _family(machine):
        return f"{machine} programs on a {kernel_arch} kernel (qemu-user)"
    if info.is_x86 and _family(machine) != "x86" and machine:
        return f"{machine} programs on an x86 machine (qemu-user)"
    model = f"{info.model_name or ''} {(facts.get('device_tree') or {}).get('model') or ''}"
    if re.search(r"QEMU TCG|QEMU Virtual CPU", model) or (0x00, 0x051) in info.parts.values():
        return "QEMU in software (its processor model says so)"
    dmi = " ".join(str(v) for v in (facts.get("dmi") or {}).values())
    compatible = (facts.get("device_tree") or {}).get("compatible") or ()
    if ("QEMU" in dmi or "linux,dummy-virt" in compatible) and "kvm-clock" not in str(facts.get("clocksource") or ""):
        return "QEMU, with no sign of hardware assistance"
    return None


def _family(machine: str) -> str:
    if re.fullmatch(r"x86_64|i\d86|amd64", machine):
        return "x86"
    return "arm" if machine.startswith(("arm", "aarch64")) else machine


def _virtual(facts: Json, info: CpuInfo) -> bool:
    return bool(facts.get("hypervisor")) or "hypervisor" in info.features


def _core_names(facts: Json, info: CpuInfo) -> dict[int, str]:
    parts = dict(info.parts)
    for entry in facts.get("cpus") or ():
        cpu, implementer, part = entry.get("cpu"), _id(entry.get("implementer")), _id(entry.get("part"))
        if isinstance(cpu, int) and implementer is not None and part is not None:
            parts.setdefault(cpu, (implementer, part))
    return {cpu: cpu_part_name(*ids) or f"core 0x{ids[0]:02x}/0x{ids[1]:03x}" for cpu, ids in parts.items()}


def _id(value: object) -> int | None:
    if isinstance(value, str):
        return int(value, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", value) else None
    return value if isinstance(value, int) else None


def _counted(facts: Json, info: CpuInfo) -> Iterator[CoreCluster]:
    count = facts.get("cpu_count") or info.processors
    if isinstance(count, int) and 0 < count < 4096:
        yield CoreCluster(tuple(range(count)))


def _soc(facts: Json, info: CpuInfo, clusters: tuple[CoreCluster, ...]) -> SocMatch:
    if info.is_x86 and not facts.get("getprop"):
        return SocMatch(_CPU_VENDORS.get(info.vendor or "", info.vendor), info.model_name)
    return match_soc(facts, clusters)


def _name(facts: Json, info: CpuInfo, address: str) -> str:
    properties = facts.get("getprop") or {}
    if properties:
        market = next((clean(properties[p], 80) for p in _MARKET_NAMES if properties.get(p)), None)
        maker, model = (
            clean(properties.get("ro.product.manufacturer"), 40),
            clean(properties.get("ro.product.model"), 60),
        )
        if market or model:
            return (
                market
                or (model if not maker or str(model).lower().startswith(maker.lower()) else f"{maker} {model}")
                or address
            )
    tree = clean((facts.get("device_tree") or {}).get("model"), 80)
    dmi = facts.get("dmi") or {}
    machine = clean(" ".join(filter(None, (dmi.get("sys_vendor"), dmi.get("product_name")))), 80)
    kind = "virtual machine" if _virtual(facts, info) else "PC"
    processor = f"{info.model_name} {kind}" if info.is_x86 and info.model_name else None
    name = tree or machine or processor or info.machine or info.hardware or address
    reason = emulation(facts)
    if reason and "emulat" not in name.lower():
        return f"{name} (emulated)"
    return f"{name} (virtual machine)" if kind == "virtual machine" and kind not in name else name


def _gpu(facts: Json, soc: SocMatch) -> str | None:
    """Return the GPU by what the device says of it, else by what its SoC has, else by the kernel driver's name."""
    vague: list[str] = []
    for line in facts.get("gpus") or ():
        kind, _, rest = str(line).partition(";")
        if kind == "name":
            return clean(rest, 80)
        if kind == "pci":
            vague.extend(filter(None, [_pci_name(rest)]))
        elif kind == "of" and not soc.facts:
            vague.extend(filter(None, [clean(rest, 60)]))
    for line in facts.get("lspci") or ():
        fields = re.findall(r'"([^"]*)"', str(line))
        if len(fields) >= 3 and re.search(r"VGA|3D|Display", fields[0]):
            return clean(f"{fields[1]} {fields[2]}", 80)
    said = gles_gpu(facts.get("gles"))
    known = soc.facts.gpu if soc.facts else None
    if said and not _same_gpu(said, known):
        return said  # what draws the screen, not what a table says of the chip
    return known or (vague[0] if vague else None)


def _same_gpu(said: str, known: str | None) -> bool:
    """Say whether two names mean one GPU: the table's may have its cores too (``Mali-G715`` and ``Mali-G715 MP7``)."""
    words = re.findall(r"[A-Za-z]+|[0-9]+", said.lower())[:3]
    return known is not None and re.findall(r"[A-Za-z]+|[0-9]+", known.lower())[: len(words)] == words


def _pci_name(rest: str) -> str | None:
    vendor, _, device = rest.partition(";")
    number = _id(vendor)
    if number is None:
        return None
    name = _PCI_VENDORS.get(number, f"PCI vendor {vendor}")
    return clean(f"{name} {device}", 60)


def _npu(facts: Json, soc: SocMatch) -> str | None:
    for line in facts.get("npus") or ():
        kind, _, rest = str(line).partition(";")
        if kind == "accel":
            return f"{_pci_name(rest)} NPU" if _pci_name(rest) else "NPU (/dev/accel)"
        if kind == "node":
            nodes = {"/dev/apex_0": "Google Edge TPU", "/dev/hailo0": "Hailo", "/dev/ethosu0": "Arm Ethos-U"}
            found = nodes.get(rest.strip())
            if found:
                return found
    return soc.facts.npu if soc.facts else None


def _os(facts: Json) -> str | None:
    properties = facts.get("getprop") or {}
    release = clean(properties.get("ro.build.version.release"), 40)
    if release:
        return f"Android {release}"
    uname = facts.get("uname") or [None]
    return parse_os_release(str(facts.get("os_release") or "")) or clean(uname[0])


def _os_build(facts: Json, uname: list[str]) -> str | None:
    properties = facts.get("getprop") or {}
    build = clean(properties.get("ro.build.fingerprint")) or clean(properties.get("ro.build.display.id"))
    return build or clean(" ".join(uname[2:4]))


def _abi(facts: Json, uname: list[str]) -> str | None:
    """Return the ABI that programs need: a 64-bit Arm kernel may run a 32-bit userland (``armv7l``)."""
    properties = facts.get("getprop") or {}
    listed = clean(properties.get("ro.product.cpu.abilist"))
    abi = listed.split(",")[0] if listed else clean(properties.get("ro.product.cpu.abi"))
    machine = clean(uname[-1]) if uname else None
    if machine == "aarch64" and facts.get("long_bit") == 32:
        machine = "armv7l"
    return abi or machine
