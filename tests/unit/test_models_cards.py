from __future__ import annotations

from pathlib import Path

import pytest
import tiny_network
import yaml
from socbench.errors import ModelError
from socbench.models import cards, suites
from socbench.records import MeasuringSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A content folder ``models`` with the model ``tiny``, and a cache of its own."""
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(tmp_path / "config"))
    tiny_network.write_model(tmp_path / "models" / "tiny")
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    return tmp_path / "models" / "tiny"


def rewrite(folder: Path, **changes: object) -> None:
    card = yaml.safe_load((folder / "card.yaml").read_text())
    for name, value in changes.items():
        if value is None:
            card.pop(name)
        else:
            card[name] = value
    (folder / "card.yaml").write_text(yaml.safe_dump(card))


def test_a_good_card_is_read_and_has_no_problems(folder: Path) -> None:
    card = cards.load_card("tiny")
    assert card.inputs[0].shape == ("batch", 3, 16, 16)
    assert card.tolerance["int8"].cosine == 0.9
    assert card.probe == cards.Probe(source="calibration", count=4)
    assert card.folder == folder
    assert cards.check_card("tiny") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"title": None}, "the card of tiny: the field 'title' is missing"),
        ({"titel": "x"}, "the card of tiny: unknown field 'titel'; did you mean title?"),
        ({"title": 3}, "the card of tiny: title: expected `str`, got `int`"),
        ({"licence": {"weights": "MIT"}}, "the card of tiny: licence: the field 'redistribute' is missing"),
        ({"variants": {"onxx": ["fp32"]}}, "the card of tiny: variants: 'onxx' is unknown; did you mean onnx?"),
        ({"variants": {"onnx": ["int16"]}}, "did you mean int16x8?"),
        ({"variants": {}}, "the card of tiny: variants names no format"),
        ({"model": "other"}, "model is 'other'; it must be the name of its folder, 'tiny'"),
        ({"tolerance": {"fp32": {}}}, "tolerance has no entry for fp16, which variants names"),
        ({"data": {}}, "probe is taken from calibration, and data.calibration is not there"),
        (
            {"data": {"calibration": {"kind": "idx", "images": "a"}}},
            "data.calibration: the kind idx needs the field 'labels'",
        ),
        (
            {"data": {"calibration": {"kind": "idx", "images": "../a", "labels": "b"}}},
            "data.calibration.images '../a' leads out of the card's folder",
        ),
        ({"files": {"onnx": {"path": "/etc/passwd", "sha256": ""}}}, "leads out of the card's folder"),
        (
            {"inputs": [{"name": "image", "shape": [1], "preprocess": {"crop": "x"}}]},
            "inputs[0].preprocess.crop: expected `int | null`, got `str`",
        ),
    ],
)
def test_a_bad_card_is_refused_by_naming_the_field(folder: Path, changes: dict[str, object], said: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(ModelError) as caught:
        cards.load_card("tiny")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_yaml_is_refused(folder: Path) -> None:
    (folder / "card.yaml").write_bytes(b"model: [\n")
    with pytest.raises(ModelError, match=r"the card of tiny is no YAML: .*line 2"):
        cards.load_card("tiny")
    (folder / "card.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ModelError, match="the card of tiny is no YAML"):
        cards.load_card("tiny")


def test_yaml_that_would_make_objects_makes_none(folder: Path) -> None:
    (folder / "card.yaml").write_bytes(b"model: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ModelError, match="is no YAML: could not determine a constructor"):
        cards.load_card("tiny")


def test_an_unknown_model_gets_the_nearest_name(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no model 'tny'; did you mean tiny\?"):
        cards.load_card("tny")
    with pytest.raises(ModelError, match=r"there is no model '\.\./tiny'"):
        cards.load_card("../tiny")
    with pytest.raises(ModelError, match="there is no model 'zzz'; there are: tiny"):
        cards.load_card("zzz")
    with pytest.raises(ModelError, match=r"did you mean tiny\?"):
        cards.check_card("tinny")


def test_check_names_a_changed_and_a_missing_file(folder: Path) -> None:
    (folder / "tiny.tflite").unlink()
    other = tiny_network.write_onnx(folder / "tiny.onnx", batch=1)
    problems = cards.check_card("tiny")
    assert "tiny: files.tflite: tiny.tflite is not there" in problems
    (changed,) = [text for text in problems if "files.onnx" in text]
    assert changed.startswith("tiny: files.onnx: sha256 of tiny.onnx is ")
    assert other.is_file()


def test_check_finds_calibration_pictures_among_the_evaluation_pictures(folder: Path) -> None:
    data = yaml.safe_load((folder / "card.yaml").read_text())["data"]
    data["evaluation"]["first"] = 10
    rewrite(folder, data=data)
    (problem,) = cards.check_card("tiny")
    assert problem.startswith("tiny: 2 calibration pictures are also evaluation pictures")


def test_check_refuses_files_that_may_not_be_handed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(folder, licence={"weights": "unknown", "redistribute": False})
    monkeypatch.setattr("socbench.models.check.content", lambda kind: folder.parent)
    problems = cards.check_card("tiny")
    assert len(problems) == 2
    assert all("licence.redistribute is false" in text for text in problems)


def test_the_quick_suite_is_three_runtimes_by_three_precisions_by_two_models() -> None:
    suite = suites.load_suite("quick")
    assert suite.runtimes == ("litert", "onnxruntime", "openvino")
    assert suite.precisions == ("fp32", "fp16", "int8")
    assert suite.models == ("resnet8", "efficientnet_lite0")
    assert suite.repetitions == 3
    assert suite.settings == MeasuringSettings(
        min_time_s=0.5, min_count=30, max_time_s=5.0, warmup_max_s=1.0, warmup_min_count=3
    )


def test_every_shipped_suite_names_models_that_there_are() -> None:
    names = suites.suite_names()
    assert {"quick", "precision"} <= set(names)
    for name in names:
        assert set(suites.load_suite(name).models) <= set(cards.model_names())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("runtimes: [litrt]", "runtimes has 'litrt', which is unknown; did you mean litert?"),
        ("precisions: [fp33]", "precisions has 'fp33', which is unknown; did you mean fp32?"),
        ("models: []", "models is empty"),
        ("settings: {min_tim_s: 1}", "settings: unknown field 'min_tim_s'; did you mean min_time_s?"),
        ("repetitions: 0", "repetitions is 0; it must be at least 1"),
        ("suite: x", "suite is 'x'; it must be the name of its file, 's'"),
        ("model: [a]", "unknown field 'model'; did you mean models?"),
    ],
)
def test_a_bad_suite_is_refused_by_naming_the_field(line: str, said: str) -> None:
    good = {"suite": "s", "version": 1, "title": "t", "models": ["a"], "runtimes": ["litert"], "precisions": ["fp32"]}
    good.update(yaml.safe_load(line))
    with pytest.raises(ModelError) as caught:
        suites.parse_suite(yaml.safe_dump(good).encode(), "s")
    assert str(caught.value).startswith("the suite s: ")
    assert said in str(caught.value)


def test_an_unknown_suite_gets_the_nearest_name() -> None:
    with pytest.raises(ModelError, match=r"there is no suite 'quik'; did you mean quick\?"):
        suites.load_suite("quik")
