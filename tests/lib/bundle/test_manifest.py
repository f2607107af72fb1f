"""What a manifest must say."""

import json
from collections.abc import Callable

import pytest
from google.protobuf import json_format

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_bundle.manifest import check_manifest, manifest_text
from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, Manifest, Precision
from tests.bundles import CLASSES, SHAPE, manifest

# The manifest


def check(said: Manifest) -> Manifest:
    return check_manifest({MANIFEST_KEY: json_format.MessageToJson(said)}, SHAPE, CLASSES)


def changed(change: Callable[[Manifest], object]) -> Manifest:
    said = manifest()
    change(said)
    return said


def test_manifest_that_agrees_comes_back_whole() -> None:
    assert check(manifest()) == manifest()


def test_manifest_without_resize_is_refused() -> None:
    with pytest.raises(BundleError, match="trained on pixels made by ''"):
        check(changed(lambda m: m.input.ClearField("resize")))


@pytest.mark.parametrize("method", METHODS)
def test_resize_that_imaging_has_is_taken(method: str) -> None:
    said = manifest()
    said.input.resize = method
    height, width, channels = METHODS[method]
    shape = height or 150, width or 150, channels or 3
    said.input.height, said.input.width, said.input.channels = shape
    text = json_format.MessageToJson(said)
    assert check_manifest({MANIFEST_KEY: text}, shape, CLASSES) == said


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("mnist-centre/1", (28, 28, 3)),
        ("photo-bilinear/1", (150, 150, 1)),
        ("photo-bilinear-grey/1", (150, 150, 3)),
        ("pixels/1", (12, 16, 2)),
    ],
)
def test_shape_that_the_resize_does_not_make_is_refused(
    method: str, shape: tuple[int, int, int]
) -> None:
    said = manifest()
    said.input.resize = method
    said.input.height, said.input.width, said.input.channels = shape
    with pytest.raises(BundleError, match=rf"{method} does not make images of shape \[\d+, "):
        check_manifest({MANIFEST_KEY: json_format.MessageToJson(said)}, shape, CLASSES)


def test_manifest_with_more_than_we_know_is_taken() -> None:
    text = json_format.MessageToJson(manifest()).replace("{", '{"fromTheFuture": {"a": [1]},', 1)
    assert check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES) == manifest()


@pytest.mark.parametrize("precision", Precision.values())
def test_precision_that_is_known_is_taken(precision: Precision.ValueType) -> None:
    said = manifest()
    said.precision = precision
    assert check(said) == said


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
        f"the manifest's precision is {shown}, which this version does not know; use a newer "
        "one, or publish the model in one of PRECISION_FLOAT32, PRECISION_TENSOR_FLOAT_32, "
        "PRECISION_FLOAT16, PRECISION_INT8"
    )


def test_text_of_a_manifest_keeps_what_an_earlier_one_has_and_we_do_not_know() -> None:
    said = manifest()
    said.metrics["accuracy"] = 0.5
    earlier = json.loads(manifest_text(said))
    earlier |= {"fromTheFuture": {"a": [1]}, "name": "other"}
    earlier["training"] = {"colour": "blue", "seed": 5}
    earlier["metrics"]["loss"] = 0.25
    said.training.seed = 7
    text = manifest_text(said, json.dumps(earlier))
    assert check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES) == said
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


def set_format(said: Manifest) -> None:
    said.format = 2


def set_height(said: Manifest) -> None:
    said.input.height = 32


def set_channels(said: Manifest) -> None:
    said.input.channels = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_format, "the manifest's format is 2, expected 1"),
        (lambda m: m.ClearField("format"), "the manifest's format is 0, expected 1"),
        (set_height, "the manifest's input shape is (32, 28, 1), expected (28, 28, 1)"),
        (set_channels, "the manifest's input shape is (28, 28, 3), expected (28, 28, 1)"),
        (
            lambda m: m.ClearField("input"),
            "the manifest's input shape is (0, 0, 0), expected (28, 28, 1)",
        ),
        (lambda m: m.labels.append("x"), "the manifest's number of labels is 11, expected 10"),
        (lambda m: m.ClearField("labels"), "the manifest's number of labels is 0, expected 10"),
    ],
)
def test_manifest_that_contradicts_the_file_says_both(
    change: Callable[[Manifest], object], message: str
) -> None:
    with pytest.raises(BundleError) as caught:
        check(changed(change))
    assert str(caught.value) == message


def test_resize_that_we_lack_is_named() -> None:
    def change(said: Manifest) -> None:
        said.input.resize = "magic/7"
        said.input.kind = IMAGE_KIND_PHOTO

    with pytest.raises(BundleError) as caught:
        check(changed(change))
    assert str(caught.value) == (
        "trained on pixels made by 'magic/7' (IMAGE_KIND_PHOTO), which this version lacks"
    )


def test_resize_of_a_kind_that_we_lack_is_named() -> None:
    text = json_format.MessageToJson(manifest())
    text = text.replace('"IMAGE_KIND_DIGITS"', "77").replace("mnist-centre/1", "magic/7")
    with pytest.raises(BundleError, match=r"made by 'magic/7' \(kind 77\), which this version"):
        check_manifest({MANIFEST_KEY: text}, SHAPE, CLASSES)
