"""Files of any format that Pillow reads, opened without harm: first the header, then the pixels."""

import io
import math
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from convserve_imaging.errors import DamagedPictureError, NotAPictureError, TooManyPixelsError
from convserve_imaging.signatures import looks_like

MAX_PIXELS = 40_000_000
"""Largest picture taken by default, width times height: more than telephones make."""

MAX_DECODER_BYTES = 256 << 20
"""Most memory by default that decoding one picture may take."""

LONGEST_SIDE = 1024
"""Pixels, of what `grey_picture` returns at most; larger pictures are reduced to it."""

#: Of 255, between the darkest and the lightest pixel; a sheet with less is blank.
_LEAST_CONTRAST = 24

#: Rows of the result that are made at a time.
_BAND = 16

_ORIENTATION = 0x0112
_FILTERS = threading.Lock()


def grey_picture(
    picture: Image.Image | bytes,
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_decoder_bytes: int = MAX_DECODER_BYTES,
) -> npt.NDArray[np.uint8]:
    """Returns a picture in grey, upright by its Exif orientation, and not larger than is useful.

    Colours become their luma, modes of more than 8 bits are stretched to the range of 8, and what
    is transparent becomes white paper, or black where nothing would be seen on white.

    Args:
        picture: a Pillow image, or the whole file.
        formats: Pillow's names of the formats that are taken ("JPEG", "PNG"); None for all.
        max_pixels: most pixels by the file's header.
        max_decoder_bytes: most memory that decoding may take, by the file's header.

    Returns:
        uint8 [H, W], 0 (black) to 255 (white), its longer side `LONGEST_SIDE` or less: larger
        pictures are reduced, the aspect ratio kept, by the mean of the pixels.

    Raises:
        NotAPictureError: the bytes are no picture, or of another format.
        DamagedPictureError: the picture cannot be decoded.
        TooManyPixelsError: it exceeds a limit by its header; nothing was decoded.
    """
    opened = picture if isinstance(picture, Image.Image) else identified(picture, formats)
    width, height = opened.size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"the picture has {width} x {height} pixels; at most {max_pixels:,} are taken"
        )
    try:
        opened.load()
        grey = _drawn(opened)
        if opened.getexif().get(_ORIENTATION, 1) == 1:
            return grey
        small = Image.fromarray(grey)
        small.getexif()[_ORIENTATION] = opened.getexif()[_ORIENTATION]
        return np.asarray(ImageOps.exif_transpose(small))
    except Exception as error:  # see identified
        raise DamagedPictureError(f"the {opened.format} picture is damaged: {error}") from error


def _drawn(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Returns the picture, reduced, on the paper on which it is seen."""
    if not picture.has_transparency_data:
        return _reduced(picture, None)
    # White digits on nothing are seen on black paper only.
    white = _reduced(picture, "white")
    return white if np.ptp(white) >= _LEAST_CONTRAST else _reduced(picture, "black")


def _reduced(picture: Image.Image, paper: str | None) -> npt.NDArray[np.uint8]:
    """Returns the picture in grey, its longer side `LONGEST_SIDE` or less."""
    scale = max(1.0, max(picture.size) / LONGEST_SIDE)
    width, height = (max(1, round(side / scale)) for side in picture.size)
    bands = [
        np.asarray(_grey(band, paper).resize((width, rows), Image.Resampling.BOX, box))
        for band, rows, box in _bands(picture, height)
    ]
    return _levels(np.concatenate(bands))


def _bands(
    picture: Image.Image, height: int
) -> Iterator[tuple[Image.Image, int, tuple[float, float, float, float]]]:
    """Cuts a picture into bands of which some rows of the result are made each.

    What widens pixels, as grey and transparency do, need then not hold the whole picture twice.
    """
    step = picture.height / height
    for first in range(0, height, _BAND):
        rows = min(_BAND, height - first)
        start, end = first * step, (first + rows) * step
        top, bottom = int(start), min(picture.height, math.ceil(end))
        band = picture.crop((0, top, picture.width, bottom))
        yield band, rows, (0, start - top, picture.width, min(end, picture.height) - top)


def _grey(picture: Image.Image, paper: str | None) -> Image.Image:
    """Returns it in mode L; in F, with its own levels, where it has more than 8 bits."""
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(np.nan_to_num(np.asarray(picture, dtype=np.float32)))
    if paper is None:
        return picture.convert("L")
    drawn = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, paper), drawn).convert("L")


def _levels(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Returns uint8 [H, W]; levels that are no bytes are stretched to the range of bytes."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        return np.zeros(pixels.shape, dtype=np.uint8)
    stretched: npt.NDArray[np.uint8] = np.rint((pixels - low) * (255 / (high - low))).astype("u1")
    return stretched


def identified(data: bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Returns a picture of which the header alone was read, so that its size can be checked.

    Args:
        data: the whole file.
        formats: Pillow's names of the formats that are taken ("JPEG", "PNG"); None for all.

    Raises:
        NotAPictureError: it is no picture, or of another format.
        DamagedPictureError: its header is damaged.
        TooManyPixelsError: it is several times larger than `MAX_PIXELS`.
    """
    # The filters of warnings are the process's, so one thread at a time may change them.
    with _FILTERS, warnings.catch_warnings():
        # Pillow warns above its own limit and refuses above twice that; ours is lower than both.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError as error:
            raise NotAPictureError(f"not a picture: it looks like {looks_like(data)}") from error
        except Image.DecompressionBombError as error:
            raise TooManyPixelsError(
                f"the picture is too large; at most {MAX_PIXELS:,} pixels are taken"
            ) from error
        except Exception as error:  # Pillow's decoders raise anything at all on damaged files
            raise DamagedPictureError(f"the picture's header is damaged: {error}") from error


def loaded(picture: Image.Image) -> Image.Image:
    """Returns the picture, decoded, and upright by its Exif orientation.

    Raises:
        DamagedPictureError: it cannot be decoded.
    """
    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # see identified
        raise DamagedPictureError(f"the {picture.format} picture is damaged: {error}") from error
