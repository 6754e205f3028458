"""An arm64 board as a virtual machine: a kernel of its own that can be reset, a real sshd behind a port on loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
from pathlib import Path

import device_tools
import vm_tools
from arm64_board import FILES
from device_rig import RealSshd, free_port, make_keys, wait_for

_PORT = 2222
_INIT = r"""#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
mount() { busybox mount "$@"; }
for name in /tmp /run; do mount -t tmpfs tmpfs $name; done
chmod 1777 /tmp; mkdir -p /dev/pts /dev/shm /run/sshd
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
busybox ip link set lo up; busybox ip link set eth0 up; busybox ip addr add 10.0.2.15/24 dev eth0
chown -R pi:pi /home/pi
/usr/sbin/sshd -D -e &
exec 3<>/dev/hvc0
stty raw -echo <&3
echo "READY $(cut -d' ' -f1 /proc/uptime)"
while read -r line <&3; do (eval "$line") >&3 2>&1 </dev/null; echo "=rc $?" >&3; done
"""


def _root() -> Path:
    """Return the board's userland with NumPy, kept between runs of the tests."""

    def make(target: Path) -> None:
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(device_tools.board_tools(), partial, symlinks=True)
        shutil.copy(device_tools.arm_tools() / "bin" / "busybox", partial / "bin" / "busybox")
        vm_tools.add_numpy(partial, "manylinux_2_28_aarch64")
        partial.rename(target)

    return vm_tools.kept("arm64-machine", "root", ("1",), make)


class Arm64Machine(RealSshd):
    """The board, booted; ``make_home`` gives the host an OpenSSH configuration that knows it as ``ssh:board``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        self.folder, self.port, self.user = folder, free_port(), "pi"
        make_keys(folder)
        root = folder / "root"
        shutil.copytree(_root(), root, symlinks=True)
        self._settle(root)
        vm_tools.disk(root, folder / "disk")
        shutil.rmtree(root)
        busybox = device_tools.arm_tools() / "bin" / "busybox"
        vm_tools.initramfs("arm64", busybox, folder / "initrd")
        self.machine = vm_tools.Machine(folder, "arm64", folder / "disk", folder / "initrd", {_PORT: self.port})
        self.wait()
        self.trust(self.port)

    def _settle(self, root: Path) -> None:
        """Write what is this board's own: keys, users, sshd's settings."""
        for name, text in FILES.items():
            (root / "etc" / name).write_text(text)
        passwd = root / "etc" / "passwd"
        passwd.write_text(f"{passwd.read_text()}sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
        (root / "etc" / "group").write_text(f"{FILES['group']}nogroup:x:65534:\n")
        (root / "home" / "pi").mkdir(parents=True, exist_ok=True)
        ssh = root / "etc" / "ssh"
        for name in ("host_key", "authorized_keys"):
            shutil.copy(self.folder / name, ssh / name)
        settings = {
            "Port": str(_PORT),
            "HostKey": "/etc/ssh/host_key",
            "AuthorizedKeysFile": "/etc/ssh/authorized_keys",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
        }
        (ssh / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        (root / "test-init").write_text(_INIT)
        (root / "test-init").chmod(0o755)

    def wait(self, boots: int = 1) -> None:
        """Wait until it has come up ``boots`` times and sshd answers."""
        log = self.machine.log
        wait_for(lambda: log.exists() and log.read_text(errors="replace").count("READY") >= boots, "the board", 480)
        wait_for(self._greets, "its sshd", 240)

    def _greets(self) -> bool:
        """Whether sshd itself answers: QEMU accepts connections before anything listens in the machine."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as one:
            return one.recv(4) == b"SSH-"
        return False

    def reset(self) -> None:
        """Press the reset button: what its disk did not have yet is lost. It boots again."""
        self.machine.reset()

    def stop(self) -> None:
        """Switch it off."""
        self.machine.stop()
