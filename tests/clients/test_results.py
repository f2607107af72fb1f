import grpc
import numpy as np
import pytest

from convserve import Classification, ConvserveError, InvalidRequest, Timings, UnexpectedReply
from convserve.calls import ClassifyOptions
from convserve.replies import read_replies
from convserve_protos import classifier_pb2

LABELS = ["cat", "dog", "owl"]
ALL = ClassifyOptions("pets", None, None)
TOP_2 = ClassifyOptions("pets", None, 2)


def reply(*predictions: classifier_pb2.Prediction | str) -> classifier_pb2.ClassifyResponse:
    """A string is the message of an image's error."""
    response = classifier_pb2.ClassifyResponse(model="pets", version=4, labels=LABELS)
    for each in predictions:
        result = response.results.add()
        if isinstance(each, str):
            result.error.code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
            result.error.message = each
        else:
            result.prediction.CopyFrom(each)
    return response


def row(*probabilities: float, classes: tuple[int, ...] = ()) -> classifier_pb2.Prediction:
    return classifier_pb2.Prediction(probabilities=probabilities, classes=classes)


def read(
    response: classifier_pb2.ClassifyResponse, options: ClassifyOptions = ALL
) -> Classification:
    return read_replies([response], [len(response.results)], options, total_us=5)


CATS = reply(row(0.2, 0.7, 0.1), row(0.5, 0.1, 0.4), row(0.1, 0.1, 0.8))
TOP_CATS = reply(row(0.7, 0.2, classes=(1, 0)), row(0.5, 0.4, classes=(0, 2)))


def test_probabilities_are_one_matrix() -> None:
    found = read(CATS)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities.shape == (3, 3)
    assert found.probabilities[1].tolist() == pytest.approx([0.5, 0.1, 0.4])
    assert found.indices.tolist() == [1, 0, 2]
    assert found.classes.tolist() == [[0, 1, 2]] * 3
    assert (found.labels, found.versions) == (("cat", "dog", "owl"), (4,))


def test_results_are_a_sequence() -> None:
    found = read(CATS)
    assert [one.label for one in found] == ["dog", "cat", "owl"]
    assert [one.index for one in found[1:]] == [0, 2]
    assert found[-1].probability == pytest.approx(0.8)
    with pytest.raises(IndexError):
        found[3]


def test_top_is_ordered_by_probability() -> None:
    one = read(CATS)[1]
    assert [score.label for score in one.top()] == ["cat", "owl", "dog"]
    assert [score.label for score in one.top(2)] == ["cat", "owl"]
    assert one.top(1)[0].probability == one.probability


@pytest.mark.parametrize("k", [0, 4, -1])
def test_top_of_more_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k: expected an integer of 1 to 3, got {k}"):
        read(CATS)[0].top(k)


def test_top_k_is_read_by_class() -> None:
    found = read(TOP_CATS, TOP_2)
    assert found.probabilities.shape == (2, 2)
    assert found.classes.tolist() == [[1, 0], [0, 2]]
    assert found.indices.tolist() == [1, 0]
    assert [one.label for one in found] == ["dog", "cat"]
    assert [score.label for score in found[1].top()] == ["cat", "owl"]


@pytest.mark.parametrize("options", [ALL, TOP_2])
def test_failed_image_raises_when_its_answer_is_read(options: ClassifyOptions) -> None:
    good = row(0.2, 0.7, 0.1) if options is ALL else row(0.7, 0.2, classes=(1, 0))
    found = read(reply("not a JPEG", good), options)
    assert list(found.errors) == [0]
    assert found.indices.tolist() == [-1, 1]
    assert np.isnan(found.probabilities[0]).all()
    assert found[1].label == "dog"
    assert found[1].error is None
    for read_answer in (
        lambda: found[0].label,
        lambda: found[0].index,
        lambda: found[0].probability,
        lambda: found[0].top(1),
    ):
        with pytest.raises(InvalidRequest, match="not a JPEG"):
            read_answer()
    assert "not a JPEG" in repr(found[0])
    assert repr(found) == "<Classification of 2 by pets/4, 1 failed>"


def test_single_image_answers_directly_and_several_do_not() -> None:
    single = read(reply(row(0.2, 0.7, 0.1)))
    assert (single.label, single.top(1)[0].label) == ("dog", "dog")
    assert repr(single[0]) == "<Result 'dog' 0.7000>"
    for read_answer in (lambda: read(CATS).label, lambda: read(CATS).probability):
        with pytest.raises(ValueError, match="expected one image, got 3: choose one"):
            read_answer()


def test_timings_of_several_calls_are_added_up() -> None:
    first, second = reply(row(0.2, 0.7, 0.1)), reply(row(0.2, 0.7, 0.1))
    first.timings.queue_us, first.timings.compute_us = 30, 5
    second.timings.queue_us, second.timings.compute_us = 20, 7
    first.timings.decode_us, second.timings.decode_us = 300, 500
    timings = read_replies([first, second], [1, 1], ALL, total_us=99).timings
    assert timings == Timings(queue_us=30, decode_us=800, compute_us=12, total_us=99, calls=2)


@pytest.mark.parametrize(
    ("response", "count", "options", "reason"),
    [
        (CATS, 2, ALL, "2 images were sent, 3 results came"),
        (reply(), 1, ALL, "1 images were sent, 0 results came"),
        (reply(row(0.5, 0.5)), 1, ALL, "image 0 has 2 probabilities, not 3"),
        (reply(row(0.5, 0.5)), 1, TOP_2, "does not name them"),
        (reply(row(0.5, 0.5, classes=(0, 3))), 1, TOP_2, "does not name them"),
        (
            classifier_pb2.ClassifyResponse(labels=LABELS, results=[classifier_pb2.ImageResult()]),
            1,
            ALL,
            "image 0 has no probabilities",
        ),
        (
            classifier_pb2.ClassifyResponse(results=[classifier_pb2.ImageResult()]),
            1,
            ALL,
            "image 0 has no",
        ),
    ],
)
def test_reply_that_does_not_fit_is_refused(
    response: classifier_pb2.ClassifyResponse, count: int, options: ClassifyOptions, reason: str
) -> None:
    with pytest.raises(UnexpectedReply, match=reason):
        read_replies([response], [count], options, total_us=0)


def several(*assigned: tuple[int, ...], top_k: int | None = None) -> Classification:
    """An answer of a model whose images have several labels."""
    response = reply(*(row(0.2, 0.7, 0.4) for _ in assigned))
    response.thresholds.extend([0.25, 0.5, 0.25])
    for result, indices in zip(response.results, assigned, strict=True):
        prediction = result.prediction
        if top_k is not None:
            prediction.classes.extend([1, 2, 0][:top_k])
            prediction.probabilities[:] = [0.7, 0.4, 0.2][:top_k]
        prediction.assigned.extend(indices)
        prediction.assigned_probabilities.extend((0.2, 0.7, 0.4)[index] for index in indices)
    return read(response, ClassifyOptions("pets", None, top_k))


@pytest.mark.parametrize("top_k", [None, 1])
def test_images_have_the_labels_that_the_server_assigns(top_k: int | None) -> None:
    found = several((1, 2), (), top_k=top_k)
    assert found.thresholds == (0.25, 0.5, 0.25)
    first, second = found
    assert [each.label for each in first.assigned] == ["dog", "owl"]
    assert [each.probability for each in first.assigned] == pytest.approx([0.7, 0.4])
    assert first.label == "dog", "the most probable one"
    assert second.assigned == ()
    assert second.label == "dog", "though it does not reach its threshold"
    assert (repr(first), repr(second)) == (
        "<Result 'dog' 0.7000, 'owl' 0.4000>",
        "<Result without a label>",
    )
    assert several((2,)).assigned == several((2,))[0].assigned


def test_image_of_another_model_has_its_most_probable_label_alone() -> None:
    found = read(CATS)
    assert found.thresholds == ()
    assert [[each.label for each in one.assigned] for one in found] == [["dog"], ["cat"], ["owl"]]
    assert found[0].above_threshold is None
    assert [each.label for each in read(TOP_CATS, TOP_2)[1].assigned] == ["cat"]


def test_image_with_an_error_has_no_labels() -> None:
    response = reply(row(0.2, 0.7, 0.4), "no picture")
    response.thresholds.extend([0.25, 0.5, 0.25])
    found = read(response)
    assert found[0].assigned == ()
    with pytest.raises(ConvserveError, match="no picture"):
        _ = found[1].assigned


@pytest.mark.parametrize(("indices", "probabilities"), [([3], [0.5]), ([1, 2], [0.5]), ([], [0.5])])
def test_labels_that_the_reply_does_not_name_are_no_answer(
    indices: list[int], probabilities: list[float]
) -> None:
    response = reply(row(0.2, 0.7, 0.4))
    response.thresholds.extend([0.25, 0.5, 0.25])
    response.results[0].prediction.assigned.extend(indices)
    response.results[0].prediction.assigned_probabilities.extend(probabilities)
    with pytest.raises(UnexpectedReply, match="labels above their threshold came with 1"):
        read(response)


def test_replies_with_other_thresholds_are_of_two_versions() -> None:
    one, other = reply(row(0.2, 0.7, 0.4)), reply(row(0.2, 0.7, 0.4))
    one.thresholds.extend([0.25, 0.5, 0.25])
    other.thresholds.extend([0.25, 0.5, 0.5])
    with pytest.raises(UnexpectedReply, match="have different labels or thresholds"):
        read_replies([one, other], [1, 1], ALL, total_us=5)
