"""socbench collect: fetch what a detached run measured"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from socbench.cli import options
from socbench.cli.application import examples, single_command

app, command = single_command(
    epilog=examples(
        "socbench run resnet8 -d adb:SERIAL --detach  # then unplug it",
        "socbench collect  # plugged in again",
        "socbench collect latest --no-wait  # as far as it is",
    )
)


@command
def collect(
    session: options.Session = None,
    store: options.Store = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fetch what is there and leave a run that still goes on alone.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Fetch what a run with --detach has measured, and close its session once everything is there.

    A run that still goes on is watched to its end; Ctrl-C leaves it alone.
    """
    from socbench.cli.running import collect_and_show

    argv = ("socbench", *sys.argv[1:])
    folder = options.store_folder(store)
    return collect_and_show(session or "latest", argv=argv, wait=not no_wait, store=folder, as_json=as_json)
