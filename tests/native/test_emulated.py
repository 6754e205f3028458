"""The linux-arm64 build with the arm64 wheels' libraries, under qemu-user: slow, and right."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from device_tools import CACHE, arm_tools, emulation_tools
from socbench.environments.vendor import fetch

ROOT = Path(__file__).resolve().parents[2]
RESNET = ROOT / "models" / "resnet8"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The arm64 wheels' libraries, fetched once into the cache of the device tools."""
    before = os.environ.get("SOCBENCH_CACHE")
    os.environ["SOCBENCH_CACHE"] = str(CACHE / "native")
    try:
        return fetch("linux-arm64")
    finally:
        if before is None:
            del os.environ["SOCBENCH_CACHE"]
        else:
            os.environ["SOCBENCH_CACHE"] = before


@pytest.fixture
def arm_agent(tmp_path, monkeypatch):
    """The arm64 agent in Debian's arm64 root; the kernel of this machine shows it an arm64 CPU."""
    emulation = emulation_tools()
    cpuinfo = tmp_path / "cpuinfo"
    block = "processor\t: {}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\nFeatures\t: fp asimd\n\n"
    cpuinfo.write_text("".join(block.format(number) for number in range(2)))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{emulation}/usr/lib/x86_64-linux-gnu")
    monkeypatch.setenv("PROOT_TMP_DIR", str(tmp_path))
    # The CPU `max` of qemu 7.2 gives wrong sums with the int8 matrix instructions, which an A76 lacks.
    monkeypatch.setenv("QEMU_CPU", "cortex-a76")
    proot = [
        str(emulation / "usr/bin/proot"),
        "-q",
        str(emulation / "usr/bin/qemu-aarch64-static"),
        "-r",
        str(arm_tools()),
    ]
    for folder in ("/proc", "/dev", "/sys", str(ROOT), "/tmp", f"{cpuinfo}:/proc/cpuinfo"):
        proot += ["-b", folder]
    program = ROOT / "device_agents" / "native" / "build" / "socbench-agent-linux-arm64"
    return [*proot, "-b", str(tmp_path), "-w", "/", str(program)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "delegate", "model"),
    [("onnxruntime", "cpu:mlas", "resnet8-fp32.onnx"), ("litert", "cpu:xnnpack", "resnet8-fp32.tflite")],
)
def test_an_arm64_board_without_python_gives_the_answers_of_this_machine(
    arm_agent, native_agent, trial, run_job, only, wheel_folder, libraries, tmp_path, runtime, delegate, model
):
    paths = f"{libraries}:/lib/aarch64-linux-gnu:/usr/lib/aarch64-linux-gnu"
    there = trial(runtime, delegate, RESNET / model, runtime_dir=str(libraries), env={"LD_LIBRARY_PATH": paths})
    far = run_job(arm_agent, there, "far")
    near = run_job(native_agent, trial(runtime, delegate, RESNET / model, runtime_dir=wheel_folder(runtime)), "near")
    answers = [
        np.fromfile(tmp_path / name / only(events, "outputs")["tensors"][0]["file"], np.float32)
        for name, events in (("far", far), ("near", near))
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-4)
    loaded = only(far, "loaded")
    assert (loaded["delegation"], loaded["delegate_effective"]) == ("full", delegate)
    assert loaded["runtime_version"] == {"onnxruntime": "1.31.1", "litert": "2.3.0"}[runtime]
    assert only(far, "done")["measured_count"] >= 3
