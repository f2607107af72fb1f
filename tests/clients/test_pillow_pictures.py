"""Pictures of Pillow: the server gets what the picture shows, or the caller gets an error."""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from convserve import InvalidRequest, ModelNotFound
from convserve_imaging import PICTURE_BILINEAR
from convserve_protos import bundle_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import ScriptedServer, images_of, model

Pixels = npt.NDArray[np.uint8]


def scene(seed: int = 1) -> Pixels:
    """uint8 [48, 64, 3]: a smooth picture, as photographs are."""
    random = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(random).resize((64, 48), Image.Resampling.BICUBIC))


def sent(server: ScriptedServer) -> list[Image.Image]:
    files = [file for request in server.requests for file in request.encoded.images]
    return [Image.open(BytesIO(file)) for file in files]


RGB = Image.fromarray(scene())
EXACT = {
    "1": RGB.convert("1"),
    "L": RGB.convert("L"),
    "LA": RGB.convert("LA"),
    "P": RGB.quantize(16),
    "RGB": RGB,
    "RGBA": RGB.convert("RGBA"),
    "I;16": Image.fromarray((np.arange(48 * 64).reshape(48, 64) * 21).astype(np.uint16)),
}


@pytest.mark.parametrize("mode", EXACT)
def test_picture_reaches_a_model_of_pixels_without_loss(
    connect: Connect, server: ScriptedServer, mode: str
) -> None:
    picture = EXACT[mode]
    assert picture.mode == mode
    connect().classify_images(picture)
    (got,) = sent(server)
    assert got.format == "PNG"
    assert got.convert("RGBA").tobytes() == picture.convert("RGBA").tobytes()
    assert mode != "I;16" or np.array_equal(np.asarray(got), np.asarray(picture))


@pytest.mark.parametrize("picture", [RGB, RGB.convert("L"), RGB.convert("RGBA"), RGB.quantize(16)])
def test_picture_reaches_a_model_of_photographs_nearly_without_loss(
    connect: Connect, server: ScriptedServer, picture: Image.Image
) -> None:
    server.models = [model("cats-dogs", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    connect(model="cats-dogs").classify_images([picture, b"bytes as they are"])
    assert server.requests[0].encoded.images[1] == b"bytes as they are"
    got = Image.open(BytesIO(server.requests[0].encoded.images[0]))
    assert got.format == "JPEG"
    assert got.layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]  # 4:4:4: nothing halved.
    mode = "L" if picture.mode == "L" else "RGB"
    assert got.mode == mode
    off = np.abs(np.asarray(got, int) - np.asarray(picture.convert(mode), int))
    assert off.mean() < 4  # The worst is the hard edges of 16 colours.


@pytest.mark.parametrize("mode", EXACT)
def test_picture_reaches_a_model_of_photographs_that_reads_png_without_loss(
    connect: Connect, server: ScriptedServer, mode: str
) -> None:
    mixed = model("mixed", kind=bundle_pb2.IMAGE_KIND_PHOTO)
    mixed.manifest.input.resize = PICTURE_BILINEAR
    server.models = [mixed]
    connect(model="mixed").classify_images(EXACT[mode])
    (got,) = sent(server)
    assert got.format == "PNG"
    assert got.convert("RGBA").tobytes() == EXACT[mode].convert("RGBA").tobytes()


def test_orientation_of_the_file_it_came_from_is_kept(
    connect: Connect, server: ScriptedServer
) -> None:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees.
    RGB.save(file, "PNG", exif=exif)
    connect().classify_images(Image.open(file))
    (got,) = sent(server)
    assert np.array_equal(np.asarray(got), np.rot90(scene(), -1))


REFUSED = {
    "F": RGB.convert("F"),
    "CMYK": RGB.convert("CMYK"),
    "YCbCr": RGB.convert("YCbCr"),
    "HSV": RGB.convert("HSV"),
    "LAB": Image.new("LAB", (8, 8)),
    "I": RGB.convert("I"),
}


@pytest.mark.parametrize("mode", REFUSED)
def test_picture_that_cannot_be_sent_exactly_is_refused(
    connect: Connect, server: ScriptedServer, mode: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"^images\[1\]: expected .*, got mode {mode}: pass"):
        connect().classify_images([RGB, REFUSED[mode]])
    assert server.requests == []


def test_transparent_photograph_is_refused(connect: Connect, server: ScriptedServer) -> None:
    server.models = [model("cats-dogs", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    glass = RGB.convert("RGBA")
    glass.putalpha(128)
    with pytest.raises(InvalidRequest, match="^images: expected .*, got mode RGBA: pass"):
        connect(model="cats-dogs").classify_images(glass)
    assert server.requests == []


def test_damaged_picture_is_refused(connect: Connect, server: ScriptedServer) -> None:
    file = BytesIO()
    RGB.save(file, "PNG")
    damaged = Image.open(BytesIO(file.getvalue()[:-200]))
    with pytest.raises(InvalidRequest, match="^images: Pillow cannot read or write it: "):
        connect().classify_images(damaged)
    assert server.requests == []


def test_model_of_a_picture_must_be_there(connect: Connect) -> None:
    with pytest.raises(ModelNotFound, match="model other is not loaded; there is mnist/1"):
        connect().classify_images(RGB, model="other")


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16", *REFUSED])
def test_values_that_are_no_pixels_are_not_sent_as_pixels(
    connect: Connect, server: ScriptedServer, mode: str
) -> None:
    picture: Any = (EXACT | REFUSED)[mode]
    expected = rf"expected a Pillow picture of mode L or RGB, got mode {mode}: pass picture\.conv"
    for images, field in ((picture, "pixels"), ([RGB, picture], r"pixels\[1\]")):
        with pytest.raises(InvalidRequest, match=f"^{field}: {expected}"):
            connect().classify(images)
        with pytest.raises(InvalidRequest, match=f"^{field}: {expected}"):
            list(connect().stream([images]))
    assert server.requests == []


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_values_that_are_pixels_are_sent(
    connect: Connect, server: ScriptedServer, mode: str
) -> None:
    picture: Any = EXACT[mode]
    connect().classify(picture)
    (got,) = images_of(server.requests[0])
    assert np.array_equal(got.squeeze(), np.asarray(picture))
