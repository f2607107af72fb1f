"""What each way to make pixels of photographs reads: which function, which files."""

from collections.abc import Callable

from convserve_imaging import PHOTO_METHODS, PICTURE_METHODS
from convserve_trainer.datasets.pictures import Pixels

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")  # in any case
ALL_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".webp", ".gif")

#: By the value of --formats: the method, by the channels that pictures are given.
METHODS = {"jpeg": PHOTO_METHODS, "all": PICTURE_METHODS}


def decoder(method: str) -> Callable[..., Pixels]:
    """Returns the function of a method, one of those of METHODS."""
    # Here, since options are read by these names before anything is decoded.
    from convserve_imaging import photos, pictures

    return pictures.decode if method in PICTURE_METHODS.values() else photos.decode


def suffixes(method: str) -> tuple[str, ...]:
    """Returns what names of files end with that a method reads, in lower case."""
    return ALL_SUFFIXES if method in PICTURE_METHODS.values() else JPEG_SUFFIXES
