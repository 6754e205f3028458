"""The vendors' libraries as they come in the wheels, and libraries that are broken, wrong or fake."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / "models"
RESNET = MODELS / "resnet8"


@pytest.fixture(scope="session")
def fake_tflite(compile_library):
    return compile_library((HERE / "fake_tflite.c").read_text(), "libtensorflowlite_jni.so")


@pytest.mark.parametrize(
    ("runtime", "delegate", "model"),
    [
        ("onnxruntime", "cpu:mlas", RESNET / "resnet8-fp32.onnx"),
        ("litert", "cpu:xnnpack", RESNET / "resnet8-fp32.tflite"),
        ("litert", "cpu:builtin", RESNET / "resnet8-fp32.tflite"),
    ],
)
def test_both_agents_get_the_same_answers_from_the_same_library(
    native_agent, python_agent, trial, run_job, only, wheel_folder, runtime, delegate, model
):
    python = run_job(python_agent, trial(runtime, delegate, model), "python")
    native = run_job(native_agent, trial(runtime, delegate, model, runtime_dir=wheel_folder(runtime)), "native")
    assert only(native, "outputs")["tensors"] == only(python, "outputs")["tensors"], "bit for bit"
    mine, other = only(native, "loaded"), only(python, "loaded")
    for name in (
        *("runtime_version", "delegate_effective", "delegation", "nodes_total", "nodes_delegated", "threads_effective"),
        *("inputs", "outputs", "precision_effective", "emulated", "accelerator"),
    ):
        assert mine[name] == other[name], name
    assert mine["delegation"] == "full"
    assert mine["delegation_evidence"] in ("reported", "counted")


def test_a_batch_that_the_file_leaves_open_is_taken_by_both(
    native_agent, python_agent, trial, run_job, only, wheel_folder, tmp_path
):
    from tiny_network import write_onnx

    model = write_onnx(tmp_path / "tiny.onnx")
    python = run_job(python_agent, trial("onnxruntime", "cpu:mlas", model, batch=3), "python")
    native = run_job(
        native_agent,
        trial("onnxruntime", "cpu:mlas", model, batch=3, runtime_dir=wheel_folder("onnxruntime")),
        "native",
    )
    assert only(native, "outputs")["tensors"][0]["shape"] == [3, 5]
    assert only(native, "outputs")["tensors"] == only(python, "outputs")["tensors"]


def test_the_profile_has_a_row_for_each_kernel(native_agent, trial, run_job, only, wheel_folder):
    for runtime, name in (("onnxruntime", "resnet8-fp32.onnx"), ("litert", "resnet8-fp32.tflite")):
        delegate = {"onnxruntime": "cpu:mlas", "litert": "cpu:xnnpack"}[runtime]
        job = trial(runtime, delegate, RESNET / name, runtime_dir=wheel_folder(runtime), profile=True)
        rows = only(run_job(native_agent, job, runtime), "ops")["rows"]
        assert len(rows) >= 10
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert any("Conv" in row[1] for row in rows)
        assert all(row[4] >= 0 and row[5] >= 1 for row in rows)


def test_a_runtime_that_is_nowhere_is_missing_with_the_command_that_fetches_it(
    native_agent, trial, run_job, only, tmp_path
):
    for runtime, delegate, name in (
        ("onnxruntime", "cpu:mlas", "libonnxruntime.so"),
        ("litert", "nnapi", "libLiteRt.so"),
    ):
        error = only(run_job(native_agent, trial(runtime, delegate, RESNET / "card.yaml"), runtime), "error")
        assert (error["code"], name in error["message"]) == ("runtime_missing", True)
        assert "socbench runtimes fetch" in error["advice"]


def test_a_library_of_another_architecture_is_broken_and_the_loader_says_why(
    native_agent, trial, run_job, only, tmp_path, wheel_folder
):
    folder = tmp_path / "lib"
    folder.mkdir()
    library = bytearray(Path(wheel_folder("onnxruntime"), "libonnxruntime_providers_shared.so").read_bytes())
    struct.pack_into("<H", library, 18, 183)  # an arm64 library by its header
    (folder / "libonnxruntime.so").write_bytes(library)
    job = trial("onnxruntime", "cpu:mlas", RESNET / "resnet8-fp32.onnx", runtime_dir=str(folder))
    error = only(run_job(native_agent, job), "error")
    assert error["code"] == "runtime_broken"
    assert "libonnxruntime.so" in error["message"]
    assert "another architecture" in error["message"]
    assert "machine 183" in error["message"]


def test_a_library_that_lacks_a_function_is_named_with_the_function(
    native_agent, trial, run_job, only, compile_library
):
    folder = compile_library("int nothing;", "libonnxruntime.so")
    job = trial("onnxruntime", "cpu:mlas", RESNET / "resnet8-fp32.onnx", runtime_dir=str(folder))
    assert "lacks OrtGetApiBase" in only(run_job(native_agent, job, "a"), "error")["message"]
    folder = compile_library("int LiteRtCreateEnvironment(void) { return 0; }", "libLiteRt.so")
    job = trial("litert", "cpu:xnnpack", RESNET / "resnet8-fp32.tflite", runtime_dir=str(folder))
    error = only(run_job(native_agent, job, "b"), "error")
    assert (error["code"], "lacks LiteRtCreateModelFromFile" in error["message"]) == ("runtime_broken", True)


def test_a_runtime_that_is_too_old_is_refused_by_its_version(native_agent, trial, run_job, only, compile_library):
    source = """
    static const void *get(unsigned version) { return 0; }
    static const char *name(void) { return "1.9.0"; }
    static const struct { const void *(*get)(unsigned); const char *(*name)(void); } base = {get, name};
    const void *OrtGetApiBase(void) { return &base; }"""
    folder = compile_library(source, "libonnxruntime.so")
    job = trial("onnxruntime", "cpu:mlas", RESNET / "resnet8-fp32.onnx", runtime_dir=str(folder))
    error = only(run_job(native_agent, job), "error")
    assert (error["code"], "1.9.0" in error["message"]) == ("runtime_broken", True)


def interpreter(trial, folder, way, **changes):
    changes = {"env": {"FAKE_TFLITE": way}, **changes}
    delegate = changes.pop("delegate", "cpu:xnnpack")
    return trial("litert", delegate, RESNET / "resnet8-fp32.tflite", runtime_dir=str(folder), **changes)


def test_the_interpreters_api_runs_and_its_log_is_read_once(native_agent, trial, run_job, only, fake_tflite, tmp_path):
    (tmp_path / "x.bin").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    probe = {"count": 1, "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4], "file": "../x.bin"}]}
    events = run_job(native_agent, interpreter(trial, fake_tflite, "full", probe=probe))
    tensor = only(events, "outputs")["tensors"][0]
    assert tensor["sha256"] == hashlib.sha256(struct.pack("<4f", 1, 2, 3, 4)).hexdigest()
    loaded = only(events, "loaded")
    assert loaded["runtime_version"] == "9.9.9-fake"
    assert (loaded["delegation"], loaded["nodes_delegated"], loaded["nodes_total"], loaded["partitions"]) == (
        "full",
        5,
        5,
        1,
    )
    assert "Replacing 5 out of 5" in (tmp_path / "job" / "agent.log").read_text(), "the log is passed on"


PLUGIN = """
#include <string.h>
typedef void Report(const char *);
void *tflite_plugin_create_delegate(const char **keys, const char **values, unsigned long count, Report *report) {
  if (count && strcmp(values[0], "none") == 0) { report("no such device"); return 0; }
  return (void *)keys;
}
void tflite_plugin_destroy_delegate(void *delegate) {}"""


@pytest.fixture(scope="session")
def with_plugin(fake_tflite, compile_library):
    folder = compile_library(PLUGIN, "libfakedelegate.so")
    shutil.copy(fake_tflite / "libtensorflowlite_jni.so", folder)
    (folder / "libnodelegate.so").write_bytes((fake_tflite / "libtensorflowlite_jni.so").read_bytes())
    return folder


def test_an_external_delegate_that_takes_half_is_partial_whatever_xnnpack_takes_of_the_rest(
    native_agent, trial, run_job, only, with_plugin
):
    loaded = only(
        run_job(native_agent, interpreter(trial, with_plugin, "half", delegate="npu:libfakedelegate.so")), "loaded"
    )
    assert (loaded["delegation"], loaded["nodes_delegated"], loaded["nodes_total"], loaded["partitions"]) == (
        "partial",
        3,
        5,
        2,
    )
    assert loaded["delegate_effective"] == "npu:libfakedelegate.so"
    assert loaded["precision_effective"] is None, "nothing tells what an accelerator computes in"


@pytest.mark.parametrize(
    ("changes", "way", "code", "words"),
    [
        ({}, "crash", "crashed", "SIGSEGV"),
        ({}, "no model", "model_invalid", "resnet8"),
        ({}, "no delegate", "delegate_missing", "cpu:xnnpack"),
        ({}, "refuse quietly", "delegate_missing", "cpu:xnnpack refuses resnet8"),
        ({}, "fails late", "run_failed", "status is 1"),
        ({"delegate": "npu:libfakedelegate.so"}, "refuse", "delegate_missing", "CUMSUM"),
        (
            {"delegate": "npu:libfakedelegate.so", "options": {"delegate_options": {"device": "none"}}},
            "half",
            "delegate_missing",
            "no such device",
        ),
        ({"delegate": "npu:libnodelegate.so"}, "half", "delegate_missing", "tflite_plugin_create_delegate"),
        ({"delegate": "npu:../x"}, "half", "delegate_missing", "npu:../x"),
        ({"delegate": "gpu:gl"}, "half", "delegate_missing", "it has cpu:xnnpack"),
        ({"delegate": "cpu:builtin"}, "half", "delegate_missing", "cpu:builtin"),
    ],
)
def test_what_a_delegate_or_library_does_wrong_is_said_as_what_it_is(
    native_agent, trial, run_job, only, with_plugin, changes, way, code, words
):
    events = run_job(native_agent, interpreter(trial, with_plugin, way, **changes))
    error = only(events, "error")
    assert error["code"] == code
    assert words in error["message"]
    if way == "crash":
        assert "no such handle" in only(events, "log")["text"], "a driver's last words are kept"


def test_a_file_that_is_no_model_is_invalid(native_agent, trial, run_job, only, wheel_folder, tmp_path):
    (tmp_path / "bad").write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 100)
    for runtime, delegate in (("onnxruntime", "cpu:mlas"), ("litert", "cpu:xnnpack")):
        job = trial(runtime, delegate, tmp_path / "bad", runtime_dir=wheel_folder(runtime))
        events = run_job(native_agent, job, runtime)
        assert only(events, "error")["code"] in ("model_invalid", "crashed"), only(events, "error")
    os.truncate(tmp_path / "bad", 6)
    job = trial("litert", "cpu:xnnpack", tmp_path / "bad", runtime_dir=wheel_folder("litert"))
    assert only(run_job(native_agent, job, "short"), "error")["code"] == "model_invalid"
