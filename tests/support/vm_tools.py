"""What the virtual machines of ``make test-vm`` are made of: Debian's kernels, small disks, QEMU. Kept in ``.cache``.

A machine boots a Debian kernel with an initramfs of busybox and the modules it needs, which mounts the disk and starts
``/test-init`` there. The disk is written to a temporary file only, so every machine starts afresh. The network is cut
off but for ports that are passed on from loopback.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import device_tools
from device_rig import Daemon, wait_for

_BOOT = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_net", "virtio_console")
_META = {"amd64": "linux-image-amd64", "arm64": "linux-image-cloud-arm64"}
_QEMU = {  # NumPy's wheels want more than QEMU's default x86 processor has
    "amd64": ("qemu-system-x86_64", "-cpu", "max", "-smp", "2", "-m", "1024"),
    # One core: on a loaded host a machine of two had soft lockups of minutes.
    "arm64": ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "1", "-m", "1024"),
}
_CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
_INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod /modules/$module || echo "no $module"; done < /order
for wait in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; /bin/busybox sleep 0.5; done
/bin/busybox mount -t ext4 /dev/vda /root
for name in proc sys dev; do /bin/busybox mount --move /$name /root/$name; done
exec /bin/busybox switch_root /root /test-init
"""


@dataclass(frozen=True)
class Kernel:
    """A Debian kernel: its image and the folder of its modules."""

    image: Path
    modules: Path


def kernel(architecture: str) -> Kernel:
    """Return the stock kernel of bookworm for amd64 or (the cloud one) for arm64, with its modules indexed."""
    name = f"kernel-{architecture}"
    folder = device_tools.CACHE / name
    if not folder.is_dir():
        meta = f"{_META[architecture]}:{architecture}/bookworm"
        found = re.search(r"^Depends:.*?(linux-image-[0-9][^ ,]*)", device_tools.apt_show(meta), re.MULTILINE)
        if found is None:
            raise device_tools.ToolsMissing(f"{meta} does not say which kernel it stands for")
        device_tools.unpack((f"{found[1]}:{architecture}/bookworm",), name, _index)
    (image,) = (folder / "boot").glob("vmlinuz-*")
    (modules,) = (folder / "lib" / "modules").iterdir()
    return Kernel(image, modules)


def _index(folder: Path) -> None:
    (modules,) = (folder / "lib" / "modules").iterdir()
    device_tools.run(["depmod", "-b", str(folder), modules.name], folder)


def _with_dependencies(modules: Path, wanted: Sequence[str]) -> list[Path]:
    """Return the files of modules in an order in which they load; what is built in has none."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    by_name = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for other in reversed(needs[path]):
            add(other)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return [modules / path for path in order]


def initramfs(architecture: str, busybox: Path, target: Path, more: Sequence[str] = ()) -> None:
    """Write an initramfs that loads modules, mounts /dev/vda and starts /test-init there.

    ``more`` are further modules, each with its parameters if it has any.
    """
    parameters = {name: words for name, _, words in (module.partition(" ") for module in more)}
    folder = target.with_suffix(".folder")
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (folder / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin" / "busybox")
    files = _with_dependencies(kernel(architecture).modules, (*_BOOT, *parameters))
    for file in files:
        shutil.copy(file, folder / "modules" / file.name)
    lines = (f"{file.name} {parameters.get(file.name.partition('.')[0], '')}\n" for file in files)
    (folder / "order").write_text("".join(lines))
    (folder / "init").write_text(_INIT)
    (folder / "init").chmod(0o755)
    names = "\0".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-0", "-o", "-H", "newc", "--quiet", "--owner=0:0"],
        cwd=folder, input=names.encode(), capture_output=True, check=True,
    )  # fmt: skip
    target.write_bytes(gzip.compress(packed.stdout, 1))


def add_numpy(root: Path, platform: str) -> None:
    """Put NumPy into a userland for its own Python 3.11, from a wheel for ``platform``."""
    site = root / "usr" / "lib" / "python3" / "dist-packages"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", str(site)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", "--platform", platform]
    subprocess.run([*command, "--no-compile", "numpy==2.4.6"], check=True)
    for unused in site.rglob("tests"):
        shutil.rmtree(unused)
    if sys.version_info[:2] == (3, 11):
        device_tools.run([sys.executable, "-m", "compileall", "-q", "-s", str(root), str(site)], root)


def kept(name: str, ending: str, depends_on: Sequence[str], make: Callable[[Path], None]) -> Path:
    """Return a file of the cache, made with ``make`` unless one of the same ``depends_on`` is there."""
    digest = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()[:12]
    target = device_tools.CACHE / f"{name}-{digest}.{ending}"
    if not target.exists():
        make(target)
    return target


def disk(root: Path, target: Path, megabytes: int = 1000) -> None:
    """Write an ext4 disk with the content of ``root``, whose files belong to root there."""
    command = ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(root), str(target)]
    subprocess.run([*command, f"{megabytes}M"], check=True, capture_output=True)


class Machine:
    """A virtual machine in software (TCG). ``forward``: ports of the machine, each gets one on the host's loopback.

    ``control`` runs a command line in it as root, through a console of its own that /test-init reads.
    """

    def __init__(self, folder: Path, architecture: str, disk: Path, initrd: Path, forward: Mapping[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "console.log"
        self._control, self._monitor = folder / "control", folder / "monitor"
        passed = ",".join(f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in forward.items())
        argv = [
            *_QEMU[architecture],
            "-accel",
            "tcg,thread=multi",
            "-display",
            "none",
            "-nodefaults",
            "-no-user-config",
        ]
        argv += ["-kernel", str(kernel(architecture).image), "-initrd", str(initrd)]
        argv += ["-append", f"console={_CONSOLE[architecture]} quiet panic=-1"]
        argv += [
            "-drive",
            f"file={disk},format=raw,if=none,id=disk,snapshot=on",
            "-device",
            "virtio-blk-pci,drive=disk",
        ]
        argv += ["-netdev", f"user,id=net,restrict=on,{passed}", "-device", "virtio-net-pci,netdev=net,romfile="]
        argv += ["-chardev", f"socket,id=control,path={self._control},server=on,wait=off"]
        argv += ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=control"]
        argv += ["-monitor", f"unix:{self._monitor},server=on,wait=off", "-serial", f"file:{self.log}"]
        self.daemon = Daemon(argv, {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}, folder / "qemu.log")
        wait_for(self._monitor.exists, f"QEMU ({folder / 'qemu.log'})")

    def reset(self) -> None:
        """Press the reset button: nothing is written back, nobody is asked."""
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self._monitor))
            one.sendall(b"system_reset\n")
            one.settimeout(10)
            seen = b""
            while seen.count(b"(qemu)") < 2:
                seen += one.recv(4096)

    def control(self, line: str, seconds: float = 300.0) -> str:
        """Run a command line in the machine as root; return what it printed. AssertionError when it fails."""
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self._control))
            one.settimeout(1.0)
            one.sendall(line.encode() + b"\n")
            end, said = time.monotonic() + seconds, b""
            while not (found := re.search(rb"(?s)(.*)=rc ([0-9]+)\n", said)):
                assert time.monotonic() < end, f"`{line}` did not end in {seconds} s: {said!r}, {self.console()}"
                with contextlib.suppress(TimeoutError):
                    said += one.recv(65536)
        text = found[1].decode(errors="replace")
        assert found[2] == b"0", (line, text)
        return text

    def console(self) -> str:
        """Return the end of what the machine printed."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def stop(self) -> None:
        """Switch it off."""
        self.daemon.stop()
