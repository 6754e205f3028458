"""Gives a device with Python the runtimes: an environment in socbench's own folder, nothing outside it is touched.

The environment is a link to the device's Python and a folder of packages, so a device needs neither the venv module
nor pip: without them, or without a network, the host downloads the wheels for the device's platform and pushes them.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from socbench.agents.channel import Channel
from socbench.agents.provision import DeviceFile, disk_full, free_bytes, provision
from socbench.agents.python import find_python
from socbench.errors import EnvironmentsError, ProtocolError, UsageError
from socbench.transports.base import Deadline

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "mnn": ("MNN",),
}
"""Runtimes that come as wheels: the distribution, and what stands in for it where there is none for the device."""

DEFAULT: Final = ("litert", "onnxruntime", "openvino")
_SETUP_S: Final = 1800.0
_PIP_S: Final = 900.0
_OLDEST_GLIBC: Final = 5
_FACTS: Final = """
import importlib.util, json, platform, struct, sys
print(json.dumps({"python": sys.executable, "version": list(sys.version_info[:2]), "machine": platform.machine(),
  "bits": 8 * struct.calcsize("P"), "libc": list(platform.libc_ver()),
  "pip": importlib.util.find_spec("pip") is not None}))
"""
_MAKE: Final = """
import os, shutil, sys, zipfile
root, wheels = sys.argv[1], sys.argv[2:]
new = os.path.join(root, "environment.new")
shutil.rmtree(new, ignore_errors=True)
site = os.path.join(new, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
os.makedirs(site)
os.makedirs(os.path.join(new, "bin"))
python = os.path.realpath(sys.executable)
for name in ("python3", "python"):
    os.symlink(python, os.path.join(new, "bin", name))
with open(os.path.join(new, "pyvenv.cfg"), "w") as file:
    file.write("home = %s\\ninclude-system-site-packages = false\\n" % os.path.dirname(python))
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = member.filename.split("/")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            if member.is_dir() or ".." in parts or not parts[0]:
                continue
            target = os.path.join(site, *parts)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy)
print(site)
"""
_TAKE: Final = r"""
cd "$1" || exit 1
environment.new/bin/python3 -c 'import numpy' || exit 1
rm -rf environment.old
if [ -e environment ]; then mv environment environment.old || exit 1; fi
mv environment.new environment && rm -rf environment.old tmp
"""


class _Board(msgspec.Struct, frozen=True):
    """What a device's Python says of itself."""

    python: str
    version: tuple[int, int]
    machine: str
    bits: int
    libc: tuple[str, str]
    pip: bool


@dataclass(frozen=True)
class SetUp:
    """What a device was given: specs of packages by runtime, why others could not be had, where they came from."""

    packages: Mapping[str, str]
    missing: Mapping[str, str]
    source: str


def set_up(channel: Channel, runtimes: Sequence[str], *, offline: bool, say: Callable[[str], None]) -> SetUp:
    """Make the environment with ``runtimes`` on a device, in place of the one that it had.

    The device's own pip installs them where it has one and a network; otherwise, and with ``offline``, the wheels come
    from the host.

    Raises:
        UsageError: a runtime that does not come as a package.
        AgentError: the device has no Python 3.8 (``python_missing``), or no room (``disk_full``).
        EnvironmentsError: none of the runtimes can be had for the device, or what was installed does not import.
    """
    for runtime in runtimes:
        if runtime not in PACKAGES:
            raise UsageError(f"{runtime} does not come as a package for boards: choose among {', '.join(PACKAGES)}")
    deadline = Deadline.after(_SETUP_S, f"{channel.address} to be set up")
    board = _facts(channel, deadline)
    made = None
    if board.pip and not offline:
        made = _by_its_own_pip(channel, board, runtimes, deadline, say)
    if made is None:
        made = _by_wheels(channel, board, runtimes, deadline, say)
    _take(channel, deadline)
    return made


def _facts(channel: Channel, deadline: Deadline) -> _Board:
    python = str(find_python(channel, deadline=deadline, environment=False)["python"])
    done = channel.retry(lambda transport: transport.run([python, "-c", _FACTS], deadline=deadline))
    try:
        return msgspec.json.decode(done.stdout, type=_Board)
    except msgspec.DecodeError as problem:
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise ProtocolError(f"the Python of {channel.address} did not say what it is: {said or problem}") from problem


def platform_tags(machine: str, bits: int, libc: tuple[str, str]) -> list[str]:
    """Return the tags of wheels that a Linux device takes, the best first (PEP 600, PEP 656).

    A 64-bit kernel with a 32-bit userland takes 32-bit wheels; ``linux_armv7l`` is how piwheels names its own.
    """
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine.lower(), machine.lower())
    if bits == 32:
        arch = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(arch, arch)
    found = re.fullmatch(r"2\.([0-9]{1,3})", libc[1])
    if libc[0] == "glibc" and found:
        oldest = _OLDEST_GLIBC if arch in ("x86_64", "i686") else 17
        tags = [f"manylinux_2_{minor}_{arch}" for minor in range(int(found[1]), oldest - 1, -1)]
        return [*tags, f"manylinux2014_{arch}", f"linux_{arch}"]
    return [f"musllinux_1_2_{arch}", f"musllinux_1_1_{arch}", f"linux_{arch}"]


def _candidates(runtime: str) -> list[str]:
    """Return what to ask for, best first: the version that this host has, any version, what stands in for it."""
    distribution, *others = PACKAGES[runtime]
    try:
        same = [f"{distribution}=={metadata.version(distribution)}"]
    except metadata.PackageNotFoundError:
        same = []
    return [*same, distribution, *others]


def _choose(
    runtimes: Sequence[str], attempt: Callable[[Sequence[str]], str | None]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the specs that can be had together, by runtime, and why the others can't.

    ``attempt`` gets specs and returns ``None`` when they were installed, else why not.
    """
    first = {runtime: _candidates(runtime)[0] for runtime in runtimes}
    if attempt(["numpy", *first.values()]) is None:
        return first, {}
    good: dict[str, str] = {}
    missing: dict[str, str] = {}
    for runtime in runtimes:
        for spec in _candidates(runtime):
            problem = attempt(["numpy", *good.values(), spec])
            if problem is None:
                good[runtime] = spec
                break
            missing.setdefault(runtime, problem)
        if runtime in good:
            missing.pop(runtime, None)
    return good, missing


def _by_its_own_pip(
    channel: Channel, board: _Board, runtimes: Sequence[str], deadline: Deadline, say: Callable[[str], None]
) -> SetUp | None:
    """Install with the device's pip; ``None`` when that brings nothing (no network, no wheels there)."""
    say(f"installing {', '.join(runtimes)} with the pip of {channel.address}")
    root = channel.transport.root
    site = _make(channel, board, [], deadline)

    def attempt(specs: Sequence[str]) -> str | None:
        command = [board.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir"]
        command += ["--only-binary=:all:", "--upgrade", "--target", site, *specs]
        with_tmp = ["sh", "-c", 'mkdir -p "$1/tmp"; TMPDIR=$1/tmp; export TMPDIR; shift; exec "$@"', "sh", str(root)]
        limit = Deadline(min(deadline.at_s, Deadline.after(_PIP_S).at_s), "pip on the device")
        done = channel.retry(lambda transport: transport.run([*with_tmp, *command], deadline=limit))
        return None if done.exit_code == 0 else _why(done.stderr.decode("utf-8", "replace"))

    good, missing = _choose(runtimes, attempt)
    if not good:
        say(f"the pip of {channel.address} brings nothing ({next(iter(missing.values()))}): wheels come from here")
        return None
    return SetUp(good, missing, "its own pip")


def _by_wheels(
    channel: Channel, board: _Board, runtimes: Sequence[str], deadline: Deadline, say: Callable[[str], None]
) -> SetUp:
    """Download the wheels here, push those that are not there yet, unpack them on the device."""
    tags = platform_tags(board.machine, board.bits, board.libc)
    version = ".".join(map(str, board.version))
    say(f"downloading {', '.join(runtimes)} for Python {version} on {tags[0]}")
    with tempfile.TemporaryDirectory(prefix="socbench-wheels-") as scratch:
        folder = Path(scratch)

        def attempt(specs: Sequence[str]) -> str | None:
            for old in folder.iterdir():
                old.unlink()
            return download(specs, folder, version, tags)

        good, missing = _choose(runtimes, attempt)
        if not good:
            reason = next(iter(missing.values()))
            raise EnvironmentsError(f"no runtime can be had for {channel.address} ({tags[0]}): {reason}")
        if attempt(["numpy", *good.values()]) is not None:
            raise EnvironmentsError(f"the wheels for {channel.address} could not be downloaded: try again")
        wheels = [_wheel(path) for path in sorted(folder.glob("*.whl"))]
        _check_room(channel, wheels, deadline)
        provision(channel, wheels, deadline=deadline, say=say)
        say(f"unpacking {len(wheels)} wheels on {channel.address}")
        _make(channel, board, wheels, deadline)
    return SetUp(good, missing, "wheels of this host")


def download(specs: Sequence[str], folder: Path, version: str, tags: Sequence[str]) -> str | None:
    """Download wheels of ``specs`` and of what they need for another machine; return why that can't be done, if so."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--dest", str(folder)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    command += [word for tag in tags for word in ("--platform", tag)]
    try:
        done = subprocess.run(
            [*command, *specs], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PIP_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"pip took longer than {_PIP_S:.0f} s"
    if "No module named pip" in done.stderr:
        raise EnvironmentsError("the Python of this host has no pip to download wheels with: install python3-pip")
    return None if done.returncode == 0 else _why(done.stderr)


def _why(said: str) -> str:
    """Return the line of pip's output that says what went wrong."""
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "No matching distribution" in line or "No space" in line]
    return (telling or lines[-1:] or ["pip did not say why"])[0][:300]


def _wheel(path: Path) -> DeviceFile:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return DeviceFile(path, sha256, f"{sha256}.whl", path.name.partition("-")[0])


def _check_room(channel: Channel, wheels: Sequence[DeviceFile], deadline: Deadline) -> None:
    """Raise AgentError when the device has no room for the wheels and what is in them."""
    size = 0
    for wheel in wheels:
        with zipfile.ZipFile(wheel.source) as archive:
            size += wheel.size_bytes + sum(member.file_size for member in archive.infolist())
    free = free_bytes(channel, deadline=deadline)
    if free is not None and free < size:
        raise disk_full(channel.address, size, free)


def _make(channel: Channel, board: _Board, wheels: Sequence[DeviceFile], deadline: Deadline) -> str:
    """Make the environment aside, with the content of ``wheels``; return its folder of packages."""
    root = channel.transport.root
    paths = [str(root / "blobs" / wheel.name) for wheel in wheels]
    command = ["sh", "-c", 'mkdir -p "$1"; shift; exec "$@"', "sh", str(root)]
    command += [board.python, "-c", _MAKE, str(root), *paths]
    done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    if done.exit_code:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
        raise EnvironmentsError(f"the environment could not be made on {channel.address}: {said[0][:300]}")
    return done.stdout.decode("utf-8", "replace").strip()


def _take(channel: Channel, deadline: Deadline) -> None:
    """Put the new environment in the place of the old one, once NumPy imports in it."""
    command = ["sh", "-c", _TAKE, "sh", str(channel.transport.root)]
    done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    if done.exit_code:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
        raise EnvironmentsError(f"NumPy does not import on {channel.address}, nothing was changed: {said[0][:300]}")
