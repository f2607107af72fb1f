"""What a protocol asks of the core: images of a call in, their rows out, by callback."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

from convserve_server.core.batch_request import BatchRequest, Outcome
from convserve_server.core.decode_pool import DecodePool
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import QueueFull, ServeError
from convserve_server.core.image_files_call import FilesAnswer, ImageFilesCall
from convserve_server.core.jobs import Priority
from convserve_server.core.models import ModelVersion, VersionChoice
from convserve_server.core.repository import Repository
from convserve_server.engines.base import Inputs
from convserve_server.telemetry.call_notes import CallNotes

#: Ends work that nobody waits for; its outcome may still be handed over.
Cancel = Callable[[], None]


class InputsAnswer(Protocol):
    """What a protocol gives for a call with pixels or tensors, and does with its outcome."""

    def inputs(self, model: ModelDescription) -> Inputs:
        """Returns the inputs for the version that will answer, of N rows, at least 1.

        Of a bundle these are images, uint8 [N, H, W, C]; of another model tensors in the order of
        its signature, with the types and shapes that it states.

        Called once more if that version is unloaded on the way.

        Raises:
            InvalidRequest: if they are not what the model expects.
        """

    @property
    def size(self) -> int:
        """Bytes of what the images are made of."""

    def queued(self) -> None:
        """Lets go of that: the images are queued."""

    def finish(self, outcome: Outcome) -> None:
        """Answers with the rows of the images, or the error; on any thread, must not block."""


class Classifier:
    """The models, and the way to them.

    Args:
        repository: of models.
        decoding: makes pixels of files.
        max_images: most images in one call.
    """

    def __init__(self, repository: Repository, decoding: DecodePool, max_images: int) -> None:
        self._repository = repository
        self._decoding = decoding
        self.max_images = max_images

    def submit(
        self,
        model: str,
        version: VersionChoice,
        answer: InputsAnswer,
        *,
        deadline: float | None = None,
        connection: Hashable = "",
        priority: Priority | None = None,
        idle_caller: bool = False,
        notes: CallNotes | None = None,
    ) -> Cancel:
        """Runs a model on inputs that need no decoding.

        Args:
            model: its name.
            version: of the model, or a label; None for the newest.
            answer: gives the inputs; its finish is called later unless this raises.
            deadline: time.monotonic() after which nobody waits for the answer, or None.
            connection: by which the call came; connections share batches equally.
            priority: of the call; None: that of the model.
            idle_caller: see Batcher.submit.
            notes: of the call; None where nobody wants to know.

        Raises:
            ServeError: if the call cannot be served; nothing was computed.
        """
        work = _InputsCall(
            model,
            version,
            answer,
            deadline,
            connection,
            priority,
            idle_caller,
            self._repository,
            notes,
        )
        self._repository.submit(work)
        return work.cancel

    def submit_files(
        self,
        model: str,
        version: VersionChoice,
        files: Sequence[bytes],
        answer: FilesAnswer,
        *,
        deadline: float | None = None,
        connection: Hashable = "",
        priority: Priority | None = None,
        notes: CallNotes | None = None,
    ) -> Cancel:
        """Classifies images that are files.

        Args:
            model: its name.
            version: of the model, or a label; None for the newest.
            files: one image each, at least one.
            answer: its finish is called later unless this raises.
            deadline: time.monotonic() after which nobody waits for the answer, or None.
            connection: by which the call came; connections take turns.
            priority: of the call; None: that of the model.
            notes: of the call; None where nobody wants to know.

        Raises:
            ServeError: if the call cannot be served; nothing was decoded.
        """
        work = ImageFilesCall(
            model,
            version,
            files,
            deadline,
            connection,
            priority,
            answer,
            self._repository,
            self._decoding,
            notes,
        )
        self._repository.submit(work)
        return work.cancel

    def refusal(
        self,
        model: str,
        connection: Hashable,
        priority: Priority | None,
        deadline: float | None,
        now: float,
    ) -> tuple[str, QueueFull] | None:
        """Returns why any call to a model is refused, however small; None if it might not be.

        It costs little, and needs nothing of what the call asks for but the model.

        Args:
            model: its name.
            connection: by which the call came.
            priority: of the call; None: that of the model.
            deadline: of the call, time.monotonic(); None: without.
            now: time.monotonic().

        Returns: the version that refuses, as "NAME/VERSION", and the error.
        """
        refusal = None
        versions = self._repository.versions(model).values()
        for version in versions:
            own = version.priority if priority is None else priority
            refusal = version.batcher.refusal_of_any(connection, own, deadline, now)
            if refusal is None:
                return None
        if refusal is None:
            return None
        # Which version the call asks for is not known; most ask for the newest, the first one.
        batcher = next(iter(versions)).batcher
        batcher.note_refusal()
        return batcher.model, refusal

    def describe(self, name: str, version: VersionChoice) -> ModelDescription:
        """Returns what is known of the version that would answer a call.

        Args:
            name: of the model.
            version: of the model, or a label; None for the one that answers by default.

        Raises:
            NotFound: if there is none; says what there is.
            ModelLoading: if the model is being loaded.
        """
        return self._repository.describe(name, version)

    def models(self) -> list[ModelDescription]:
        """Returns all that can be asked for, by name, then newest first."""
        return self._repository.descriptions()

    def version_labels(self, name: str) -> Mapping[str, int]:
        """Returns the version that each label of a model names; only of models()."""
        return self._repository.table().labels(name)

    def default_version(self, name: str) -> int | None:
        """Returns the version that answers calls that ask a model for none; None: there is none."""
        return self._repository.table().default(name)

    def refused(self) -> Mapping[tuple[str, int], str]:
        """Returns the versions that exist and are not served, and why, by name and version."""
        return self._repository.refused()


class _InputsCall(BatchRequest):
    """The Work of a call whose inputs need no decoding, and its request, from start() on.

    Both are one object: to make an object takes about as long as to queue one.
    """

    __slots__ = (
        "_answer",
        "_cancelled",
        "_idle_caller",
        "_own_priority",
        "_queued",
        "_repository",
        "model",
        "restarted",
        "version",
    )

    def __init__(
        self,
        model: str,
        version: VersionChoice,
        answer: InputsAnswer,
        deadline: float | None,
        connection: Hashable,
        priority: Priority | None,
        idle_caller: bool,
        repository: Repository,
        notes: CallNotes | None,
    ) -> None:
        # The rest of it as a request is set when it starts.
        self.model = model
        self.version = version
        self.deadline = deadline
        self.restarted = False
        self.connection = connection
        self.notes = notes
        self._answer = answer
        self._cancelled = False
        self._own_priority = priority
        self._idle_caller = idle_caller
        self._repository = repository
        self._queued: ModelVersion | None = None

    def start(self, model: ModelVersion) -> None:
        """See Work.start."""
        answer, notes = self._answer, self.notes
        BatchRequest.__init__(
            self,
            answer.inputs(model.description),
            self.deadline,
            answer.finish,
            self.connection,
            model.priority if self._own_priority is None else self._own_priority,
            notes,
        )
        if notes is not None:
            notes.begin(model.batcher.model, self.count, self.arrived)
        if self._repository.enqueue(self, model, self, idle_caller=self._idle_caller):
            self._queued = model
            answer.queued()
            # If it has waited for its model, the caller may have left before the last line but one.
            if self._cancelled:
                model.cancel(self)

    @property
    def held_bytes(self) -> int:
        """See Work.held_bytes."""
        return self._answer.size

    def fail(self, error: ServeError) -> None:
        """See Work.fail."""
        self._answer.finish(error)

    def cancel(self) -> None:
        """Does no more work on the call."""
        self._cancelled = True
        model = self._queued
        if model is not None:
            model.cancel(self)
        else:
            self._repository.forget(self)
