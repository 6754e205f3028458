"""Builds the native agent for six targets with the compiler of the PyPI package ``ziglang``; ``make native`` calls it.

    python build.py [TARGET ...]          into build/socbench-agent-TARGET, stripped
    python build.py --sanitize            for this machine with its own compiler, AddressSanitizer and UBSan

Needs nothing but the package: no NDK. For Android it states the few declarations of the C library that are used
(android/bionic.h), and links against stub libraries that hold nothing but the names that the loader will look up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
LIMIT_BYTES = 200_000
COMMON = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"]
SMALL = ["-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s", "-fno-sanitize=all"]
PLAIN = ["-ffreestanding", "-fno-stack-protector", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"]
BARE = [*PLAIN, "-nostdlib", "-DSOCBENCH_BARE_BIONIC"]
TARGETS = {
    "linux-x86_64": ("x86_64-linux-gnu.2.17", []),
    "linux-arm64": ("aarch64-linux-gnu.2.17", []),
    "linux-armv7": ("arm-linux-gnueabihf.2.17", ["-mcpu=cortex_a7"]),
    "android-x86_64": ("x86_64-linux-none", ["-Wl,-dynamic-linker,/system/bin/linker64"]),
    "android-arm64": ("aarch64-linux-none", ["-Wl,-dynamic-linker,/system/bin/linker64"]),
    "android-armv7": ("arm-linux-eabi", ["-mcpu=cortex_a7", "-Wl,-dynamic-linker,/system/bin/linker"]),
}


def android_symbols() -> dict[str, list[str]]:
    """Return the names that Android's libraries export and the agent may use, by library (android/symbols.txt)."""
    libraries: dict[str, list[str]] = {}
    for line in (HERE / "android" / "symbols.txt").read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].split()
        if words:
            libraries.setdefault(words[0], []).extend(words[1:])
    return libraries


def compiler() -> list[str]:
    """Return the command of the C compiler in the ziglang package."""
    return [sys.executable, "-m", "ziglang", "cc"]


def run(command: list[str]) -> None:
    """Run a step of the build; its own messages say what is wrong."""
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(HERE / "build" / "obj")),
    }
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        sys.exit(f"build.py: this step failed with status {done.returncode}: {' '.join(command)}")


def stubs(folder: Path, zig_target: str, options: list[str]) -> list[str]:
    """Make the stub libraries to link against; returns their paths."""
    paths = []
    for library, names in android_symbols().items():
        source = folder / f"{library}.c"
        data = {"environ"}
        source.write_text(
            "".join(f"int {n};\n" if n in data else f"void {n}(void){{}}\n" for n in names), encoding="utf-8"
        )
        path = folder / library
        flags = ["-shared", "-nostdlib", "-fno-builtin", "-w", f"-Wl,-soname,{library}", "-fno-sanitize=all"]
        run([*compiler(), "-target", zig_target, *PLAIN, *options, *flags, str(source), "-o", str(path)])
        paths.append(str(path))
    return paths


def arithmetic(folder: Path, zig_target: str) -> list[str]:
    """Build the compiler's own library (64-bit division, floats without a unit) where a target needs it: 32-bit ARM."""
    if not zig_target.startswith("arm"):
        return []
    source = Path(
        subprocess.check_output([sys.executable, "-c", "import ziglang; print(ziglang.__path__[0])"], text=True).strip()
    )
    path = folder / "arithmetic.a"
    options = ["-OReleaseSmall", "-target", zig_target, "-mcpu", "cortex_a7", "-fPIC", "-fno-unwind-tables", "-fstrip"]
    options += ["-ffunction-sections", "-fdata-sections"]
    run([*compiler()[:-1], "build-lib", *options, f"-femit-bin={path}", str(source / "lib" / "compiler_rt.zig")])
    return [str(path)]


def build(target: str) -> Path:
    """Build one target; returns the executable's path."""
    zig_target, options = TARGETS[target]
    cpu = [option for option in options if option.startswith("-m")]
    output = BUILD / f"socbench-agent-{target}"
    sources = sorted(str(path) for path in (HERE / "src").glob("*.c"))
    BUILD.mkdir(exist_ok=True)
    command = [*compiler(), "-target", zig_target, *COMMON, *SMALL, *options]
    if target.startswith("linux-"):
        run([*command, "-fPIE", "-pie", *sources, "-ldl", "-lm", "-o", str(output)])
    else:
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=".stubs-") as folder:
            libraries = stubs(Path(folder), zig_target, cpu)
            sources.append(str(HERE / "android" / "start.c"))
            link = [
                "-fPIE",
                "-pie",
                "-Wl,-z,max-page-size=16384",
                "-Wl,--hash-style=both",
                "-Wl,-z,now",
                "-Wl,-z,relro",
            ]
            libraries += arithmetic(Path(folder), zig_target)
            run([*command, *BARE, *link, *sources, *libraries, "-o", str(output)])
    size = output.stat().st_size
    if size > LIMIT_BYTES:
        sys.exit(f"build.py: {output.name} has {size} bytes, over the limit of {LIMIT_BYTES}")
    print(f"{output.relative_to(HERE)}  {size} bytes")
    return output


def build_sanitized() -> Path:
    """Build for this machine with its own compiler and sanitizers; returns the executable's path."""
    output = BUILD / "obj" / "socbench-agent-sanitized"
    output.parent.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path) for path in (HERE / "src").glob("*.c"))
    newest = max(path.stat().st_mtime for path in (HERE / "src").iterdir())
    if output.exists() and output.stat().st_mtime > newest:
        return output
    flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    run([os.environ.get("CC", "cc"), *COMMON, *flags, *sources, "-ldl", "-lm", "-o", str(output)])
    return output


def main(words: list[str]) -> None:
    """Build what was asked for, or everything."""
    if words == ["--sanitize"]:
        print(build_sanitized().relative_to(HERE))
        return
    unknown = [word for word in words if word not in TARGETS]
    if unknown:
        sys.exit(f"build.py: there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    for target in words or TARGETS:
        build(target)


if __name__ == "__main__":
    main(sys.argv[1:])
