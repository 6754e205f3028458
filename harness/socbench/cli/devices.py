"""socbench devices: show what is attached and configured, set boards up, free room"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from socbench.cli import complete, options
from socbench.cli.application import command_group, examples
from socbench.cli.output import message, print_json
from socbench.errors import UsageError

app, command = command_group(
    "Show what is attached and configured; set boards up, free room on them.",
    default="list",
    epilog=examples(
        "socbench devices  # ready, or why not and what to do",
        "socbench devices setup ssh:pi@board  # runtimes for a board",
        "socbench devices clean adb:SERIAL --dry-run",
    ),
)

Device = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE",
        help="ssh:user@board, adb:SERIAL or a name in devices.toml.",
        autocompletion=complete.devices,
        show_default=False,
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Fail when a run has the device, instead of waiting for its end.")
]


def size(text: str | int) -> int:
    """Return ``500MB``, ``1.5GB`` or a number of bytes as bytes; a usage error otherwise."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(|k|M|G)B?", str(text).strip())
    if not found:
        raise typer.BadParameter(f"{str(text)!r} is not a size such as 500MB or 2GB")
    return int(float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]])


@command("list")
def list_devices(as_json: options.Json = False) -> None:
    """List this machine, what is attached by USB, and what devices.toml names."""
    from socbench.devices import discover

    found = discover()
    if as_json:
        from socbench.render.tables import devices_json

        print_json(devices_json(found))
        return
    from socbench.render.terminal import make_console, print_devices

    print_devices(make_console(), found)


@command("setup")
def setup(
    device: Device,
    runtime: options.Runtimes = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Bring wheels from this host; do not ask the board's own pip.")
    ] = False,
    no_wait: NoWait = False,
    as_json: options.Json = False,
) -> int:
    """Install runtimes in socbench's own folder on a board with Python; nothing else on it is touched.

    With the board's pip, or with wheels that this host downloads for the board's platform.
    """
    from socbench.cli.progress import watching
    from socbench.session.boards import set_up_device

    if device == "local":
        raise UsageError(
            "this machine needs no setting up: pip install 'socbench[local]' and socbench runtimes install"
        )
    with watching() as progress:
        rows = set_up_device(device, options.listed(runtime), offline=offline, wait=not no_wait, progress=progress)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            works = row["state"] == "works"
            said = f"{row['version']}, from {row['source']}" if works else f"not there: {row['reason']}"
            print(f"{row['runtime']}  {said}")
        message(f"Next: socbench run -d {device}")
    asked = options.listed(runtime)
    lacking = [row["runtime"] for row in rows if row["state"] != "works" and row["runtime"] in asked]
    return 1 if lacking or not any(row["state"] == "works" for row in rows) else 0


@command("clean")
def clean(
    device: Device,
    keep: Annotated[
        int, typer.Option(metavar="SIZE", parser=size, help="Keep files up to this size, those used last (500MB).")
    ] = 0,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove the runtimes and sessions that were not fetched, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")] = False,
    no_wait: NoWait = False,
    as_json: options.Json = False,
) -> None:
    """Free room in socbench's folder on a device: models, inputs and old agents, the longest unused first.

    They come again by themselves when a run needs them.
    """
    from socbench.cli.progress import watching
    from socbench.session.boards import clean_device

    with watching() as progress:
        things = clean_device(
            device, keep_bytes=keep, everything=everything, dry_run=dry_run, wait=not no_wait, progress=progress
        )
    gone = [thing for thing in things if thing.keep is None]
    if as_json:
        print_json(
            {"kind": t.kind, "path": t.path, "size_bytes": t.size_bytes, "unused_s": t.unused_s, "kept": t.keep}
            for t in things
        )
        return
    days = 86_400
    for thing in things:
        fate = f"kept: {thing.keep}" if thing.keep else f"unused for {thing.unused_s / days:.0f} days"
        print(f"{thing.size_bytes / 1e6:9.1f} MB  {thing.kind:11}  {thing.path}  {fate}")
    verb = "would be freed" if dry_run else "freed"
    print(f"{sum(thing.size_bytes for thing in gone) / 1e6:.1f} MB {verb} on {device}")
