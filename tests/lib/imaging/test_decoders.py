"""What a server makes of files is what the trainer made of them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve_imaging import MNIST_CENTRE, PHOTO_METHODS, PICTURE_METHODS, PIXELS
from convserve_imaging.decoders import Decode, make_decoder
from convserve_imaging.errors import NotAPictureError, TooManyPixelsError
from convserve_imaging.jpeg_pixels import MAX_DECODER_BYTES, MAX_PIXELS
from convserve_trainer.datasets import photo_reader
from tests.jpegs import jpeg_of


def _decoder(channels: int, resize: str) -> Decode:
    return make_decoder(resize, (12, 16, channels), MAX_PIXELS, MAX_DECODER_BYTES)


@pytest.mark.parametrize(("channels", "method"), PHOTO_METHODS.items())
def test_photographs_are_decoded_as_in_training(channels: int, method: str, tmp_path: Path) -> None:
    decode = _decoder(channels, method)
    grey = io.BytesIO()
    Image.open(io.BytesIO(jpeg_of("green", (64, 48)))).convert("L").save(grey, "JPEG")
    for data in (jpeg_of("red", (64, 48)), grey.getvalue()):
        (tmp_path / "picture.jpg").write_bytes(data)
        trained = photo_reader.read(tmp_path / "picture.jpg", 12, 16, channels)
        assert trained.shape == (12, 16, channels)
        assert np.array_equal(decode(data), trained)


@pytest.mark.parametrize(("channels", "method"), PICTURE_METHODS.items())
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF"])
def test_pictures_of_several_formats_are_decoded_as_in_training(
    kind: str, channels: int, method: str, tmp_path: Path
) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg_of("green", (64, 48)))).save(file, kind)
    (tmp_path / "picture").write_bytes(file.getvalue())
    trained = photo_reader.read(tmp_path / "picture", 12, 16, channels, method)
    assert trained.shape == (12, 16, channels)
    assert np.array_equal(_decoder(channels, method)(file.getvalue()), trained)
    if kind != "JPEG":
        with pytest.raises(NotAPictureError):
            _decoder(channels, PHOTO_METHODS[channels])(file.getvalue())


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_taken_as_they_are_from_png_and_jpeg_alone(channels: int) -> None:
    decode = _decoder(channels, PIXELS)
    pixels = np.arange(12 * 16 * channels, dtype=np.uint8).reshape(12, 16, channels)
    files = {}
    for kind in ("PNG", "JPEG", "BMP"):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, kind)
        files[kind] = file.getvalue()
    assert np.array_equal(decode(files["PNG"]), pixels)
    assert decode(files["JPEG"]).shape == (12, 16, channels)
    with pytest.raises(NotAPictureError):
        decode(files["BMP"])


#: Every kind of file, method that a manifest may name, and number of channels.
METHODS = [(MNIST_CENTRE, 1), (PIXELS, 1), (PIXELS, 3)]
KINDS = [(kind, *method) for method in METHODS for kind in ("PNG", "JPEG")]
KINDS += [("JPEG", method, channels) for channels, method in PHOTO_METHODS.items()]
KINDS += [
    (kind, method, channels)
    for channels, method in PICTURE_METHODS.items()
    for kind in ("JPEG", "PNG", "WebP", "GIF")
]


@pytest.mark.parametrize(("kind", "method", "channels"), KINDS)
def test_every_decoder_honours_every_limit(kind: str, method: str, channels: int) -> None:
    picture = Image.new("RGB", (500, 400), "white")
    picture.paste("black", (235, 100, 265, 300))  # a one
    file = io.BytesIO()
    picture.save(file, kind)
    shape = (400, 500, channels)
    assert make_decoder(method, shape, 400 * 500, 8 << 20)(file.getvalue()).any()
    with pytest.raises(TooManyPixelsError, match="has 500 x 400 pixels; expected at most 199,999"):
        make_decoder(method, shape, 400 * 500 - 1, 8 << 20)(file.getvalue())
    with pytest.raises(
        TooManyPixelsError, match=f"the {kind} has 500 x 400 pixels: decoding takes"
    ):
        make_decoder(method, shape, 400 * 500, 100_000)(file.getvalue())
