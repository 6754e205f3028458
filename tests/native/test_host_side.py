"""The host's side: the binary for a device, its libraries, and a whole session through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from socbench.agents import native
from socbench.agents.channel import Channel
from socbench.errors import AgentError
from socbench.transports.base import Completed, Deadline

ROOT = Path(__file__).resolve().parents[2]


class FakeTransport:
    """A fake device that answers the question what system it is."""

    def __init__(self, said: str) -> None:
        self.said = said

    def run(self, argv, *, deadline, limit_bytes=0):
        return Completed(tuple(argv), 0, self.said.encode())

    def close(self) -> None:
        pass


def channel(said: str) -> Channel:
    return Channel("fake:x", opener=lambda _: FakeTransport(said))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("said", "target"),
    [
        ("android aarch64 64", "android-arm64"),
        ("android aarch64 32", "android-armv7"),
        ("android armv8l 32", "android-armv7"),
        ("android x86_64 64", "android-x86_64"),
        ("Linux aarch64 64", "linux-arm64"),
        ("Linux aarch64 32", "linux-armv7"),
        ("Linux armv7l 32", "linux-armv7"),
        ("Linux x86_64 64", "linux-x86_64"),
    ],
)
def test_the_target_follows_what_programs_the_device_runs_not_its_kernel_alone(said, target):
    assert native.target_of(channel(said), deadline=Deadline.after(5, "it")) == target


@pytest.mark.parametrize("said", ["Darwin arm64 64", "Linux riscv64 64", "Linux x86_64 32"])
def test_a_system_without_an_agent_is_named(said):
    with pytest.raises(AgentError, match="no native agent") as caught:
        native.target_of(channel(said), deadline=Deadline.after(5, "it"))
    assert caught.value.code == "native_missing"


def test_a_wheel_without_the_builds_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "content", lambda kind: tmp_path)
    with pytest.raises(AgentError, match="make native"):
        native.binary_for("android-arm64")


def test_the_agent_lies_ready_on_this_machine_with_the_wheels_libraries(monkeypatch, tmp_path):
    monkeypatch.setenv("SOCBENCH_DEVICE_ROOT", str(tmp_path / "device"))
    link = Channel("local")
    deadline = Deadline.after(60, "the agent")
    agent = native.NativeAgent().install(link, deadline=deadline, say=lambda _: None)
    agent.check_version(deadline=deadline)
    assert agent.python is None
    runtimes = {entry["runtime"]: entry for entry in agent.call("probe", deadline=deadline)["runtimes"]}
    assert sorted(runtimes) == ["litert", "null", "onnxruntime"]
    for name, delegate in (("litert", "cpu:xnnpack"), ("onnxruntime", "cpu:mlas")):
        assert runtimes[name]["error"] is None
        there = {d["delegate"] for d in runtimes[name]["delegates"] if d["available"]}
        assert delegate in there
    assert native.NativeAgent().install(link, deadline=deadline, say=lambda _: None).identity == agent.identity
    link.close()


def test_a_session_through_the_native_agent_ends_with_checked_answers(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "harness"),
        "SOCBENCH_STORE": str(tmp_path / "store"),
        "SOCBENCH_CACHE": str(tmp_path / "cache"),
        "SOCBENCH_DEVICE_ROOT": str(tmp_path / "device"),
    }
    command = [sys.executable, "-m", "socbench", "run", "resnet8", "--agent", "native", "--precision", "fp32", "--json"]
    command += ["--runtime", "litert,onnxruntime", "--repeat", "1", "--min-time", "0.1", "--min-count", "5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)
    measured = [row for row in rows if row.get("scenario") == "single_stream"]
    assert {row["runtime"] for row in measured} == {"litert", "onnxruntime"}
    text = json.dumps(measured)
    assert '"full"' in text
    assert "outputs_differ" not in text
    (folder,) = (tmp_path / "store" / "sessions").iterdir()
    told = json.loads((folder / "session.json").read_text())["accelerators"]["local"]
    assert set(told) == {"gles", "opencl", "vulkan", "nnapi", "libraries"}
    assert (told["gles"], told["nnapi"]) == (None, None), "this machine is no phone"
    assert isinstance(told["opencl"], list)
