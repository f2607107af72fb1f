"""Files of any format that Pillow reads, opened without harm: first the header, then the pixels."""

import io
import threading
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from convserve_imaging.errors import DamagedPictureError, NotAPictureError, TooManyPixelsError
from convserve_imaging.signatures import looks_like

MAX_PIXELS = 40_000_000
"""Largest picture taken, width times height: more than telephones make."""

_FILTERS = threading.Lock()


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
