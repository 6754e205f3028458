"""Makes, caches and finds environments: a virtual environment each, keyed by what is pinned in it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from socbench.environments.catalogue import Environment, catalogue, version_environment
from socbench.errors import EnvironmentsError

MARKER = "socbench-complete.json"
Say = Callable[[str], None]


def folder_of(environment: Environment) -> Path:
    """Return where the environment is or would be: its name and a hash of what lies in it and of the interpreter."""
    from socbench.cache import cache_folder

    made_of = [environment.packages, environment.alone, environment.system, environment.index]
    facts = json.dumps([made_of, sys.version_info[:2], platform.machine()], sort_keys=True)
    return cache_folder("environments") / f"{environment.name}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


def python_of(environment: Environment) -> Path | None:
    """Return the interpreter of an installed environment, None when it is not installed."""
    folder = folder_of(environment)
    return folder / "bin" / "python" if (folder / MARKER).is_file() else None


def size_of(environment: Environment) -> int | None:
    """Return the bytes that an installed environment takes, None when it is not installed."""
    try:
        size = json.loads((folder_of(environment) / MARKER).read_text()).get("size_bytes")
    except (OSError, ValueError):
        return None
    return size if isinstance(size, int) else None


def known_environments() -> list[Environment]:
    """Return the catalogue, and the environments of single versions of a runtime that are installed."""
    from socbench.cache import cache_folder

    folders = sorted(cache_folder("environments").glob(f"*/{MARKER}"))
    made = (version_environment(folder.parent.name.rpartition("-")[0]) for folder in folders)
    versions = [one for one in made if one is not None and python_of(one) is not None]
    return [*catalogue().values(), *versions]


def installed() -> dict[str, Path]:
    """Return the interpreters of all installed environments by name."""
    found = {environment.name: python_of(environment) for environment in known_environments()}
    return {name: python for name, python in found.items() if python is not None}


def child_env(environment: Environment) -> dict[str, str]:
    """Return the environment variables that children in this environment need, places filled in."""
    folder = folder_of(environment)
    places = {
        "site": str(_site(folder)),
        "system": str(folder / "system"),
        "multiarch": f"{platform.machine()}-linux-gnu",
    }
    given = {name: value.format(**places) for name, value in environment.env.items()}
    if environment.system and has_gpu():
        return {name: value for name, value in given.items() if "{system}" not in environment.env[name]}
    return given


def has_gpu() -> bool:
    """Tell whether the kernel shows a GPU that can compute; then no software Vulkan is put in front of its driver."""
    return any(Path("/dev/dri").glob("renderD*")) or Path("/dev/nvidiactl").exists() or Path("/dev/mali0").exists()


def install(environment: Environment, say: Say) -> Path:
    """Make the environment unless it is there; return its interpreter. ``say`` is told what goes on.

    Raises EnvironmentsError with the last lines of what failed; nothing half-made is ever taken for whole.
    """
    folder = folder_of(environment)
    with _locked(folder, say):
        if (folder / MARKER).is_file():
            return folder / "bin" / "python"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        say(f"{environment.name}: making an environment (about {environment.download_mb} MB to fetch)")
        try:
            _call([sys.executable, "-m", "venv", str(folder)], environment, "make a virtual environment")
            _install_packages(environment, folder, say)
            _unpack_system(environment, folder, say)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        (folder / MARKER).write_text(json.dumps({**asdict(environment), "size_bytes": size}, indent=1))
        say(f"{environment.name}: installed, {size / 1e6:.0f} MB")
        return folder / "bin" / "python"


def remove(environment: Environment) -> bool:
    """Delete an environment; return whether it was there."""
    folder = folder_of(environment)
    there = folder.is_dir()
    shutil.rmtree(folder, ignore_errors=True)
    return there


def _site(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _install_packages(environment: Environment, folder: Path, say: Say) -> None:
    say(f"{environment.name}: installing {', '.join(environment.packages)}")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for index, packages in environment.index.items():
        named = ", ".join(packages)
        try:
            _call([*pip, "--index-url", index, *packages], environment, f"install {named} from {index}")
        except EnvironmentsError:
            say(f"{environment.name}: {index} gives no {named}: trying pip's own index, where it is far larger")
            _call([*pip, *packages], environment, f"install {named} from {index} or from pip's own index")
    _call([*pip, *environment.packages], environment, "install its packages")
    if environment.alone:
        _call([*pip, "--no-deps", *environment.alone], environment, f"install {', '.join(environment.alone)}")


def _unpack_system(environment: Environment, folder: Path, say: Say) -> None:
    """Fetch Debian packages and unpack them beside the environment: nothing of the machine is changed."""
    if not environment.system:
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        say(f"{environment.name}: no apt here, so no software Vulkan; a real GPU driver is used where there is one")
        return
    say(f"{environment.name}: unpacking {', '.join(environment.system)} beside it")
    target = folder / "system"
    target.mkdir()
    with contextlib.suppress(EnvironmentsError):
        _call(["apt-get", "download", *environment.system], environment, "fetch", cwd=target)
    if not list(target.glob("*.deb")) and os.geteuid() == 0:
        _call(["apt-get", "update", "-qq"], environment, "read the package lists")
    if len(list(target.glob("*.deb"))) < len(environment.system):
        _call(["apt-get", "download", *environment.system], environment, "fetch its system packages", cwd=target)
    for package in sorted(target.glob("*.deb")):
        _call(["dpkg", "-x", package.name, "."], environment, f"unpack {package.name}", cwd=target)
        package.unlink()
    # Of Chromium only the software Vulkan is wanted.
    for path in target.rglob("*"):
        if path.is_file() and "vulkan" not in path.name and "vk_swiftshader" not in path.name:
            path.unlink()
    _point_manifests(target)


def _point_manifests(target: Path) -> None:
    """A Vulkan manifest names its library by a relative or system path: make it the unpacked one."""
    for manifest in target.glob("usr/lib/**/*_icd*.json"):
        text = json.loads(manifest.read_text())
        library = Path(text["ICD"]["library_path"]).name
        text["ICD"]["library_path"] = str(manifest.parent / library)
        manifest.write_text(json.dumps(text))


def _call(argv: list[str], environment: Environment, what: str, cwd: Path | None = None) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = " / ".join(line.strip() for line in (done.stderr or done.stdout).strip().splitlines()[-3:])
        raise EnvironmentsError(f"the environment {environment.name} could not {what}: {last or 'no message'}")


@contextlib.contextmanager
def _locked(folder: Path, say: Say) -> Iterator[None]:
    """One process makes an environment; a second one waits for it and then finds it made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{folder.name}: another process makes it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
