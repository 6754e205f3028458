"""Every metric against a case that can be computed by hand, and the intervals that come with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from socbench.analysis import accuracy, decode, metrics


def accurate(name: str, outputs: list[np.ndarray], truth: dict, targets: object = None, **settings: object) -> float:
    return accuracy.accuracy(outputs, {"metric": {"name": name, **settings}, **truth}, targets).value


def test_ctc_drops_blanks_and_repeats_and_counts_wrong_characters() -> None:
    # Steps of "a-ab" and "bb-c" (blank is 0), three characters: they read "aab" and "bc".
    steps = np.zeros((2, 4, 4))
    for item, classes in enumerate(([1, 0, 1, 2], [2, 2, 0, 3])):
        steps[item, range(4), classes] = 1
    truth = {"count": 2, "texts": ["aab", "bcc"], "characters": ["a", "b", "c"], "output_shapes": [[1, 4, 4]]}
    # One of six characters is missing.
    assert accurate("character_accuracy", [steps.ravel()], truth, decode="ctc_greedy") == pytest.approx(5 / 6)
    reduced = steps.argmax(-1).astype(np.float64)
    assert accurate("character_accuracy", [reduced.ravel()], truth, decode="ctc_greedy") == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("one", "two", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_levenshtein_counts_insertions_deletions_and_replacements(one: str, two: str, edits: int) -> None:
    assert metrics.levenshtein(one, two) == edits


def test_mean_iou_is_the_mean_over_the_classes_that_are_there() -> None:
    # 2 x 2 pixels; class 0: 1 of 2 in common over 3 -> 1/3... counted by hand below; class 2 is nowhere.
    wanted = np.array([[[0, 0], [1, 255]]], np.uint8)
    found = np.array([[[0, 1], [1, 0]]])
    scores = np.zeros((1, 2, 2, 3))
    for row in range(2):
        for column in range(2):
            scores[0, row, column, found[0, row, column]] = 1
    truth = {"count": 1, "output_shapes": [[1, 2, 2, 3]]}
    # Class 0: both {(0,0)}, either {(0,0), (0,1)} = 1/2. Class 1: both {(1,0)}, either {(0,1), (1,0)} = 1/2.
    assert accurate("miou", [scores.ravel()], truth, wanted, decode="argmax_classes") == 0.5
    assert accurate("miou", [found.ravel().astype(float)], truth, wanted, decode="argmax_classes") == 0.5
    one_wrong = np.array([[[0, 0], [0, 2]]])
    # Class 0: 2 of 3; class 1: 0 of 1; the pixel of 255 does not count, so class 2 is nowhere.
    assert (
        accurate("miou", [one_wrong.ravel().astype(float)], truth, wanted, decode="argmax_classes") == (2 / 3 + 0) / 2
    )


def test_psnr_of_a_constant_error_is_that_of_its_square() -> None:
    wanted = np.full((1, 3, 16, 16), 100, np.uint8)
    found = np.full((1, 3, 16, 16), 110 / 255)
    value = accurate("psnr", [found.ravel()], {"count": 1}, wanted, peak=1.0)
    assert value == pytest.approx(10 * math.log10(255**2 / 10**2))


def test_psnr_takes_luma_and_leaves_the_border_out() -> None:
    wanted = np.full((1, 8, 8, 3), 50, np.uint8)
    found = np.full((1, 8, 8, 3), 50.0)
    found[0, 2:6, 2:6, 1] = 60  # green alone: luma is wrong by 5.87 in the middle 16 pixels
    found[0, 0, 0] = 255
    value = accurate("psnr", [found.ravel()], {"count": 1}, wanted, border=2)
    assert value == pytest.approx(10 * math.log10(255**2 / 5.87**2))


def test_ssim_is_one_for_equal_pictures_and_the_formula_for_flat_ones() -> None:
    flat, other = np.full((24, 24), 100.0), np.full((24, 24), 150.0)
    assert metrics.ssim(flat, flat) == 1.0
    c1 = (0.01 * 255) ** 2
    # Without any structure only the term of the means is left.
    assert metrics.ssim(flat, other) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))
    noise = np.random.default_rng(1).normal(0, 40, (24, 24))
    assert metrics.ssim(flat, flat + noise) < 0.1


def test_spearman_sees_the_order_of_cosines_only() -> None:
    # Cosines with the first vector: 1, cos 30, cos 60, 0.
    angles = np.radians([0, 0, 30, 60, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array([[1], [3], [0.1], [7], [2]])
    truth = {"count": 5, "pairs": [[0, 1], [0, 2], [0, 3], [0, 4]], "scores": [10, 7, 3, 0.5]}
    assert accurate("spearman", [vectors.ravel()], truth) == pytest.approx(1.0)
    # One swap of neighbours in four: 1 - 6 * 2 / (4 * 15) = 0.8.
    swapped = {**truth, "scores": [10, 3, 7, 0.5]}
    assert accurate("spearman", [vectors.ravel()], swapped, decode="l2_normalised") == pytest.approx(0.8)
    assert accurate("spearman", [np.ones(10)], truth) == 0.0


def test_keypoint_error_is_the_mean_distance_by_the_items_scale() -> None:
    truth = {"keypoints": [[[0, 0], [10, 0]], [[5, 5], [-1, -1]]], "scale": [10, 5], "count": 2}
    found = np.array([[[3, 4], [10, 0]], [[5, 6], [99, 99]]], float)
    # Item 1: (5 + 0) / 2 / 10 = 0.25; item 2: its second point is not there: 1 / 5 = 0.2.
    assert accurate("keypoint_error", [found.ravel()], truth) == pytest.approx((0.25 + 0.2) / 2)
    assert metrics.METRICS["keypoint_error"].lower_is_better


def test_map_is_that_of_pycocotools_on_a_case_done_by_hand() -> None:
    # One class, two pictures: the first box is hit exactly, the second not at all (found elsewhere, lower score).
    truth = {"count": 2, "boxes": [[[1, 0.1, 0.1, 0.5, 0.5, 0]], [[1, 0.2, 0.2, 0.6, 0.6, 0]]]}
    boxes = np.array([[[0.1, 0.1, 0.5, 0.5]], [[0.7, 0.7, 0.9, 0.9]]])  # y1, x1, y2, x2
    outputs = [boxes.ravel(), np.zeros(2), np.array([0.9, 0.8]), np.ones(2)]
    # Precision is 1 up to a recall of one half: 51 of 101 points of the curve.
    value = accurate("map", outputs, truth, decode="tflite_boxes", label_offset=1)
    assert value == pytest.approx(51 / 101)
    # A class that is off by one finds nothing.
    assert accurate("map", outputs, truth, decode="tflite_boxes", label_offset=0) == 0.0


def test_mean_over_steps_lets_the_note_that_sounds_longest_win() -> None:
    notes = np.zeros((1, 3, 4))
    notes[0, :, 2] = [0.4, 0.4, 0.4]
    notes[0, 0, 1] = 1.0
    truth = {"count": 1, "labels": [2], "output_shapes": [[1, 3, 4]]}
    assert accurate("top1", [notes.ravel()], truth, decode="mean_over_steps") == 1.0
    assert accurate("top1", [notes.ravel()], {**truth, "labels": [1]}, decode="mean_over_steps") == 0.0


def test_a_mean_has_students_interval_and_a_paired_one_for_its_difference() -> None:
    def found(values: list[float]) -> accuracy.Accuracy:
        errors = 255 / 10 ** (np.array(values) / 20)
        wanted = np.zeros((len(values), 12, 12), np.uint8)
        outputs = np.repeat(errors, 144)
        # Rounded to whole levels, so choose values whose errors are whole.
        return accuracy.accuracy([outputs], {"metric": "psnr", "count": len(values)}, wanted)

    psnr = [20 * math.log10(255 / level) for level in (1, 2, 4)]
    one, two = found(psnr), found([value - 20 * math.log10(2) for value in psnr])
    assert one.value == pytest.approx(np.mean(psnr))
    # t(2, 97.5 %) = 4.3027; the values lie 6.0206 dB apart, so s = 6.0206.
    assert one.high - one.value == pytest.approx(4.302653 * 6.0205999 / math.sqrt(3), rel=1e-5)
    difference = accuracy.paired_difference(one, two)
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == pytest.approx((-6.0206, -6.0206, -6.0206), abs=1e-4)


def test_what_is_no_mean_has_a_seeded_bootstrap_interval_and_a_paired_one() -> None:
    random = np.random.default_rng(5)
    vectors = random.normal(size=(80, 8))
    pairs = random.integers(0, 80, (60, 2))
    cosines = [
        float(np.dot(vectors[a], vectors[b]) / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b]))
        for a, b in pairs
    ]
    truth = {
        "metric": "spearman",
        "count": 80,
        "pairs": pairs.tolist(),
        "scores": (np.array(cosines) + random.normal(0, 0.3, 60)).tolist(),
    }
    one = accuracy.accuracy([vectors.ravel()], truth)
    again = accuracy.accuracy([vectors.ravel()], truth)
    assert (one.low, one.high) == (again.low, again.high)
    assert one.low < one.value < one.high
    assert 0.1 < one.high - one.low < 0.6
    two = accuracy.accuracy([(vectors + random.normal(0, 0.01, vectors.shape)).ravel()], truth)
    difference = accuracy.paired_difference(one, two)
    assert difference is not None
    # Nearly the same answers: the paired interval is many times tighter than either one's own.
    assert difference.high - difference.low < (one.high - one.low) / 5
    assert difference.low <= difference.value <= difference.high


@pytest.mark.parametrize(
    ("truth", "what"),
    [
        ({"metric": {"name": "top1", "decode": "nonsense"}, "labels": [1], "count": 1}, "unknown decode 'nonsense'"),
        ({"metric": {"name": "miou", "decode": "argmax_classes"}, "count": 1}, "does not say what shape"),
        ({"metric": "spearman", "count": 1}, "does not fit the metric spearman"),
        ({"metric": "character_accuracy", "texts": ["a"], "characters": [], "count": 1}, "has no character"),
        ({"metric": "top1", "count": 1}, "no labels"),
        ({"metric": "best"}, "unknown metric 'best'"),
    ],
)
def test_a_truth_that_does_not_fit_is_named(truth: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        accuracy.accuracy([np.array([1.0, 2.0])], truth, np.zeros((1, 1, 1)))


def test_every_decode_that_a_card_may_name_exists() -> None:
    assert set(decode.DECODERS) == {"ctc_greedy", "mean_over_steps", "l2_normalised", "argmax_classes", "tflite_boxes"}


def test_spearman_with_ties_is_scipys() -> None:
    from scipy.stats import spearmanr

    random = np.random.default_rng(3)
    pairs = random.integers(0, 6, (40, 2)).astype(float)
    assert metrics._spearman(pairs) == pytest.approx(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def test_spearman_of_many_resamples_at_once_is_that_of_one_after_the_other() -> None:
    random = np.random.default_rng(3)
    chosen = np.concatenate([random.integers(0, 40, (200, 40)), np.zeros((1, 40), np.int64)])
    tied = random.integers(0, 6, (40, 2)).astype(float)
    for pairs in (tied, random.normal(size=(40, 2)), tied * [1, 0]):
        one_by_one = [metrics._spearman(pairs[places]) for places in chosen]
        np.testing.assert_allclose(metrics._spearman_resampled(pairs, chosen), one_by_one, atol=1e-12)
