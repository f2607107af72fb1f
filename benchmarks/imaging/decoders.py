"""The decoders that are compared: each makes pixels of a given size from a JPEG."""

import importlib
import importlib.util
import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import naive_server
from benchmarks.harness.answers import Decode
from convserve_imaging import photos

Pixels = NDArray[np.uint8]

_BILINEAR = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)


@dataclass(frozen=True)
class Decoder:
    """A decoder with its settings.

    Args:
        name: for the table.
        decode: makes uint8 [height, width, 3], RGB; None if its library is not installed.
        missing: how to install it.
    """

    name: str
    decode: Decode | None
    missing: str = ""


def with_draft(data: bytes, height: int, width: int) -> Pixels:
    """Pillow's own scaled decoding."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (width, height))
        resized = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def unscaled(data: bytes, height: int, width: int) -> Pixels:
    """The libraries of ours without its scaled decoding, and without its checks."""
    picture = simplejpeg.decode_jpeg(data)
    rows, columns, _ = picture.shape
    source = ImageData(columns, rows, PixelType.U8x3, picture.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    Resizer().resize(source, target, _BILINEAR)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def _opencv() -> Decoder:
    if importlib.util.find_spec("cv2") is None:
        return Decoder("OpenCV imdecode, INTER_AREA", None, "pip install opencv-python-headless")
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def decode(data: bytes, height: int, width: int) -> Pixels:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        pixels: Pixels = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)
        return pixels

    # In the name, for it has several packages, and is none of ours.
    return Decoder(f"OpenCV {cv2.__version__} imdecode, INTER_AREA", decode)


#: The one that is written first.
BASELINE = Decoder("Pillow, bilinear", naive_server.decode)
OURS = Decoder("convserve_imaging.photos.decode", photos.decode)


def decoders() -> list[Decoder]:
    """All, the baseline first."""
    return [
        BASELINE,
        Decoder("Pillow, draft, bilinear", with_draft),
        _opencv(),
        Decoder("simplejpeg unscaled, our resize", unscaled),
        OURS,
    ]
