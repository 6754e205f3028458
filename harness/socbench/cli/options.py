"""Options that several commands share, and the readers of their values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from socbench.cli import complete

_MANY = "repeat or separate by commas"


def store_folder(store: Path | None) -> Path:
    """Return the store that was named, or the default one."""
    from socbench.store.manage import default_store

    return store.expanduser() if store else default_store()


def listed(values: Iterable[str] | None) -> tuple[str, ...]:
    """Return the values of an option that may be repeated or take commas, each once, in order."""
    words = (word.strip() for value in values or () for word in value.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def count(text: str | int) -> int:
    """Return a whole number above zero; a usage error otherwise."""
    word = str(text)
    if not (word.isascii() and word.isdigit() and 0 < int(word[:12]) < 10**9):
        raise typer.BadParameter(f"{word!r} is not a whole number above 0")
    return int(word)


def seed(text: str | int) -> int:
    """Return a whole number from zero on, at most 64 bits."""
    word = str(text)
    if not (word.isascii() and word.isdigit() and len(word) < 20):
        raise typer.BadParameter(f"{word!r} is not a whole number")
    return int(word)


def seconds(text: str | float) -> float:
    """Return ``30``, ``30s``, ``30m`` or ``1.5h`` as seconds above zero; a usage error otherwise."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", str(text).strip())
    value = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < value < 1e7:
        raise typer.BadParameter(f"{str(text)!r} is not a time above zero such as 90 (seconds), 30m or 2h")
    return value


def fraction(text: str | float) -> float:
    """Return ``5%`` or ``0.05`` as 0.05; it must lie between 0 and 1; a usage error otherwise."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(%?)", str(text).strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{str(text)!r} is not a share between 0 and 100 % such as 5%")
    return value


def shapes(values: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """Return ``{input: shape}`` from ``NAME=1,3,224,224`` words; a usage error naming the word otherwise."""
    found: dict[str, tuple[int, ...]] = {}
    for word in values or ():
        name, equals, text = word.rpartition("=")
        if not equals or not name or not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", text):
            raise typer.BadParameter(
                f"{word!r} is not an input's name and whole numbers such as image=1,3,224,224", param_hint="--shape"
            )
        if name in found:
            raise typer.BadParameter(f"the input {name!r} is given two shapes", param_hint="--shape")
        found[name] = tuple(int(number) for number in text.split(","))
    return found


Json = Annotated[bool, typer.Option("--json", help="Print a JSON array of objects on standard output, nothing else.")]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Results store.  [default: SOCBENCH_STORE, else the user's data folder]",
        show_default=False,
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "-d",
        "--device",
        metavar="DEVICE",
        help=f"local, ssh:user@board, adb:SERIAL, fake:NAME or a name in devices.toml; {_MANY}.  [default: local]",
        autocompletion=complete.devices,
        show_default=False,
    ),
]
Session = Annotated[
    str | None,
    typer.Argument(
        metavar="[SESSION]",
        help="A session's id, a unique prefix of it, its label, or latest.  [default: latest]",
        autocompletion=complete.sessions,
        show_default=False,
    ),
]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="R",
        help=f"litert, onnxruntime, openvino ...; {_MANY}.  [default: all that are there]",
        autocompletion=complete.runtimes,
        show_default=False,
    ),
]
Delegates = Annotated[
    list[str] | None,
    typer.Option(
        "--delegate",
        metavar="D",
        help=f"A class (cpu, gpu, npu, nnapi) or one by name (cpu:xnnpack); {_MANY}.",
        autocompletion=complete.delegates,
        show_default=False,
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="P",
        help=f"fp32, fp16, int8, int8_dynamic ...; {_MANY}.",
        autocompletion=complete.precisions,
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", parser=count, help="Threads of the runtime.", show_default=False),
]
Cores = Annotated[
    str | None,
    typer.Option(
        "--cores", metavar="big|little|MASK", help="Cores to bind to: big, little, 0xf0 or 4-7.", show_default=False
    ),
]
Label = Annotated[
    str | None, typer.Option("--label", metavar="TEXT", help="A name for the session.", show_default=False)
]
