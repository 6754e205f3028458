"""Vendors' own benchmark programs as agents: ``--agent benchmark_model`` and so on.

The native agent carries them: its supervisor is detached, cools down, binds cores and reads temperatures as always, but
the process of a repetition runs the vendor's program instead of a runtime and passes on what it prints. Nothing of that
is understood on the device; :mod:`socbench.devices.program_output` reads it here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from socbench.agents import stock
from socbench.agents.base import Agent
from socbench.agents.channel import Channel
from socbench.agents.native import NativeAgent
from socbench.cache import digest_of
from socbench.errors import AgentError
from socbench.records import Json
from socbench.transports.base import Deadline

PATH_VARIABLE: Final = "SOCBENCH_PROGRAM"
_FIND: Final = r"""
name=$1; named=$2; shift 2
if [ -n "$named" ]; then
  [ -f "$named" ] || exit 3
  [ -x "$named" ] || exit 4
  echo "$named"; exit 0
fi
for folder; do [ -f "$folder/$name" ] && [ -x "$folder/$name" ] && { echo "$folder/$name"; exit 0; }; done
command -v "$name" || exit 3
"""
_LOOK: Final = r"""
stat -c '%s %Y' "$1"
LD_LIBRARY_PATH="${1%/*}" "$1" --help 2>&1 | head -c 60000
"""
_RESULTS: Final = "results.csv"


@dataclass(frozen=True)
class _Kind:
    """What is known of a program: which runtime it measures, of what files, on which delegates (the CPU first)."""

    runtime: str
    formats: tuple[str, ...]
    delegates: tuple[str, ...]


_TFLITE: Final = ("cpu:xnnpack", "cpu:builtin", "gpu:opencl", "gpu:gl", "nnapi", "npu:qualcomm", "npu:mediatek")
_KINDS: Final = {
    "benchmark_model": _Kind("litert", ("tflite",), _TFLITE),
    "litert_benchmark_model": _Kind("litert", ("tflite",), ("cpu:xnnpack", "gpu:opencl", "npu:qualcomm")),
    "onnxruntime_perf_test": _Kind(
        "onnxruntime", ("onnx",), ("cpu:mlas", "cpu:xnnpack", "gpu:cuda", "npu:qnn", "nnapi")
    ),
    "executor_runner": _Kind("executorch", ("executorch",), ("cpu:xnnpack",)),  # the file decides where it runs
}
STOCK_AGENTS: Final = ("benchmark_model", "onnxruntime_perf_test", "executor_runner")


@dataclass(frozen=True)
class ProgramAgent(Agent):
    """The native agent that runs ``program``, a path on the device; ``kind`` is a key of what is known of it."""

    program: str = ""
    kind: str = ""

    def call(self, *arguments: str, deadline: Deadline) -> Json:
        """Return the agent's answer; ``probe`` says what the program offers. Whether it works is seen when it runs."""
        if arguments[0] != "probe":
            return super().call(*arguments, deadline=deadline)
        kind = _KINDS[self.kind]
        unknown = dict.fromkeys(("accelerator", "precisions", "reason", "fix"))
        delegates = [{"delegate": name, "available": True, "emulated": False, **unknown} for name in kind.delegates]
        entry = {"runtime": kind.runtime, "version": None, "environment": "host", "formats": list(kind.formats)}
        return {"runtimes": [{**entry, "error": None, "delegates": delegates}]}

    def adapted(self, document: Json) -> Json:
        """Return the job with the program's command line in each trial."""
        trials = {name: self._trial(trial) for name, trial in document["trials"].items()}
        return {**document, "trials": trials}

    def _trial(self, trial: Json) -> Json:
        folder = str(PurePosixPath(self.program).parent)
        settings = trial["settings"]
        options = stock.StockOptions(
            threads=trial["threads"],
            delegate=trial["delegate"],
            min_count=settings["min_count"],
            min_time_s=settings["min_time_s"],
            max_time_s=settings["max_time_s"],
            warmup_min_count=settings["warmup_min_count"],
            warmup_time_s=min(0.5, settings["warmup_max_s"]),
            exact_fp32=trial["precision"] != "fp16",
            library_dir=folder,
        )
        results = _RESULTS if self.kind == "onnxruntime_perf_test" else None
        program = {"name": self.kind, "argv": self._command(trial["model"], options), "results": results}
        return {
            **trial,
            "probe": None,
            "profile": False,
            "env": {**trial["env"], "LD_LIBRARY_PATH": folder},
            "options": {**trial["options"], "program": program},
        }

    def _command(self, model: str, options: stock.StockOptions) -> list[str]:
        if self.kind == "onnxruntime_perf_test":
            return stock.perf_test_command(self.program, model, _RESULTS, options)
        build: dict[str, Any] = {
            "benchmark_model": stock.benchmark_model_command,
            "litert_benchmark_model": stock.litert_benchmark_command,
            "executor_runner": stock.executor_runner_command,
        }
        command: list[str] = build[self.kind](self.program, model, options)
        return command


class StockAgent:
    """Finds a vendor's program on the device (an :class:`socbench.agents.base.AgentKind`)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> ProgramAgent:
        """Put the native agent there and find the program; it is never brought along.

        Raises AgentError: the program is not there (code ``program_missing``), or the native agent can't be had.
        """
        carrier = NativeAgent().install(channel, deadline=deadline, say=lambda _: None)
        program = self._find(channel, deadline)
        look = ["sh", "-c", _LOOK, "sh", program]
        done = channel.retry(lambda transport: transport.run(look, deadline=deadline))
        said = done.stdout.decode("utf-8", "replace")
        # Google gave two programs one name; the one for compiled models has a switch for the NPU as a whole.
        compiled = self.name == "benchmark_model" and "--use_npu" in said
        kind = "litert_benchmark_model" if compiled else self.name
        identity = digest_of({"carrier": carrier.identity, "program": program, "kind": kind, "said": said})
        members = {field.name: getattr(carrier, field.name) for field in dataclasses.fields(carrier)}
        return ProgramAgent(**{**members, "identity": identity}, program=program, kind=kind)

    def _find(self, channel: Channel, deadline: Deadline) -> str:
        named = os.environ.get(PATH_VARIABLE, "")
        folders = list(dict.fromkeys((str(channel.transport.root), str(channel.transport.root.parent))))
        command = ["sh", "-c", _FIND, "sh", self.name, named, *folders]
        done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
        path = done.stdout.decode("utf-8", "replace").strip()
        if done.exit_code == 0 and path.startswith("/"):
            return path
        device = channel.address
        if done.exit_code == 4:
            problem = f"{named} on {device} is not executable: chmod 755 it there"
        elif named:
            problem = f"{PATH_VARIABLE} names {named}, which is not on {device}: name the program's path on the device"
        else:
            problem = (
                f"there is no {self.name} on {device} (looked in {', '.join(folders)} and the PATH): put the vendor's "
                f"program into {folders[0]}, executable, or name its path on the device in {PATH_VARIABLE}"
            )
        raise AgentError(problem, code="program_missing")
