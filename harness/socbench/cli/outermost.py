"""The outermost command: whatever happens inside ends here as one sentence and an exit code."""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

import typer

from socbench.cli.application import SETTINGS, root
from socbench.cli.output import message
from socbench.errors import SocbenchError

# Typer carries its own copy of Click's exceptions in some versions and imports Click's in others; either way they are
# the ancestors of the one that it exports.
_ANCESTORS = {cls.__name__: cls for cls in typer.BadParameter.__mro__}
_CLICK_ERROR: type[Exception] = _ANCESTORS["ClickException"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""What a shell says of a program that SIGPIPE ended; never 0, or a gate would pass because its reader had gone."""


def call(arguments: Sequence[str]) -> int:
    """Run one command line; prints what went wrong as one sentence on standard error and returns the exit code."""
    debug = _take_debug(arguments)
    _say_warnings()
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _as_ctrl_c)
    try:
        code = _run([word for word in arguments if word != "--debug"] if debug else list(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # What is still in the buffer would raise once more when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        text, code = explain(error)
        message(f"socbench: {text}")
        return code


def _say_warnings() -> None:
    """Print warnings (a damaged file, a session of a newer format) as one plain line each on standard error."""
    said: set[str] = set()

    def show(text: Warning | str, *_: object, **__: object) -> None:
        if str(text) not in said:
            said.add(str(text))
            message(f"socbench: {text}")

    warnings.showwarning = show  # type: ignore[assignment]


def explain(error: BaseException) -> tuple[str, int]:
    """Return the one sentence and the exit code that stand for ``error``."""
    if isinstance(error, SocbenchError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, _CLICK_ERROR):
        return usage_sentence(error), EXIT_USAGE
    if isinstance(error, OSError) and error.errno in _ORDINARY and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}", EXIT_FAILED
    kind = type(error).__name__
    return (
        f"a bug in socbench: {kind}: {error}; please report it with what the same command prints with --debug",
        EXIT_FAILED,
    )


# What a file system may say to anybody; every other OSError that comes this far is a bug of ours.
_ORDINARY = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}


def usage_sentence(error: Any) -> str:
    """Return one sentence for a usage error of Click: what is wrong, the nearest name, where the help is."""
    context = error.ctx
    command = context.command_path if context else "socbench"
    name = type(error).__name__
    if name == "NoSuchOption":
        known = [option for param in context.command.get_params(context) for option in param.opts] if context else []
        text = f"there is no option {error.option_name}{nearest(error.option_name, known)}"
    elif name == "MissingParameter" and error.param is not None:
        text = f"{_param(error.param)} is missing"
    elif name == "BadParameter" and error.param is not None:
        text = f"{_param(error.param)}: {_lowered(error.message)}"
    elif name == "BadParameter" and error.param_hint:
        text = f"{error.param_hint}: {_lowered(error.message)}"
    else:
        text = _lowered(error.format_message())
    return f"{text.rstrip('.')} (see '{command} --help')"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the known word nearest to ``word``, or ``""`` when none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _param(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper()).strip("[]")
    return str(max(param.opts, key=len))


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _take_debug(arguments: Sequence[str]) -> bool:
    """Say whether ``--debug`` stands anywhere on the line: people add it at the end of what has just failed."""
    return "--debug" in arguments


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(root)
    if "_SOCBENCH_COMPLETE" in os.environ:
        # Typer does this for applications that have its own --install-completion, which ours replaces.
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
        command.main(arguments, prog_name="socbench", complete_var="_SOCBENCH_COMPLETE")
    try:
        with _context(command, arguments) as context:
            result = context.command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    return result if isinstance(result, int) else 0


def _context(command: Any, arguments: list[str]) -> Any:
    # The root has no option that a command needs, and letting it read the line costs Typer the import of pydantic,
    # a tenth of a second that `socbench run --help` can do without.
    if arguments and not arguments[0].startswith("-"):
        parent = typer.Context(command, info_name="socbench", **SETTINGS)
        chosen = command.get_command(parent, arguments[0])
        if chosen is not None:
            return chosen.make_context(arguments[0], arguments[1:], parent=parent)
    return command.make_context("socbench", arguments)
