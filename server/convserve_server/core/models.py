"""A version of a model that is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass

from convserve_server.core.batch_request import BatchRequest
from convserve_server.core.batcher import Batcher
from convserve_server.core.decode_pool import Decode
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import ServeError
from convserve_server.core.image_watch import ImageWatch
from convserve_server.core.jobs import Priority
from convserve_server.engines.base import Engine, TensorEngine


@dataclass(frozen=True, eq=False)
class ModelVersion:
    """A loaded version of a model, warm and with its queue.

    Attributes:
        description: for callers.
        digest: SHA-256 of its files, hexadecimal; see Content.
        engine: that runs it.
        batcher: its queue.
        decode: makes of a file the pixels of an image; None if it is not a bundle.
        priority: of calls that do not say theirs.
        watch: looks at some of its images; None: nobody does.
    """

    description: ModelDescription
    digest: str
    engine: Engine | TensorEngine
    batcher: Batcher
    decode: Decode | None
    priority: Priority = Priority.INTERACTIVE
    watch: ImageWatch | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return self.description.name

    @property
    def version(self) -> int:
        """Of the model."""
        return self.description.version

    def cancel(self, request: BatchRequest, reason: ServeError | None = None) -> None:
        """Drops a request that nobody waits for."""
        self.batcher.cancel(request, reason)


#: A version that is asked for: its number, a label that the operator gave it, or None for the one
#: that answers by default.
VersionChoice = int | str | None

#: What is loaded, by name and version.
Versions = Mapping[str, Mapping[int, ModelVersion]]
