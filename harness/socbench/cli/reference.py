"""Writes docs/cli.md: what is said of all commands, then the help of each as the command prints it.

python -m socbench.cli.reference > docs/cli.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from socbench.cli.application import SETTINGS, root

_INTRODUCTION = """\
# The command line

This page is made by `python -m socbench.cli.reference`; a test holds it to what the commands say of themselves.

* **Streams**: facts on standard output; progress, messages and errors on standard error. With `--json` standard output
  holds one JSON array of objects and nothing else, and what is not known is `null`. Names are only ever added.
* **Several values**: repeat the option or separate by commas (`--delegate cpu,gpu`).
* **Sessions** are named by id, unique prefix of an id, label, or `latest`.
* **Exit codes**: 0 done (rows that were left out with a reason are no failure), 1 something failed or the gate of
  `compare --fail-above` did, 2 wrong usage or input, 130 interrupted (Ctrl-C, SIGTERM, SIGHUP), 141 the reader of
  standard output went away. A run that measured nothing says so; when that is because the runtime that it asked for
  with `--runtime` is not there, it has failed (1).
* **Plans**: `socbench run PLAN.yaml` reads `models` (names, or files beside the plan) and, if they are said, `devices`,
  `runtimes`, `delegates`, `precisions`, `scenarios`, `threads`, `cores`, `batch`, `shapes`, `repetitions`, `settings`
  (those of a suite), `allow_emulated`, `require_full`, `label` and `seed`. The command line has the last word.
* **Errors** are one sentence that begins with `socbench:`; `--debug`, anywhere on the line, adds the traceback.
* **Progress** is one live line a device on a terminal, and plain lines where standard error is no terminal,
  `NO_COLOR` is set or `TERM` is `dumb`.
* **Places**: `SOCBENCH_STORE` (results; `--store DIR` for one command), `SOCBENCH_CACHE` (models, environments),
  `SOCBENCH_CONFIG` (devices.toml).
* **Completion**: `eval "$(socbench completion bash)"` in `~/.bashrc`; zsh and fish likewise.

"""


def reference() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION]
    for title, context in _contexts():
        level = "##" if title.count(" ") < 2 else "###"
        parts.append(f"{level} {title}\n\n```text\n{context.get_help().strip()}\n```\n\n")
    return "".join(parts).rstrip() + "\n"


def _contexts() -> Iterator[tuple[str, Any]]:
    command: Any = typer.main.get_command(root)
    settings = {**SETTINGS, "terminal_width": 98}
    with typer.Context(command, info_name="socbench", **settings) as top:
        yield "socbench", top
        for name in command.list_commands(top):
            one = command.get_command(top, name)
            with typer.Context(one, info_name=name, parent=top, **settings) as context:
                yield f"socbench {name}", context
                for sub, inner in getattr(one, "commands", {}).items():
                    with typer.Context(inner, info_name=sub, parent=context, **settings) as below:
                        yield f"socbench {name} {sub}", below


if __name__ == "__main__":
    print(reference(), end="")
