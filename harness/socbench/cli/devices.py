"""socbench devices: show what is attached and configured, ready or why not"""

from __future__ import annotations

from socbench.cli import options
from socbench.cli.application import command_group, examples
from socbench.cli.output import print_json

app, command = command_group(
    "Show what is attached and configured: ready, or why not and what to do.",
    default="list",
    epilog=examples("socbench devices", "socbench devices --json"),
)


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
