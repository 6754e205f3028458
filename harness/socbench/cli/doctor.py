"""socbench doctor: prove each runtime and delegate by computing an answer"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from socbench.cli import options
from socbench.cli.application import examples, single_command
from socbench.cli.output import print_json
from socbench.records import Json


def with_settings(checks: Sequence[Json], settings: Sequence[Json]) -> list[Json]:
    """Return the checks, each with its device's ``settings`` (``{title: value}``; ``None`` where it is no phone)."""
    by_device: dict[str, Json] = {}
    for one in settings:
        by_device.setdefault(one["device"], {})[one["setting"]] = one["value"]
    return [{**check, "settings": by_device.get(check["device"])} for check in checks]


app, command = single_command(
    epilog=examples(
        "socbench doctor  # this machine",
        "socbench doctor --runtime openvino",
        "socbench doctor -d adb:R58M12ABCDE --json",
    )
)


@command
def doctor(
    device: options.Devices = None,
    runtime: options.Runtimes = None,
    as_json: options.Json = False,
) -> int:
    """Prove each runtime and delegate by computing an answer and checking it; say how to fix what fails.

    Exit code 1 when an answer is wrong or a device has nothing that works.
    """
    from socbench.cli.diagnosis import diagnose
    from socbench.cli.progress import watching
    from socbench.session.prepared import settings_of

    devices = options.listed(device) or ("local",)
    with watching() as progress:
        checks = diagnose(
            devices, options.listed(runtime), progress=progress, argv=("socbench", *sys.argv[1:])
        )  # fmt: skip
    settings = settings_of(devices)
    if as_json:
        print_json(with_settings(checks, settings))
    else:
        from socbench.render.terminal import make_console, print_doctor, print_settings

        print_doctor(make_console(), checks)
        print_settings(make_console(), settings)
    useful = {check["device"] for check in checks if check["state"] in ("works", "partial", "emulated")}
    wrong = any(check["state"] == "wrong_answer" for check in checks)
    return 1 if wrong or any(name not in useful for name in {check["device"] for check in checks}) else 0
