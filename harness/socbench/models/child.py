"""Runs one task with heavy libraries in a process of its own: the host stays light, and a crash is contained.

``python -m socbench.models.child TASK`` reads the arguments as JSON from standard input and answers with one JSON
object on what was its standard output; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from socbench.errors import FailedError, ModelError, SocbenchError

_ROOT = Path(__file__).resolve().parents[2]
_TASKS = {
    "onnx": "socbench.models.convert.onnx:make",
    "tflite": "socbench.models.convert.tflite:make",
    "openvino": "socbench.models.convert.openvino:make",
    "prepare_onnx": "socbench.models.convert.onnx_source:prepare",
    "prepare_tflite": "socbench.models.convert.tflite_source:prepare",
    "ncnn": "socbench.models.convert.ncnn:make",
    "mnn": "socbench.models.convert.mnn:make",
    "executorch": "socbench.models.convert.executorch:make",
    "run": "socbench.models.reference_runners:run",
}
DEADLINE_S = 900.0


def call(task: str, arguments: dict[str, Any], *, what: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """Run ``task`` with keyword ``arguments`` (JSON) in a child process and return its answer (JSON).

    ``what`` begins the sentence of an error ("making onnx-int8 of resnet8"). Raises ModelError or FailedError with
    what the tool said, FailedError for a crash (the signal is named) and for a tool that does not come to an end.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        _argv(task),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(json.dumps(arguments).encode(), timeout=deadline_s)
    except subprocess.TimeoutExpired as problem:
        raise FailedError(f"{what} did not end within {deadline_s:.0f} s and was stopped") from problem
    finally:
        _end(process)
    if process.returncode < 0:
        raise FailedError(f"{what} failed: the converter died of {signal.Signals(-process.returncode).name}")
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError as problem:
        last = (err.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
        raise FailedError(f"{what} failed: {last[:500]}") from problem
    if "error" in answer:
        kind = ModelError if answer["error"]["kind"] == "model" else FailedError
        raise kind(f"{what} failed: {answer['error']['message']}")
    return answer


def _argv(task: str) -> list[str]:
    return [sys.executable, "-m", "socbench.models.child", task]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no process behind, whatever interrupted the wait."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def main() -> int:
    """Run one task as the child."""
    answer_to = os.dup(1)
    os.dup2(2, 1)
    module, _, function = _TASKS[sys.argv[1]].partition(":")
    try:
        answer = getattr(importlib.import_module(module), function)(**json.load(sys.stdin))
    except SocbenchError as problem:
        kind = "model" if isinstance(problem, ModelError) else "failed"
        answer = {"error": {"kind": kind, "message": str(problem)}}
    except ModuleNotFoundError as problem:
        message = f"{problem.name} is not installed; install it with: pip install 'socbench[local]'"
        answer = {"error": {"kind": "failed", "message": message}}
    except Exception as problem:  # the outermost command of this process; tools raise whatever they like
        text = " ".join(str(problem).split())[:700]
        answer = {
            "error": {"kind": "failed", "message": f"{type(problem).__module__}.{type(problem).__name__}: {text}"}
        }
    with os.fdopen(answer_to, "w") as stream:
        json.dump(answer, stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
