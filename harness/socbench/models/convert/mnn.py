"""ONNX or TFLite -> MNN fp32 and fp16 (stored), by the library inside the MNN package.

Never by its commands ``mnnconvert`` and ``mnnquant``: they install a logger with whatever pip is on the PATH and send
usage records to their makers. The library ``_tools`` does neither.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from socbench.errors import FailedError, ModelError
from socbench.models.convert import tool_python

_CALL = "import sys, _tools; sys.exit(0 if _tools.mnnconvert(['', *sys.argv[1:]]) else 3)"


def make(
    source: str, target: str, precision: str, recipe: str | None, calibration: str | None = None, input: str = ""
) -> dict[str, Any]:
    """Write ``target`` from the fp32 ONNX or TFLite file ``source``.

    Raises ModelError for a precision that this format does not have, FailedError with what the converter said.
    """
    if precision not in ("fp32", "fp16"):
        raise ModelError(f"MNN files of precision {precision} are not made by socbench")
    kind = "TFLITE" if source.endswith(".tflite") else "ONNX"
    words = ["-f", kind, "--modelFile", source, "--MNNModel", target, "--bizCode", "socbench"]
    done = subprocess.run(
        [str(tool_python("mnn")), "-c", _CALL, *words, *(["--fp16"] if precision == "fp16" else [])],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode or not Path(target).is_file():
        last = " ".join((done.stderr or done.stdout).split())[-300:]
        raise FailedError(f"MNN's converter failed (exit code {done.returncode}): {last}")
    return {"companions": []}
