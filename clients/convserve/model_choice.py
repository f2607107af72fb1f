"""Which model is chosen where none is named: the only one that fits what is sent.

The rule. One loaded model is always chosen. Of several, the one that fits the images by their size
and kind is chosen, if it is the only one that does: pixels fit a model of exactly their size; a
file fits models of photographs that accept its format (JPEG; of some PNG, WebP and GIF, too) and
all models of digits, and a JPEG or PNG models of pixels if it has their size. Where several fit, or
none, a name is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convserve.calls import Images, VersionChoice
from convserve.errors import InvalidRequest, ModelNotFound
from convserve.models import ModelInfo, by_default, is_asked
from convserve.settings import MODEL_VARIABLE

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHER = "other"  # format
# A message ends up on a terminal, and a server may have hundreds of models.
_MOST_LISTED = 8


def choose_model(
    models: Sequence[ModelInfo],
    version: VersionChoice,
    fits: Callable[[ModelInfo], bool],
    sent: str,
) -> str:
    """Returns the name of the model that is chosen where none is named.

    Args:
        models: All that are loaded, the newest version of each first.
        version: The version that is asked, or a label; None: the newest.
        fits: Whether a model fits what is sent.
        sent: What is sent, for messages: "JPEG files".

    Raises:
        ModelNotFound: There is no model.
        InvalidRequest: Several models fit, or there are several and none fits; it lists them.
    """
    candidates = _candidates(models, version)
    if not candidates:
        raise ModelNotFound("the server has no models loaded")
    if len(candidates) == 1:
        return candidates[0].name
    fitting = [model for model in candidates if fits(model)]
    if len(fitting) == 1:
        return fitting[0].name
    how = f"give one by model=NAME in Python, --model NAME, or {MODEL_VARIABLE}"
    if fitting:
        found = f"{len(fitting)} loaded models fit {sent}: {_listed(fitting)}"
    else:
        found = f"none of the {len(candidates)} loaded models fits {sent}: {_listed(candidates)}"
    raise InvalidRequest.of("model", f"expected a name, since {found}; {how}")


def fits_images(model: ModelInfo, images: Images) -> bool:
    """Returns whether a model fits images, by their size and kind; see the rule above.

    Args:
        model: A loaded one. One of a kind that this client does not know fits any file.
        images: uint8 [N, H, W, C], or the bytes of N files, of which one that fits is enough: the
            server refuses the others each by itself.
    """
    if isinstance(images, tuple):
        return any(_fits_file(model, file) for file in images)
    return images.shape[1:] == model.input_shape


def describe_images(images: Images) -> str:
    """Returns what images are, for messages: "pixels of 28 x 28 x 1", "a JPEG file"."""
    if not isinstance(images, tuple):
        return f"pixels of {_times(images.shape[1:])}"
    if len(images) == 1:
        kind = _format(images[0])
        return "the file" if kind == _OTHER else f"a {kind} file"
    return f"{' and '.join(sorted({_format(file) for file in images}))} files"


class ModelChoice:
    """Finds the model of each request of a client; remembers what the server had loaded."""

    def __init__(self, default: str | None) -> None:
        """Starts with nothing known.

        Args:
            default: The model for requests that name none; None: the one that fits them.
        """
        self._default = default
        self._seen: tuple[ModelInfo, ...] = ()

    def named(self, model: str | None) -> str | None:
        """Returns the model of a request that does not depend on its images, or None."""
        return model or self._default

    def remembered(self, version: VersionChoice, calls: Sequence[Images]) -> str | None:
        """Returns the only model that fits of those seen last; None: the server must be asked."""
        fitting = [model for model in _candidates(self._seen, version) if _fits_any(model, calls)]
        return fitting[0].name if len(fitting) == 1 else None

    def among(
        self, models: Sequence[ModelInfo], version: VersionChoice, calls: Sequence[Images]
    ) -> str:
        """Returns the model that is chosen, of those that are loaded.

        Raises:
            ConvserveError: As choose_model.
        """
        self._seen = tuple(models)
        sent = describe_images(calls[0])
        return choose_model(models, version, lambda model: _fits_any(model, calls), sent)

    def for_pictures(self, models: Sequence[ModelInfo], version: VersionChoice) -> str:
        """Returns the model that is chosen for pictures of Pillow, which fit a model of any kind.

        Raises:
            ConvserveError: As choose_model.
        """
        return choose_model(models, version, lambda _: True, "pictures of Pillow")

    def forget(self) -> None:
        """Makes the next request ask the server again."""
        self._seen = ()


def _candidates(models: Sequence[ModelInfo], version: VersionChoice) -> list[ModelInfo]:
    """Returns one entry a name: of the version asked where any model has it, else the default."""
    asked = [model for model in models if is_asked(model, version)] or models
    versions: dict[str, list[ModelInfo]] = {}
    for model in asked:
        versions.setdefault(model.name, []).append(model)
    return [by_default(one) for one in versions.values()]


def _fits_any(model: ModelInfo, calls: Sequence[Images]) -> bool:
    return any(fits_images(model, images) for images in calls)


def _fits_file(model: ModelInfo, file: bytes) -> bool:
    if model.kind == "photo":
        return _format(file) in model.file_formats
    if model.kind == "pixels":
        return _size(file) == sorted(model.input_shape[:2])
    return True


def _format(file: bytes) -> str:
    if file.startswith(_JPEG):
        return "JPEG"
    if file.startswith(_PNG):
        return "PNG"
    if file.startswith(b"GIF8"):
        return "GIF"
    return "WebP" if file[:4] == b"RIFF" and file[8:12] == b"WEBP" else _OTHER


def _size(file: bytes) -> list[int] | None:
    """Returns the sides of a picture by its header, the shorter one first, as it may be turned.

    Source: PNG (W3C, third edition), 11.2.1 IHDR: width and height lead the first chunk.
    """
    if file.startswith(_PNG):
        return sorted(int.from_bytes(file[start : start + 4], "big") for start in (16, 20))
    # Here, since only a choice that a model of pixels is part of needs it.
    from convserve_imaging.errors import PictureError
    from convserve_imaging.jpeg import read_header

    try:
        header = read_header(file)
    except PictureError:
        return None  # The server will say what is wrong with it.
    return sorted((header.height, header.width))


def _listed(models: Sequence[ModelInfo]) -> str:
    listed = [
        f"{model.name} ({model.kind or 'unknown kind'}, {_times(model.input_shape)})"
        for model in models[:_MOST_LISTED]
    ]
    left = len(models) - len(listed)
    return ", ".join(listed) + (f" and {left} more" if left else "")


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
