"""Reads a device's raw facts with nothing installed on it: one POSIX shell script, one round trip.

The facts have the shape of the agent's ``identify`` (docs/protocol.md, *Identity*), so identification does not care
which of the two gave them. The script only reads; what it cannot read it leaves out.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator

from socbench.devices.parse import decode, number, parse_getprop, strings
from socbench.errors import ChannelError, DeviceStateError
from socbench.records import Json
from socbench.transports.base import Deadline, Transport

LIMIT_BYTES = 4 * 1024 * 1024
"""More than any device prints; a device that sends more is cut off."""

_SCRIPT = r"""
m=$1
part() { echo; echo "$m $1"; }
text() { if [ -r "$2" ] && [ -f "$2" ]; then part "$1"; cat "$2"; fi; }
value() { v=; [ -r "$1" ] && read -r v < "$1"; }
part uname; uname -s; uname -n; uname -r; uname -v; uname -m
text boot_id /proc/sys/kernel/random/boot_id
text kernel_arch /proc/sys/kernel/arch
part page_size; getconf PAGESIZE || sed -n 's/^KernelPageSize: *\([0-9]*\) kB.*/\1k/p' /proc/self/smaps | sed q
part long_bit; getconf LONG_BIT
text cpuinfo /proc/cpuinfo
part meminfo; sed -n 's/^MemTotal: *//p' /proc/meminfo
text os_release /etc/os-release
text process_status /proc/self/status
for n in product_name sys_vendor board_name; do text dmi.$n /sys/class/dmi/id/$n; done
d=/proc/device-tree; [ -d $d ] || d=/sys/firmware/devicetree/base
for n in model compatible serial-number; do text device_tree.$n $d/$n; done
for n in soc_id machine family revision chip_name; do text soc0.$n /sys/devices/soc0/$n; done
text machine_id /etc/machine-id
part macs; for i in /sys/class/net/*; do if [ -e "$i/device" ]; then value "$i/address"; echo "$v"; fi; done
part cpus
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  [ -d "$c" ] || continue; l=${c##*/cpu}
  for f in cpufreq/cpuinfo_max_freq cpufreq/scaling_max_freq cpu_capacity regs/identification/midr_el1 \
    topology/cluster_id; do
    value "$c/$f"; l="$l;$v"
  done; echo "$l"
done
part policies
for p in /sys/devices/system/cpu/cpufreq/policy[0-9]*; do
  value "$p/related_cpus"; l=$v; value "$p/cpuinfo_max_freq"; l="$l;$v"; value "$p/scaling_max_freq"; echo "$l;$v"
done
text hypervisor /sys/hypervisor/type
text clocksource /sys/devices/system/clocksource/clocksource0/available_clocksource
part scheduling
group() {
  for d in /dev/cpuset /sys/fs/cgroup/cpuset; do
    for f in cpus cpuset.cpus; do value "$d$2/$f"; if [ -n "$v" ]; then echo "$1_cpus;$v"; fi; done
  done
  for d in /dev/cpuctl /sys/fs/cgroup/cpu /sys/fs/cgroup; do
    for f in min max; do value "$d$3/cpu.uclamp.$f"; if [ -n "$v" ]; then echo "$1_$f;$v"; fi; done
  done
}
sed -n 's/^effective uclamp\.\(m[a-z]*\)[^0-9]*/task_\1;/p' /proc/self/sched
value /proc/self/cpuset; s=$v; echo "cpuset;$s"
group own "$s" "$(sed -n 's/^0:://p;s/^[0-9]*:\([^:]*,\)\{0,1\}cpu\(,[^:]*\)\{0,1\}://p' /proc/self/cgroup | sed q)"
if [ -d /dev/cpuset/top-app ]; then group app /top-app /top-app; fi
part python; command -v python3
part gpus
for c in /sys/class/drm/card[0-9] /sys/class/drm/card[0-9][0-9]; do
  if [ -e "$c/device" ]; then value "$c/device/vendor"; l=$v; value "$c/device/device"; echo "pci;$l;$v"
    sed -n 's/^DRIVER=/driver;/p;s/^OF_COMPATIBLE_0=/of;/p' "$c/device/uevent"; fi
done
for g in /proc/driver/nvidia/gpus/*/information; do [ -r "$g" ] && sed -n 's/^Model:[ 	]*/name;/p' "$g"; done
for g in /sys/class/kgsl/kgsl-3d0/gpu_model /sys/kernel/gpu/gpu_model /sys/class/misc/mali0/device/gpuinfo; do
  value $g; if [ -n "$v" ]; then echo "name;$v"; fi
done
if command -v lspci; then part lspci; lspci -mm; fi
part npus
for a in /sys/class/accel/accel[0-9]*; do
  if [ -e "$a/device" ]; then value "$a/device/vendor"; l=$v; value "$a/device/device"; echo "accel;$l;$v"
    sed -n 's/^DRIVER=/driver;/p' "$a/device/uevent"; fi
done
for a in /dev/apex_0 /dev/hailo0 /dev/ethosu0; do if [ -e $a ]; then echo "node;$a"; fi; done
if command -v getprop; then part getprop; getprop; fi
if command -v dumpsys; then
  part battery; dumpsys battery
  part gles; dumpsys SurfaceFlinger 2>/dev/null | grep 'GLES: ' | head -n 1
fi
part end
"""


def read_facts(transport: Transport, deadline: Deadline) -> Json:
    """Return the raw facts of the device behind ``transport``.

    Raises ChannelError and DeadlineError as the transport does, DeviceStateError when the device has no usable shell.
    """
    mark = _mark()
    done = transport.run(["sh", "-s", mark], deadline=deadline, stdin=_SCRIPT.encode(), limit_bytes=LIMIT_BYTES)
    return _facts(done.stdout, mark, transport.address)


def local_facts() -> Json:
    """Return the raw facts of this machine. Raises DeviceStateError where there is no POSIX shell."""
    mark = _mark()
    try:
        done = subprocess.run(
            ["sh", "-s", mark],
            input=_SCRIPT.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        raise DeviceStateError(
            "local: this machine has no sh, so what it is cannot be read; use Linux or macOS"
        ) from None
    except subprocess.TimeoutExpired:
        raise ChannelError(
            "local: reading this machine's facts took more than 30 s; look for a hanging mount"
        ) from None
    return _facts(done.stdout, mark, "local")


def _mark() -> str:
    """A line that no device can know beforehand, so that no text on it can pose as a section."""
    return f"=={secrets.token_hex(8)}=="


def _facts(output: bytes, mark: str, address: str) -> Json:
    parts = dict(_sections(output, mark))
    if "uname" not in parts:
        raise DeviceStateError(
            f"{address}: the device's shell ran the identification script and answered nothing usable; try "
            "`sh -c uname` on it"
        )
    lines = {name: [line.strip() for line in decode(raw).splitlines() if line.strip()] for name, raw in parts.items()}
    one = {name: (found[0] if found else None) for name, found in lines.items()}
    facts: Json = {
        "uname": lines["uname"],
        "boot_id": one.get("boot_id"),
        "kernel_arch": one.get("kernel_arch"),
        "page_size": _page_size(one.get("page_size")),
        "long_bit": number(one.get("long_bit")),
        "cpuinfo": decode(parts.get("cpuinfo", b""))[: 64 * 1024],
        "meminfo_total_kb": number((one.get("meminfo") or "").split(" ")[0]),
        "os_release": decode(parts.get("os_release", b"")),
        "process_status": decode(parts.get("process_status", b"")),
        "dmi": _group(one, "dmi."),
        "soc0": _group(one, "soc0."),
        "device_tree": {
            "model": decode(parts.get("device_tree.model", b"")).strip("\0\r\n "),
            "compatible": list(strings(decode(parts.get("device_tree.compatible", b"")))),
        },
        "ids": {
            "serial": decode(parts.get("device_tree.serial-number", b"")).strip("\0\r\n ") or None,
            "machine_id": one.get("machine_id"),
            "macs": lines.get("macs", []),
        },
        "cpus": list(_cpus(lines.get("cpus", []), lines.get("policies", []))),
        "scheduling": dict(line.split(";", 1) for line in lines.get("scheduling", []) if ";" in line),
        "hypervisor": one.get("hypervisor"),
        "clocksource": one.get("clocksource"),
        "python_path": one.get("python"),
        "gpus": lines.get("gpus", []),
        "npus": lines.get("npus", []),
        "lspci": lines.get("lspci", []),
        "gles": one.get("gles"),
    }
    facts["cpu_count"] = len(facts["cpus"]) or None
    if "getprop" in parts:
        facts["getprop"] = parse_getprop(decode(parts["getprop"]))
    if "battery" in parts:
        facts["battery"] = decode(parts["battery"])
    return facts


def _sections(output: bytes, mark: str) -> Iterator[tuple[str, bytes]]:
    start = f"\n{mark} ".encode()
    for piece in (b"\n" + output.replace(b"\r\n", b"\n")).split(start)[1:]:
        name, _, body = piece.partition(b"\n")
        yield name.decode("ascii", "replace").strip(), body.removesuffix(b"\n")


def _group(one: dict[str, str | None], prefix: str) -> dict[str, str | None]:
    return {name.removeprefix(prefix): value for name, value in one.items() if name.startswith(prefix)}


def _page_size(text: str | None) -> int | None:
    if text and text.endswith("k"):
        kilobytes = number(text[:-1])
        return kilobytes * 1024 if kilobytes else None
    return number(text)


def _cpus(lines: list[str], policies: list[str]) -> Iterator[Json]:
    """Yield one entry a CPU; the two identification numbers come out of MIDR_EL1 (bits 31:24, 15:4).

    Clocks that a CPU's own folder does not show (it is offline) come from its policy.
    """
    shared = dict(_policy_clocks(policies))
    for line in lines:
        fields = [*line.split(";"), "", "", "", "", ""][:6]
        cpu, midr = number(fields[0]), number(fields[4])
        if cpu is not None:
            max_khz, cap_khz = shared.get(cpu, (None, None))
            yield {
                "cpu": cpu,
                "max_khz": number(fields[1]) or max_khz,
                "cap_khz": number(fields[2]) or cap_khz,
                "capacity": number(fields[3]),
                "implementer": midr >> 24 & 0xFF if midr is not None else None,
                "part": midr >> 4 & 0xFFF if midr is not None else None,
                "cluster": number(fields[5]),
            }


def _policy_clocks(policies: list[str]) -> Iterator[tuple[int, tuple[int | None, int | None]]]:
    for line in policies:
        cpus, max_khz, cap_khz = [*line.split(";"), "", ""][:3]
        for word in cpus.split():
            cpu = number(word)
            if cpu is not None:
                yield cpu, (number(max_khz), number(cap_khz))
