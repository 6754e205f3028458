"""``socbench run PLAN.yaml``: a request kept in a file, the fields of a suite and those of the command line.

```yaml
models: [resnet8, my.tflite]      # names, or files beside this one
devices: [local, "ssh:pi@board"]
runtimes: [litert, onnxruntime]
precisions: [fp32, int8]
repetitions: 5
settings: {min_time_s: 2.0}
label: nightly
```
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from socbench.errors import ModelError
from socbench.models.cards import CARD_LIMIT_BYTES, nearest, parse_yaml
from socbench.models.inspect import ENDINGS
from socbench.plan import RunRequest
from socbench.records import MeasuringSettings

PLAN_ENDINGS: Final = (".yaml", ".yml")


class PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a plan file may say; what it does not is as on the command line."""

    models: tuple[str, ...]
    devices: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    threads: int | None = None
    cores: str | None = None
    batch: int | None = None
    shapes: dict[str, tuple[int, ...]] = {}
    repetitions: int | None = None
    settings: MeasuringSettings = MeasuringSettings()
    allow_emulated: bool = False
    require_full: bool = False
    label: str | None = None
    seed: int | None = None


def read_plan(path: Path) -> PlanFile:
    """Return a plan file. Raises ModelError: not there, no YAML, or a field that is unknown, missing or wrong."""
    what = f"the plan {path}"
    try:
        with path.open("rb") as file:
            text = file.read(CARD_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}: name a plan, a model or a model's file") from None
    except OSError as problem:
        raise ModelError(f"{path} can't be read: {problem.strerror}") from problem
    plan = parse_yaml(text, PlanFile, what)
    _check_settings(text, what)
    if not plan.models:
        raise ModelError(f"{what}: models is empty")
    for field in ("threads", "batch", "repetitions"):
        value = getattr(plan, field)
        if value is not None and value < 1:
            raise ModelError(f"{what}: {field} is {value}; it must be at least 1")
    for name, shape in plan.shapes.items():
        if not shape or min(shape) < 1:
            raise ModelError(f"{what}: the shape of {name} is {list(shape)}; its sizes must be at least 1")
    return plan


def with_plan(request: RunRequest, plan: PlanFile, folder: Path) -> RunRequest:
    """Return the request with what the plan says, put over by what the command line said; files lie in ``folder``."""
    said: dict[str, Any] = {
        "targets": tuple(_target(model, folder) for model in plan.models),
        "devices": plan.devices if request.devices in ((), ("local",)) and plan.devices else request.devices,
        "runtimes": request.runtimes or plan.runtimes,
        "delegates": request.delegates or plan.delegates,
        "precisions": request.precisions or plan.precisions,
        "scenarios": request.scenarios or plan.scenarios,
        "threads": request.threads or plan.threads,
        "cores": request.cores or plan.cores,
        "batch": request.batch if request.batch != 1 else plan.batch or 1,
        "shapes": request.shapes or plan.shapes,
        "repeat": request.repeat or plan.repetitions,
        "settings": plan.settings,
        "allow_emulated": request.allow_emulated or plan.allow_emulated,
        "require_full": request.require_full or plan.require_full,
        "label": request.label or plan.label,
        "seed": plan.seed if request.seed is None else request.seed,
    }
    return dataclasses.replace(request, **said)


def _target(model: str, folder: Path) -> str:
    is_file = model.lower().endswith(tuple(ENDINGS)) or os.sep in model
    return str(folder / model) if is_file else model


def _check_settings(text: bytes, what: str) -> None:
    """Refuse a setting that MeasuringSettings does not have (a dataclass takes no notice of unknown names)."""
    import yaml

    known = [field.name for field in dataclasses.fields(MeasuringSettings)]
    for name in yaml.safe_load(text).get("settings") or {}:
        if name not in known:
            hint = nearest(name, known)
            raise ModelError(
                f"{what}: settings: unknown field {name!r}"
                + (f"; did you mean {hint}?" if hint else f"; known are {', '.join(known)}")
            )
