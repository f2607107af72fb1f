"""Images of one call on their way through a batcher, and what becomes of them."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from convserve_server.core.errors import ServeError
from convserve_server.core.jobs import Job, Priority
from convserve_server.engines.base import Outputs, Pixels, Probabilities


class Answer(NamedTuple):
    """What the engine made of a request."""

    #: One row an image: of a bundle float32 [n, K].
    outputs: Outputs
    #: Seconds from arrival to the start of the last batch that the request was in.
    queue_s: float
    #: Seconds in the engine, over all batches that the request was in.
    compute_s: float
    #: Whether some of the rows of a bundle are not finite.
    damaged: bool = False

    @property
    def rows(self) -> Probabilities:
        """What a bundle gave, float32 [n, K]."""
        assert isinstance(self.outputs, np.ndarray)
        return self.outputs


#: What becomes of a request.
Outcome = Answer | ServeError


class BatchRequest(Job[Answer]):
    """Images of one call on their way through the batcher.

    Args:
        pixels: uint8 [n, H, W, C], n at least 1.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, on the batcher's thread or the one that cancels; must
            not block.
        connection: by which the call came; connections share batches equally.
        priority: of the call.
    """

    __slots__ = ("began", "compute_s", "damaged", "pixels", "returned", "slices")

    def __init__(
        self,
        pixels: Pixels,
        deadline: float | None,
        done: Callable[[Outcome], None],
        connection: Hashable = "",
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        super().__init__(len(pixels), 0, deadline, done, connection, priority)
        self.pixels = pixels
        #: When the core had the call, time.monotonic(): before its files were decoded.
        self.began = self.arrived
        self.compute_s = 0.0
        #: Whether a row that has come back is not finite.
        self.damaged = False
        #: Images whose rows have come back.
        self.returned = 0
        #: Rows of a request that was in several batches, by its first image in each.
        self.slices: dict[int, Probabilities] = {}


#: Images of a request in a batch: the index of the first in the request; uint8 [n, H, W, C].
Slice = tuple[BatchRequest, int, Pixels]
