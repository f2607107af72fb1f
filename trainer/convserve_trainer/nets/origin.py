"""What the weights of a net were before its training."""

from typing import NamedTuple


class Origin(NamedTuple):
    """What a net's weights were before its training.

    Attributes:
        source: a file, or what Keras downloads.
        sha256: of the file, or of all weights in the net's order, as float32, where Keras downloads
            them; hexadecimal.
    """

    source: str
    sha256: str
