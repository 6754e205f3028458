"""What is run, what is left out and why, and in which order."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from socbench.agents.job import InputFile, TrialFiles, deadline_s
from socbench.agents.provision import DeviceFile
from socbench.errors import UsageError
from socbench.models.cards import Card, parse_card
from socbench.models.suites import Suite
from socbench.plan import DeviceAbilities, ModelChoice, RunRequest, expand, runtimes_needed
from socbench.records import CoreCluster, Device, Failure, MeasuringSettings, Plan, TrialPlan, Variant

CARD = b"""
model: net
title: A network
task: image_classification
metric: top1
licence: {weights: Apache-2.0, redistribute: true}
files: {onnx: {path: net.onnx, sha256: "%(hash)s"}, tflite: {path: net.tflite, sha256: "%(hash)s"}}
inputs: [{name: image, shape: [batch, 4]}]
outputs: [{name: y, shape: [batch, 2]}]
probe: {from: seeded, count: 1}
data: {evaluation: {kind: imagenet_folder, path: evaluation}}
tolerance: {fp32: {cosine: 0.9}, fp16: {cosine: 0.9}, int8: {cosine: 0.9}, int8_dynamic: {cosine: 0.9}}
variants: {tflite: [fp32, fp16, int8, int8_dynamic], onnx: [fp32, fp16, int8], openvino: [fp32, int8]}
""".replace(b"%(hash)s", b"0" * 64)


def _card() -> Card:
    return parse_card(CARD, "net")


def _variants() -> tuple[Variant, ...]:
    made = []
    for form, precisions in _card().variants.items():
        for precision in precisions:
            recipes = (None, "reduced") if precision == "int8" and form != "tflite" else (None,)
            for recipe in recipes:
                name = "-".join(filter(None, (form, precision, recipe)))
                made.append(Variant("net", name, form, precision, recipe, path=f"/models/{name}", sha256=name))
    return tuple(made)


def _runtime(name: str, formats: list[str], *delegates: dict[str, Any], error: Any = None) -> dict[str, Any]:
    return {
        "runtime": name,
        "version": "1",
        "environment": "host",
        "formats": formats,
        "error": error,
        "delegates": list(delegates),
    }


def _delegate(name: str, **members: Any) -> dict[str, Any]:
    return {
        "delegate": name,
        "available": True,
        "accelerator": "x",
        "emulated": False,
        "reason": None,
        "fix": None,
        **members,
    }


PHONE = Device("local", "key", "a board", abi="aarch64", cores=(CoreCluster((0, 1)),))
LITERT = _runtime(
    "litert",
    ["tflite"],
    _delegate("cpu:xnnpack"),
    _delegate("cpu:reference"),
    _delegate("gpu:webgpu", emulated=True, accelerator="SwiftShader"),
    _delegate("gpu:gl", available=False, reason="no libEGL", fix="install libegl1"),
)
ORT = _runtime("onnxruntime", ["onnx"], _delegate("cpu:mlas"))
MISSING = _runtime("openvino", [], error={"code": "runtime_missing", "message": "not installed", "advice": None})


def _plan(
    request: RunRequest | None = None,
    device: Device = PHONE,
    runtimes: tuple[dict[str, Any], ...] = (LITERT, ORT, MISSING),
    suite: Suite | None = None,
    model: ModelChoice | None = None,
    seed: int = 1,
) -> Plan:
    chosen = model or ModelChoice(_card(), _variants())
    return expand(request or RunRequest(), [DeviceAbilities(device, runtimes)], [chosen], suite=suite, seed=seed)


def _said(plan: Plan, **wanted: str) -> list[Failure | None]:
    return [t.excluded for t in plan.trials if all(getattr(t, name) == value for name, value in wanted.items())]


def _key(trial: TrialPlan) -> tuple[str, str, str, str]:
    return trial.runtime, trial.delegate, trial.variant, trial.scenario


def test_without_choices_every_runtime_there_runs_three_precisions_on_its_plain_cpu_path() -> None:
    plan = _plan()
    single = [_key(trial)[:3] for trial in plan.trials if trial.scenario == "single_stream"]
    assert single == [
        ("litert", "cpu:xnnpack", "tflite-fp32"),
        ("litert", "cpu:xnnpack", "tflite-fp16"),
        ("litert", "cpu:xnnpack", "tflite-int8"),
        ("onnxruntime", "cpu:mlas", "onnx-fp32"),
        ("onnxruntime", "cpu:mlas", "onnx-fp16"),
        ("onnxruntime", "cpu:mlas", "onnx-int8"),
    ]
    assert Counter(trial.scenario for trial in plan.trials) == {"single_stream": 6, "accuracy": 6}
    assert all(trial.excluded is None for trial in plan.trials)
    assert [trial.trial for trial in plan.trials[:3]] == ["t001", "t002", "t003"]


def test_rounds_are_interleaved_and_accuracy_runs_once() -> None:
    plan = _plan(RunRequest(repeat=3, precisions=("fp32",)))
    order = plan.order["local"]
    scenario = {trial.trial: trial.scenario for trial in plan.trials}
    counted = Counter((scenario[entry.trial], entry.repetition) for entry in order)
    assert counted == {("single_stream", n): 2 for n in (1, 2, 3)} | {("accuracy", 1): 2}
    assert [entry.repetition for entry in order] == [1] * 4 + [2] * 2 + [3] * 2


def test_the_order_follows_from_the_seed() -> None:
    orders = {seed: _plan(seed=seed).order["local"] for seed in range(5)}
    assert orders[3] == _plan(seed=3).order["local"]
    assert len(set(orders.values())) > 1


def test_a_runtime_that_is_missing_is_left_out_with_the_command_that_installs_it() -> None:
    (failure,) = _said(_plan(RunRequest(runtimes=("openvino",), precisions=("fp32",), scenarios=("single_stream",))))
    assert failure is not None
    assert (failure.code, failure.advice) == ("runtime_missing", "pip install 'socbench[openvino]'")
    assert "openvino can't be used on local: not installed" in failure.message


def test_a_runtime_missing_elsewhere_is_installed_by_setting_the_device_up() -> None:
    board = dataclasses.replace(PHONE, device="ssh:board")
    plan = _plan(RunRequest(runtimes=("openvino",), precisions=("fp32",)), device=board)
    assert {failure.advice for failure in _said(plan) if failure} == {"socbench devices setup ssh:board"}


def test_a_delegate_class_means_every_one_that_the_device_knows_of_with_its_reason() -> None:
    plan = _plan(RunRequest(runtimes=("litert",), delegates=("gpu",), precisions=("fp32",)))
    found = {trial.delegate: trial.excluded for trial in plan.trials if trial.scenario == "single_stream"}
    assert set(found) == {"gpu:webgpu", "gpu:gl"}
    assert found["gpu:webgpu"] is not None
    assert found["gpu:webgpu"].code == "emulated"
    assert "SwiftShader" in found["gpu:webgpu"].message
    assert found["gpu:gl"] == Failure(
        "delegate_missing", "gpu:gl of litert is not available on local: no libEGL", "install libegl1"
    )


def test_an_emulated_delegate_runs_when_that_is_allowed() -> None:
    plan = _plan(RunRequest(delegates=("gpu:webgpu",), runtimes=("litert",), allow_emulated=True, precisions=("fp32",)))
    assert _said(plan, scenario="single_stream") == [None]


def test_an_emulated_device_runs_nothing_unless_that_is_allowed() -> None:
    emulated = dataclasses.replace(PHONE, emulated=True)
    assert {failure.code for failure in _said(_plan(device=emulated)) if failure} == {"emulated"}
    assert _plan(device=emulated).order == {"local": ()}
    assert set(_said(_plan(RunRequest(allow_emulated=True), device=emulated))) == {None}


def test_cpu_is_the_plain_path_and_reference_kernels_are_run_only_by_name() -> None:
    named = RunRequest(runtimes=("litert",), delegates=("cpu", "cpu:reference"), precisions=("fp32",))
    assert [t.delegate for t in _plan(named).trials if t.scenario == "single_stream"] == [
        "cpu:xnnpack",
        "cpu:reference",
    ]


def test_a_class_that_a_runtime_has_not_is_one_row_that_says_so() -> None:
    plan = _plan(RunRequest(runtimes=("onnxruntime",), delegates=("npu",), precisions=("fp32",)))
    (failure,) = _said(plan, scenario="single_stream")
    assert failure == Failure("delegate_missing", "onnxruntime on local has no npu delegate")


def test_a_precision_that_the_card_has_not_says_which_it_has() -> None:
    plan = _plan(RunRequest(runtimes=("onnxruntime",), precisions=("int8_dynamic",)))
    (failure,) = _said(plan, scenario="single_stream")
    assert failure is not None
    assert failure.code == "precision_not_in_card"
    assert failure.message == "the card of net has no onnx int8_dynamic: it has fp16, fp32, int8"


@pytest.mark.parametrize(
    ("abi", "features", "recipe"),
    [("x86_64", ("avx2",), "reduced"), ("x86_64", ("avx2", "avx512_vnni"), None), ("aarch64", (), None)],
)
def test_the_int8_recipe_is_the_one_that_suits_the_cpu(abi: str, features: tuple[str, ...], recipe: str | None) -> None:
    device = dataclasses.replace(PHONE, abi=abi, cpu_features=features)
    plan = _plan(RunRequest(runtimes=("onnxruntime",), precisions=("int8",)), device=device)
    assert {(trial.precision, trial.recipe) for trial in plan.trials} == {("int8", recipe)}


def test_a_file_that_could_not_be_made_is_left_out_with_what_the_converter_said() -> None:
    why = Failure("build_failed", "the converter stumbled over Foo")
    model = ModelChoice(_card(), _variants(), missing={"onnx-int8": why})
    plan = _plan(RunRequest(runtimes=("onnxruntime",)), model=model)
    assert set(_said(plan, precision="int8")) == {why}
    assert set(_said(plan, precision="fp32")) == {None}


def test_labelled_data_that_can_not_be_had_costs_the_accuracy_rows_only() -> None:
    why = Failure("no_evaluation_data", "the package is gone")
    plan = _plan(model=ModelChoice(_card(), _variants(), unlabelled=why))
    assert set(_said(plan, scenario="accuracy")) == {why}
    assert set(_said(plan, scenario="single_stream")) == {None}


def _own(form: str = "tflite", precision: str = "int8") -> ModelChoice:
    variant = Variant("net", f"{form}-{precision}", form, precision, path="/x", sha256="x")
    return ModelChoice(_card(), (variant,), own_file=True)


def test_a_file_of_the_user_is_measured_as_it_is_by_the_runtimes_that_take_it() -> None:
    plan = _plan(model=_own())
    assert [(t.runtime, t.variant, t.scenario) for t in plan.trials] == [("litert", "tflite-int8", "single_stream")]


def test_a_file_of_the_user_in_another_precision_or_format_is_refused_with_advice() -> None:
    other = _plan(RunRequest(precisions=("fp32",), runtimes=("litert", "onnxruntime")), model=_own())
    said = {trial.runtime: trial.excluded for trial in other.trials}
    assert said["litert"] is not None
    assert said["litert"].message == "net is int8, not fp32"
    assert said["onnxruntime"] is not None
    assert said["onnxruntime"].message == "onnxruntime does not take tflite files"
    assert all("socbench models add" in str(failure.advice) for failure in said.values() if failure)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (RunRequest(runtimes=("lite-rt",)), "no runtime 'lite-rt': did you mean litert"),
        (RunRequest(precisions=("int-8",)), "no precision 'int-8': did you mean int8"),
        (RunRequest(delegates=("cpu:xnpack",)), "no delegate 'cpu:xnpack': did you mean cpu:xnnpack"),
        (RunRequest(scenarios=("single",)), "no scenario 'single': did you mean single_stream"),
        (RunRequest(ab=("runtime", "runtime=litert")), "'runtime' is no list of field=value pairs"),
        (RunRequest(ab=("runtimes=litert", "runtime=litert")), "did you mean runtime"),
        (RunRequest(ab=("threads=two", "threads=1")), "threads must be a number"),
        (RunRequest(ab=("environment=mine", "threads=1")), "there is no environment called 'mine'"),
    ],
)
def test_a_name_that_nobody_knows_is_wrong_usage_with_the_nearest(request_: RunRequest, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _plan(request_)


def test_an_external_delegate_is_taken_by_its_file() -> None:
    named = RunRequest(runtimes=("litert",), delegates=("npu:/opt/libdelegate.so",), precisions=("fp32",))
    assert _said(_plan(named), scenario="single_stream") == [None]


def test_a_suite_fills_what_the_command_line_leaves_open_and_no_more() -> None:
    suite = Suite(
        suite="s",
        version=1,
        title="s",
        models=("net",),
        runtimes=("litert",),
        precisions=("fp32", "int8"),
        repetitions=2,
        threads=4,
    )
    plan = _plan(RunRequest(precisions=("fp16",)), suite=suite)
    assert {_key(trial)[:3] for trial in plan.trials} == {("litert", "cpu:xnnpack", "tflite-fp16")}
    assert {trial.threads for trial in plan.trials} == {4}
    assert max(entry.repetition for entry in plan.order["local"]) == 2


def test_both_arms_are_planned_and_each_goes_first_as_often_in_a_drawn_order() -> None:
    request = RunRequest(ab=("runtime=litert", "runtime=onnxruntime"), precisions=("fp32",), repeat=8)
    plan = _plan(request)
    arms = {trial.trial: trial.ab_arm for trial in plan.trials}
    assert {(trial.ab_arm, trial.runtime) for trial in plan.trials} == {("A", "litert"), ("B", "onnxruntime")}
    said = "".join(str(arms[entry.trial]) for entry in plan.order["local"])
    pairs = [said[place : place + 2] for place in range(0, 16, 2)]
    assert sorted(pairs) == ["AB"] * 4 + ["BA"] * 4
    assert pairs not in (["AB", "BA"] * 4, ["BA", "AB"] * 4)
    assert len(_plan(dataclasses.replace(request, repeat=None)).order["local"]) == 28


def test_the_two_rows_of_a_pair_stand_beside_each_other_with_several_precisions() -> None:
    plan = _plan(RunRequest(ab=("runtime=litert", "runtime=onnxruntime"), precisions=("fp32", "int8"), repeat=4))
    trials = {trial.trial: trial for trial in plan.trials}
    order = [trials[entry.trial] for entry in plan.order["local"]]
    assert len(order) == 16
    for one, two in zip(order[::2], order[1::2], strict=True):
        assert (one.precision, {one.ab_arm, two.ab_arm}) == (two.precision, {"A", "B"})


def test_a_candidate_can_be_compared_with_itself() -> None:
    plan = _plan(RunRequest(ab=("runtime=litert", "runtime=litert"), precisions=("fp32",)))
    assert [trial.ab_arm for trial in plan.trials] == ["A", "B"]


def test_two_versions_of_a_runtime_are_compared_by_their_environments_and_nothing_else_runs() -> None:
    request = RunRequest(ab=("environment=host", "environment=onnxruntime-1.24.4"), precisions=("fp32",))
    both = (LITERT, ORT, {**ORT, "environment": "onnxruntime-1.24.4"})
    plan = _plan(request, runtimes=both)
    assert [(t.ab_arm, t.runtime, t.environment, t.excluded) for t in plan.trials] == [
        ("A", "onnxruntime", "host", None),
        ("B", "onnxruntime", "onnxruntime-1.24.4", None),
    ]
    assert runtimes_needed(request, [ModelChoice(_card(), _variants())], None) == ("onnxruntime",)
    with pytest.raises(UsageError, match=r"not installed, or .*: socbench runtimes install onnxruntime-1.24.4"):
        _plan(request)
    by_default = _plan(runtimes=both)
    assert {trial.environment for trial in by_default.trials} == {"host"}, "another version runs only when asked for"


def test_only_the_runtimes_that_can_be_needed_are_asked_for() -> None:
    models = [ModelChoice(_card(), _variants())]
    assert runtimes_needed(RunRequest(runtimes=("litert",)), models, None) == ("litert",)
    assert runtimes_needed(RunRequest(), [_own("null", "fp32")], None) == ("null",)
    assert "litert" in runtimes_needed(RunRequest(), models, None)
    assert runtimes_needed(RunRequest(ab=("runtime=litert", "runtime=openvino")), models, None) == (
        "litert",
        "openvino",
    )


def test_a_sustained_run_lasts_as_long_as_was_asked_for() -> None:
    request = RunRequest(
        scenarios=("sustained",), duration_s=1800.0, rate_hz=30.0, runtimes=("litert",), precisions=("fp32",)
    )
    plan = _plan(request)
    (trial,) = plan.trials
    assert (trial.settings.min_time_s, trial.settings.max_time_s, trial.settings.rate_hz) == (1800.0, 1800.0, 30.0)
    assert len(plan.order["local"]) == 1


def test_a_repetition_may_take_twice_its_times_three_minutes_and_ten_seconds_a_fixed_inference() -> None:
    settings = MeasuringSettings(min_time_s=2.0, max_time_s=20.0, warmup_max_s=5.0, warmup_min_count=5)
    trial = TrialPlan("t1", "local", "net", "onnx-fp32", "onnx", "fp32", "onnxruntime", "cpu:mlas", settings=settings)
    pictures = InputFile("image", "float32", (1, 4), 50, DeviceFile(Path("x"), "0" * 64, "x.bin"))
    assert deadline_s(trial, TrialFiles(model=(), dataset=(pictures,))) == 2 * 25 + 180 + 500
    eight = (dataclasses.replace(pictures, count=8),)
    assert deadline_s(trial, TrialFiles(model=(), probe=eight)) == 2 * 25 + 180 + 10 * (1 + 16 + 5)
