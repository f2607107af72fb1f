"""Figures of classes, mistakes and slices, against values computed by hand."""

import json
from collections.abc import Generator, Iterable

import numpy as np
import pytest

from convserve_trainer.datasets.pictures import ArrayPictures, Batch
from convserve_trainer.evaluation import classes, judgement, mistakes, slices, traits
from convserve_trainer.evaluation.predict import Answers

LABELS = ("a", "b", "c")
#: Of three classes: 2 of 3 a, 1 of 2 b and no c are right.
ANSWERS = Answers(
    np.array(
        [
            [0.7, 0.2, 0.1],
            [0.5, 0.4, 0.1],
            [0.3, 0.6, 0.1],  # a, taken for b
            [0.1, 0.8, 0.1],
            [0.5, 0.3, 0.2],  # b, taken for a
            [0.1, 0.7, 0.2],  # c, taken for b
        ],
        np.float32,
    ),
    np.array([0, 0, 0, 1, 1, 2]),
)


def test_figures_of_each_class_are_those_computed_by_hand() -> None:
    a, b, c = classes.one_against_the_rest(LABELS, ANSWERS.labels, ANSWERS.probabilities)
    assert (a.precision, a.recall, a.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (b.precision, b.recall, b.f1) == (1 / 3, 1 / 2, 2 / 5)
    assert (c.precision, c.recall, c.f1) == (None, 0.0, 0.0)
    # a: .7 .5 .3 against .1 .5 .1: of nine pairs 3 + 2.5 + 2 in the right order.
    assert a.roc_auc == pytest.approx(7.5 / 9)
    # b: .8 .3 against .2 .4 .6 .7: 4 + 1 of 8.
    assert b.roc_auc == pytest.approx(5 / 8)
    # c: .2 against .1 .1 .1 .1 .2: 4.5 of 5.
    assert c.roc_auc == pytest.approx(4.5 / 5)
    assert (a.pictures, a.neither) == (3, 2)


def test_mean_leaves_out_what_cannot_be_known() -> None:
    found = classes.one_against_the_rest(LABELS, ANSWERS.labels, ANSWERS.probabilities)
    assert classes.macro(found, "precision") == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert classes.macro(found, "f1") == pytest.approx((2 / 3 + 2 / 5) / 3)
    assert classes.macro([], "f1") is None


def test_pictures_with_several_labels_are_judged_class_by_class() -> None:
    true = np.array([True, True, False, False])
    found = classes.of_class("x", true, np.array([True, False, True, False]), np.arange(4.0)[::-1])
    assert (found.both, found.missed, found.mistaken, found.neither) == (1, 1, 1, 1)
    assert found.roc_auc == 1.0


def test_area_without_both_kinds_is_not_known() -> None:
    assert classes.roc_auc(np.array([True, True]), np.array([0.1, 0.2])) is None
    found = classes.of_class("x", np.zeros(2, bool), np.zeros(2, bool), np.zeros(2, int))
    assert found.recall is found.precision is found.f1 is found.roc_auc is None
    assert found.recall_interval is found.roc_auc_interval is None


def test_mean_of_f1_has_an_interval_around_it() -> None:
    confusion = np.array([[90, 10, 0], [5, 80, 15], [0, 20, 30]])
    found = classes.macro_f1_interval(confusion)
    assert found is not None
    low, high = found
    f1s = [2 * 90 / (100 + 95), 2 * 80 / (100 + 110), 2 * 30 / (50 + 45)]
    assert low < np.mean(f1s) < high
    assert 0.05 < high - low < 0.15


def test_mean_of_f1_without_a_mistake_has_no_interval() -> None:
    # Pictures that are drawn anew have no mistake either: from 1 to 1 would look like certainty.
    assert classes.macro_f1_interval(np.diag([4, 4, 4])) is None


def test_confusions_are_the_commonest_first() -> None:
    found = judgement.judge(LABELS, ANSWERS, {})
    assert found.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    pairs = [(each.true, each.answered, each.count) for each in found.confusions]
    assert pairs == [(0, 1, 1), (1, 0, 1), (2, 1, 1)]


def test_judgement_as_json_is_valid_and_has_what_the_score_has() -> None:
    found = json.loads(json.dumps(judgement.judge(LABELS, ANSWERS, {}).as_dict(), allow_nan=False))
    assert (found["correct"], found["total"]) == (3, 6)
    assert found["classes"][2]["precision"] is None
    assert found["confusions"][0] == {"true": "a", "answered": "b", "count": 1}
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high


def test_examples_are_those_that_the_net_is_surest_about() -> None:
    pixels = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    right = np.zeros(8, np.int64)
    sure = np.array([0.9, 0.6, 0.7, 0.8, 0.95, 0.65, 0.75, 0.85], np.float32)
    probabilities = np.stack([1 - sure, sure], axis=1)
    probabilities[0] = 1.0, 0.0  # right
    answers = Answers(probabilities, right)
    found = judgement.judge(("a", "b"), answers, {})
    pictures = ArrayPictures(pixels, right)
    [examples] = mistakes.examples(answers, pictures, found.confusions)
    assert examples.pixels.ravel().tolist() == [4, 7, 3, 6, 2, 5]
    assert examples.confidences[0] == pytest.approx(0.95)
    assert examples.confusion.count == 7
    fewer = Answers(probabilities[:7], right[:7])
    assert mistakes.examples(fewer, pictures, found.confusions) == [], "one was lost"


def test_slices_are_quarters_and_say_which_is_worse() -> None:
    values = np.arange(400, dtype=np.float32)
    right = values >= 60  # the lowest quarter has 40 of 100 right
    found = slices.sliced({"brightness": values}, right)
    assert [each.pictures for each in found] == [100] * 4
    assert [each.correct for each in found] == [40, 100, 100, 100]
    assert [each.verdict for each in found] == ["worse", "better", "better", "better"]
    assert (found[0].low, found[0].high) == (0, 99)


def test_equal_values_are_in_one_slice() -> None:
    values = np.repeat(np.array([1, 2], np.float32), [300, 100])
    found = slices.sliced({"size": values}, np.ones(400, bool))
    assert [(each.low, each.high, each.pictures) for each in found] == [(1, 1, 300), (2, 2, 100)]


@pytest.mark.parametrize("count", [1, 39, 50])
def test_few_or_equal_pictures_are_not_sliced(count: int) -> None:
    equal = np.zeros(count, np.float32)
    assert slices.sliced({"size": equal}, np.ones(count, bool)) == []
    if count < 2 * slices.LEAST:
        assert slices.sliced({"size": np.arange(count, dtype=np.float32)}, equal > 1) == []


def test_traits_of_another_number_of_pictures_are_left_out() -> None:
    values = {"size": np.arange(400, dtype=np.float32)}
    assert slices.sliced(values, np.ones(399, bool)) == []


def test_traits_are_luma_and_the_size_of_the_file() -> None:
    pixels = np.zeros((2, 2, 2, 3), np.uint8)
    pixels[0, 0] = 255, 0, 0  # one of two rows red
    pixels[1] = 100
    pictures = ArrayPictures(pixels, np.zeros(2, int), sizes=np.array([[20, 80], [30, 30]]))
    found = traits.measure(pictures, np.arange(2))
    assert found["brightness"] == pytest.approx([0.299 * 255 / 2, 100], rel=1e-5)
    assert found["contrast"] == pytest.approx([0.299 * 255 / 2, 0], abs=1e-4)
    assert found["size"].tolist() == [40, 30]
    assert traits.measure(pictures, np.array([1]))["size"].tolist() == [30]


def test_traits_of_grey_pictures_have_no_size_where_files_have_none() -> None:
    pixels = np.array([[[[0], [50]]]], np.uint8)
    found = traits.measure(ArrayPictures(pixels, np.zeros(1, int)), np.arange(1))
    assert {name: values.tolist() for name, values in found.items()} == {
        "brightness": [25],
        "contrast": [25],
    }


class Losing(ArrayPictures):
    """Pictures of which the first one is lost before it is asked for."""

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        yield from super().batches([number for number in order if number], size, steps)


def test_size_is_unknown_where_a_picture_was_lost() -> None:
    pictures = Losing(np.zeros((3, 1, 1, 1), np.uint8), np.zeros(3, int), np.ones((3, 2), np.int64))
    found = traits.measure(pictures, np.arange(3))
    assert set(found) == {"brightness", "contrast"}
    assert len(found["brightness"]) == 2


def test_net_that_is_watched_answers_as_it_does_and_leaves_traits() -> None:
    watch = traits.Watch(lambda pixels: np.full((len(pixels), 2), 0.5, np.float32))
    pictures = ArrayPictures(np.full((3, 2, 2, 1), 7, np.uint8), np.zeros(3, int))
    assert watch(pictures.pixels[:2]).shape == (2, 2)
    watch(pictures.pixels[2:])
    assert watch.traits(pictures)["brightness"].tolist() == [7, 7, 7]
