"""What a server answers for an image file, without a server: the same decoder, the same engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convserve_bundle.held_model import Model
from convserve_imaging.decoders import make_decoder
from convserve_imaging.errors import PictureError
from convserve_scoring.errors import ScoringError
from convserve_server.engines.base import LoadedModel
from convserve_server.engines.bundles import load_model
from convserve_server.engines.loader import EngineOptions

#: Largest file that is decoded, bytes, as a server's largest request is.
MAX_FILE_BYTES = 16 * 2**20

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """What a model makes of a file.

    Attributes:
        label: of the most probable class; None for a file that is not a usable image.
        probabilities: float32 [K], in the order of the labels; None as above.
        error: why there is no answer; None if there is one.
        labels: of a model whose images have several, those whose probability reaches their
            threshold, in the order of the labels; None of other models, and as above.
    """

    label: str | None = None
    probabilities: NDArray[np.float32] | None = None
    error: str | None = None
    labels: tuple[str, ...] | None = None


class Scorer:
    """A model that is loaded and warm.

    Args:
        model: its file, or what that holds.
        device: auto, cpu or cuda; see the server's setting.
        batch: images that are run together.
        max_pixels: most pixels of a file by its header.
        max_decoder_bytes: most memory that decoding a file may take, by its header.

    Raises:
        BundleError: the file is not a usable bundle.
        EngineError: the file is not a usable model, or the device cannot be had.
        ScoringError: it is an ONNX file that is not a bundle.
    """

    def __init__(
        self, model: Model, device: str, batch: int, max_pixels: int, max_decoder_bytes: int
    ) -> None:
        loaded = load_model(model, EngineOptions(device=device, max_batch=batch, tell=False))
        if not isinstance(loaded, LoadedModel):
            raise ScoringError(
                f"{model}: expected a bundle, got an ONNX file without a manifest, of which nobody "
                "knows how image files become its input"
            )
        #: Of the classes, in the order of the probabilities.
        self.labels = loaded.labels
        #: Of a model whose images have several labels, in their order; otherwise empty.
        self.thresholds = loaded.thresholds
        self._engine = loaded.engine
        self._decode = make_decoder(
            loaded.decoding, loaded.engine.image_shape, max_pixels, max_decoder_bytes
        )

    def score_block(self, files: Sequence[bytes | None]) -> list[Row]:
        """Returns the rows of files, in their order; a bad file is a row with its error.

        Args:
            files: content of an image file each; None where it could not be read.
        """
        rows = [Row()] * len(files)
        good: dict[int, Pixels] = {}
        for index, file in enumerate(files):
            found = self._pixels(file)
            if isinstance(found, Row):
                rows[index] = found
            else:
                good[index] = found
        order = list(good)
        for first in range(0, len(order), self._engine.max_batch):
            some = order[first : first + self._engine.max_batch]
            answers = self._engine.run([np.stack([good[index] for index in some])])
            for index, answer in zip(some, answers, strict=True):
                label = self.labels[int(answer.argmax())]
                rows[index] = Row(label, answer, labels=self._assigned(answer))
        return rows

    def _assigned(self, answer: NDArray[np.float32]) -> tuple[str, ...] | None:
        if not self.thresholds:
            return None
        reached = answer >= np.array(self.thresholds, np.float32)
        return tuple(self.labels[index] for index in np.flatnonzero(reached))

    def _pixels(self, file: bytes | None) -> Pixels | Row:
        """Returns the pixels of a file, uint8 [H, W, C], or the row that says why not."""
        if file is None:
            return Row(error="bytes: expected the content of a file, got none")
        if len(file) > MAX_FILE_BYTES:
            return Row(error=f"bytes: expected at most {MAX_FILE_BYTES:,}, got {len(file):,}")
        try:
            return self._decode(file)
        except PictureError as error:
            return Row(error=str(error))
