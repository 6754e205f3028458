"""Fetches the real device software that the tests drive into ``.cache/device-tools``. Installs nothing.

``python tests/support/device_tools.py`` fetches everything at once (a few megabytes); tests call the same functions.
Debian's adbd and adb come from bookworm-backports with ``apt-get download`` and ``dpkg -x``: installing that package on
a developer's machine would start a daemon that listens on every interface without asking anybody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "device-tools"
BACKPORTS = ("adb", "adbd", "android-libbase", "android-libcutils", "android-liblog", "android-libziparchive")
PACKAGES = (
    *(f"{name}/bookworm-backports" for name in (*BACKPORTS, "android-libboringssl")),
    "libprotobuf32/bookworm",
    "libusb-1.0-0/bookworm",
)
ARM_PACKAGES = (
    *(f"{name}:arm64/bookworm-backports" for name in (*BACKPORTS[1:], "android-libboringssl")),
    *(f"{name}:arm64/bookworm" for name in ("libprotobuf32", "libbrotli1", "liblz4-1", "libzstd1", "libsystemd0")),
    *(f"{name}:arm64/bookworm" for name in ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "busybox-static")),
    *(f"{name}:arm64/bookworm" for name in ("liblzma5", "libcap2", "libgcrypt20", "libgpg-error0")),
)
_LOADED_BY_SSHD = """
libselinux1 libpcre2-8-0 libcrypt1 libpam0g libaudit1 libcap-ng0 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblz4-1
liblzma5 libzstd1 libssl3 libcom-err2 libkrb5support0 libk5crypto3 libkeyutils1 libkrb5-3 libgssapi-krb5-2 libwrap0
libnsl2 libtirpc3 zlib1g
"""
_USERLAND = f"""
base-files libc6 libc-bin libgcc-s1 libstdc++6 libgomp1
dash coreutils libacl1 libattr1 libgmp10 sed grep mawk findutils tar gzip
util-linux libmount1 libblkid1 libsmartcols1 libudev1 libuuid1 libtinfo6 procps libproc2-0 libncursesw6
python3 python3-minimal python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libexpat1 libffi8
libreadline8 libsqlite3-0 libbz2-1.0 openssh-server openssh-sftp-server {_LOADED_BY_SSHD}
"""
BOARD_PACKAGES = tuple(f"{name}:arm64/bookworm" for name in _USERLAND.split())
USB_PACKAGES = (*PACKAGES, *(f"{name}:amd64/bookworm" for name in f"{_USERLAND} libbrotli1 busybox-static".split()))
EMULATION = ("qemu-user-static/bookworm", "proot/bookworm", "libtalloc2/bookworm", "libarchive13/bookworm")
_SOURCES = """Types: deb
URIs: {mirror}
Suites: bookworm bookworm-backports
Components: main
Architectures: amd64 arm64
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_AUTH_OFFSET, _AUTH_OFF, _AUTH_ON = 0x3C3D9, b"\xc6\x00\x00", b"\xc6\x00\x01"
"""Where the amd64 adbd 34.0.5-12~bpo12+1 stores false into ``auth_required`` (read off its disassembly)."""


class ToolsMissing(RuntimeError):
    """A part that the tests need is not there and cannot be fetched; the message says what to install."""


@contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _need(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise ToolsMissing(
            f"the device tests need {', '.join(missing)}: sudo apt-get install --no-install-recommends "
            "apt dpkg-dev gcc g++ openssh-server openssh-client debian-archive-keyring"
        )


def run(argv: Sequence[str], cwd: Path) -> None:
    """Run a program; ToolsMissing holds what it said when it fails."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolsMissing(f"`{' '.join(argv[:1])} ... {' '.join(argv[-3:])}` failed: {done.stderr.strip()[-600:]}")


def _apt_options() -> list[str]:
    """Options that keep apt inside the cache folder: own sources, own lists, nothing of the system's is touched."""
    apt = CACHE / "apt"
    for name in ("lists/partial", "cache/archives/partial", "sources"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    mirror = os.environ.get("SOCBENCH_TEST_DEBIAN_MIRROR", "http://deb.debian.org/debian")
    (apt / "sources" / "bookworm.sources").write_text(_SOURCES.format(mirror=mirror))
    settings = {
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": apt / "sources",
        "APT::Sandbox::User": "",
        "Acquire::Retries": "3",
    }
    architectures = ["-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"]
    return [*(word for name, value in settings.items() for word in ("-o", f"{name}={value}")), *architectures]


def _listed() -> list[str]:
    """Return the options for apt, with its lists there."""
    options = _apt_options()
    if not any((CACHE / "apt" / "lists").glob("*Packages*")):
        run(["apt-get", *options, "-qq", "update"], CACHE)
    return options


def unpack(packages: Sequence[str], name: str, finish: Callable[[Path], None] | None = None) -> Path:
    """Return the folder ``name`` of the cache with the packages unpacked in it, fetched if it is not there yet."""
    target = CACHE / name
    with _locked():
        if target.is_dir():
            return target
        _need("apt-get", "dpkg")
        options = _listed()
        debs, partial = CACHE / f"{name}.debs", CACHE / f"{name}.partial"
        for folder in (debs, partial):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        run(["apt-get", *options, "-qq", "download", *packages], debs)
        for deb in sorted(debs.glob("*.deb")):
            run(["dpkg", "-x", str(deb), str(partial)], CACHE)
        shutil.rmtree(debs)
        if finish is not None:
            finish(partial)
        partial.rename(target)
    return target


def apt_show(package: str) -> str:
    """Return what apt's lists say of a package."""
    with _locked():
        argv = ["apt-cache", *_listed(), "show", package]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def adb_tools() -> Path:
    """Return the folder with Debian's adb and adbd for this machine (amd64)."""
    return unpack(PACKAGES, "adb-amd64")


def arm_tools() -> Path:
    """Return the folder with arm64 adbd, its libraries and a static busybox."""
    return unpack(ARM_PACKAGES, "adb-arm64")


def board_tools() -> Path:
    """Return the folder with an arm64 Debian userland: sshd, Python, the usual tools; no pip, nothing configured."""
    return unpack(BOARD_PACKAGES, "board-arm64", compile_library)


def usb_tools() -> Path:
    """Return the folder with an amd64 Debian userland: adb, adbd, Python, busybox, the usual tools."""
    return unpack(USB_PACKAGES, "usb-amd64", compile_library)


def compile_library(root: Path) -> None:
    """Compile the userland's Python modules here, which is quick; another Python than 3.11 leaves it to emulation."""
    if sys.version_info[:2] == (3, 11):
        run([sys.executable, "-m", "compileall", "-q", "-s", str(root), str(root / "usr/lib/python3.11")], root)


def emulation_tools() -> Path:
    """Return the folder with qemu-user and proot for this machine."""
    return unpack(EMULATION, "emulation")


def wheels_of_the_board() -> Path:
    """Return the folder where pip keeps what it downloads for emulated boards, between runs of the tests."""
    folder = CACHE / "pip"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _binary(name: str) -> Path:
    return adb_tools() / "usr/lib/android-sdk/platform-tools" / name


def adb_binary() -> Path:
    """Return Debian's adb."""
    return _binary("adb")


def adbd_binary(*, authenticating: bool = False) -> Path:
    """Return Debian's adbd; with ``authenticating`` a private copy that asks for a key, as a phone's does."""
    plain = _binary("adbd")
    if not authenticating:
        return plain
    with _locked():
        patched = CACHE / "adbd-authenticating"
        content = bytearray(plain.read_bytes())
        if content[_AUTH_OFFSET : _AUTH_OFFSET + 3] != _AUTH_OFF:
            raise ToolsMissing("adbd is another build than 34.0.5-12~bpo12+1 (amd64): find its auth_required anew")
        content[_AUTH_OFFSET : _AUTH_OFFSET + 3] = _AUTH_ON
        if not patched.exists() or patched.read_bytes() != content:
            patched.write_bytes(content)
            patched.chmod(0o755)
    return patched


def libraries() -> str:
    """Return the LD_LIBRARY_PATH for adb and adbd."""
    lib = adb_tools() / "usr/lib/x86_64-linux-gnu"
    return f"{lib / 'android'}:{lib}"


def loopback_shim() -> Path:
    """Return the compiled preload library (see loopback.cpp)."""
    _need("g++")
    source, target = HERE / "loopback.cpp", CACHE / "loopback.so"
    with _locked():
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            partial = target.with_suffix(".partial")
            run(["g++", "-O1", "-shared", "-fPIC", "-o", str(partial), str(source), "-ldl"], CACHE)
            partial.rename(target)
    return target


def sshd_binary() -> Path:
    """Return the system's sshd (it must be installed: as root it wants its own user)."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise ToolsMissing("the device tests need sshd: sudo apt-get install --no-install-recommends openssh-server")
    return Path(found)


def main() -> int:
    """Fetch everything; return the exit code."""
    try:
        _need("apt-get", "dpkg", "g++", "ssh-keygen")
        found = [adb_binary(), adbd_binary(authenticating=True), loopback_shim(), sshd_binary()]
    except ToolsMissing as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(map(str, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
