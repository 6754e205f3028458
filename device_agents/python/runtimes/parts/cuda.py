"""The few calls of CUDA's runtime that an inference needs, through NVIDIA's own bindings (``cuda-bindings``)."""

from __future__ import annotations

from typing import Any, Callable, Dict

from socbench_runtime_base import RuntimeProblem, missing  # type: ignore[import-not-found]

Json = Dict[str, Any]


def library() -> Any:
    """Return the bindings of CUDA's runtime."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise missing("cuda", error, "pip install cuda-bindings") from None
    return runtime


def checked(answer: Any, what: str) -> Any:
    """Return what a call of CUDA gave beside its status. RuntimeProblem with CUDA's own name of the error."""
    status, *values = answer
    if int(status) != 0:
        code = "out_of_memory" if "Memory" in str(status) else "run_failed"
        raise RuntimeProblem(code, f"CUDA could not {what}: {name_of(status)}")
    return values[0] if len(values) == 1 else values


def name_of(status: Any) -> str:
    """Return ``cudaErrorInsufficientDriver (35): CUDA driver version is insufficient for CUDA runtime version``."""
    text = ""
    try:
        said = library().cudaGetErrorString(status)[1]
        text = said.decode() if isinstance(said, bytes) else str(said)
    except (AttributeError, TypeError, IndexError):
        pass
    return f"{getattr(status, 'name', status)} ({int(status)})" + (f": {text}" if text else "")


def device() -> Json:
    """Return ``{"name", "capability", "memory_bytes"}`` of the first GPU. RuntimeProblem ``delegate_missing``."""
    runtime = library()
    status, count = runtime.cudaGetDeviceCount()
    if int(status) != 0:
        raise RuntimeProblem("delegate_missing", f"CUDA finds no GPU here: {name_of(status)}")
    if not count:
        raise RuntimeProblem("delegate_missing", "CUDA finds no GPU here")
    properties = checked(runtime.cudaGetDeviceProperties(0), "describe the GPU")
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    capability = f"{properties.major}.{properties.minor}"
    return {"name": name.strip("\0"), "capability": capability, "memory_bytes": int(properties.totalGlobalMem)}


class Stream:
    """One CUDA stream."""

    def __init__(self) -> None:
        self.runtime = library()
        self.stream = checked(self.runtime.cudaStreamCreate(), "make a stream")
        self.handle = int(self.stream)

    def wait(self) -> None:
        """Wait until everything on the stream is done."""
        checked(self.runtime.cudaStreamSynchronize(self.stream), "wait")

    def timed(self, action: Callable[[], Any]) -> int:
        """Return the GPU's time of what ``action`` puts on the stream, in nanoseconds."""
        begin = checked(self.runtime.cudaEventCreate(), "make an event")
        end = checked(self.runtime.cudaEventCreate(), "make an event")
        checked(self.runtime.cudaEventRecord(begin, self.stream), "record an event")
        action()
        checked(self.runtime.cudaEventRecord(end, self.stream), "record an event")
        checked(self.runtime.cudaEventSynchronize(end), "wait for an event")
        milliseconds = checked(self.runtime.cudaEventElapsedTime(begin, end), "read an event")
        for event in (begin, end):
            self.runtime.cudaEventDestroy(event)
        return round(milliseconds * 1e6)


class Buffer:
    """A tensor's memory on the GPU and its pinned twin in host memory (``host``, a NumPy array)."""

    def __init__(self, spec: Json) -> None:
        import ctypes

        import numpy as np

        self.runtime = library()
        kind = np.dtype(spec["dtype"])
        count = int(np.prod(spec["shape"], dtype=np.int64))
        self.size = max(1, count * kind.itemsize)
        self.address = int(checked(self.runtime.cudaMalloc(self.size), f"allocate {self.size} bytes on the GPU"))
        self.pinned = int(checked(self.runtime.cudaHostAlloc(self.size, 0), f"pin {self.size} bytes"))
        memory = (ctypes.c_byte * self.size).from_address(self.pinned)
        self.host = np.frombuffer(memory, kind, count).reshape(spec["shape"])

    def put(self, array: Any, stream: Stream) -> None:
        """Copy an array to the GPU."""
        self.host[...] = array
        self._copy(self.address, self.pinned, "cudaMemcpyHostToDevice", stream)

    def fetch(self, stream: Stream) -> None:
        """Copy from the GPU to ``host``."""
        self._copy(self.pinned, self.address, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, target: int, source: int, kind: str, stream: Stream) -> None:
        way = getattr(self.runtime.cudaMemcpyKind, kind)
        checked(self.runtime.cudaMemcpyAsync(target, source, self.size, way, stream.stream), "copy")

    def free(self) -> None:
        """Give both memories back."""
        self.runtime.cudaFree(self.address)
        self.runtime.cudaFreeHost(self.pinned)
