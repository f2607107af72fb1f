"""Rows of one call on their way through a batcher, and what becomes of them."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from convserve_server.core.errors import ServeError
from convserve_server.core.jobs import Job, Priority
from convserve_server.core.outbox import Outbox
from convserve_server.engines.base import Inputs, Outputs, Probabilities
from convserve_server.engines.tensors import Tensors
from convserve_server.telemetry.call_notes import CallNotes


@dataclass(slots=True)
class Answer:
    """What the engine made of a request."""

    #: One row an image: of a bundle float32 [n, K].
    outputs: Outputs
    #: Seconds from arrival to the start of the last batch that the request was in.
    queue_s: float
    #: Seconds in the engine, over all batches that the request was in.
    compute_s: float
    #: Whether some of the rows of a bundle are not finite.
    damaged: bool = False
    #: Where the answer may be put instead of sending it, with those to the rest of the batch.
    outbox: Outbox | None = None

    @property
    def rows(self) -> Probabilities:
        """What a bundle gave, float32 [n, K]."""
        assert isinstance(self.outputs, np.ndarray)
        return self.outputs


#: What becomes of a request.
Outcome = Answer | ServeError


class BatchRequest(Job[Answer]):
    """Rows of one call on their way through the batcher.

    Tensors share a batch only with others whose sizes are the same but for the first.

    Args:
        inputs: of a bundle images, uint8 [n, H, W, C]; of another model tensors; n at least 1.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, on the batcher's thread or the one that cancels; must
            not block.
        connection: by which the call came; connections share batches equally.
        priority: of the call.
        notes: of the call; None where nobody wants to know.
    """

    __slots__ = ("began", "compute_s", "damaged", "inputs", "notes", "returned", "slices")

    def __init__(
        self,
        inputs: Inputs,
        deadline: float | None,
        done: Callable[[Outcome], None],
        connection: Hashable = "",
        priority: Priority = Priority.INTERACTIVE,
        notes: CallNotes | None = None,
    ) -> None:
        tensors = inputs if isinstance(inputs, Tensors) else None
        size = 0 if tensors is None else tensors.nbytes
        # Not by super(), which takes longer than what it calls.
        Job.__init__(self, len(inputs), size, deadline, done, connection, priority)
        if tensors is not None:
            self.key = tensors.sizes
        self.inputs = inputs
        self.notes = notes
        if notes is not None:
            notes.queued = self.arrived
        #: When the core had the call, time.monotonic(): before its files were decoded.
        self.began = self.arrived
        self.compute_s = 0.0
        #: Whether a row that has come back is not finite.
        self.damaged = False
        #: Rows that have come back.
        self.returned = 0
        #: What came back of a request that was in several batches, by its first row in each.
        self.slices: dict[int, Outputs] = {}


#: Rows of a request in a batch: the index of the first in the request; and the rows.
Slice = tuple[BatchRequest, int, Inputs]
