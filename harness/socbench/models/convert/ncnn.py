"""ONNX -> ncnn (.param and .bin) fp32 and fp16 (stored), by the program inside the pnnx package.

The package's own command imports PyTorch; the program beside it does not and is all that is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from socbench.errors import FailedError, ModelError
from socbench.models.convert import tool_site

_TYPES = {1: "f32", 2: "u8", 3: "i8", 6: "i32", 7: "i64", 10: "f16"}
"""pnnx's names of ONNX's types."""
_NAME = re.compile(r"[\w.:/-]{1,120}")


def make(
    source: str, target: str, precision: str, recipe: str | None, calibration: str | None = None, input: str = ""
) -> dict[str, Any]:
    """Write ``target`` (.param) and its .bin from the fp32 ONNX file ``source``.

    Inputs and outputs keep the names of the source, and the inputs' sizes are written down. Raises ModelError for a
    precision that this format does not have, FailedError with what pnnx said.
    """
    if precision not in ("fp32", "fp16"):
        raise ModelError(f"ncnn files of precision {precision} are not made by socbench")
    inputs, outputs = _ends(source)
    shapes = ",".join(f"[{','.join(map(str, shape))}]{kind}" for _, shape, kind in inputs)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(source, Path(folder) / "m.onnx")
        program = tool_site("ncnn") / "pnnx" / "pnnx"
        half = f"fp16={int(precision == 'fp16')}"
        done = subprocess.run(
            [str(program), "m.onnx", half, f"inputshape={shapes}"],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        made = [Path(folder) / f"m.ncnn{ending}" for ending in (".param", ".bin")]
        if done.returncode or not all(path.is_file() for path in made):
            last = " ".join((done.stderr or done.stdout).split())[-300:]
            raise FailedError(f"pnnx made no ncnn model (exit code {done.returncode}): {last}")
        text = _named(made[0].read_text(encoding="utf-8"), inputs, outputs)
        Path(target).write_text(text, encoding="utf-8")
        weights = Path(target).with_suffix(".bin")
        shutil.move(made[1], weights)
    return {"companions": [str(weights)]}


def _ends(source: str) -> tuple[list[tuple[str, list[int], str]], list[str]]:
    """Return name, shape (open dimensions as 1) and type (``f32``) of the inputs, and the names of the outputs."""
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    constants = {item.name for item in graph.initializer}
    inputs = [
        (
            item.name,
            [dim.dim_value or 1 for dim in item.type.tensor_type.shape.dim],
            _TYPES.get(item.type.tensor_type.elem_type, "f32"),
        )
        for item in graph.input
        if item.name not in constants
    ]
    return inputs, [item.name for item in graph.output]


def _named(text: str, inputs: list[tuple[str, list[int], str]], outputs: list[str]) -> str:
    """Give pnnx's ``in0``, ``out0`` the names of the source and each ``Input`` layer its size."""
    names = {f"in{i}": name for i, (name, _, _) in enumerate(inputs)} | {f"out{i}": n for i, n in enumerate(outputs)}
    names = {old: new for old, new in names.items() if _NAME.fullmatch(new)}
    shapes = {f"in{i}": shape[1:] for i, (_, shape, _) in enumerate(inputs)}
    lines = text.splitlines()
    for index in range(2, len(lines)):
        words = lines[index].split()
        if len(words) < 4:
            continue
        blobs = range(4, 4 + int(words[2]) + int(words[3]))
        if words[0] == "Input" and words[4] in shapes:
            keys = {3: (2, 1, 0), 2: (1, 0), 1: (0,), 4: (2, 11, 1, 0)}.get(len(shapes[words[4]]), ())
            words += [f"{key}={size}" for key, size in zip(keys, shapes[words[4]], strict=True)] if keys else []
        for place in blobs:
            words[place] = names.get(words[place], words[place])
        lines[index] = " ".join(words)
    return "\n".join(lines) + "\n"
