"""An arm64 board without privileges: Debian's arm64 userland with a real sshd under qemu-user.

The userland is unpacked once (``device_tools.board_tools``) and mounted read-only; a board has a home, an /etc and a
/tmp of its own. It lives in namespaces of its own with their own binfmt_misc (Linux 6.7), so nothing is registered on
the host. Its user has uid 1000, mapped to whoever runs the tests, so sshd runs as an ordinary user's. (proot needs no
such kernel, but lets newer system calls such as statx see the host's files.) /proc/cpuinfo and /sys are those of a
board with two kinds of cores: the first because ONNX Runtime crashes on an x86 one, the second so that the board is
told from the host.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path, PurePosixPath

import device_tools
from device_rig import Daemon, RealSshd, free_port, listens, make_keys, wait_for

HOME = PurePosixPath("/home/pi")
_CORES = [("0xd05", 1_800_000)] * 4 + [("0xd0b", 2_400_000)] * 4  # Cortex-A55, Cortex-A76
_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_CORE = "processor\t: {cpu}\nBogoMIPS\t: 48.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
_CORE += "CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {part}\nCPU revision\t: 0\n\n"
_QUICK_SSHD = "-r"  # no second start of its program for every connection, which takes long here
FILES = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n",
    "group": "root:x:0:\npi:x:1000:\n",
    "hosts": "127.0.0.1 localhost board\n",
    "hostname": "board\n",
    "machine-id": "0123456789abcdef0123456789abcdef\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def _make_etc(etc: Path) -> None:
    shutil.copytree(device_tools.board_tools() / "etc", etc, symlinks=True)
    for name, text in FILES.items():
        (etc / name).write_text(text)


def _make_kernel(folder: Path) -> None:
    """Make what stands for /proc/cpuinfo and /sys."""
    cores = [_CORE.format(cpu=cpu, features=_FEATURES, part=part) for cpu, (part, _) in enumerate(_CORES)]
    (folder / "cpuinfo").write_text("".join(cores))
    cpus = folder / "sys" / "devices" / "system" / "cpu"
    for cpu, (_, khz) in enumerate(_CORES):
        clock = cpus / f"cpu{cpu}" / "cpufreq"
        clock.mkdir(parents=True)
        (clock / "cpuinfo_max_freq").write_text(f"{khz}\n")
        (clock / "scaling_max_freq").write_text(f"{khz}\n")
    numbers = f"0-{len(_CORES) - 1}\n"
    for name in ("online", "possible", "present"):
        (cpus / name).write_text(numbers)


class Arm64Board(RealSshd):
    """The board, started; ``make_home`` gives the host an OpenSSH configuration that knows it as ``ssh:board``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        self.folder, self.port, self.user = folder, free_port(), "pi"
        self.home = folder / "home" / "pi"
        self.root = self.home / ".cache" / "socbench-device"
        for name in ("home/pi", "tmp", "run"):
            (folder / name).mkdir(parents=True)
        make_keys(folder)
        _make_etc(folder / "etc")
        _make_kernel(folder)
        ssh = folder / "etc" / "ssh"
        for name in ("host_key", "authorized_keys"):
            shutil.copy(folder / name, ssh / name)
        settings = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": "/etc/ssh/host_key",
            "AuthorizedKeysFile": "/etc/ssh/authorized_keys",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "MaxSessions": "64",
            "Subsystem": "sftp internal-sftp",
        }
        (ssh / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.daemon = Daemon(self._command(), self._environment(), folder / "sshd.log")
        wait_for(lambda: listens(self.port), f"the emulated sshd ({folder / 'sshd.log'})", 60)
        self.trust(self.port)

    def _command(self) -> list[str]:
        qemu = device_tools.emulation_tools() / "usr/bin/qemu-aarch64-static"
        inside = [sys.executable, __file__, str(device_tools.board_tools()), str(self.folder), str(qemu)]
        return [*inside, "/usr/sbin/sshd", "-D", "-e", _QUICK_SSHD]

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(HOME)}


_NEW_USER, _NEW_MOUNTS, _NEW_PIDS = 0x10000000, 0x20000, 0x20000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
_DIE_WITH_PARENT, _KILL = 1, 9
_ARM_ELF = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_ARM_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, None):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target} for the arm64 board: needs Linux 6.7 or newer")


def _unshare(more: int, uid: int) -> None:
    """Enter a user namespace where this process has ``uid``."""
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_NEW_USER | more):
        raise OSError(ctypes.get_errno(), "unshare for the arm64 board: user namespaces must be allowed")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{uid} {group} 1")


def inside(root: str, folder: str, qemu: str, argv: list[str]) -> None:
    """Become the board: namespaces, mounts, then ``argv`` as its first process, which dies with this one."""
    _unshare(_NEW_MOUNTS | _NEW_PIDS, 0)  # binfmt_misc belongs to the user 0 of the namespace
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    _mount("none", "/", None, _RECURSIVE | _PRIVATE)
    _mount("binfmt_misc", "/proc/sys/fs/binfmt_misc", "binfmt_misc")
    rule = f":arm64:M::{_ARM_ELF}:{_ARM_MASK}:{qemu}:POCF"
    Path("/proc/sys/fs/binfmt_misc/register").write_text(rule)
    _mount(root, root, None, _BIND)
    _mount(root, root, None, _BIND | _REMOUNT | _READ_ONLY)
    for name, target in (("etc", "etc"), ("home", "home"), ("tmp", "tmp"), ("run", "run"), ("sys", "sys")):
        _mount(f"{folder}/{name}", f"{root}/{target}", None, _BIND)
    _mount("tmpfs", f"{root}/dev", "tmpfs")
    for name in ("null", "zero", "full", "random", "urandom"):
        Path(root, "dev", name).touch()
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, _BIND)
    Path(root, "dev", "shm").mkdir()
    Path(root, "dev", "fd").symlink_to("/proc/self/fd")
    _mount("proc", f"{root}/proc", "proc")
    _mount(f"{folder}/cpuinfo", f"{root}/proc/cpuinfo", None, _BIND)
    _unshare(0, 1000)
    _libc.prctl(_DIE_WITH_PARENT, _KILL)
    os.chroot(root)
    os.chdir("/")
    os.execv(argv[0], argv)


if __name__ == "__main__":
    inside(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
