"""Which model is meant where none is named: the rule, and both clients that follow it."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from convserve import AsyncClient, Client, InvalidRequest, ModelInfo, ModelNotFound
from convserve.calls import Images
from convserve.model_choice import choose_model, describe_images, fits_images
from convserve.models import find_model, read_models
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import ScriptedServer, model

PHOTO, PIXELS = bundle_pb2.IMAGE_KIND_PHOTO, bundle_pb2.IMAGE_KIND_PIXELS
MNIST = model("mnist")
CATS = model("cats", kind=PHOTO, size=(64, 64, 3))
DOGS = model("dogs", kind=PHOTO, size=(150, 150, 3))
SHOES = model("shoes", kind=PIXELS)
TALL = model("tall", kind=PIXELS, size=(40, 20, 3))
UNKNOWN = model("new", kind=bundle_pb2.IMAGE_KIND_UNSPECIFIED)


def file(format_: str, width: int, height: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(written, format_)
    return written.getvalue()


def pixels(*shape: int) -> npt.NDArray[np.uint8]:
    return np.zeros(shape, np.uint8)


JPEG, PNG, BMP = (file(format_, 50, 70) for format_ in ("JPEG", "PNG", "BMP"))


def infos(*models: classifier_pb2.Model) -> list[ModelInfo]:
    return read_models(classifier_pb2.ListModelsResponse(models=models))


def chosen(images: Images, *models: classifier_pb2.Model, version: int | str | None = None) -> str:
    return choose_model(
        infos(*models), version, lambda each: fits_images(each, images), describe_images(images)
    )


@pytest.mark.parametrize(
    ("images", "models", "name"),
    [
        (pixels(1, 28, 28, 1), [MNIST, CATS], "mnist"),
        (pixels(9, 64, 64, 3), [MNIST, CATS], "cats"),
        (pixels(1, 64, 64, 3), [CATS, DOGS], "cats"),
        ((PNG,), [MNIST, CATS], "mnist"),
        ((BMP,), [MNIST, CATS], "mnist"),
        ((JPEG,), [CATS, SHOES], "cats"),
        ((file("PNG", 28, 28),), [CATS, SHOES], "shoes"),
        ((file("PNG", 20, 40),), [SHOES, TALL], "tall"),
        ((file("JPEG", 20, 40),), [SHOES, TALL], "tall"),
        # Turned upright by Exif it may have the size, and the server decides.
        ((file("JPEG", 40, 20),), [SHOES, TALL], "tall"),
        # One model alone is meant by anything, and the server says what it expects.
        (pixels(1, 9, 9, 3), [MNIST], "mnist"),
        ((PNG,), [CATS], "cats"),
        # Versions of one model are one model.
        (pixels(1, 9, 9, 3), [model("mnist", 2), MNIST], "mnist"),
        # Of a version that was asked only the models that have it.
        (pixels(1, 28, 28, 1), [model("a", 2), model("a"), model("b")], None),
    ],
)
def test_the_only_model_that_fits_is_meant(
    images: Images, models: Sequence[classifier_pb2.Model], name: str | None
) -> None:
    if name is None:
        assert chosen(images, *models, version=2) == "a"
    else:
        assert chosen(images, *models) == name


def test_label_means_only_the_models_that_have_it() -> None:
    images = pixels(1, 28, 28, 1)
    labelled = model("a", 2)
    labelled.version_labels.append("stable")
    assert chosen(images, labelled, model("a", 1), model("b", 2), version="stable") == "a"
    # Where no model has it, the server will say so.
    assert chosen(images, model("a", 1), version="stable") == "a"


def test_version_that_answers_by_default_decides_not_the_newest() -> None:
    images = pixels(1, 28, 28, 1)
    newest, default = model("a", 2, size=(64, 64, 3)), model("a", 1)
    default.default = True
    listed = infos(newest, default)
    assert find_model(listed, "a", None).version == 1
    assert find_model(listed, "a", 2).version == 2
    assert chosen(images, newest, default, CATS) == "a"


@pytest.mark.parametrize(
    ("images", "models", "found"),
    [
        (
            (JPEG,),
            [MNIST, CATS, SHOES],
            "2 loaded models fit a JPEG file: mnist (digits, 28 x 28 x 1), cats (photo,"
            " 64 x 64 x 3)",
        ),
        (
            (JPEG, PNG),
            [MNIST, CATS],
            "2 loaded models fit JPEG and PNG files: mnist (digits, 28 x 28 x 1), cats (photo,"
            " 64 x 64 x 3)",
        ),
        (
            pixels(1, 28, 28, 1),
            [MNIST, SHOES, CATS],
            "2 loaded models fit pixels of 28 x 28 x 1: mnist (digits, 28 x 28 x 1), shoes (pixels,"
            " 28 x 28 x 1)",
        ),
        (
            pixels(1, 32, 32, 3),
            [MNIST, CATS],
            "none of the 2 loaded models fits pixels of 32 x 32 x 3: mnist (digits, 28 x 28 x 1),"
            " cats (photo, 64 x 64 x 3)",
        ),
        (
            (b"\xff\xd8 cut",),
            [TALL, SHOES],
            "none of the 2 loaded models fits a JPEG file: tall (pixels, 40 x 20 x 3), shoes"
            " (pixels, 28 x 28 x 1)",
        ),
        (
            (JPEG,),
            [CATS, UNKNOWN],
            "2 loaded models fit a JPEG file: cats (photo, 64 x 64 x 3), new (unknown kind,"
            " 28 x 28 x 1)",
        ),
    ],
)
def test_several_or_none_that_fit_are_listed_with_how_to_choose(
    images: Images, models: Sequence[classifier_pb2.Model], found: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        chosen(images, *models)
    assert str(raised.value) == (
        f"model: expected a name, since {found}; give one by model=NAME in Python, --model NAME,"
        " or CONVSERVE_MODEL"
    )
    assert raised.value.violations[0].field == "model"


def test_long_list_of_models_is_cut() -> None:
    with pytest.raises(InvalidRequest) as raised:
        chosen(pixels(1, 28, 28, 1), *(model(f"m{number:03}") for number in range(300)))
    assert "m007 (digits, 28 x 28 x 1) and 292 more; give one by" in str(raised.value)


def test_no_model_at_all_is_not_found() -> None:
    with pytest.raises(ModelNotFound, match="the server has no models loaded"):
        chosen((JPEG,))


def test_client_asks_the_model_that_fits_and_lists_the_models_once(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models = [CATS, MNIST]
    client = connect(model=None)
    assert client.classify(pixels(28, 28)).model == "mnist"
    assert client.classify(pixels(5, 64, 64, 3)).model == "cats"
    assert client.classify_images([PNG, PNG]).model == "mnist"
    assert server.lists == 1
    with pytest.raises(InvalidRequest, match="2 loaded models fit a JPEG file: cats .* mnist "):
        client.classify_images(JPEG)
    assert client.classify_images(JPEG, model="cats").model == "cats"


def test_each_item_of_a_stream_goes_to_the_model_that_fits_it(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models = [CATS, MNIST]
    outcomes = dict(connect(model=None).stream([pixels(28, 28), pixels(64, 64, 3), PNG]))
    assert [outcomes[index].model for index in range(3)] == [  # type: ignore[union-attr]
        *("mnist", "cats", "mnist")
    ]
    assert server.lists == 1


def test_item_of_a_stream_that_fits_several_ends_it(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models = [CATS, MNIST]
    with pytest.raises(InvalidRequest, match="2 loaded models fit a JPEG file"):
        list(connect(model=None).stream([JPEG]))


def test_model_published_later_is_found_by_what_fits_no_other(
    connect: Connect, server: ScriptedServer
) -> None:
    client = connect(model=None)
    assert client.classify(pixels(28, 28)).model == "mnist"
    server.models = [CATS, MNIST]
    assert client.classify(pixels(64, 64, 3)).model == "cats"
    assert server.lists == 2


def test_variable_names_the_model_and_the_caller_goes_before_it(
    connect: Connect, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.models = [MNIST, SHOES]
    monkeypatch.setenv("CONVSERVE_MODEL", "shoes")
    client = connect(model=None)
    assert client.classify(pixels(28, 28)).model == "shoes"
    assert client.classify(pixels(28, 28), model="mnist").model == "mnist"
    assert connect(model="mnist").classify(pixels(28, 28)).model == "mnist"
    assert server.lists == 0
    monkeypatch.setenv("CONVSERVE_MODEL", "")
    server.models = [MNIST, CATS]
    assert connect(model=None).classify(pixels(28, 28)).model == "mnist"


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_variable_names_the_server(
    make: Callable[[], Client | AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make()._settings.server == "localhost:50051"
    monkeypatch.setenv("CONVSERVE_SERVER", "gpu1:7")
    assert make()._settings.server == "gpu1:7"
    monkeypatch.setenv("CONVSERVE_SERVER", "gpu1")
    with pytest.raises(InvalidRequest, match="server: "):
        make()
