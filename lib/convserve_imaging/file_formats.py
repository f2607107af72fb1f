"""Which files a method of making pixels accepts, and what their names end with."""

from collections.abc import Mapping
from types import MappingProxyType

from convserve_imaging import METHODS, PHOTO_METHODS, PICTURE_METHODS

SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
        "PNG": (".png",),
        "WebP": (".webp",),
        "GIF": (".gif",),
    }
)
"""What names of files end with, in lower case, by the format."""


def _of(method: str) -> tuple[str, ...]:
    if method in PICTURE_METHODS.values():
        return "JPEG", "PNG", "WebP", "GIF"
    return ("JPEG",) if method in PHOTO_METHODS.values() else ("JPEG", "PNG")


FILE_FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {each: _of(each) for each in METHODS}
)
"""The formats that each method accepts, of a GIF the first frame."""
