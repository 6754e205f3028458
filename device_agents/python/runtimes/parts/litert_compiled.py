"""LiteRT's CompiledModel: the GPU accelerator of the wheel, and NPUs by compiler plugin and dispatch library.

The accelerator is asked for alone. With the CPU beside it LiteRT reports full acceleration even when there is no
accelerator at all; alone it refuses. Which adapter or device it took, and how many operations a plugin selected, it
says only in its log, so that is read. ``run`` returns before a GPU is done: the timed call reads the outputs too.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import os
import re
from typing import Any, Dict, List, Optional, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    RuntimeProblem,
    Session,
    cpu_name,
    delegate_entry,
    match_inputs,
    misfit,
    part,
    wanted_shapes,
)

Json = Dict[str, Any]
GPU_LIBRARIES = {
    "gpu:webgpu": ("libLiteRtWebGpuAccelerator.so", "libLiteRtWebGpuAccelerator.dll"),
    "gpu:opencl": ("libLiteRtGpuAccelerator.so", "libLiteRtOpenClAccelerator.so"),
    "gpu:gl": ("libLiteRtGlAccelerator.so",),
}
VENDORS = {
    "npu:qualcomm": "qualcomm",
    "npu:mediatek": "mediatek",
    "npu:google": "google_tensor",
    "npu:samsung": "samsung",
    "npu:intel": "intel_openvino",
}
PARTITIONS = re.compile(r"selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+) partitions")
ADAPTER = re.compile(r"Selected adapter: (.+?), arch=.*?adapterType=([^\n]*)")
OPENVINO_DEVICE = re.compile(r"Using Intel OpenVINO device: (\S+)")
HOST_MEMORY = 1
"""LiteRtTensorBufferType of memory that is the CPU's."""


class CompiledSession(Session):  # type: ignore[misc]
    """A CompiledModel on one accelerator, its inputs written before the runs."""

    def __init__(self, version: str, model: str, trial: Json) -> None:
        self.version = version
        self.trial = trial
        against = reason(trial["delegate"])
        if against is not None:
            raise RuntimeProblem(
                "delegate_missing", "litert has no {} here: {}".format(trial["delegate"], against[0]), against[1]
            )
        self.partial = False
        self.said, self.model = self._create(model)
        signature = next(iter(self.model.get_signature_list()))
        self.inputs, self.output_specs = self._specs(model, signature)
        self._resize(trial)
        self.buffers = self.model.create_input_buffers(0)
        self.results = self.model.create_output_buffers(0)
        self.reads = [_reader(buffer, spec) for buffer, spec in zip(self.results, self.output_specs)]
        self.arrays: List[Any] = []
        self.run = self._once

    def _create(self, model: str) -> Tuple[str, Any]:
        """Compile for the accelerator alone; where a plugin leaves operations, again with the CPU for those."""
        from ai_edge_litert.compiled_model import CompiledModel, HardwareAccelerator

        kind = HardwareAccelerator.GPU if self.trial["delegate"].startswith("gpu") else HardwareAccelerator.NPU

        def attempt(accelerators: Any) -> Any:
            try:
                return CompiledModel.from_file(model, options=_options(accelerators, self.trial))
            except (RuntimeError, ValueError) as error:
                return error

        said, made = part("hearing").heard(lambda: attempt(kind))
        counts = PARTITIONS.search(said)
        if isinstance(made, Exception) and counts and 0 < int(counts.group(1)) < int(counts.group(2)):
            self.partial = True
            said, made = part("hearing").heard(lambda: attempt(kind | HardwareAccelerator.CPU))
            if not isinstance(made, Exception) and "plugins were applied successfully" not in said:
                made = RuntimeError("the plugin was not applied, and the CPU would have done all of the work")
        if isinstance(made, Exception):
            raise _problem(made, said, model, self.trial["delegate"])
        return said, made

    def _specs(self, model: str, signature: str) -> Tuple[List[Json], List[Json]]:
        """Return inputs and outputs in the signature's order; scales come from an interpreter, which knows them."""
        from ai_edge_litert.interpreter import Interpreter

        listed = self.model.get_signature_list()[signature]
        interpreter = Interpreter(model_path=model, num_threads=1)
        details = interpreter.get_tensor_details()
        quantised = {item["name"]: item["quantization"] for item in details}
        open_shapes = {item["name"]: item.get("shape_signature") for item in details}
        made = []
        for names, known in (
            (listed["inputs"], self.model.get_input_tensor_details(signature)),
            (listed["outputs"], self.model.get_output_tensor_details(signature)),
        ):
            made.append([_spec(known[name], quantised, open_shapes) for name in names])
        return made[0], made[1]

    def _resize(self, trial: Json) -> None:
        for name, shape in wanted_shapes(self.inputs, trial).items():
            index = next(i for i, spec in enumerate(self.inputs) if spec["name"] == name)
            try:
                self.model.resize_input_tensor(index, shape)
            except (RuntimeError, ValueError):
                raise misfit(name, shape, self.inputs[index]["shape"]) from None
            self.inputs[index]["shape"] = list(shape)
        signature = next(iter(self.model.get_signature_list()))
        known = self.model.get_output_tensor_details(signature)
        for spec, detail in zip(self.output_specs, known.values()):
            spec["shape"] = [int(size) for size in detail["shape"]]

    def _once(self) -> None:
        """Run and read: only what has been read is there."""
        self.model.run_by_index(0, self.buffers, self.results)
        self.arrays = [read() for read in self.reads]

    def bind(self, inputs: Json) -> None:
        """Write copies of the inputs into the accelerator's buffers."""
        for buffer, array in zip(self.buffers, match_inputs(self.inputs, inputs)):
            buffer.write(array)

    def outputs(self) -> Json:
        """Return copies of the outputs that the last run read."""
        return {
            spec["name"]: array.reshape(spec["shape"]).copy() for spec, array in zip(self.output_specs, self.arrays)
        }

    def describe(self) -> Json:
        """Return what LiteRT and its log say; asked for alone, an accelerator that is there has every operation."""
        counts = PARTITIONS.search(self.said)
        mine, total, partitions = map(int, counts.groups()) if counts else (None, None, None)
        on_host = self.model.get_output_buffer_requirements(0)["supported_types"] == [HOST_MEMORY]
        shown = counts or ADAPTER.search(self.said) or not on_host
        whole = shown and self.model.is_fully_accelerated()
        delegation = "partial" if self.partial else "full" if whole else "unknown"
        name, emulated = accelerator(self.trial["delegate"], self.said)
        return {
            "runtime_version": self.version,
            "delegate_effective": self.trial["delegate"],
            "accelerator": name,
            "emulated": emulated,
            "delegation": delegation,
            "delegation_evidence": "reported" if delegation != "unknown" else "none",
            "nodes_total": total,
            "nodes_delegated": mine,
            "partitions": partitions,
            "precision_effective": self._precision(),
            "threads_effective": None,
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {"buffer_types": self.model.get_output_buffer_requirements(0)["supported_types"]},
        }

    def _precision(self) -> Optional[str]:
        """Return the precision where it is known: float32 is enforced; fp16 needs a device that has it."""
        if not self.trial["delegate"].startswith("gpu"):
            return "int8" if self.trial["precision"] == "int8" else None
        if self.trial["precision"] != "fp16":
            return "fp32"  # integers are brought to float there
        device = part("vulkan").chosen()
        return None if device is None or device["fp16"] is None else "fp16" if device["fp16"] else "fp32"

    def close(self) -> None:
        """Free buffers before the model."""
        self.run = self.reads = self.buffers = self.results = None  # type: ignore[assignment]
        self.model.close()


def _options(accelerators: Any, trial: Json) -> Any:
    from ai_edge_litert.compiled_model import CpuOptions, GpuOptions, Options

    more: Dict[str, Any] = {}
    if trial["delegate"] == "npu:intel":
        from ai_edge_litert.intel_openvino_options import IntelOpenVinoGraphBackend, IntelOpenVinoOptions

        backend = IntelOpenVinoGraphBackend.NPU if _intel_npu() else IntelOpenVinoGraphBackend.CPU
        more["intel_openvino_options"] = IntelOpenVinoOptions(graph_backend=backend)
    return Options(
        hardware_accelerators=accelerators,
        cpu_options=CpuOptions(num_threads=trial["threads"]),
        gpu_options=GpuOptions(enforce_f32=trial["precision"] != "fp16"),
        **more,
    )


def _reader(buffer: Any, spec: Json) -> Any:
    import numpy as np

    count = 1
    for size in spec["shape"]:
        count *= size
    return functools.partial(buffer.read, count, np.dtype(spec["dtype"]).type)


def _spec(detail: Json, quantised: Dict[str, Any], open_shapes: Dict[str, Any]) -> Json:
    import numpy as np

    scale, zero_point = quantised.get(detail["name"], (0.0, 0))
    shape = [int(size) for size in detail["shape"]]
    signature = open_shapes.get(detail["name"])
    if signature is not None and len(signature) == len(shape):
        shape = [None if known < 0 else size for known, size in zip(signature, shape)]  # type: ignore[misc]
    return {
        "name": detail["name"],
        "dtype": np.dtype(detail["dtype"]).name,
        "shape": shape,
        "scale": float(scale) or None,
        "zero_point": int(zero_point) if scale else None,
    }


def _problem(error: Exception, said: str, model: str, delegate: str) -> RuntimeProblem:
    name = os.path.basename(model)
    text = " ".join(str(error).split())[-300:]
    lines = [line for line in said.splitlines() if re.match(r"(ERROR|WARNING)|.*not supported|.*No adapters", line)]
    last = " ".join(lines[-1].split())[:300] if lines else ""
    if "Some ops are not accelerated" in text:
        message = f"{delegate} does not take all operations of {name}, and nothing else was asked for"
        return RuntimeProblem("op_unsupported", f"{message}: {last or text}")
    if re.search(r"[Ff]lat[Bb]uffer|[Ii]nvalid (model|file)|Failed to build|verify", text + last):
        return RuntimeProblem("model_invalid", f"{name} is not a model that LiteRT can load: {text}")
    if "Failed to modify graph" in text + said:
        return RuntimeProblem("op_unsupported", f"{delegate} cannot take {name}: {last or text}")
    return RuntimeProblem("run_failed", f"{delegate} cannot load {name}: {text} {last}")


def accelerator(delegate: str, said: str = "") -> Tuple[Optional[str], bool]:
    """Return the name of what does the work and whether it is software, from the log or, without, from what is here."""
    if delegate == "npu:intel":
        found = OPENVINO_DEVICE.search(said)
        device = found.group(1) if found else "NPU" if _intel_npu() else "CPU"
        if device == "NPU":
            return "Intel NPU", False
        return f"OpenVINO's {device} device ({cpu_name()}) in the place of an NPU", True
    found = ADAPTER.search(said)
    if found:
        software = re.search(r"CPU|Software", found.group(2)) or part("vulkan").SOFTWARE.search(found.group(1))
        return found.group(1), bool(software)
    if delegate.startswith("gpu"):
        device = part("vulkan").chosen()
        return (device["name"], device["software"]) if device else (None, False)
    return None, False


def _intel_npu() -> bool:
    return bool(glob.glob("/dev/accel/accel*"))


def _package() -> Optional[str]:
    try:
        import ai_edge_litert
        import ai_edge_litert.compiled_model
    except ImportError:
        return None
    return os.path.dirname(os.path.abspath(ai_edge_litert.__file__))


def reason(delegate: str) -> Optional[Tuple[str, str]]:
    """Return why an accelerator cannot be had here and what to do, or None when it can."""
    folder = _package()
    if folder is None:
        return "this package of LiteRT has no CompiledModel", "pip install ai-edge-litert"
    if delegate in GPU_LIBRARIES:
        names = GPU_LIBRARIES[delegate]
        if not any(os.path.exists(os.path.join(folder, name)) for name in names):
            return f"the package has no {names[0]}", "use a build of LiteRT that carries it"
        if delegate == "gpu:webgpu" and part("vulkan").chosen() is None:
            return str(part("vulkan").reason()), "install the GPU's Vulkan driver"
        return None
    vendor = VENDORS.get(delegate)
    if vendor is None:
        return "it is not known", "use one of " + ", ".join((*GPU_LIBRARIES, *VENDORS))
    libraries = glob.glob(os.path.join(folder, "vendors", vendor, "dispatch", "*.so"))
    if not libraries:
        return f"the package has no dispatch library for {vendor}", "run on a device with that NPU and its libraries"
    try:
        ctypes.CDLL(libraries[0])
    except OSError as error:
        return f"its dispatch library does not load: {error}", "install the vendor's libraries that it was built with"
    return None


def entries() -> List[Json]:
    """Return the probe's entries of every accelerator."""
    made = []
    for delegate in (*GPU_LIBRARIES, *VENDORS):
        against = reason(delegate)
        if against is not None:
            made.append(delegate_entry(delegate, None, against[0], fix=against[1]))
        else:
            name, emulated = accelerator(delegate)
            made.append(delegate_entry(delegate, name, emulated=emulated))
    return made
