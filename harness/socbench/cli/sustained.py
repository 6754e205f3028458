"""socbench sustained: run a model for a time and see how it slows down"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from socbench.cli import complete, options
from socbench.cli.application import examples, single_command
from socbench.errors import UsageError

app, command = single_command(
    epilog=examples(
        "socbench sustained resnet8  # half an hour on this machine",
        "socbench sustained my.tflite -d adb:SERIAL --duration 10m --max-temp 45",
        "socbench sustained resnet8 -d board --rate 30  # does it hold that?",
        "socbench sustained resnet8 --busy-cores 1  # beside a second load",
        "socbench sustained resnet8 -d fake:phone-1  # a simulated phone",
    )
)

LONGEST_S = 86_400.0


def duration(text: str | float) -> float:
    """Return ``30s``, ``10m`` or ``1h`` as seconds, from one second to a day; a usage error otherwise."""
    value = options.seconds(text)
    if not 1.0 <= value <= LONGEST_S:
        raise typer.BadParameter(f"{str(text)!r} is not a time from 1s to 24h")
    return value


def rate(text: str | float) -> float:
    """Return inferences a second, above zero; a usage error otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 100_000:
        raise typer.BadParameter(f"{str(text)!r} is not a number of inferences a second such as 30")
    return value


def busy_cores(text: str | int) -> int:
    """Return a number of cores from 1 to 256; a usage error otherwise."""
    value = options.count(text)
    if value > 256:
        raise typer.BadParameter(f"{str(text)!r} is not a number of cores from 1 to 256")
    return value


def celsius(text: str | float) -> float:
    """Return a temperature in degrees Celsius from 20 to 119; a usage error otherwise."""
    try:
        value = float(str(text).removesuffix("C").removesuffix("°"))
    except ValueError:
        value = 0.0
    if not 20 <= value < 120:
        raise typer.BadParameter(f"{str(text)!r} is not a temperature in degrees Celsius from 20 to 119 such as 45")
    return value


Duration = Annotated[
    float, typer.Option("--duration", metavar="TIME", parser=duration, help="How long: 30s, 10m, 1h, at most 24h.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="HZ",
        parser=rate,
        help="Inferences a second; deadlines that are missed are counted.  [default: as fast as it goes]",
        show_default=False,
    ),
]
BusyCores = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=busy_cores,
        help="A second load beside it: so many cores kept busy from warming up to the end.  [default: it runs alone]",
        show_default=False,
    ),
]
MaxTemp = Annotated[
    float | None,
    typer.Option(
        metavar="C",
        parser=celsius,
        help="Stop at this many degrees Celsius: of skin or battery if they are told, else of the hottest sensor.",
        show_default=False,
    ),
]
CoolDown = Annotated[
    float | None,
    typer.Option(
        "--cool-down",
        metavar="TIME",
        parser=duration,
        help="Watch for so long how it cools down afterwards: 5m.  [default: it is not watched]",
        show_default=False,
    ),
]
FirstRuntime = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="R",
        help="litert, onnxruntime, openvino ...; repeat or separate by commas.  [default: the first that is there]",
        autocompletion=complete.runtimes,
        show_default=False,
    ),
]
PowerLog = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="Log that an external power meter writes meanwhile: lines time,watts.",
        show_default=False,
    ),
]


@command
def sustained(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|FILE ...",
            help="Names of models (see socbench models) or files: .tflite, .onnx, .xml.",
            autocompletion=complete.models,
            show_default=False,
        ),
    ],
    device: options.Devices = None,
    length: Duration = "30m",  # type: ignore[assignment]
    rate_hz: Rate = None,
    busy_cores: BusyCores = None,
    max_temp: MaxTemp = None,
    cool_down: CoolDown = None,
    runtime: FirstRuntime = None,
    delegate: options.Delegates = None,
    precision: options.Precisions = None,
    threads: options.Threads = None,
    cores: options.Cores = None,
    power_log: PowerLog = None,
    label: options.Label = None,
    store: options.Store = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail when another run has the device, instead of waiting for it.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Run a model without a pause for a time: latency, temperature and clocks, when it slows down, and why.

    Unless named: the first runtime that is there, at the first precision of the model.
    """
    from socbench.cli.running import run_lasting
    from socbench.plan import RunRequest
    from socbench.session.power_log import check_power_log

    devices = options.listed(device) or ("local",)
    if not targets:
        raise UsageError("name a model or a file: socbench sustained MODEL")
    if power_log is not None:
        check_power_log(power_log, devices)
    request = RunRequest(
        targets=tuple(targets),
        devices=devices,
        runtimes=options.listed(runtime),
        delegates=options.listed(delegate),
        precisions=options.listed(precision),
        scenarios=("sustained",),
        threads=threads,
        cores=cores,
        repeat=1,
        duration_s=length,
        rate_hz=rate_hz,
        max_temperature_c=max_temp,
        busy_cores=busy_cores,
        watch_cooling_s=cool_down or 0.0,
        allow_emulated=all(address.startswith("fake:") for address in devices),
        label=label,
        wait=not no_wait,
        power_log=None if power_log is None else power_log.absolute(),
        argv=("socbench", *sys.argv[1:]),
    )
    return run_lasting(request, store=options.store_folder(store), as_json=as_json)
