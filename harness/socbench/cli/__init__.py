"""The ``socbench`` command: one thin module a command; ``main`` is the entry point and imports next to nothing."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        # Before any import: scripts ask this often, and it must work where nothing else does.
        from socbench import __version__

        print(f"socbench {__version__}")
        sys.exit(0)
    from socbench.cli.outermost import call

    sys.exit(call(arguments))
