"""How the files of a request become what a model takes, by its manifest."""

from functools import partial

from convserve_imaging import MNIST_CENTRE, PHOTO_BILINEAR
from convserve_imaging.digits import centre
from convserve_imaging.photos import decode
from convserve_protos.bundle_pb2 import InputSpec
from convserve_server.decoding import Decode

#: What digits may come as; Pillow reads many more, which a server should not be made to.
_DIGIT_FORMATS = ("JPEG", "PNG")


def decoder_for(spec: InputSpec, max_pixels: int, max_decoder_bytes: int) -> Decode:
    """The function that made the pixels in training.

    Args:
        spec: of a manifest that was checked.
        max_pixels: most pixels of a photograph by its header.
        max_decoder_bytes: most memory that decoding a photograph may take, by its header.
    """
    decoders: dict[str, Decode] = {
        MNIST_CENTRE: partial(centre, formats=_DIGIT_FORMATS),
        PHOTO_BILINEAR: partial(
            decode,
            height=spec.height,
            width=spec.width,
            max_pixels=max_pixels,
            max_decoder_bytes=max_decoder_bytes,
        ),
    }
    return decoders[spec.resize]
