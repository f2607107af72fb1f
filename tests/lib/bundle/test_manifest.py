"""What a manifest must say."""

import json
from collections.abc import Callable

import pytest
from google.protobuf import json_format

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_bundle.manifest import check_manifest, is_softmax, manifest_text
from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_PHOTO,
    OUTPUT_MULTI_LABEL,
    OUTPUT_SOFTMAX,
    Manifest,
    Precision,
)
from tests.bundles import CLASSES, SHAPE, manifest

# The manifest


def check(edited: Manifest) -> Manifest:
    return check_manifest({MANIFEST_KEY: json_format.MessageToJson(edited)}, SHAPE, CLASSES)


def changed(change: Callable[[Manifest], object]) -> Manifest:
    edited = manifest()
    change(edited)
    return edited


def test_manifest_that_agrees_comes_back_whole() -> None:
    assert check(manifest()) == manifest()


def test_manifest_without_resize_is_refused() -> None:
    with pytest.raises(BundleError, match="manifest.input.resize: expected one of .*, got ''"):
        check(changed(lambda m: m.input.ClearField("resize")))


@pytest.mark.parametrize("method", METHODS)
def test_resize_that_imaging_has_is_taken(method: str) -> None:
    edited = manifest()
    edited.input.resize = method
    height, width, channels = METHODS[method]
    shape = height or 150, width or 150, channels or 3
    edited.input.height, edited.input.width, edited.input.channels = shape
    text = json_format.MessageToJson(edited)
    assert check_manifest({MANIFEST_KEY: text}, shape, CLASSES) == edited


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("mnist-centre/1", (28, 28, 3)),
        ("photo-bilinear/1", (150, 150, 1)),
        ("photo-bilinear-grey/1", (150, 150, 3)),
        ("picture-bilinear/1", (150, 150, 1)),
        ("picture-bilinear-grey/1", (150, 150, 3)),
        ("pixels/1", (12, 16, 2)),
    ],
)
def test_shape_that_the_resize_does_not_make_is_refused(
    method: str, shape: tuple[int, int, int]
) -> None:
    edited = manifest()
    edited.input.resize = method
    edited.input.height, edited.input.width, edited.input.channels = shape
    with pytest.raises(BundleError, match=rf"{method} does not make images of shape \[\d+, "):
        check_manifest({MANIFEST_KEY: json_format.MessageToJson(edited)}, shape, CLASSES)


def test_manifest_with_more_than_we_know_is_taken() -> None:
    text = json_format.MessageToJson(manifest()).replace("{", '{"fromTheFuture": {"a": [1]},', 1)
    assert check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES) == manifest()


@pytest.mark.parametrize("precision", Precision.values())
def test_precision_that_is_known_is_taken(precision: Precision.ValueType) -> None:
    edited = manifest()
    edited.precision = precision
    assert check(edited) == edited


@pytest.mark.parametrize(
    ("stated", "shown"), [('"PRECISION_INT4"', "'PRECISION_INT4'"), ("77", "77"), ('""', "''")]
)
def test_precision_that_is_not_known_is_refused_with_those_that_are(
    stated: str, shown: str
) -> None:
    text = json_format.MessageToJson(manifest()).replace("{", f'{{"precision": {stated},', 1)
    with pytest.raises(BundleError) as caught:
        check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES)
    assert str(caught.value) == (
        "manifest.precision: expected one of PRECISION_FLOAT32, PRECISION_TENSOR_FLOAT_32, "
        f"PRECISION_FLOAT16, PRECISION_INT8, PRECISION_BFLOAT16, got {shown}; use a newer version "
        "of Convserve, or publish the model in one of these"
    )


def several() -> Manifest:
    """Of a model whose images have several labels."""
    edited = manifest()
    edited.format, edited.output = 2, OUTPUT_MULTI_LABEL
    edited.thresholds.extend([0.5] * CLASSES)
    return edited


def test_output_of_each_kind_is_taken_in_its_format() -> None:
    assert check(several()) == several()
    stated = changed(lambda m: setattr(m, "output", OUTPUT_SOFTMAX))
    assert check(stated) == stated
    assert is_softmax(stated)
    assert is_softmax(manifest())
    assert not is_softmax(several())


def test_output_that_is_not_known_is_refused_with_those_that_are() -> None:
    text = json_format.MessageToJson(several()).replace("OUTPUT_MULTI_LABEL", "OUTPUT_BOXES")
    with pytest.raises(BundleError) as caught:
        check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES)
    assert str(caught.value) == (
        "manifest.output: expected one of OUTPUT_SOFTMAX, OUTPUT_MULTI_LABEL, got 'OUTPUT_BOXES'; "
        "use a newer version of Convserve"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # What programs from before the field `output` know: they refuse format 2.
        (lambda m: setattr(m, "format", 1), "manifest.format: expected 2, got 1"),
        (lambda m: m.ClearField("output"), "manifest.format: expected 1, got 2"),
        (lambda m: m.ClearField("thresholds"), "manifest.thresholds: expected 10, got 0"),
        (lambda m: m.thresholds.append(0.5), "manifest.thresholds: expected 10, got 11"),
        (
            lambda m: m.thresholds.__setitem__(3, 0.0),
            "manifest.thresholds[3]: expected above 0 and at most 1, got 0",
        ),
        (
            lambda m: m.thresholds.__setitem__(9, float("nan")),
            "manifest.thresholds[9]: expected above 0 and at most 1, got nan",
        ),
    ],
)
def test_several_labels_without_all_that_they_need_are_refused(
    change: Callable[[Manifest], object], message: str
) -> None:
    edited = several()
    change(edited)
    with pytest.raises(BundleError) as caught:
        check(edited)
    assert str(caught.value) == message


def test_thresholds_of_a_softmax_are_refused() -> None:
    with pytest.raises(BundleError, match="manifest.thresholds: expected 0, got 1"):
        check(changed(lambda m: m.thresholds.append(0.5)))


def test_text_of_a_manifest_keeps_what_an_earlier_one_has_and_we_do_not_know() -> None:
    edited = manifest()
    edited.metrics["accuracy"] = 0.5
    earlier = json.loads(manifest_text(edited))
    earlier |= {"fromTheFuture": {"a": [1]}, "name": "other"}
    earlier["training"] = {"colour": "blue", "seed": 5}
    earlier["metrics"]["loss"] = 0.25
    edited.training.seed = 7
    text = manifest_text(edited, json.dumps(earlier))
    assert check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES) == edited
    made = json.loads(text)
    assert made["fromTheFuture"] == {"a": [1]}
    assert made["training"]["colour"] == "blue"
    assert made["name"] == "mnist"


def test_manifest_missing_says_so() -> None:
    with pytest.raises(BundleError, match=r"without convserve\.manifest: not published by"):
        check_manifest({"other": "{}"}, SHAPE, CLASSES)


@pytest.mark.parametrize(
    "text",
    ["", "{", "5", "null", "[1]", '{"format": "one"}', '{"format": -1}', '{"labels": 3}']
    + ['{"input": 5}', '{"metrics": {"accuracy": "high"}}', '{"format": 1, "format": 1}'],
)
def test_manifest_that_is_damaged_says_so(text: str) -> None:
    with pytest.raises(BundleError, match=r"convserve\.manifest is damaged: "):
        check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES)


@pytest.mark.parametrize("text", ["[]", '"text"', "{}", '{"input": []}'])
def test_manifest_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(BundleError):
        check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES)


def set_format(edited: Manifest) -> None:
    edited.format = 2


def set_height(edited: Manifest) -> None:
    edited.input.height = 32


def set_channels(edited: Manifest) -> None:
    edited.input.channels = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_format, "manifest.format: expected 1, got 2"),
        (lambda m: m.ClearField("format"), "manifest.format: expected 1, got 0"),
        (set_height, "manifest.input: expected shape (28, 28, 1), got (32, 28, 1)"),
        (set_channels, "manifest.input: expected shape (28, 28, 1), got (28, 28, 3)"),
        (
            lambda m: m.ClearField("input"),
            "manifest.input: expected shape (28, 28, 1), got (0, 0, 0)",
        ),
        (lambda m: m.labels.append("x"), "manifest.labels: expected 10, got 11"),
        (lambda m: m.ClearField("labels"), "manifest.labels: expected 10, got 0"),
    ],
)
def test_manifest_that_contradicts_the_file_says_both(
    change: Callable[[Manifest], object], message: str
) -> None:
    with pytest.raises(BundleError) as caught:
        check(changed(change))
    assert str(caught.value) == message


def test_resize_that_we_lack_is_named() -> None:
    def change(edited: Manifest) -> None:
        edited.input.resize = "magic/7"
        edited.input.kind = IMAGE_KIND_PHOTO

    with pytest.raises(BundleError) as caught:
        check(changed(change))
    assert str(caught.value) == (
        "manifest.input.resize: expected one of mnist-centre/1, photo-bilinear/1, "
        "photo-bilinear-grey/1, picture-bilinear/1, picture-bilinear-grey/1, pixels/1, got "
        "'magic/7' (IMAGE_KIND_PHOTO); use a newer version of Convserve"
    )


def test_resize_of_a_kind_that_we_lack_is_named() -> None:
    text = json_format.MessageToJson(manifest())
    text = text.replace('"IMAGE_KIND_DIGITS"', "77").replace("mnist-centre/1", "magic/7")
    with pytest.raises(BundleError, match=r"got 'magic/7' \(kind 77\); use a newer version"):
        check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES)
