"""ncnn: CPU and Vulkan.

``ncnn.Mat(array)`` borrows the array's memory, so every array given to it is kept alive by the session. Delegation is
counted on the layers: each says whether it supports Vulkan, and ncnn runs those that do not on the CPU.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Optional, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_name,
    delegate_entry,
    delegate_missing,
    match_inputs,
    misfit,
    missing,
    part,
    thread_count,
    wanted_shapes,
)

Json = Dict[str, Any]
MAGIC = "7767517"
GPU_IS_CPU = 3
"""``GpuInfo.type()`` of a device that is the CPU."""
FIX = "socbench runtimes install ncnn"


class NcnnSession(Session):  # type: ignore[misc]
    """A network whose inputs are bound as matrices over arrays that are kept here."""

    def __init__(self, model: str, trial: Json) -> None:
        import ncnn

        self.ncnn = ncnn
        self.trial = trial
        self.vulkan = trial["delegate"] == "gpu:vulkan"
        self.gpu = _gpu(ncnn) if self.vulkan else None
        if trial["delegate"] not in ("cpu:ncnn", "gpu:vulkan") or (self.vulkan and self.gpu is None):
            have = ["cpu:ncnn", *(["gpu:vulkan"] if _gpu(ncnn) else [])]
            raise delegate_missing("ncnn", trial["delegate"], have, str(part("vulkan").reason()))
        self.inputs, names = read_param(model)
        if wanted_shapes(self.inputs, trial):
            spec = self.inputs[0]
            raise misfit(spec["name"], (trial.get("shapes") or {}).get(spec["name"], [trial["batch"]]), spec["shape"])
        self.before = thread_count()
        self.net = _load(ncnn, model, trial, self.vulkan)
        self.outputs_specs = [
            {"name": name, "dtype": "float32", "shape": [], "scale": None, "zero_point": None} for name in names
        ]
        self.arrays: List[Any] = []
        self.mats: List[Tuple[str, Any]] = []
        self.results: List[Any] = []
        self.threads: Optional[int] = None
        self.run = self._one

    def bind(self, inputs: Json) -> None:
        """Make matrices over copies of the inputs; ncnn has no batch, so the first dimension, of one, is left away."""
        self.arrays = [array[0].copy() for array in match_inputs(self.inputs, inputs)]
        self.mats = [(spec["name"], self.ncnn.Mat(array)) for spec, array in zip(self.inputs, self.arrays)]

    def _one(self) -> None:
        """One inference as ncnn wants it: an extractor each time. On Vulkan the result is downloaded, so it is done."""
        extractor = self.net.create_extractor()
        for name, mat in self.mats:
            extractor.input(name, mat)
        self.results = [extractor.extract(spec["name"]) for spec in self.outputs_specs]

    def outputs(self) -> Json:
        """Return copies of the last run's outputs, with their batch of one."""
        import numpy as np

        if self.threads is None:
            self.threads = thread_count() - self.before + 1
        made = {}
        for spec, (status, mat) in zip(self.outputs_specs, self.results):
            if status != 0:
                raise RuntimeProblem("run_failed", "ncnn could not compute {} ({})".format(spec["name"], status))
            made[spec["name"]] = np.array(mat, dtype=np.float32)[None]
        return made

    def describe(self) -> Json:
        """Count the layers that Vulkan takes; on the CPU all are ncnn's own."""
        layers = [layer for layer in self.net.layers() if layer.type != "Input"]
        used = bool(self.net.opt.use_vulkan_compute)
        mine = [layer for layer in layers if not self.vulkan or (used and layer.support_vulkan)]
        rest = sorted({str(layer.type) for layer in layers if layer not in mine})
        delegation = "full" if len(mine) == len(layers) else "partial" if mine else "fell_back"
        gpu = self.gpu if delegation != "fell_back" else None
        return {
            "runtime_version": self.ncnn.__version__,
            "delegate_effective": "cpu:ncnn" if delegation == "fell_back" else self.trial["delegate"],
            "accelerator": gpu["name"] if gpu else cpu_name(),
            "emulated": bool(gpu and gpu["software"]),
            "delegation": delegation,
            "delegation_evidence": "counted",
            "nodes_total": len(layers),
            "nodes_delegated": len(mine),
            "partitions": 1 if delegation == "full" else None,
            "precision_effective": self._precision(gpu),
            "threads_effective": self.threads,
            "inputs": self.inputs,
            "outputs": self.outputs_specs,
            "details": {"not_delegated": rest, "gpu": gpu},
        }

    def _precision(self, gpu: Optional[Json]) -> Optional[str]:
        """Return what is computed in: fp16 files are stored so, and computed so only where there is such arithmetic."""
        if self.trial["precision"] != "fp16":
            return "fp32" if self.trial["precision"] == "fp32" else None
        if gpu is not None:
            return None if gpu["fp16_arithmetic"] is None else "fp16" if gpu["fp16_arithmetic"] else "fp32"
        return "fp16" if self.ncnn.cpu_support_arm_asimdhp() else "fp32"

    def evidence(self) -> Json:
        """Return the threads there were once ncnn had run: it makes them in the first run."""
        return {} if self.vulkan or self.threads is None else {"threads_effective": self.threads}

    def close(self) -> None:
        """Drop the network before the arrays that it reads."""
        self.results = []
        self.net = self.run = None  # type: ignore[assignment]
        self.mats = []


def _load(ncnn: Any, model: str, trial: Json, vulkan: bool) -> Any:
    """Return a network with everything set that ncnn would choose by itself: it stores in fp16 unless told not to."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute = vulkan
    net.opt.num_threads = trial["threads"]
    half = trial["precision"] == "fp16"
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, name, half)
    for name in ("use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, name, False)
    weights = os.path.splitext(model)[0] + ".bin"
    name = os.path.basename(model)
    if not os.path.exists(weights):
        raise RuntimeProblem("model_missing", f"{name} needs its weights {os.path.basename(weights)} beside it")
    said, status = part("hearing").heard(lambda: net.load_param(model) or net.load_model(weights))
    unknown = re.search(r"layer (\S+) not exists", said)
    if unknown:
        raise RuntimeProblem("op_unsupported", f"ncnn lacks an operator of {name}: {unknown.group(1)}")
    if status != 0:
        raise RuntimeProblem("model_invalid", f"{name} is not a model that ncnn can load: {said[-300:] or status}")
    return net


def read_param(model: str) -> Tuple[List[Json], List[str]]:
    """Return the inputs that a .param declares and the names of its outputs. RuntimeProblem ``model_invalid``."""
    name = os.path.basename(model)
    problem = RuntimeProblem("model_invalid", f"{name} is not a model that ncnn can load: it is no .param file")
    try:
        with open(model, encoding="utf-8") as file:
            lines = [line.split() for line in file.read(1 << 24).splitlines()]
        if not lines or lines[0] != [MAGIC]:
            raise problem
        inputs, made, taken = [], [], set()
        for words in lines[2:]:
            if not words:
                continue
            ins, outs = int(words[2]), int(words[3])
            taken.update(words[4 : 4 + ins])
            made += words[4 + ins : 4 + ins + outs]
            if words[0] == "Input":
                inputs.append(_spec(words[4], dict(word.split("=", 1) for word in words[4 + ins + outs :])))
    except (ValueError, IndexError, UnicodeDecodeError):
        raise problem from None
    outputs = [blob for blob in made if blob not in taken]
    if not inputs or not outputs:
        raise problem
    return inputs, outputs


def _spec(name: str, params: Dict[str, str]) -> Json:
    sizes = [int(params.get(key, 0)) for key in ("2", "11", "1", "0")]
    shape = [1, *(size for size in sizes if size > 0)]
    return {"name": name, "dtype": "float32", "shape": shape, "scale": None, "zero_point": None}


_gpus: Dict[str, Optional[Json]] = {}


def _gpu(ncnn: Any) -> Optional[Json]:
    """Return the Vulkan device that ncnn takes, or None. Whether it has fp16 arithmetic, only its log tells."""
    if "default" not in _gpus:
        said, _ = part("hearing").heard(ncnn.create_gpu_instance)
        _gpus["default"] = None
        if ncnn.get_gpu_count() > 0:
            index = ncnn.get_default_gpu_index()
            info = ncnn.get_gpu_info(index)
            half = re.search(rf"\[{index} [^\]]*\]\s+fp16-p/s/u/a=\d/\d/\d/(\d)", said)
            name = str(info.device_name())
            software = info.type() == GPU_IS_CPU or part("vulkan").SOFTWARE.search(name) is not None
            arithmetic = half.group(1) == "1" if half else None
            _gpus["default"] = {"name": name, "software": software, "fp16_arithmetic": arithmetic}
    return _gpus["default"]


class NcnnAdapter(Adapter):  # type: ignore[misc]
    """ncnn."""

    name = "ncnn"
    formats = ["ncnn"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import ncnn."""
        try:
            import ncnn
        except ImportError as error:
            raise missing("ncnn", error, FIX) from None
        if not hasattr(ncnn, "Net"):
            raise RuntimeProblem("runtime_broken", "the Python package ncnn is empty", "install it again")

    def probe(self) -> Json:
        """Ask for the Vulkan device."""
        self.import_runtime()
        import ncnn

        gpu = _gpu(ncnn)
        half = ["fp32", "fp16"] if ncnn.cpu_support_arm_asimdhp() else ["fp32"]
        entries = [delegate_entry("cpu:ncnn", cpu_name(), precisions=half)]
        if gpu is None:
            fix = "install the GPU's Vulkan driver"
            entries.append(delegate_entry("gpu:vulkan", None, str(part("vulkan").reason()), fix=fix))
        else:
            precisions = ["fp32", "fp16"] if gpu["fp16_arithmetic"] else ["fp32"]
            entries.append(delegate_entry("gpu:vulkan", gpu["name"], emulated=gpu["software"], precisions=precisions))
        return {
            "runtime": self.name,
            "version": ncnn.__version__,
            "formats": self.formats,
            "error": None,
            "delegates": entries,
        }

    def load(self, model: str, trial: Json) -> Session:
        """Read the network."""
        return NcnnSession(model, trial)


ADAPTER = NcnnAdapter()
