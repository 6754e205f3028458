"""Data of the tasks beside classification: made, paired, boxed and masked; and what is wrong with the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_network
import yaml
from PIL import Image
from socbench.errors import ModelError
from socbench.models import cards, data, data_made, data_text, suites
from socbench.models.inputs import dataset_inputs, probe_inputs
from socbench.records import TensorSpec, Variant


def card(folder: Path, **changes: Any) -> cards.Card:
    """The tiny network's card with other fields; a field of one input or output replaces that of the first."""
    place = folder / "models" / "tiny"
    if not place.is_dir():
        tiny_network.write_model(place)
    loaded = yaml.safe_load((place / "card.yaml").read_text())
    for name in ("inputs", "outputs"):
        if name in changes:
            loaded[name] = changes.pop(name)
    return cards.parse_card(yaml.safe_dump(loaded | changes).encode(), "tiny")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    return tmp_path


def evaluated(found: data.Dataset | None) -> data.Dataset:
    assert found is not None
    return found


def test_text_lines_are_the_same_every_time_and_other_ones_for_another_seed(home: Path) -> None:
    line = [{"name": "x", "layout": "NCHW", "shape": [1, 3, 48, 320], "preprocess": {"colour": "BGR", "scale": 1.0}}]
    source = {"kind": "text_lines", "seed": 1, "count": 6}
    one = evaluated(data.evaluation(card(home, inputs=line, data={"evaluation": source}, probe={"from": "evaluation"})))
    two = evaluated(data.evaluation(card(home, inputs=line, data={"evaluation": source}, probe={"from": "evaluation"})))
    other = {**source, "seed": 2}
    three = evaluated(
        data.evaluation(card(home, inputs=line, data={"evaluation": other}, probe={"from": "evaluation"}))
    )
    assert one.inputs.shape == (6, 3, 48, 320)
    assert one.sha256 == two.sha256
    assert set(one.sha256).isdisjoint(three.sha256)
    assert len(one.truth["texts"]) == 6
    assert all(text and text.isascii() for text in one.truth["texts"])
    # Dark ink on light paper, and nothing is cut off at the right edge.
    assert one.inputs[..., -1].min() > 150
    assert all(picture.min() < 90 for picture in one.inputs)


def test_a_tone_is_where_its_label_says(home: Path) -> None:
    sound = [{"name": "x", "shape": [1, 43844, 1]}]
    source = {"kind": "tones", "seed": 1, "count": 4}
    found = evaluated(
        data.evaluation(card(home, inputs=sound, data={"evaluation": source}, probe={"from": "evaluation"}))
    )
    for wave, label in zip(found.inputs[..., 0], found.labels, strict=True):
        spectrum = np.abs(np.fft.rfft(wave[:32768] * np.hanning(32768)))
        frequency_hz = np.argmax(spectrum) * data_made.SAMPLE_RATE_HZ / 32768
        assert round(69 + 12 * np.log2(frequency_hz / 440)) == label + 21


def test_wordpiece_takes_the_longest_piece_first_and_knows_what_it_does_not_know() -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "una", "cafe", ",", "##f"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # "una" is longer than "un": una ##f ##f ##able.
    assert data_text.wordpiece("Unaffable", vocabulary, 8).tolist() == [2, 7, 10, 10, 6, 3, 0, 0]
    assert data_text.wordpiece("Café, cafe", vocabulary, 8).tolist() == [2, 8, 9, 8, 3, 0, 0, 0]
    assert data_text.wordpiece("zebra", vocabulary, 5).tolist() == [2, 1, 3, 0, 0]
    assert data_text.wordpiece("cafe cafe cafe cafe", vocabulary, 4).tolist() == [2, 8, 8, 3]


def test_the_bytes_of_a_file_are_laid_out_as_magika_wants_them() -> None:
    short = data_text.file_features(b"  \n hello world \n ")
    assert bytes(short[:12].astype(np.uint8)).startswith(b"hello world ")
    assert bytes(short[-16:].astype(np.uint8)).endswith(b"hello world")
    assert (short[20:2020] == 256).all()
    long = data_text.file_features(bytes([1]) * 1024 + bytes([2]) * 10_000 + bytes([3]) * 1024)
    assert long.tolist() == [1] * 1024 + [3] * 1024


def test_words_fill_ids_and_masks_and_pairs_name_their_places(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [{"name": "ids", "dtype": "int64", "shape": [1, 6]}, {"name": "mask", "dtype": "int64", "shape": [1, 6]}]
    table = b"# a comment\nWord 1\tWord 2\tHuman\ncat\tdog\t7.5\ndog\tcar\t1.0\ncat\tcar\t0.5\n"
    monkeypatch.setattr(data_text, "archive_of", lambda *_: Path("words.whl"))
    monkeypatch.setattr(data_text, "member", lambda *_: table)
    source = {"kind": "word_pairs", "package": "pypi:words==1", "sha256": "0" * 64, "path": "t", "vocabulary": "v.txt"}
    made = card(home, inputs=inputs, data={"evaluation": source}, probe={"from": "evaluation", "count": 2})
    (home / "models" / "tiny" / "v.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\ndog\ncar\n")
    found = evaluated(data.evaluation(made))
    assert found.inputs.tolist() == [[2, 4, 3, 0, 0, 0], [2, 5, 3, 0, 0, 0], [2, 6, 3, 0, 0, 0]]
    assert found.more[0].tolist() == [[1, 1, 1, 0, 0, 0]] * 3
    assert found.truth == {"pairs": [[0, 1], [1, 2], [0, 2]], "scores": [7.5, 1.0, 0.5]}
    # A file takes the inputs by their names, in its own order and type.
    specs = (TensorSpec("mask", "int32", (1, 6)), TensorSpec("ids", "int32", (1, 6)))
    variant = Variant("tiny", "tflite-fp32", "tflite", "fp32", inputs=specs)
    mask, ids = dataset_inputs(made, variant, found)
    assert (mask.name, mask.count, mask.shape) == ("mask", 3, (1, 6))
    assert np.frombuffer(ids.data, "<i4").reshape(3, 6).tolist() == found.inputs.tolist()
    assert [item.count for item in probe_inputs(made, variant)] == [2, 2]
    monkeypatch.setattr(data_text, "member", lambda *_: b"cat\tdog\t7\ndog\tcar\tsome\n")
    with pytest.raises(ModelError, match="t, line 2: 'some' is no score"):
        data.evaluation(made)


def picture(path: Path, size: tuple[int, int] = (16, 16)) -> None:
    random = np.random.default_rng(len(path.name))
    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)


def coco(home: Path, **changes: Any) -> cards.Card:
    (home / "pictures").mkdir(exist_ok=True)
    picture(home / "pictures" / "a.png")
    (home / "pictures" / "broken.png").write_bytes(b"no picture")
    table: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 16, "height": 32},
            {"id": 8, "file_name": "broken.png", "width": 16, "height": 16},
        ],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [4, 8, 8, 16], "iscrowd": 0}],
    } | changes
    (home / "boxes.json").write_text(json.dumps(table))
    source = {"kind": "coco", "path": str(home / "boxes.json"), "images": str(home / "pictures")}
    return card(home, data={"evaluation": source}, probe={"from": "seeded"}, metric="map")


def test_coco_boxes_are_fractions_of_the_picture_and_a_broken_picture_is_named(home: Path) -> None:
    found = evaluated(data.evaluation(coco(home)))
    assert found.truth == {"boxes": [[[3.0, 0.25, 0.25, 0.75, 0.75, 0.0]]]}
    assert found.count == 1
    (skipped,) = found.skipped
    assert "broken.png: cannot identify" in skipped


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1]}]}, r"annotation 0 has no label \(category_id\)"),
        ({"images": [{"id": 1}]}, "is no COCO instances file: it needs images"),
        ({"images": [{"id": 1, "file_name": "../../x", "width": 1, "height": 1}]}, "there is no picture .*pictures/x"),
    ],
)
def test_a_coco_table_that_is_wrong_is_named(home: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        data.evaluation(coco(home, **changes))


def test_masks_lie_beside_their_pictures_and_a_missing_one_is_named(home: Path) -> None:
    for name in ("pictures", "masks"):
        (home / name).mkdir()
    picture(home / "pictures" / "a.png")
    wanted = np.full((16, 16), 255, np.uint8)
    wanted[4:8] = 2
    Image.fromarray(wanted).save(home / "masks" / "a.png")
    source = {"kind": "masks", "images": str(home / "pictures"), "labels": str(home / "masks")}
    made = card(home, data={"evaluation": source}, probe={"from": "seeded"}, metric="miou")
    assert (evaluated(data.evaluation(made)).targets[0] == wanted).all()
    picture(home / "pictures" / "b.png")
    with pytest.raises(ModelError, match=r"b\.png has no mask: there is no file .*masks/b\.png"):
        data.evaluation(made)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"left_out": {"onnx": {"fp32": "why"}}}, "onnx fp32 is in variants and in left_out"),
        ({"data": {"evaluation": {"kind": "text_lines"}}}, "the kind text_lines needs the field 'count'"),
        ({"data": {"evaluation": {"kind": "coco", "path": "x"}}}, "the kind coco needs the field 'images'"),
        ({"metric": {"name": "top1", "decoding": "x"}}, "metric: unknown field 'decoding'"),
        ({"files": {"onnx": {"path": "x.onnx", "sha256": "0", "source": {}}}}, "names no package, url or file"),
    ],
)
def test_a_card_that_does_not_fit_together_is_named(home: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        card(home, **({"probe": {"from": "seeded"}} | changes))


def test_what_a_suite_measures_changes_its_digest_and_what_people_read_does_not() -> None:
    suite = suites.load_suite("quick")
    digest = suites.content_of(suite)
    assert suites.content_of(msgspec.structs.replace(suite, title="Another title", description="x")) == digest
    assert suites.content_of(msgspec.structs.replace(suite, repetitions=4)) != digest
    assert suites.content_of(msgspec.structs.replace(suite, models=("resnet8",))) != digest


@pytest.mark.parametrize(
    ("dropped", "touched"),
    [(("executorch", "fp32"), False), (("tflite", "int8_dynamic"), False), (("tflite", "int8"), True)],
)
def test_a_file_that_no_row_of_a_suite_uses_does_not_change_its_digest(
    monkeypatch: pytest.MonkeyPatch, dropped: tuple[str, str], touched: bool
) -> None:
    suite = suites.load_suite("quick")
    digest, load = suites.content_of(suite), suites.load_card

    def less(name: str) -> Any:
        card = load(name)
        form, precision = dropped
        kept: Any = {**card.variants, form: tuple(item for item in card.variants[form] if item != precision)}  # type: ignore[index]
        return msgspec.structs.replace(card, variants=kept)

    monkeypatch.setattr(suites, "load_card", less)
    assert (suites.content_of(suite) != digest) is touched


@pytest.mark.parametrize("name", suites.suite_names())
def test_a_suites_version_says_what_it_measures(name: str) -> None:
    suite = suites.load_suite(name)
    recorded = suites.recorded_versions()[name]
    assert recorded.get(suite.version) == suites.content_of(suite), (
        f"what {name} measures has changed: raise its version, and add it with {suites.content_of(suite)!r} "
        f"to models/suites/{suites.VERSIONS}"
    )
    assert max(recorded) == suite.version
