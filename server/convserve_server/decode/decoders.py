"""How the files of a request become what a model takes, by its manifest."""

from collections.abc import Callable
from functools import partial

from convserve_imaging import MNIST_CENTRE, PHOTO_METHODS, PIXELS, photos, pixels
from convserve_imaging.digits import centre
from convserve_protos.bundle_pb2 import InputSpec
from convserve_server.decode.decoding import Decode, Pixels

#: What digits and pixels may come as; Pillow reads many more, which a server should not be made to.
_FORMATS = ("JPEG", "PNG")


def decoder_for(spec: InputSpec, max_pixels: int, max_decoder_bytes: int) -> Decode:
    """The function that made the pixels in training.

    Args:
        spec: of a manifest that was checked.
        max_pixels: most pixels of a file by its header.
        max_decoder_bytes: most memory that decoding a file may take, by its header.
    """
    decoders: dict[str, Callable[..., Pixels]] = {
        MNIST_CENTRE: partial(centre, formats=_FORMATS),
        PIXELS: partial(
            pixels.decode,
            height=spec.height,
            width=spec.width,
            channels=spec.channels,
            formats=_FORMATS,
        ),
    }
    for channels, method in PHOTO_METHODS.items():
        decoders[method] = partial(
            photos.decode,
            height=spec.height,
            width=spec.width,
            channels=channels,
        )
    # Every kind honours every limit: what is added without one cannot be called.
    decode = decoders[spec.resize]
    return partial(decode, max_pixels=max_pixels, max_decoder_bytes=max_decoder_bytes)
