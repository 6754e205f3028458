"""socbench runtimes: list and install runtimes and their environments"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from socbench.cli import options
from socbench.cli.application import command_group, examples
from socbench.cli.output import message, print_json, printable
from socbench.errors import EnvironmentsError, UsageError

app, command = command_group(
    "List and install runtimes and the environments that they need.",
    default="list",
    epilog=examples(
        "socbench runtimes  # what is there, what could be",
        "socbench runtimes install ncnn",
        "socbench runtimes install onnxruntime==1.24.4  # for run --ab",
        "socbench runtimes install all  # all but the huge ones",
        "socbench runtimes remove executorch",
        "socbench runtimes fetch android-arm64  # libraries for a phone",
    ),
)

# Runtimes that live together with socbench, and the distribution that holds each.
_HOST = {"litert": ("ai-edge-litert", "tflite-runtime"), "onnxruntime": ("onnxruntime",), "openvino": ("openvino",)}


@command("list")
def list_runtimes(as_json: options.Json = False) -> None:
    """List the runtimes: those beside socbench, and those with an environment of their own."""
    rows = [*_host_rows(), *_environment_rows()]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    from socbench.render.terminal import make_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("runtime", "environment", "version", "state", ""):
        table.add_column(head, overflow="fold")
    for row in rows:
        if row["state"] == "installed":
            size = f"{row['size_bytes'] / 1e6:.0f} MB" if row["size_bytes"] else ""
            table.add_row(row["runtime"], row["environment"], row["version"], "installed", size)
            continue
        how = f"{row['download_mb']} MB to fetch" if row["download_mb"] else row["install"]
        table.add_row(row["runtime"], row["environment"], "", "not installed", how, style="dim")
    console = make_console()
    console.print(table, markup=False)
    console.print("\nTo make an environment: socbench runtimes install ENVIRONMENT", markup=False, highlight=False)


@command()
def install(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME ...", help="Environments (see runtimes list), RUNTIME==VERSION, or all.", show_default=False
        ),
    ],
) -> int:
    """Make the environments of runtimes, from pinned packages; what is there is left as it is."""
    from socbench.environments.catalogue import catalogue, environment
    from socbench.environments.install import install as install_environment

    wanted = options.listed(names)
    for name in wanted:
        if name in _HOST and name not in catalogue():
            raise UsageError(f"{name} lives beside socbench itself: pip install 'socbench[{name}]'")
    known = catalogue()
    chosen = [one for one in known.values() if one.part_of_all] if "all" in wanted else []
    chosen += [environment(name) for name in wanted if name != "all" and environment(name) not in chosen]
    failed = 0
    for one in chosen:
        try:
            folder = install_environment(one, message)
        except EnvironmentsError as problem:
            # The others may well install; the exit code says that not all did.
            message(f"socbench: {problem}")
            failed += 1
        else:
            print(printable(f"{one.name}  {folder}"))
    return 1 if failed else 0


@command()
def remove(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME ...", help="Environments (see runtimes list), or all.", show_default=False),
    ],
) -> None:
    """Delete environments that socbench made; what was measured in them stays."""
    from socbench.environments.catalogue import environment
    from socbench.environments.install import known_environments
    from socbench.environments.install import remove as remove_environment

    wanted = options.listed(names)
    chosen = known_environments() if "all" in wanted else [environment(name) for name in wanted]
    for one in chosen:
        if remove_environment(one):
            message(f"{one.name} removed")
        elif "all" not in wanted:
            message(f"{one.name} was not installed")


@command()
def fetch(
    platform: Annotated[
        str, typer.Argument(metavar="PLATFORM", help="android-arm64, linux-arm64 ...", show_default=False)
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Archives of the lock file, by name; repeat for more.", show_default=False),
    ] = None,
    local: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="An AAR, wheel or npm package that is here.", show_default=False),
    ] = None,
) -> None:
    """Fetch the vendors' libraries that the native agent opens, checked by hash."""
    from socbench.environments.vendor import fetch as fetch_libraries

    folder = fetch_libraries(platform, only=only or (), local=local or (), say=message)
    print(printable(f"{platform}  {folder}"))


def _host_rows() -> list[dict[str, Any]]:
    import importlib.metadata

    rows = []
    for runtime, distributions in _HOST.items():
        versions = []
        for distribution in distributions:
            try:
                versions.append(importlib.metadata.version(distribution))
            except importlib.metadata.PackageNotFoundError:
                continue
        rows.append(_row(runtime, "host", versions[0] if versions else None, f"pip install 'socbench[{runtime}]'"))
    return rows


def _environment_rows() -> list[dict[str, Any]]:
    from socbench.environments.install import installed, known_environments, size_of

    there = installed()
    rows = []
    for one in known_environments():
        version = one.packages[0].partition("==")[2] if one.name in there else None
        row = _row(one.runtime, one.name, version, f"socbench runtimes install {one.name}")
        rows.append(
            {
                **row,
                "download_mb": one.download_mb,
                "packages": list(one.packages),
                "why": one.why,
                "size_bytes": size_of(one),
            }
        )
    return rows


def _row(runtime: str, environment: str, version: str | None, install: str) -> dict[str, Any]:
    state = "not_installed" if version is None else "installed"
    return {
        "runtime": runtime, "environment": environment, "version": version, "state": state, "install": install,
        "download_mb": None, "packages": None, "why": None, "size_bytes": None,
    }  # fmt: skip
