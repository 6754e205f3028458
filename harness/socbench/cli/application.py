"""The root command and the groups: which commands there are is read off this folder, a module is imported when used.

A module is a command when its docstring starts with ``socbench NAME: what it does``; the rest of that line is its help.
It holds ``app``, a Typer application with one command, or a group made by ``command_group``. A command returns ``None``
(exit code 0) or its exit code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

_FIRST = ("run", "report", "compare", "results", "models", "devices", "doctor", "runtimes", "sustained", "collect")
_MARK = '"""socbench '
# Typer brings its own copy of Click in some versions: this is the ancestor of the errors that it raises.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def command_summaries() -> dict[str, str]:
    """Return ``{command: one line}`` in the order of the help, without importing a command's module."""
    found = {}
    for path in Path(__file__).parent.glob("*.py"):
        with path.open(encoding="utf-8") as file:
            first = file.readline().strip()
        if first.startswith(f"{_MARK}{path.stem}: "):
            summary = first.removeprefix(f"{_MARK}{path.stem}: ").removesuffix('"""')
            found[path.stem] = summary[:1].upper() + summary[1:]
    order = {name: index for index, name in enumerate(_FIRST)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


class Command(TyperCommand):
    """A command whose help shows its arguments as their metavars say, and nothing of their Python types."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return what Typer leaves over. The parser raises without its context, so it is told here whose help fits."""
        try:
            return super().parse_args(ctx, args)
        except _USAGE_ERROR as error:
            if getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name in its usage line."""
        return ["[OPTIONS]", *(str(param.metavar) for param in _arguments(self))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options."""
        arguments = [(str(param.metavar), str(getattr(param, "help", None) or "")) for param in _arguments(self)]
        records = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.param_type_name == "option"]
        for heading, rows in (("Arguments", arguments), ("Options", [record for record in records if record])):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _arguments(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "argument"]


class SuggestingGroup(TyperGroup):
    """A group that names the nearest command when it is asked for one that it does not have."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write every command with the first sentence of its help, wrapped; Typer's own cuts it off."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(command.help)) for name, command in self.commands.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return Typer's answer; raise UsageError with the nearest name and where the list is."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            from socbench.cli.outermost import nearest
            from socbench.errors import UsageError

            near = nearest(args[0], self.list_commands(ctx))
            raise UsageError(
                f"there is no command '{ctx.command_path} {args[0]}'{near} (see '{ctx.command_path} --help')"
            )
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """The root: knows its commands by the first lines of their files and imports the one that is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of the help."""
        return list(command_summaries())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of ``cmd_name`` and return its command, None when there is no such module."""
        summary = command_summaries().get(cmd_name)
        if summary is None:
            return None
        command = typer.main.get_command(importlib.import_module(f"socbench.cli.{cmd_name}").app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; Typer's own would import every one of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(command_summaries().items()))


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".")


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def command_group(
    summary: str, *, default: str | None = None, epilog: str | None = None
) -> tuple[typer.Typer, Callable[..., Decorator]]:
    """Return an application and the decorator that adds a command to it; ``default`` runs where none is named."""

    class Group(SuggestingGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            wants_help = bool(args) and args[0] in ctx.help_option_names
            completing = ctx.resilient_parsing
            if default and not completing and not wants_help and (not args or args[0].startswith("-")):
                args = [default, *args]
            return super().parse_args(ctx, args)

    more = f"\n\nWithout a command: {default}." if default else ""
    app = typer.Typer(
        cls=Group, add_completion=False, rich_markup_mode=None, epilog=epilog, no_args_is_help=default is None,
        help=summary + more, context_settings=SETTINGS,
    )  # fmt: skip
    # A callback makes it a group even while it has one command only.
    app.callback()(lambda: None)

    def command(name: str | None = None) -> Decorator:
        return app.command(name, cls=Command, context_settings=SETTINGS)

    return app, command


def single_command(*, epilog: str) -> tuple[typer.Typer, Decorator]:
    """Return an application of one command and the decorator that gives it its function."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    return app, app.command(cls=Command, context_settings=SETTINGS, epilog=epilog)


def examples(*lines: str) -> str:
    """Return an epilog that shows ``lines``, their comments (after two spaces) in one column where there is room.

    Click rewraps a paragraph unless it starts with a \\b.
    """
    parts = [line.partition("  # ") for line in lines]
    column = max((len(command) for command, mark, _ in parts if mark), default=0)
    if any(mark and column + len(comment) > 70 for _, mark, comment in parts):
        column = 0  # a terminal of 80 columns would cut them off
    shown = [f"  {command:<{column}}  # {comment}" if mark else f"  {command}" for command, mark, comment in parts]
    return "\b\nExamples:\n" + "\n".join(shown)


root = typer.Typer(
    cls=LazyGroup, name="socbench", add_completion=False, rich_markup_mode=None, context_settings=SETTINGS,
    epilog=examples(
        "socbench run  # benchmark this machine (about three minutes)",
        "socbench run my.tflite --threads 4  # measure your own model",
        "socbench report latest -o report.html",
        "socbench run --help  # options of a command, with examples",
    ),
)  # fmt: skip


@root.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks; may stand anywhere.")] = False,
) -> None:
    """Benchmarks neural-network inference on real devices: every runtime, every latency, checked answers."""
    if version:
        from socbench import __version__

        print(f"socbench {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
