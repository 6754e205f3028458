"""socbench models: list, show, build, check and add models"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from socbench.cli import complete, options
from socbench.cli.application import command_group, examples
from socbench.cli.output import message, print_json, printable
from socbench.errors import UsageError

if TYPE_CHECKING:
    from socbench.models.cards import Card
    from socbench.records import Variant

app, command = command_group(
    "List, show, build, check and add models.",
    default="list",
    epilog=examples(
        "socbench models  # what there is to measure",
        "socbench models show resnet8  # its card and its files",
        "socbench models build resnet8  # make the files now",
        "socbench models add my.onnx --calibration pictures/",
        "socbench models check  # check every card",
    ),
)

ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model's name.", autocompletion=complete.models, show_default=False),
]


@command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the models that can be measured by name, with the files that there are."""
    from socbench.models.cards import all_cards

    found = [model_json(card) for card in all_cards()]
    if as_json:
        print_json(found)
        return
    from socbench.render.terminal import make_console, print_models

    print_models(make_console(), found)


@command()
def show(model: ModelName, as_json: options.Json = False) -> None:
    """Show one model: task, source, licence, inputs and outputs, tolerances, and its files."""
    from socbench.models.cards import load_card

    card = load_card(model)
    if as_json:
        import msgspec

        print_json([{**msgspec.to_builtins(card), **model_json(card)}])
        return
    _print_card(card)


@command()
def build(
    model: ModelName,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VARIANT",
            help="Only these (onnx-int8 ...); repeat or separate by commas.  [default: all]",
            show_default=False,
        ),
    ] = None,
    brought: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="An archive or weights that the card names and that you have, in place of fetching it; repeatable.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(metavar="PRECISION", help="Only these (int8 ...).", show_default=False),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="RUNTIME", help="Only what this runtime takes.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Fetch and make a model's files, which the first run would do otherwise."""
    from socbench.errors import FailedError, ModelError
    from socbench.models.cards import load_card
    from socbench.models.sources import bring
    from socbench.models.variants import build as build_variant
    from socbench.models.variants import variants_of

    card = load_card(model)
    for path in brought or ():
        message(f"{path} is {bring(card, path)}")
    wanted = _chosen(variants_of(card), options.listed(variant), model)
    wanted = _narrowed(wanted, options.listed(precision), options.listed(runtime), model)
    built: list[Variant] = []
    failed = 0
    for one in wanted:
        try:
            built.append(build_variant(card, one, progress=message))
        except (FailedError, ModelError) as problem:
            # The others may well build; the exit code says that not all did.
            message(f"socbench: {model} {one.variant} was not built: {problem}")
            failed += 1
    if as_json:
        print_json(variant_json(one) for one in built)
    else:
        for one in built:
            print(printable(f"{one.variant}  {_size(one.size_bytes)}  {one.path}"))
    return 1 if failed else 0


@command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your fp32 network.", show_default=False)],
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of pictures for int8.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name.  [default: the file's]", show_default=False)
    ] = None,
) -> None:
    """Add your own network, so that it can be measured in every format and precision."""
    from socbench.models.user import add as add_model

    if calibration is not None and not calibration.is_dir():
        raise UsageError(f"there is no folder {calibration}: name a folder of pictures with --calibration")
    card = add_model(file, calibration, name=name)
    message(f"Added {card.model}. Measure it: socbench run {card.model}")


@command()
def check(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL ...]",
            help="Models to check.  [default: all]",
            autocompletion=complete.models,
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Check cards: fields, files, hashes, data and licences. Exit code 1 when something is wrong."""
    from socbench.content import content
    from socbench.models.cards import check_card

    names = list(models or sorted(path.parent.name for path in content("models").glob("*/card.yaml")))
    problems = [(name, text) for name in names for text in check_card(name)]
    if as_json:
        print_json({"model": name, "problem": text} for name, text in problems)
    else:
        for name, text in problems:
            print(printable(f"{name}: {text}"))
        message(f"{len(names)} models checked, {len(problems)} problems.")
    return 1 if problems else 0


def model_json(card: Card) -> dict[str, Any]:
    """Return one line of ``models list --json``."""
    from socbench.models.variants import variants_of

    variants = variants_of(card)
    return {
        "model": card.model,
        "title": card.title,
        "task": card.task,
        "metric": card.metric_name,
        "input": input_text(card),
        "parameters": card.parameters,
        "multiply_adds": card.multiply_adds,
        "size_bytes": max((item.size_bytes or 0 for item in card.files.values()), default=0) or None,
        "licence": {"weights": card.licence.weights, "redistribute": card.licence.redistribute},
        "runtimes": _runtimes(variants),
        "variants": [variant_json(variant) for variant in variants],
    }


def _runtimes(variants: list[Variant]) -> list[str]:
    """Return the runtimes that take one of the files."""
    from socbench.records import FORMATS_OF_RUNTIME, RUNTIMES

    return [name for name in RUNTIMES if {variant.format for variant in variants} & set(FORMATS_OF_RUNTIME[name])]


def input_text(card: Card) -> str:
    """Return what a network takes, in a few words: ``224x224 RGB``, ``2048 int32``."""
    first = card.inputs[0]
    if first.preprocess is not None and first.layout is not None and len(first.shape) == 4:
        sides = first.shape[2:] if first.layout == "NCHW" else first.shape[1:3]
        return f"{sides[0]}x{sides[1]} {first.preprocess.colour}"
    shape = "x".join(str(size) for size in first.shape[1:] or first.shape if size != 1)
    return f"{shape or 1} {first.dtype.replace('float32', 'float')}" + (
        f" x{len(card.inputs)}" if len(card.inputs) > 1 else ""
    )


def variant_json(variant: Variant) -> dict[str, Any]:
    """Return one variant as JSON has it; size and hash are null until it is built."""
    return {
        "variant": variant.variant,
        "format": variant.format,
        "precision": variant.precision,
        "recipe": variant.recipe,
        "size_bytes": variant.size_bytes,
        "sha256": variant.sha256,
        "path": variant.path,
    }


def _chosen(variants: list[Variant], names: tuple[str, ...], model: str) -> list[Variant]:
    known = [variant.variant for variant in variants]
    for name in names:
        if name not in known:
            from socbench.cli.outermost import nearest

            raise UsageError(
                f"{model} has no variant {name!r}{nearest(name, known)} (see socbench models show {model})"
            )
    return [variant for variant in variants if not names or variant.variant in names]


def _narrowed(
    variants: list[Variant], precisions: tuple[str, ...], runtimes: tuple[str, ...], model: str
) -> list[Variant]:
    """Return the variants of the precisions that the runtimes take. Raises UsageError when none is left."""
    from socbench.records import FORMATS_OF_RUNTIME, PRECISIONS, RUNTIMES

    for what, given, known in (("precision", precisions, PRECISIONS), ("runtime", runtimes, RUNTIMES)):
        for name in given:
            if name not in known:
                from socbench.cli.outermost import nearest

                raise UsageError(f"there is no {what} {name!r}{nearest(name, list(known))}")
    formats = {form for name in runtimes for form in FORMATS_OF_RUNTIME[name][:1]}
    found = [
        one
        for one in variants
        if (not precisions or one.precision in precisions) and (not formats or one.format in formats)
    ]
    if not found and variants:
        raise UsageError(f"{model} has no such variant (see socbench models show {model})")
    return found


def _size(size_bytes: int | None) -> str:
    return "not built" if size_bytes is None else f"{size_bytes / 1e6:.2f} MB"


def _print_card(card: Card) -> None:
    from socbench.models.variants import variants_of

    lines = [
        f"{card.model}: {card.title}",
        f"  task       {card.task}, metric {card.metric_name or 'none (fidelity only)'}",
        f"  licence    {card.licence.weights}" + ("" if card.licence.redistribute else ", may not be handed on"),
    ]
    source = card.source
    if source is not None:
        said = {name: value for name, value in _fields(source).items() if value and name != "sha256"}
        lines.append("  source     " + ", ".join(f"{name} {value}" for name, value in said.items()))
    for kind, tensors in (("input", card.inputs), ("output", card.outputs)):
        lines += [f"  {kind:<10} {one.name} [{', '.join(map(str, one.shape))}]" for one in tensors]
    lines += _facts_lines(card)
    for precision, tolerance in card.tolerance.items():
        limits = ", ".join(f"{name} {value:g}" for name, value in _fields(tolerance).items() if value is not None)
        lines.append(f"  tolerance  {precision}: {limits}")
    lines.append("  files")
    for variant in variants_of(card):
        lines.append(f"    {variant.variant:<24}{_size(variant.size_bytes)}")
    lines.append(f"  runtimes   {', '.join(_runtimes(variants_of(card)))}")
    for form, reasons in card.left_out.items():
        for reason in dict.fromkeys(reasons.values()):
            without = ", ".join(name for name, why in reasons.items() if why == reason)
            lines.append(f"  left out   {form} {without}: {reason}")
    print(printable("\n".join(lines)))


def _facts_lines(card: Card) -> list[str]:
    """Return parameters, multiply-adds and operations: of the reference file if it is here, else as the card says."""
    from socbench.models.facts import model_facts
    from socbench.models.sources import own_file_there

    made = [] if card.parameters is None else [f"  parameters {card.parameters:,}"]
    if card.multiply_adds is not None:
        made.append(f"  multiply-adds {card.multiply_adds:,} an inference")
    form = card.reference.format if card.reference.format in card.files else next(iter(card.files), None)
    there = own_file_there(card, form) if form is not None else None
    if there is not None and form != "null":
        ops = model_facts(there).ops
        total = sum(ops.values())
        shown = ", ".join(f"{name} {count}" for name, count in list(ops.items())[:12])
        made.append(f"  operations {total} ({form}): {shown}" + (", ..." if len(ops) > 12 else ""))
    return made


def _fields(struct: Any) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(struct))
