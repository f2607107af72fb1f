"""Files of any format that Pillow reads, opened without harm: first the header, then the pixels.

Our own readers check the headers of the formats that a server accepts: JPEG and PNG, and for some
models WebP and GIF. Clients open files of any format, which are the user's own; Pillow alone reads
those.
"""

import io
import threading
import warnings
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from convserve_imaging import gif, jpeg, jpeg_pixels, png, webp
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.signatures import looks_like

MAX_PIXELS = 40_000_000
"""Largest accepted picture by default, width times height: more than telephones make."""

MAX_DECODER_BYTES = jpeg_pixels.MAX_DECODER_BYTES
"""Most memory by default that decoding one picture may take."""

#: Bytes a pixel in Pillow's modes; four in those that are not named.
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}

_ORIENTATION = 0x0112
_FILTERS = threading.Lock()


class PictureFile(Protocol):
    """A picture of which the header alone was read."""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as stored: before `orientation`."""

    @property
    def orientation(self) -> int:
        """Which corner comes first, by Exif: 1 to 8."""

    def decode(self, max_bytes: int, grey_side: int | None = None) -> Image.Image:
        """Returns the decoded picture, as stored.

        Args:
            max_bytes: most memory that decoding may take, by the header.
            grey_side: where grey is enough, and no side longer than this: what can be decoded at a
                smaller scale then is.

        Raises:
            TooManyPixelsError: it needs more memory; nothing was decoded.
            DamagedPictureError: it cannot be decoded.
        """


def open_file(
    picture: Image.Image | bytes, formats: tuple[str, ...] | None, max_pixels: int
) -> PictureFile:
    """Reads the header of a picture.

    Args:
        picture: a Pillow image, or the whole file.
        formats: Pillow's names of the accepted formats ("JPEG", "PNG"); None for all.
        max_pixels: most pixels by the header.

    Raises:
        NotAPictureError: it is not a picture, or of another format.
        DamagedPictureError: its header is damaged.
        UnsupportedPictureError: a variety of its format that is not supported.
        TooManyPixelsError: it has more pixels.
    """
    opened: PictureFile
    if isinstance(picture, Image.Image):
        opened = _Other(picture)
    elif picture.startswith(jpeg.SOI) and (formats is None or "JPEG" in formats):
        opened = _Jpeg(picture, max_pixels)
    elif picture.startswith(png.SIGNATURE) and (formats is None or "PNG" in formats):
        opened = _Png(picture)
    elif formats and "WEBP" in formats and webp.is_webp(picture):
        opened = _Webp(picture)
    elif formats and "GIF" in formats and gif.is_gif(picture):
        opened = _Gif(picture)
    else:
        opened = _Other(_identified(picture, formats))
    width, height = opened.size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"the picture has {width} x {height} pixels; expected at most {max_pixels:,}"
        )
    return opened


class _Jpeg:
    def __init__(self, data: bytes, max_pixels: int) -> None:
        self._header = jpeg.read_header(data)
        jpeg_pixels.check_size(self._header, max_pixels)
        self.size = (self._header.width, self._header.height)
        self.orientation = self._header.orientation

    def decode(self, max_bytes: int, grey_side: int | None = None) -> Image.Image:
        header = self._header
        width, height = self.size
        colours = {1: "GRAY", 3: "RGB", 4: "CMYK"}[header.components]
        if grey_side is not None:
            scale = min(1.0, grey_side / max(self.size))
            width, height = (max(1, round(side * scale)) for side in self.size)
            colours = "GRAY" if header.components == 3 else colours
        # What is decoded, and Pillow's copy of it, which has three channels in four bytes.
        after = {"GRAY": 2, "RGB": 7, "CMYK": 8}[colours]
        pixels = jpeg_pixels.decode(header, height, width, colours, max_bytes, after)
        mode, raw = {"GRAY": ("L", "L"), "RGB": ("RGB", "RGB"), "CMYK": ("CMYK", "CMYK;I")}[colours]
        return Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", raw, 0, 1)


class _Png:
    def __init__(self, data: bytes) -> None:
        self._header = png.read_header(data)
        self.size = (self._header.width, self._header.height)
        self.orientation = self._header.orientation

    def decode(self, max_bytes: int, grey_side: int | None = None) -> Image.Image:
        del grey_side  # a PNG is decoded whole
        header = self._header
        if len(header.data) < header.least_bytes:
            raise TruncatedPictureError(
                f"the PNG is truncated: {len(header.data):,} bytes cannot hold its "
                f"{header.width} x {header.height} pixels"
            )
        _check_memory("PNG", self.size, header.decoded_bytes, max_bytes)
        return _loaded(_identified(header.data, ("PNG",)))


class _Webp:
    def __init__(self, data: bytes) -> None:
        self._header = webp.read_header(data)
        self.size = (self._header.width, self._header.height)
        self.orientation = self._header.orientation

    def decode(self, max_bytes: int, grey_side: int | None = None) -> Image.Image:
        del grey_side  # Pillow decodes it whole
        header = self._header
        pixels = header.width * header.height
        _check_work("WebP", self.size, len(header.data))
        _check_memory("WebP", self.size, pixels * webp.BYTES_A_PIXEL, max_bytes)
        return _loaded(_identified(header.data, ("WEBP",)))


class _Gif:
    orientation = 1

    def __init__(self, data: bytes) -> None:
        self._header = gif.read_header(data)
        self.size = (self._header.width, self._header.height)

    def decode(self, max_bytes: int, grey_side: int | None = None) -> Image.Image:
        del grey_side
        header = self._header
        pixels = header.width * header.height
        _check_work("GIF", self.size, len(header.data))
        whole = header.box == (0, 0, *self.size)
        # A frame on a larger picture: its four bytes a pixel, and those of the picture.
        _check_memory("GIF", self.size, pixels * (1 if whole else 9), max_bytes)
        frame = _loaded(_identified(header.data, ("GIF",)))
        if whole:
            return frame
        picture = Image.new("RGBA", self.size)  # what no frame has drawn on is transparent
        picture.paste(frame.convert("RGBA"), header.box)
        return picture


class _Other:
    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self.size = picture.size
        try:
            self.orientation = picture.getexif().get(_ORIENTATION, 1)
        except Exception as error:  # see _identified
            raise _damaged(picture, error) from error

    def decode(self, max_bytes: int, grey_side: int | None = None) -> Image.Image:
        del grey_side
        picture = self._picture
        pixels = picture.width * picture.height
        kind = picture.format or "picture"
        _check_memory(kind, self.size, pixels * _BYTES.get(picture.mode, 4), max_bytes)
        return _loaded(picture)


def _check_work(kind: str, size: tuple[int, int], length: int) -> None:
    """Limits the pixels that a byte may stand for, as for codes of JPEG without another bound."""
    if size[0] * size[1] > jpeg_pixels.FREE_PIXELS + jpeg_pixels.MAX_PIXELS_PER_BYTE * length:
        raise TooManyPixelsError(
            f"the {kind} has {size[0]} x {size[1]} pixels in {length:,} bytes; expected at most "
            f"{jpeg_pixels.MAX_PIXELS_PER_BYTE:,} a byte"
        )


def _check_memory(kind: str, size: tuple[int, int], needed: int, most: int) -> None:
    if needed > most:
        raise TooManyPixelsError(
            f"the {kind} has {size[0]} x {size[1]} pixels: decoding takes {-(-needed >> 20)} MiB "
            f"of memory, at most {most >> 20} are given"
        )


def _identified(data: bytes, formats: tuple[str, ...] | None) -> Image.Image:
    """Returns a picture of which Pillow read the header."""
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
                f"the picture is too large; expected at most {MAX_PIXELS:,} pixels"
            ) from error
        except Exception as error:  # Pillow's decoders raise anything at all on damaged files
            raise DamagedPictureError(f"the picture's header is damaged: {error}") from error


def _loaded(picture: Image.Image) -> Image.Image:
    try:
        picture.load()
    except Exception as error:  # see _identified
        raise _damaged(picture, error) from error
    return picture


def _damaged(picture: Image.Image, error: Exception) -> DamagedPictureError:
    return DamagedPictureError(f"the {picture.format} picture is damaged: {error}")
