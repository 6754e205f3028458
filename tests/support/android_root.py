"""An Android-shaped arm64 device without privileges: Debian's arm64 adbd and busybox under qemu-user and proot.

Only /system/bin, /data/local/tmp and the daemon's own folder exist: no /lib, /usr, /tmp or /etc/passwd. ``getprop`` and
``dumpsys`` are scripts that print texts of the shape of a phone's, with values that a Pixel 8 Pro printed; /sys and
/proc/cpuinfo are such trees too. The daemon listens on every interface and cannot be told otherwise, so it runs in a
network namespace of its own; a relay passes connections from loopback to it over a socket file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import device_tools
from device_rig import Daemon, free_port, wait_for

APPLETS = """
sh cat cp mv rm mkdir rmdir chmod echo sleep ps kill grep sed awk head tail wc df du stat md5sum sha256sum uname id
true false env date tar gzip test touch ln readlink pwd nproc taskset printf seq xargs find sort dd nohup setsid timeout
which expr tr cut ls
"""
GETPROP = """[dalvik.vm.heapsize]: [512m]
[gsm.operator.alpha]: []
[persist.sys.boot.reason.history]: [reboot,1700000000
cold,1690000000]
[ro.board.platform]: [zuma]
[ro.boot.hardware]: [husky]
[ro.build.fingerprint]: [google/husky/husky:16/TEST.000000.000/1:user/release-keys]
[ro.build.version.release]: [16]
[ro.build.version.sdk]: [36]
[ro.hardware]: [husky]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.cpu.abilist]: [arm64-v8a]
[ro.product.device]: [husky]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8 Pro]
[ro.serialno]: [TESTSERIAL00001]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Charge counter: 3210000
  status: 2
  level: 15
  scale: 100
  temperature: 281
"""
THERMAL = """IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=54.6, mType=0, mName=BIG, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=31.7, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=28.3, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
Current cooling devices from HAL:
"""
SURFACE_FLINGER = """Build configuration: [sf PRESENT_TIME_OFFSET=0]
------------RE GLES (skiagl)------------
EGL implementation : 1.5
GLES: ARM, Mali-G715, OpenGL ES 3.2 v1.r44p1-00pxl0.0123456789abcdef0123456789abcdef
"""
SCHEDULING = {
    "cpuset/cpus": "0-8",
    "cpuset/top-app/cpus": "0-8",
    "cpuset/background/cpus": "0-3",
    "cpuctl/cpu.uclamp.min": "0.00",
    "cpuctl/cpu.uclamp.max": "max",
    "cpuctl/top-app/cpu.uclamp.min": "12.50",
    "cpuctl/top-app/cpu.uclamp.max": "max",
}
"""Groups of processes below /dev, in the form of the kernel's files; the values are made up."""
_CORES = [("0xd46", 1_704_000)] * 4 + [("0xd4d", 2_367_000)] * 4 + [("0xd4e", 2_914_000)]


def build(root: Path, *, glibc: bool = False) -> None:
    """Make the device's file system in ``root``; ``glibc``: with /lib, which the native agent for Linux needs."""
    tools = device_tools.arm_tools()
    for name in ("system/bin", "system/etc", "data/local/tmp", "data/misc/adb", "proc", "dev", "sys", "apex/adbd/lib"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("/system/bin")
    shutil.copy(tools / "bin/busybox", root / "system/bin/busybox")
    for applet in APPLETS.split():
        (root / "system/bin" / applet).symlink_to("busybox")
    daemon = root / "apex/adbd"
    shutil.copy(tools / "usr/lib/android-sdk/platform-tools/adbd", daemon / "adbd")
    for folder in ("usr/lib/aarch64-linux-gnu/android", "usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"):
        for library in (tools / folder).glob("*.so*"):
            shutil.copy(library, daemon / "lib" / library.name)
    _script(root / "system/bin/getprop", "cat /system/etc/properties")
    _script(root / "system/bin/dumpsys", 'cat "/system/etc/dumpsys-$1"')
    (root / "system/etc/properties").write_text(GETPROP)
    (root / "system/etc/dumpsys-battery").write_text(BATTERY)
    (root / "system/etc/dumpsys-thermalservice").write_text(THERMAL)
    (root / "system/etc/dumpsys-SurfaceFlinger").write_text(SURFACE_FLINGER)
    _fake_kernel(root)
    if glibc:
        (root / "lib").mkdir()
        for name in ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"):
            shutil.copy(tools / "lib/aarch64-linux-gnu" / name, root / "lib" / name)


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/system/bin/sh\n{body}\n")
    path.chmod(0o755)


def _fake_kernel(root: Path) -> None:
    """Make what stands for /sys and /proc/cpuinfo; CPU 3 is offline, and only its policy knows its clock."""
    cpus = root / "fake-sys/devices/system/cpu"
    blocks = []
    for cpu, (part, khz) in enumerate(_CORES):
        (cpus / f"cpu{cpu}" / "cpufreq").mkdir(parents=True)
        if cpu == 3:
            continue
        (cpus / f"cpu{cpu}/cpufreq/cpuinfo_max_freq").write_text(f"{khz}\n")
        (cpus / f"cpu{cpu}/cpufreq/scaling_max_freq").write_text(f"{khz}\n")
        blocks.append(f"processor\t: {cpu}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n")
    for first, related in ((0, "0 1 2 3"), (4, "4 5 6 7"), (8, "8")):
        policy = cpus / f"cpufreq/policy{first}"
        policy.mkdir(parents=True)
        (policy / "related_cpus").write_text(f"{related}\n")
        (policy / "cpuinfo_max_freq").write_text(f"{_CORES[first][1]}\n")
    for path, text in SCHEDULING.items():
        (root / "fake-dev" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "fake-dev" / path).write_text(f"{text}\n")
    (root / "fake-cpuinfo").write_text("".join(blocks))


class AndroidRoot:
    """The device, started; ``serial`` is its name at an ADB server. ``root`` is its file system as the host sees it."""

    def __init__(self, folder: Path, *, glibc: bool = False) -> None:
        self.root = folder / "android"
        build(self.root, glibc=glibc)
        emulation = device_tools.emulation_tools()
        self._socket = folder / "relay"
        port = free_port()
        proot = [str(emulation / "usr/bin/proot"), "-q", str(emulation / "usr/bin/qemu-aarch64-static")]
        proot += ["-r", str(self.root), "-b", "/proc", "-b", "/dev", "-b", f"{self.root}/fake-sys:/sys"]
        proot += [word for name in ("cpuset", "cpuctl") for word in ("-b", f"{self.root}/fake-dev/{name}:/dev/{name}")]
        proot += ["-b", f"{self.root}/fake-cpuinfo:/proc/cpuinfo", "-w", "/"]
        daemon = ["/apex/adbd/lib/ld-linux-aarch64.so.1", "--library-path", "/apex/adbd/lib", "/apex/adbd/adbd"]
        env = {
            "PATH": "/system/bin",
            "ADBD_PORT": str(port),
            "HOME": "/",
            "TMPDIR": "/data/local/tmp",
            "ANDROID_ROOT": "/system",
            "ANDROID_DATA": "/data",
            "PROOT_TMP_DIR": str(folder),
        }
        relay = [sys.executable, __file__, str(self._socket), str(port), *proot, *daemon]
        libraries = f"{emulation}/usr/lib/x86_64-linux-gnu"
        env["LD_LIBRARY_PATH"] = libraries
        unshare = ["unshare", "--net", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
        outside = {"PATH": os.environ["PATH"], "DEVICE_ENVIRONMENT": json.dumps(env)}
        self.daemon = Daemon([*unshare, *relay], outside, folder / "android.log")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._forward, daemon=True).start()
        wait_for(self._answers, f"the emulated adbd ({folder / 'android.log'})", 40)

    @property
    def serial(self) -> str:
        """The name that an ADB server has for it."""
        return f"127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self._socket))
            return one.recv(1) == b"!"
        return False

    def _forward(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                inside = socket.socket(socket.AF_UNIX)
                try:
                    inside.connect(str(self._socket))
                    answered = inside.recv(1) == b"!"
                except OSError:
                    answered = False
                if answered:
                    join(client, inside)
                else:
                    client.close()
                    inside.close()

    def stop(self) -> None:
        """End it with everything in its namespaces."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.daemon.stop()


def join(one: socket.socket, other: socket.socket) -> None:
    """Pass everything between two sockets until either ends, then close both; returns at once."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def both() -> None:
        back = threading.Thread(target=pump, args=(other, one), daemon=True)
        back.start()
        pump(one, other)
        back.join()
        one.close()
        other.close()

    threading.Thread(target=both, daemon=True).start()


def inside(path: str, port: int, argv: list[str]) -> None:
    """Run in the network namespace: bring loopback up, start the device, relay from the socket file to its port."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14s", b"lo", 0x41, b"")  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, request)  # SIOCSIFFLAGS
    env = json.loads(os.environ["DEVICE_ENVIRONMENT"])
    device = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: device.kill())
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    while True:
        client, _ = listener.accept()
        try:
            daemon = socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            client.close()
            continue
        daemon.settimeout(None)
        client.sendall(b"!")
        join(client, daemon)


if __name__ == "__main__":
    inside(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
