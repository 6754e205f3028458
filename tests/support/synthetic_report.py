"""Synthetic ReportData for tests of the renderers: plausible, seeded, and measured on nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from socbench.records import (
    ComparedPair,
    CoreCluster,
    Device,
    Failure,
    Fidelity,
    Reason,
    RepetitionSamples,
    ReportData,
    SessionInfo,
    TelemetrySeries,
    TrialRow,
)

HOSTILE = "<script>alert('x')</script> \x1b[31m| `rm` $\\frac{ =1+1 \u202eevil\n[b]bold[/b] & \"quoted\" {{ 7*7 }}"
LONG_NAME = "Extremely Verbose Development Board with Accelerator " + "Revision " * 6 + "number 0123456789 end"
LONG_NAME = LONG_NAME[:120].ljust(120, "x")

DELEGATES = {"litert": "cpu:xnnpack", "onnxruntime": "cpu:mlas", "openvino": "cpu:openvino"}
FORMATS = {"litert": "tflite", "onnxruntime": "onnx", "openvino": "openvino"}
VERSIONS = {"litert": "2.3.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"}
BASE_MS = {
    ("litert", "fp32"): 9.1,
    ("litert", "fp16"): 9.3,
    ("litert", "int8"): 3.4,
    ("onnxruntime", "fp32"): 7.4,
    ("onnxruntime", "fp16"): 8.8,
    ("onnxruntime", "int8"): 4.2,
    ("openvino", "fp32"): 7.2,
    ("openvino", "fp16"): 7.25,
    ("openvino", "int8"): 3.1,
}
SIZES = {"fp32": 14_200_000, "fp16": 7_100_000, "int8": 3_900_000}

LOCAL = Device(
    device="local",
    key="a1b2c3d4",
    name="AMD EPYC 7B13",
    soc_vendor="AMD",
    soc="EPYC 7B13",
    os="Debian GNU/Linux 12",
    os_build="6.1.0-27-amd64",
    kernel="6.1.0-27-amd64",
    abi="x86_64",
    ram_bytes=8_000_000_000,
    cores=(CoreCluster((0, 1), "EPYC 7B13", 3_500_000),),
    cpu_features=("avx2",),
)


def row(runtime: str = "litert", precision: str = "fp32", **changes: object) -> TrialRow:
    """One valid row with an interval, accuracy and fidelity."""
    p50 = BASE_MS.get((runtime, precision), 5.0) * 1e6
    base = TrialRow(
        session="20261124-101500-abcd",
        trial="t001",
        device="local",
        soc=LOCAL.soc,
        model="mobilenet_v2",
        variant=f"{FORMATS.get(runtime, 'tflite')}-{precision}",
        recipe=None,
        format=FORMATS.get(runtime, "tflite"),
        size_bytes=SIZES.get(precision, 5_000_000),
        runtime=runtime,
        runtime_version=VERSIONS.get(runtime),
        environment="host",
        delegate=DELEGATES.get(runtime, "cpu:xnnpack"),
        delegate_effective=DELEGATES.get(runtime, "cpu:xnnpack"),
        accelerator=None,
        delegation="full",
        delegation_evidence="reported",
        nodes_total=66,
        nodes_delegated=66,
        partitions=1,
        precision=precision,
        precision_effective=precision,
        threads=1,
        threads_effective=1,
        cores=None,
        batch=1,
        shapes={},
        scenario="single_stream",
        status="done",
        error=None,
        verdict="valid",
        reasons=(),
        repetitions=3,
        samples=1500,
        latency_p50_ns=p50,
        latency_p50_low_ns=p50 * 0.985,
        latency_p50_high_ns=p50 * 1.015,
        latency_p90_ns=p50 * 1.06,
        latency_p99_ns=p50 * 1.3,
        first_ns=p50 * 2.2,
        load_ns=61e6,
        import_ns=120e6,
        peak_memory_bytes=88_000_000,
        accuracy=0.72,
        accuracy_low=0.58,
        accuracy_high=0.83,
        accuracy_metric="top1",
        accuracy_count=50,
        accuracy_delta=0.0,
        accuracy_delta_low=-0.06,
        accuracy_delta_high=0.06,
        fidelity=Fidelity(0.99999, 1e-5, 1e-5, 1.0, True),
        model_sha256="ab" * 32,
        os_build=LOCAL.os_build,
        device_name=LOCAL.name,
        device_key=LOCAL.key,
        ab_arm=None,
        label="nightly",
        started="2026-11-24T10:15:00Z",
        repetition_medians_ns=(p50 * 0.99, p50, p50 * 1.01),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def session(**changes: object) -> SessionInfo:
    """A finished session on one device."""
    base = SessionInfo(
        session="20261124-101500-abcd",
        label="nightly",
        status="complete",
        started="2026-11-24T10:15:00Z",
        ended="2026-11-24T10:18:12Z",
        socbench_version="0.1.0",
        argv=("socbench", "run", "--suite", "quick", "--label", "nightly"),
        seed=7,
        devices=(LOCAL,),
        host={"name": "bench", "python": "3.11.2"},
        models={
            "mobilenet_v2": {"title": "MobileNetV2 1.0, 224 x 224", "task": "image_classification", "metric": "top1"},
            "digits_cnn": {"title": "Digits CNN", "task": "image_classification", "metric": "top1"},
        },
        trial_counts={"done": 18, "failed": 0, "excluded": 0},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def samples(
    p50_ns: float, seed: int, repetitions: int = 3, count: int = 500, start_ns: int = 10**12, step: float = 1.0
) -> tuple[RepetitionSamples, ...]:
    """Right-skewed latencies, first and warm-up samples before them; ``step`` slows the last third."""
    rng = np.random.default_rng(seed)
    out = []
    for repetition in range(repetitions):
        level = p50_ns * math.exp(rng.normal(0, 0.006))
        latency = level * (0.99 + rng.exponential(0.02, count))
        latency[rng.random(count) < 0.01] *= 1.4
        latency[2 * count // 3 :] *= step
        latency[:11] *= np.linspace(2.2, 1.0, 11)
        phase = np.full(count, 2, dtype=np.int64)
        phase[0], phase[1:11] = 0, 1
        latency_ns = latency.astype(np.int64)
        begin = start_ns + repetition * 40 * 10**9
        start = begin + np.concatenate(([0], np.cumsum(latency_ns[:-1] + 800)))
        out.append(RepetitionSamples(repetition, phase, start, latency_ns))
    return tuple(out)


def quick(count: int = 500) -> ReportData:
    """What the quick suite gives: two models, three runtimes, three precisions, accuracy, telemetry."""
    rows: list[TrialRow] = []
    found: dict[tuple[str, str], tuple[RepetitionSamples, ...]] = {}
    number = 0
    for model, scale in (("mobilenet_v2", 1.0), ("digits_cnn", 0.011)):
        for runtime in DELEGATES:
            for precision in ("fp32", "fp16", "int8"):
                number += 1
                p50 = BASE_MS[runtime, precision] * 1e6 * scale
                loss = {"fp32": 0.0, "fp16": 0.0, "int8": -0.02 if runtime != "openvino" else -0.08}[precision]
                spread = 0.004 + 0.002 * number % 0.02
                one = row(
                    runtime,
                    precision,
                    trial=f"t{number:03d}",
                    model=model,
                    size_bytes=int(SIZES[precision] * (1 if scale == 1.0 else 0.01)),
                    latency_p50_ns=p50,
                    latency_p50_low_ns=p50 * (1 - spread),
                    latency_p50_high_ns=p50 * (1 + spread),
                    repetition_medians_ns=(p50 * (1 - spread / 2), p50, p50 * (1 + spread / 2)),
                    latency_p90_ns=p50 * 1.05,
                    latency_p99_ns=p50 * 1.32,
                    first_ns=p50 * 2.2,
                    load_ns=(20 + 7 * number) * 1e6 * (1 if scale == 1.0 else 0.1),
                    peak_memory_bytes=60_000_000 + 4_000_000 * number,
                    accuracy=(0.72 if scale == 1.0 else 0.96) + loss,
                    accuracy_delta=loss,
                    accuracy_delta_low=loss - 0.05,
                    accuracy_delta_high=min(loss + 0.04, -0.01 if loss < -0.05 else 1),
                )
                one = _with_trouble(one)
                rows.append(one)
                if one.latency_p50_ns is not None:
                    found[one.session, one.trial] = samples(
                        p50, number, count=count, start_ns=10**12 + number * 3 * 10**9
                    )
    accuracy_rows = [
        replace(one, trial=f"a{one.trial[1:]}", scenario="accuracy", repetitions=1, samples=50) for one in rows
    ]
    return ReportData((session(),), (*rows, *accuracy_rows), found, {session().session: telemetry()})


def _with_trouble(one: TrialRow) -> TrialRow:
    if one.precision == "fp16" and one.runtime != "litert":
        text = "fp16 was asked for; the CPU executed fp32"
        note = Reason("precision_not_effective", "note", text, "Compare it with the fp32 row: it is the same.")
        return replace(one, precision_effective="fp32", reasons=(note,))
    if one.trial == "t003":
        text = "at t = 41 s other processes took 31 % of a core"
        busy = Reason("background_load", "suspect", text, "Close what else runs on the device and run it again.")
        return replace(one, verdict="suspect", reasons=(busy,))
    if one.trial == "t011":
        error = Failure(
            "not_built",
            "tflite-fp16 of digits_cnn is not in this installation",
            "Run `socbench models build digits_cnn`.",
        )
        return absent(one, "excluded", error)
    if one.trial == "t006":
        wrong = Reason(
            "output_wrong",
            "invalid",
            "cosine 0.41 to the reference, 0.95 is needed",
            "Do not use this file on this CPU: try the reduced-range recipe.",
        )
        return replace(one, verdict="invalid", reasons=(wrong,), fidelity=Fidelity(0.41, 3.1, 0.6, 0.1, False))
    return one


def absent(one: TrialRow, status: str, error: Failure) -> TrialRow:
    """The row with no measurement, for the reason ``error``."""
    nothing = dict.fromkeys(
        (
            "latency_p50_ns",
            "latency_p50_low_ns",
            "latency_p50_high_ns",
            "latency_p90_ns",
            "latency_p99_ns",
            "first_ns",
            "load_ns",
            "import_ns",
            "peak_memory_bytes",
            "accuracy",
            "accuracy_low",
            "accuracy_high",
            "accuracy_delta",
            "accuracy_delta_low",
            "accuracy_delta_high",
            "accuracy_count",
            "fidelity",
            "verdict",
            "precision_effective",
            "delegate_effective",
        )
    )
    return replace(
        one, status=status, error=error, repetitions=0, samples=0, reasons=(), repetition_medians_ns=(), **nothing
    )  # type: ignore[arg-type]


def telemetry(device: str = "local", seconds: int = 180, step_at: int | None = None) -> tuple[TelemetrySeries, ...]:
    """Temperature and clock at 2 Hz; with ``step_at`` (seconds) the clock's cap falls there."""
    t = 10**12 + np.arange(0, seconds * 2) * 500_000_000
    rise = 52_000 + 18_000 * (1 - np.exp(-np.arange(seconds * 2) / 120))
    cap = np.full(t.shape, 3_000_000)
    if step_at is not None:
        cap[step_at * 2 :] = 2_100_000
    return (
        TelemetrySeries(device, "temperature_milli_c", "thermal_zone0:cpu", t, rise.astype(np.int64)),
        TelemetrySeries(device, "clock_khz", "policy0", t, np.minimum(cap, 2_950_000)),
        TelemetrySeries(device, "clock_cap_khz", "policy0", t, cap),
    )


def one_row() -> ReportData:
    """A single row of the user's own file, no labelled data, one repetition."""
    only = row(
        model="my.tflite",
        repetitions=1,
        latency_p50_low_ns=None,
        latency_p50_high_ns=None,
        accuracy=None,
        accuracy_low=None,
        accuracy_high=None,
        accuracy_metric=None,
        accuracy_count=None,
        accuracy_delta=None,
        accuracy_delta_low=None,
        accuracy_delta_high=None,
        label=None,
    )
    return ReportData((session(label=None),), (only,), {(only.session, only.trial): samples(9.1e6, 3, 1)})


def many(number: int = 2000) -> ReportData:
    """Many rows of one model: threads and cores vary."""
    rows = []
    for index in range(number):
        runtime = list(DELEGATES)[index % 3]
        precision = ("fp32", "fp16", "int8")[index // 3 % 3]
        p50 = BASE_MS[runtime, precision] * 1e6 * (1 + (index * 7919 % 1000) / 400)
        one = row(
            runtime,
            precision,
            trial=f"t{index:04d}",
            threads=1 + index // 9 % 8,
            threads_effective=1 + index // 9 % 8,
            cores=f"0-{index // 72}",
            latency_p50_ns=p50,
            latency_p50_low_ns=p50 * 0.99,
            latency_p50_high_ns=p50 * 1.01,
            repetition_medians_ns=(p50 * 0.996, p50, p50 * 1.004),
        )
        rows.append(one)
    return ReportData((session(),), tuple(rows))


def hostile() -> ReportData:
    """Every text that comes from a device, a file or the user is hostile; one device's name has 120 characters."""
    device = replace(LOCAL, name=HOSTILE, soc=HOSTILE, os=HOSTILE, key="bad")
    reason = Reason("noisy", "suspect", HOSTILE, HOSTILE)
    rows = (
        row(model=HOSTILE, device_name=HOSTILE, device_key="bad", label=HOSTILE, reasons=(reason,), verdict="suspect"),
        row(
            "openvino",
            "int8",
            trial="t002",
            model=HOSTILE,
            device_name=HOSTILE,
            device_key="bad",
            label=HOSTILE,
            recipe=HOSTILE,
            cores=HOSTILE,
            accelerator=HOSTILE,
        ),
        row(
            "onnxruntime",
            trial="t003",
            model=HOSTILE,
            device_name=LONG_NAME,
            device_key="long",
            runtime_version=HOSTILE,
            environment=HOSTILE,
        ),
        absent(
            row("litert", "int8", trial="t004", model=HOSTILE, device_name=HOSTILE, device_key="bad"),
            "failed",
            Failure("crashed", HOSTILE, HOSTILE),
        ),
    )
    info = session(
        label=HOSTILE,
        argv=("socbench", "run", HOSTILE),
        devices=(device, replace(LOCAL, name=LONG_NAME, key="long")),
        models={HOSTILE: {"title": HOSTILE, "task": HOSTILE}},
    )
    return ReportData((info,), rows, {(rows[0].session, one.trial): samples(5e6, 3) for one in rows[:3]})


def all_failed() -> ReportData:
    """Nothing was measured."""
    error = Failure(
        "runtime_missing", "ai-edge-litert is not installed on local", 'Run `pip install "socbench[litert]"`.'
    )
    rows = tuple(
        absent(row("litert", p, trial=f"t{i}"), "failed", error) for i, p in enumerate(("fp32", "fp16", "int8"))
    )
    out = Failure("format", "no fp16 variant for ncnn", None)
    return ReportData(
        (session(status="complete_with_failures"),), (*rows, absent(row("ncnn", "fp16", trial="t9"), "excluded", out))
    )


def several_devices(sustained: bool = False) -> ReportData:
    """Four devices with GPU and NPU rows, one fallen back, one in part; with ``sustained`` a throttled curve."""
    devices, rows, found = [], [], {}
    for index, (name, soc) in enumerate(
        (
            ("Pixel 9 Pro", "Tensor G4"),
            ("Galaxy S24 Ultra", "Snapdragon 8 Gen 3"),
            ("Orange Pi 5", "RK3588"),
            ("Raspberry Pi 5", "BCM2712"),
        )
    ):
        device = replace(LOCAL, device=f"adb:SER{index}", key=f"key{index}", name=name, soc=soc, soc_vendor=None)
        devices.append(device)
        for number, (delegate, precision, ms) in enumerate(
            (
                ("cpu:xnnpack", "fp32", 21.0),
                ("cpu:xnnpack", "int8", 8.2),
                ("gpu:opencl", "fp16", 4.8),
                ("npu:qualcomm", "int8", 1.2),
            )
        ):
            p50 = ms * 1e6 * (1 + 0.7 * index)
            one = row(
                "litert",
                precision,
                trial=f"d{index}t{number}",
                device=device.device,
                device_name=name,
                device_key=device.key,
                soc=soc,
                delegate=delegate,
                delegate_effective=delegate,
                latency_p50_ns=p50,
                latency_p50_low_ns=p50 * 0.97,
                latency_p50_high_ns=p50 * 1.03,
                repetition_medians_ns=(p50 * 0.99, p50, p50 * 1.01),
                latency_p99_ns=p50 * 1.4,
                accuracy_count=1000,
                accuracy=0.72 - (0.018 if delegate[0] == "n" else 0.001 * number),
                accuracy_delta=-0.018 if delegate[0] == "n" else -0.001,
                accuracy_delta_low=-0.03 if delegate[0] == "n" else -0.004,
                accuracy_delta_high=-0.006 if delegate[0] == "n" else 0.002,
            )
            if delegate[0] == "n" and index == 2:
                error = Failure(
                    "delegate_missing", "this SoC has no NPU that LiteRT knows", "Use `--delegate cpu,gpu`."
                )
                one = absent(one, "excluded", error)
            elif delegate[0] == "n" and index == 3:
                why = Reason(
                    "fell_back", "invalid", "the NPU took 0 of 66 nodes, all ran on the CPU", "Use `--delegate cpu`."
                )
                one = replace(
                    one,
                    delegate_effective="cpu:xnnpack",
                    delegation="fell_back",
                    nodes_delegated=0,
                    verdict="invalid",
                    reasons=(why,),
                )
            elif delegate[0] == "n" and index == 1:
                one = replace(one, delegation="partial", nodes_delegated=60, partitions=3)
            rows.append(one)
            if one.latency_p50_ns is not None:
                found[one.session, one.trial] = samples(p50, number + 10 * index, start_ns=10**12 + number * 9 * 10**9)
    series: tuple[TelemetrySeries, ...] = tuple(
        one for device in devices for one in telemetry(device.device, step_at=118)
    )
    if sustained:
        thermal = {
            "baseline_p50_ns": 8.0e6,
            "sustained_p50_ns": 11.5e6,
            "slowdown": 1.44,
            "throttle_at_s": 118.0,
            "cause": "clock_cap",
            "throttled": True,
            "temperature_rise_milli_c": 18_000,
        }
        reason = Reason(
            "throttled",
            "suspect",
            "the clock limit fell from 3.0 to 2.1 GHz while this was measured",
            "Let it cool, or use `socbench sustained`.",
        )
        for index, device in enumerate(devices[:2]):
            one = row(
                trial=f"s{index}",
                scenario="sustained",
                device=device.device,
                device_name=device.name,
                device_key=device.key,
                soc=device.soc,
                repetitions=1,
                latency_p50_low_ns=None,
                latency_p50_high_ns=None,
                thermal=thermal,
                verdict="suspect",
                reasons=(reason,),
            )
            rows.append(one)
            found[one.session, one.trial] = samples(8e6, index, 1, 22_000, step=1.44)
    return ReportData((session(devices=tuple(devices)),), tuple(rows), found, {session().session: series})


def pairs() -> list[ComparedPair]:
    """One pair of each decision."""

    def pair(
        runtime: str,
        precision: str,
        ratio: float | None,
        width: float,
        decision: str,
        reasons: tuple[str, ...] = (),
        **changes: object,
    ) -> ComparedPair:
        base = row(runtime, precision)
        candidate = row(
            runtime,
            precision,
            session="20261124-120000-ef01",
            label="patch",
            latency_p50_ns=(base.latency_p50_ns or 1) * (ratio or 1),
            **changes,
        )
        low = None if ratio is None else ratio / (1 + width)
        high = None if ratio is None else ratio * (1 + width)
        key = {
            "model": "mobilenet_v2",
            "runtime": runtime,
            "delegate": base.delegate,
            "precision": precision,
            "scenario": "single_stream",
        }
        gone = decision in ("missing", "failed")
        return ComparedPair(
            key,
            base,
            None if decision == "missing" else candidate,
            base.latency_p50_ns,
            None if gone else candidate.latency_p50_ns,
            ratio,
            low,
            high,
            decision,
            reasons,
        )  # type: ignore[arg-type]

    return [
        pair("litert", "fp32", 1.21, 0.02, "slower"),
        pair("litert", "int8", 1.06, 0.02, "slower"),
        pair("openvino", "int8", 0.82, 0.03, "faster"),
        pair("openvino", "fp32", 1.004, 0.01, "no_difference"),
        pair("onnxruntime", "fp32", 1.05, 0.12, "cannot_tell", ("noisy",)),
        pair("onnxruntime", "int8", None, 0, "not_comparable", ("threads differ: 1 and 4",)),
        pair("onnxruntime", "fp16", None, 0, "missing", ("the candidate has no such row",)),
    ]
