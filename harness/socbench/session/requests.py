"""Settles a request before anything is asked, built or opened: plan files, names of devices, words nobody knows."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from socbench.agents.programs import STOCK_AGENTS
from socbench.devices.config import load_config
from socbench.devices.cores import check_cores
from socbench.errors import UsageError
from socbench.plan import RunRequest
from socbench.plan_file import PLAN_ENDINGS, read_plan, with_plan
from socbench.records import Plan
from socbench.session.devices import KINDS

MOST_DEVICES: Final = 256


def settle(request: RunRequest) -> RunRequest:
    """Return the request with its plan file read and its devices by address; refuse what can't be done.

    Raises UsageError: cores that are no choice, an agent or a combination of options that there is not, two plan
    files; ModelError for a plan file that is none.
    """
    request = _with_plan_file(request)
    config = load_config()
    addresses = tuple(dict.fromkeys(config.find(name).address for name in request.devices or ("local",)))
    if len(addresses) > MOST_DEVICES:
        raise UsageError(f"{len(addresses)} devices are more than one host drives: name at most {MOST_DEVICES}")
    for cores in filter(None, (request.cores, *_arms_cores(request))):
        check_cores(cores)
    if request.agent not in KINDS:
        raise UsageError(f"there is no agent {request.agent!r}: this socbench has {', '.join(KINDS)}")
    if request.agent in STOCK_AGENTS:
        request = _for_program(request)
    if request.prepare_device:
        _check_phones(addresses)
    if request.detach and request.precision_target is not None:
        raise UsageError(
            "--detach can't go with --precision-target: the host decides after each repetition, name --repeat instead"
        )
    if request.detach and request.power_log is not None:
        raise UsageError("--detach can't go with --power-log: the meter's log must lie on this host when it ends")
    return replace(request, devices=addresses)


def _check_phones(addresses: Iterable[str]) -> None:
    for address in addresses:
        if address.startswith(("local", "ssh:")):
            raise UsageError(f"--prepare changes the settings of Android phones, which {address} is not: leave it away")


def _for_program(request: RunRequest) -> RunRequest:
    """Return the request as a vendor's program can do it: it times single inferences of the model as its file is."""
    what = {
        "--scenario": set(request.scenarios) - {"single_stream"},
        "--batch": request.batch != 1,
        "--shape": request.shapes,
        "--precision-target": request.precision_target is not None,
        "--ab": request.ab is not None,
    }
    asked = next((option for option, given in what.items() if given), None)
    if asked is not None:
        raise UsageError(
            f"--agent {request.agent} can't go with {asked}: the vendor's program times the model as its file is and "
            "gives no answers; use --agent native or python"
        )
    return replace(request, scenarios=("single_stream",))


def _with_plan_file(request: RunRequest) -> RunRequest:
    plans = [target for target in request.targets if target.lower().endswith(PLAN_ENDINGS)]
    if not plans:
        return request
    if len(request.targets) > 1:
        raise UsageError(f"{plans[0]} is a plan: it names its own models, so it stands alone")
    if request.suite is not None:
        raise UsageError(f"{plans[0]} is a plan: leave --suite away")
    path = Path(plans[0])
    return with_plan(request, read_plan(path), path.parent)


def _arms_cores(request: RunRequest) -> Iterable[str]:
    for arm in request.ab or ():
        for pair in arm.split(","):
            name, _, value = pair.partition("=")
            if name.strip() == "cores":
                yield value.strip()


def store_option(argv: Sequence[str], store: Path) -> str:
    """Return `` --store DIR`` for a command that is to be typed next, where the user named the store; else nothing."""
    named = any(word == "--store" or word.startswith("--store=") for word in argv)
    return f" --store {shlex.quote(str(store))}" if named else ""


def nothing_measured(plan: Plan, request: RunRequest) -> tuple[str, int] | None:
    """Return why a plan without a single repetition measured nothing, as a sentence, and the exit code.

    A row that is left out is no failure (exit code 0), but a run that measured nothing because the runtime that was
    asked for by name is not there has failed (1). ``None`` where there is something to run.
    """
    if any(plan.order.values()):
        return None
    reasons = list(dict.fromkeys(trial.excluded for trial in plan.trials if trial.excluded is not None))
    if not reasons:
        return "nothing was measured: the plan has no rows", 0
    first = reasons[0]
    ending = first.message.rstrip(".") + (f"; {first.advice}" if first.advice else "")
    more = f" (and {len(reasons) - 1} more reasons, see the rows)" if len(reasons) > 1 else ""
    asked = bool(request.runtimes) and all(reason.code in ("runtime_missing", "runtime_broken") for reason in reasons)
    return f"nothing was measured, every row was left out: {ending}{more}", 1 if asked else 0
