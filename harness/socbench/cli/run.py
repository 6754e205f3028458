"""socbench run: measure models on devices and check their answers"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from socbench.cli import complete, options
from socbench.cli.application import examples, single_command
from socbench.errors import UsageError

app, command = single_command(
    epilog=examples(
        "socbench run  # this machine, suite quick",
        "socbench run resnet8 --runtime litert,onnxruntime --precision int8",
        "socbench run my.tflite --threads 4  # your own file, as it is",
        "socbench run my.onnx --shape image=1,3,224,224",
        "socbench run -d local,ssh:pi@board --label 'board against laptop'",
        "socbench run resnet8 --ab runtime=litert runtime=onnxruntime",
        "socbench run nightly.yaml  # all of it from a file",
        "socbench run resnet8 -d phone --detach  # then: socbench collect",
        "socbench run --plan-only  # what would run, and how long",
        "socbench run --resume latest  # go on after a break",
    )
)


@command
def run(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL|FILE|PLAN.yaml ...]",
            help="Names of models (see socbench models), files (.tflite, .onnx, .xml), or one plan: a YAML file with "
            "models, devices and the like.  [default: the suite's models]",
            autocompletion=complete.models,
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Set of models and settings.  [default: quick, when no model is named]",
            autocompletion=complete.suites,
            show_default=False,
        ),
    ] = None,
    device: options.Devices = None,
    runtime: options.Runtimes = None,
    delegate: options.Delegates = None,
    precision: options.Precisions = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="S",
            help="single_stream, accuracy; repeat or separate by commas.  [default: both, where data is labelled]",
            autocompletion=complete.scenarios,
            show_default=False,
        ),
    ] = None,
    threads: options.Threads = None,
    cores: options.Cores = None,
    batch: Annotated[int, typer.Option(metavar="N", parser=options.count, help="Inputs an inference.")] = 1,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N,N,...",
            help="Shape of an input whose dimensions the file leaves open; repeat for more inputs.",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=options.count,
            help="Repetitions of a trial, each in a process of its own.  [default: the suite's]",
            show_default=False,
        ),
    ] = None,
    min_time: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            parser=options.seconds,
            help="Measure a repetition at least this many seconds.  [default: the suite's]",
            show_default=False,
        ),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=options.count,
            help="Measure at least this many inferences a repetition.  [default: the suite's]",
            show_default=False,
        ),
    ] = None,
    precision_target: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=options.fraction,
            help="Repeat until the interval of the median is this narrow, for instance 1%.",
            show_default=False,
        ),
    ] = None,
    ab: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Two arms as lists of field=value, alternated on the same device.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=options.seed, help="Seed of the order.  [default: a new one]", show_default=False
        ),
    ] = None,
    require_full: Annotated[
        bool, typer.Option("--require-full", help="Fail a row whose delegate did not take every operation.")
    ] = False,
    allow_emulated: Annotated[
        bool, typer.Option("--allow-emulated", help="Run emulated accelerators too; they are never ranked.")
    ] = False,
    agent: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What measures there: python, native (phones, boards without Python), auto (the one that the device "
            "can run), or a vendor's program: benchmark_model, onnxruntime_perf_test, executor_runner.",
        ),
    ] = "auto",
    label: options.Label = None,
    store: options.Store = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Print the plan, its time and what is left out, and run nothing.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the plan on the devices and leave; socbench collect fetches it.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="SESSION",
            help="Go on with an interrupted session.",
            autocompletion=complete.sessions,
            show_default=False,
        ),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Set phones up for the run (screen on, brightness fixed, airplane mode, no battery saver) and put "
            "everything back.",
        ),
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail when another run has the device, instead of waiting for it.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Measure models on devices: every repetition in a process of its own, answers checked, every latency kept.

    Without arguments: suite quick on this machine. The report comes afterwards: socbench report latest -o FILE.
    """
    from socbench.cli.running import run_and_show, show_plan
    from socbench.plan import RunRequest

    if resume is not None and (targets or suite):
        raise UsageError(f"--resume {resume} goes on with that session's own plan: leave models and --suite away")
    if resume is not None and (detach or plan_only):
        raise UsageError(f"--resume {resume} runs what is missing: leave --detach and --plan-only away")
    request = RunRequest(
        targets=tuple(targets or ()),
        suite=suite or (None if targets or resume or ab else "quick"),
        devices=options.listed(device) or ("local",),
        runtimes=options.listed(runtime),
        delegates=options.listed(delegate),
        agent=agent,
        precisions=options.listed(precision),
        scenarios=options.listed(scenario),
        threads=threads,
        cores=cores,
        batch=batch,
        shapes=options.shapes(shape),
        repeat=repeat,
        min_time_s=min_time,
        min_count=min_count,
        precision_target=precision_target,
        ab=ab,
        require_full=require_full,
        allow_emulated=allow_emulated,
        label=label,
        seed=seed,
        wait=not no_wait,
        detach=detach,
        prepare_device=prepare,
        argv=("socbench", *sys.argv[1:]),
    )
    if plan_only:
        return show_plan(request, as_json=as_json)
    return run_and_show(request, resume=resume, store=options.store_folder(store), as_json=as_json)
