"""The frozen dataclasses that everything else speaks. Facts only: every statistic is computed on read.

Units are in the names; integers are nanoseconds, bytes, kilohertz, milli-degrees. ``None`` means "not known".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

FORMAT_VERSION: Final = 1
"""Version of the session folder (session.json and its tables); readers refuse a newer one and read all older ones."""

PROTOCOL_VERSION: Final = 1
"""Version of the agent wire protocol, docs/protocol.md."""

Json = dict[str, Any]

PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8", "int8_dynamic", "int8_weights", "int16x8", "int4_weights")
SCENARIOS: Final = ("single_stream", "sustained", "accuracy")
RUNTIMES: Final = ("litert", "onnxruntime", "openvino", "tensorrt", "ncnn", "mnn", "executorch", "null")
DELEGATE_CLASSES: Final = ("cpu", "gpu", "npu", "nnapi", "auto", "hetero")
FORMATS_OF_RUNTIME: Final[dict[str, tuple[str, ...]]] = {
    "litert": ("tflite",),
    "onnxruntime": ("onnx",),
    "openvino": ("openvino", "onnx", "tflite"),
    "tensorrt": ("onnx",),
    "ncnn": ("ncnn",),
    "mnn": ("mnn",),
    "executorch": ("executorch",),
    "null": ("null",),
}
"""Formats that a runtime takes, the one that its rows use from the zoo first."""

Status = Literal["done", "failed", "excluded", "interrupted"]
Delegation = Literal["full", "partial", "fell_back", "unknown"]
Evidence = Literal["reported", "counted", "inferred", "none"]
Level = Literal["note", "suspect", "invalid"]
PHASE_FIRST: Final = 0
PHASE_WARMUP: Final = 1
PHASE_MEASURED: Final = 2


@dataclass(frozen=True)
class CoreCluster:
    """Cores that share a clock: CPU numbers, part name (``Cortex-A76``) and the highest clock in kHz."""

    cpus: tuple[int, ...]
    name: str | None = None
    max_khz: int | None = None


@dataclass(frozen=True)
class Scheduling:
    """What the kernel lets a process that socbench starts on a device use, and (Android) one of an app in front.

    ``cpuset``: the path of its group; ``cpus``: the CPUs that it may run on (``0-3,8``); uclamp: the least and the most
    utilisation that its scheduling assumes, in thousandths of the largest core at its highest clock.
    """

    cpuset: str | None = None
    cpus: str | None = None
    uclamp_min_permille: int | None = None
    uclamp_max_permille: int | None = None
    app_cpus: str | None = None
    app_uclamp_min_permille: int | None = None
    app_uclamp_max_permille: int | None = None


@dataclass(frozen=True)
class Device:
    """A device as it identified itself; stored with every session. ``key`` is stable and is not the serial."""

    device: str
    key: str
    name: str
    soc_vendor: str | None = None
    soc: str | None = None
    gpu: str | None = None
    npu: str | None = None
    os: str | None = None
    os_build: str | None = None
    kernel: str | None = None
    abi: str | None = None
    page_size_bytes: int | None = None
    ram_bytes: int | None = None
    cores: tuple[CoreCluster, ...] = ()
    cpu_features: tuple[str, ...] = ()
    emulated: bool = False
    state: str = "ready"
    advice: str | None = None
    scheduling: Scheduling | None = None


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model file; ``None`` in ``shape`` is a dynamic dimension. dtype as NumPy names it."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: str | None = None
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Variant:
    """One file of a model. ``variant`` is ``FORMAT-PRECISION[-RECIPE]`` (``onnx-int8-reduced``).

    ``path`` is the file on the host (for OpenVINO the .xml, for ncnn the .param; ``companions`` are the files that
    must lie beside it), ``None`` while it has not been built; ``sha256`` covers file and companions in order.
    """

    model: str
    variant: str
    format: str
    precision: str
    recipe: str | None = None
    path: str | None = None
    companions: tuple[str, ...] = ()
    size_bytes: int | None = None
    sha256: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True)
class MeasuringSettings:
    """When measuring one repetition ends, and beside how many busy cores it runs (``None``: alone).

    Recorded, and a condition of every comparison.
    """

    min_time_s: float = 1.0
    min_count: int = 50
    max_time_s: float = 20.0
    warmup_max_s: float = 5.0
    warmup_min_count: int = 5
    max_count: int = 2_000_000
    rate_hz: float | None = None
    max_temperature_milli_c: int | None = None
    busy_cores: int | None = None


@dataclass(frozen=True)
class Failure:
    """Why something failed or was left out: a stable code, one sentence, and what to do about it."""

    code: str
    message: str
    advice: str | None = None


@dataclass(frozen=True)
class TrialPlan:
    """One row as it was asked for: the key, the conditions and the subject. ``trial`` is its id in the session."""

    trial: str
    device: str
    model: str
    variant: str
    format: str
    precision: str
    runtime: str
    delegate: str
    scenario: str = "single_stream"
    recipe: str | None = None
    model_sha256: str | None = None
    size_bytes: int | None = None
    environment: str = "host"
    threads: int = 1
    cores: str | None = None
    batch: int = 1
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    fidelity_to: str = "reference"
    ab_arm: str | None = None
    settings: MeasuringSettings = MeasuringSettings()
    excluded: Failure | None = None


@dataclass(frozen=True)
class PlannedRepetition:
    """One place in the order of a session."""

    trial: str
    repetition: int


@dataclass(frozen=True)
class Plan:
    """What a session will do: trials (the excluded ones too), the order of repetitions a device, the seed."""

    trials: tuple[TrialPlan, ...]
    order: dict[str, tuple[PlannedRepetition, ...]]
    seed: int
    estimate_s: float | None = None


@dataclass(frozen=True)
class Reason:
    """One entry of the closed list of reasons, as it applies to a row: level, what was seen, what to do."""

    code: str
    level: Level
    text: str
    advice: str


@dataclass(frozen=True)
class Verdict:
    """``valid``, ``suspect`` or ``invalid``, from its reasons."""

    verdict: Literal["valid", "suspect", "invalid"]
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Fidelity:
    """Outputs against the reference on the same inputs; the worst over probe inputs and repetitions."""

    cosine: float | None
    max_abs: float | None
    max_relative: float | None
    top1_agreement: float | None
    within_tolerance: bool | None
    finite: bool = True
    constant: bool = False
    reference: str = "reference"


@dataclass(frozen=True)
class TrialRow:
    """One line of ``results trials``: facts of the trial and what analysis makes of them. Names are public."""

    session: str
    trial: str
    device: str
    soc: str | None
    model: str
    variant: str
    recipe: str | None
    format: str
    size_bytes: int | None
    runtime: str
    runtime_version: str | None
    environment: str
    delegate: str
    delegate_effective: str | None
    accelerator: str | None
    delegation: Delegation
    delegation_evidence: Evidence
    nodes_total: int | None
    nodes_delegated: int | None
    partitions: int | None
    precision: str
    precision_effective: str | None
    threads: int
    threads_effective: int | None
    cores: str | None
    batch: int
    shapes: dict[str, tuple[int, ...]]
    scenario: str
    status: Status
    error: Failure | None
    verdict: str | None
    reasons: tuple[Reason, ...]
    repetitions: int
    samples: int
    latency_p50_ns: float | None
    latency_p50_low_ns: float | None
    latency_p50_high_ns: float | None
    latency_p90_ns: float | None
    latency_p99_ns: float | None
    first_ns: float | None
    load_ns: float | None
    import_ns: float | None
    peak_memory_bytes: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_metric: str | None
    accuracy_count: int | None
    accuracy_delta: float | None
    accuracy_delta_low: float | None
    accuracy_delta_high: float | None
    fidelity: Fidelity | None
    model_sha256: str | None
    os_build: str | None
    device_name: str
    device_key: str
    ab_arm: str | None
    label: str | None
    started: str
    repetition_medians_ns: tuple[float, ...] = ()
    thermal: Json | None = None
    repetition_numbers: tuple[int, ...] = ()
    settings: Json = field(default_factory=dict)
    power_source: str | None = None
    device_emulated: bool = False
    socbench_version: str | None = None
    latency_mean_ns: float | None = None
    program: str | None = None


@dataclass(frozen=True)
class SessionInfo:
    """What session.json says of one session."""

    session: str
    label: str | None
    status: str
    started: str
    ended: str | None
    socbench_version: str
    argv: tuple[str, ...]
    seed: int
    devices: tuple[Device, ...]
    host: Json = field(default_factory=dict)
    models: dict[str, Json] = field(default_factory=dict)
    plan: Json = field(default_factory=dict)
    trial_counts: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT_VERSION


@dataclass(frozen=True)
class RepetitionSamples:
    """All samples of one repetition as int64 arrays of equal length; ``phase`` holds PHASE_* values."""

    repetition: int
    phase: Any
    start_ns: Any
    latency_ns: Any


@dataclass(frozen=True)
class TelemetrySeries:
    """One sensor of one device over a session, on the device's monotonic clock: two int64 arrays."""

    device: str
    kind: str
    source: str
    t_ns: Any
    value: Any


@dataclass(frozen=True)
class OpRow:
    """One row of a per-op profile; ``time_ns`` is the mean an inference."""

    index: int
    op_type: str
    name: str
    unit: str | None
    time_ns: int
    count: int = 1


@dataclass(frozen=True)
class ReportData:
    """Everything that a renderer may know. Keys of the mappings are ``(session, trial)``, or ``session``."""

    sessions: tuple[SessionInfo, ...]
    rows: tuple[TrialRow, ...]
    samples: dict[tuple[str, str], tuple[RepetitionSamples, ...]] = field(default_factory=dict)
    telemetry: dict[str, tuple[TelemetrySeries, ...]] = field(default_factory=dict)
    ops: dict[tuple[str, str], tuple[OpRow, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedPair:
    """One pair of rows of ``compare``: ``ratio`` is candidate over base, over 1 is slower."""

    key: dict[str, Any]
    base: TrialRow | None
    candidate: TrialRow | None
    base_p50_ns: float | None
    candidate_p50_ns: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    decision: Literal["faster", "slower", "no_difference", "cannot_tell", "not_comparable", "missing", "failed"]
    reasons: tuple[str, ...] = ()
