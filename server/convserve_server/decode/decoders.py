"""How the files of a request become what a model takes, by its manifest."""

from functools import partial

from convserve_imaging import MNIST_CENTRE, PHOTO_METHODS, PIXELS, photos, pixels
from convserve_imaging.digits import centre
from convserve_protos.bundle_pb2 import InputSpec
from convserve_server.decode.decoding import Decode

#: What digits and pixels may come as; Pillow reads many more, which a server should not be made to.
_FORMATS = ("JPEG", "PNG")


def decoder_for(spec: InputSpec, max_pixels: int, max_decoder_bytes: int) -> Decode:
    """The function that made the pixels in training.

    Args:
        spec: of a manifest that was checked.
        max_pixels: most pixels of a photograph by its header.
        max_decoder_bytes: most memory that decoding a photograph may take, by its header.
    """
    decoders: dict[str, Decode] = {
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
            max_pixels=max_pixels,
            max_decoder_bytes=max_decoder_bytes,
            channels=channels,
        )
    return decoders[spec.resize]
