"""Runs one task with heavy libraries in a process of its own: the host stays light, and a crash is contained.

``python -m socbench.models.child TASK`` reads arguments as lines of JSON from standard input and answers each with a
line of JSON on what was its standard output; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
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
IDLE_S = 10.0
"""A child without a request for this long ends: it is not to take memory while something is measured."""

_FORKED = {"openvino": "openvino"}
"""Tasks whose answer would hang on what their process did before (OpenVINO numbers what it names), with what they
import: the child imports it once and answers each request in a copy of itself that has done nothing yet."""

_idle: dict[tuple[str, str], _Child] = {}
_lock = threading.Lock()


def call(task: str, arguments: dict[str, Any], *, what: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """Run ``task`` with keyword ``arguments`` (JSON) in a child process and return its answer (JSON).

    The child is kept for the next call of the same task, which spares importing the tool again; a child that crashed,
    was stopped or answered no JSON is not. ``what`` begins the sentence of an error ("making onnx-int8 of resnet8").
    Raises ModelError or FailedError with what the tool said, FailedError for a crash (the signal is named) and for a
    tool that does not come to an end.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    key = (task, json.dumps([_argv(task), sorted(environment.items())]))
    child = _taken(key)
    out = child.asked(arguments, deadline_s, what) if child is not None else None
    if out is None:  # there was none, or it had just ended for want of work
        if child is not None:
            child.end()
        child = _Child(_argv(task), environment)
        out = child.asked(arguments, deadline_s, what)
    assert child is not None
    answer = _answer(child, out, what)
    _kept(key, child)
    if "error" in answer:
        kind = ModelError if answer["error"]["kind"] == "model" else FailedError
        raise kind(f"{what} failed: {answer['error']['message']}")
    return answer


def _answer(child: _Child, out: bytes | None, what: str) -> dict[str, Any]:
    """Return what a child answered. Raises FailedError with the signal that it died of, or its last words."""
    try:
        answer: dict[str, Any] = json.loads(out or b"")
    except ValueError as problem:
        status, last = child.end()
        if status < 0:
            raise FailedError(f"{what} failed: the converter died of {signal.Signals(-status).name}") from problem
        raise FailedError(f"{what} failed: {last[:500]}") from problem
    return answer


def _taken(key: tuple[str, str]) -> _Child | None:
    """Take an idle child out of the pool."""
    with _lock:
        return _idle.pop(key, None)


def _kept(key: tuple[str, str], child: _Child) -> None:
    """Put a child into the pool in place of whatever is there: one is enough, since work comes tool by tool."""
    with _lock:
        others = list(_idle.values())
        _idle.clear()
        _idle[key] = child
    for other in others:
        other.end()


def rest() -> None:
    """End the children that are idle."""
    with _lock:
        children = list(_idle.values())
        _idle.clear()
    for child in children:
        child.end()


atexit.register(rest)


def _argv(task: str) -> list[str]:
    return [sys.executable, "-m", "socbench.models.child", task]


class _Child:
    """A child process that answers one request (a line of JSON) after the other."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.words = tempfile.TemporaryFile()  # what libraries print  # noqa: SIM115
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            env=environment,
            start_new_session=True,
        )

    def asked(self, arguments: dict[str, Any], deadline_s: float, what: str) -> bytes | None:
        """Return the line that it answers, ``None`` when it ended without one. Raises FailedError at the deadline."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(arguments).encode() + b"\n")
            self.process.stdin.flush()
            return self._line(time.monotonic() + deadline_s)
        except BrokenPipeError:
            return None
        except TimeoutError as problem:
            self.end()
            raise FailedError(f"{what} did not end within {deadline_s:.0f} s and was stopped") from problem
        except BaseException:
            self.end()
            raise

    def _line(self, until: float) -> bytes | None:
        assert self.process.stdout is not None
        place, found = self.process.stdout.fileno(), b""
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([place], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(place, 1 << 16)
            if not part:
                return found or None
            found += part
        return found

    def end(self) -> tuple[int, str]:
        """Leave no process behind; return how it ended and the last line of what it printed."""
        if self.words.closed:
            return self.process.returncode, ""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.words.seek(0)
        lines = self.words.read().decode("utf-8", "replace").strip().splitlines()
        self.words.close()
        return self.process.returncode, lines[-1] if lines else "it said nothing"


def main() -> int:
    """Answer requests as the child, until there are none for a while."""
    answer_to = os.dup(1)
    os.dup2(2, 1)
    module, _, function = _TASKS[sys.argv[1]].partition(":")
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    forked = _FORKED.get(sys.argv[1])
    if forked is not None:
        with contextlib.suppress(ModuleNotFoundError):  # the answer says so
            importlib.import_module(forked)
    with os.fdopen(answer_to, "wb", buffering=0) as stream:
        while select.select([requests], [], [], IDLE_S)[0]:
            line = _request(requests)
            if not line:
                break
            if forked is None:
                stream.write(json.dumps(_answered(module, function, line)).encode() + b"\n")
            elif (copy := os.fork()) == 0:
                stream.write(json.dumps(_answered(module, function, line)).encode() + b"\n")
                os._exit(0)
            else:
                _, status = os.waitpid(copy, 0)
                if os.WIFSIGNALED(status):  # die as the copy did: the host names the signal
                    os.kill(os.getpid(), os.WTERMSIG(status))
    return 0


def _request(requests: Any) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        part = requests.read(1 << 16)
        if not part:
            return b""
        found += part
    return found


def _answered(module: str, function: str, line: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = getattr(importlib.import_module(module), function)(**json.loads(line))
        return answer
    except SocbenchError as problem:
        kind = "model" if isinstance(problem, ModelError) else "failed"
        return {"error": {"kind": kind, "message": str(problem)}}
    except ModuleNotFoundError as problem:
        message = f"{problem.name} is not installed; install it with: pip install 'socbench[local]'"
        return {"error": {"kind": "failed", "message": message}}
    except Exception as problem:  # the outermost command of this process; tools raise whatever they like
        text = " ".join(str(problem).split())[:700]
        return {"error": {"kind": "failed", "message": f"{type(problem).__module__}.{type(problem).__name__}: {text}"}}


if __name__ == "__main__":
    sys.exit(main())
