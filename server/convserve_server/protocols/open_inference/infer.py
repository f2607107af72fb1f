"""ModelInfer: tensors of one message in, those that the model gives out."""

from collections.abc import Mapping, Sequence

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.batch_request import Answer, Outcome
from convserve_server.core.classifier import Classifier
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import BadImage, ServeError
from convserve_server.core.models import VersionChoice
from convserve_server.engines.base import Inputs, Pixels
from convserve_server.protocols.base import Call
from convserve_server.protocols.messages import parse
from convserve_server.protocols.open_inference.answers import (
    Wanted,
    response_of,
    wanted_outputs,
)
from convserve_server.protocols.open_inference.contents import read_tensors, wrong_datatype
from convserve_server.protocols.open_inference.pixels import read_files, read_pixels
from convserve_server.protocols.open_inference.requests import (
    Terms,
    check_id,
    terms,
    version_choice,
)
from convserve_server.protocols.outcomes import answer_call, damaged_rows

_BYTES = "BYTES"
#: Where the files of a request are, raw or typed.
_FILES = "inputs[0].contents"


class Inference:
    """Submits the calls of ModelInfer to the core.

    Args:
        classifier: the core.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def submit(self, call: Call) -> None:
        """Checks a request and queues its tensors; the answer follows.

        Raises:
            InvalidRequest: with the field, what was expected and what it was.
            NotFound, NotReady, QueueFull, CannotMeetDeadline: see there.
        """
        request = pb.ModelInferRequest()
        parse(request, call.payload)
        if request.id:
            check_id(request)
        name, version = request.model_name, version_choice(request.model_version, "model_version")
        wishes = terms(call, request)
        inputs = request.inputs
        if len(inputs) == 1 and inputs[0].datatype == _BYTES:
            model = self._classifier.describe(name, version)
            # Of another model they are texts, which need no decoding.
            if model.is_bundle:
                self._submit_files(call, request, model, version, wishes)
                return
        call.on_cancel = self._classifier.submit(
            name,
            version,
            TensorsReply(call, request, self._classifier.max_images),
            deadline=wishes.deadline,
            connection=call.connection,
            priority=wishes.priority,
            idle_caller=call.idle_caller,
        )

    def _submit_files(
        self,
        call: Call,
        request: pb.ModelInferRequest,
        model: ModelDescription,
        version: VersionChoice,
        wishes: Terms,
    ) -> None:
        files = read_files(request, model, self._classifier.max_images)
        # It keeps no more of the request than it needs, for that has the files as well.
        rest = pb.ModelInferRequest(id=request.id, outputs=request.outputs)
        call.on_cancel = self._classifier.submit_files(
            model.name,
            version,
            files,
            FilesReply(call, rest),
            deadline=wishes.deadline,
            connection=call.connection,
            priority=wishes.priority,
        )


class _Reply:
    """Answers one call with what the model gave.

    Args:
        call: to be answered.
        request_id: repeated in the response.
    """

    __slots__ = ("_call", "_model", "_request_id", "_wanted")

    _model: ModelDescription
    _wanted: Sequence[Wanted]

    def __init__(self, call: Call, request_id: str) -> None:
        self._call = call
        self._request_id = request_id

    def finish(self, outcome: Outcome) -> None:
        """See InputsAnswer.finish."""
        answer_call(self._call, outcome, self._serialize)

    def _serialize(self, answer: Answer) -> bytes:
        """Returns the response.

        Raises:
            InternalFault: if some of the rows of a bundle are not finite: there is no error of a
                single row.
        """
        if answer.damaged:
            raise damaged_rows()
        return response_of(self._model, self._request_id, self._wanted, answer.outputs)


class TensorsReply(_Reply):
    """See InputsAnswer.

    Args:
        call: to be answered.
        request: of the call.
        max_rows: most rows in one request.
    """

    __slots__ = ("_max_rows", "_request", "_size")

    def __init__(self, call: Call, request: pb.ModelInferRequest, max_rows: int) -> None:
        super().__init__(call, request.id)
        self._request: pb.ModelInferRequest | None = request
        self._size = len(call.payload)
        self._max_rows = max_rows

    def inputs(self, model: ModelDescription) -> Inputs:
        """See InputsAnswer.inputs."""
        assert self._request is not None
        self._model, self._call.model = model, model.key
        self._wanted = wanted_outputs(self._request, model)
        read = read_pixels if model.is_bundle else read_tensors
        return read(self._request, model, self._max_rows)

    @property
    def size(self) -> int:
        """See InputsAnswer.size."""
        return 0 if self._request is None else self._size

    def queued(self) -> None:
        """See InputsAnswer.queued."""
        self._request = None


class FilesReply(_Reply):
    """See FilesAnswer. One bad file fails the call: the protocol has no errors of single rows.

    Args:
        call: to be answered.
        request: its id, and the outputs that it asks for.
    """

    __slots__ = ("_request",)

    def __init__(self, call: Call, request: pb.ModelInferRequest) -> None:
        super().__init__(call, request.id)
        self._request = request

    def begin(self, model: ModelDescription) -> None:
        """See FilesAnswer.begin."""
        self._call.model = model.key
        if not model.is_bundle:
            # It was replaced since the files were found to be images.
            raise wrong_datatype(0, _BYTES, model.signature.inputs[0].datatype, model)
        self._model = model
        self._wanted = wanted_outputs(self._request, model)

    def decoded(
        self,
        failures: Mapping[int, ServeError],
        images: Mapping[int, Pixels],
        wait_s: float,
        decode_s: float,
    ) -> None:
        """See FilesAnswer.decoded."""
        del images, wait_s, decode_s
        if failures:
            raise _renamed(failures[min(failures)])

    def finish(self, outcome: Outcome) -> None:
        """See FilesAnswer.finish."""
        super().finish(outcome if isinstance(outcome, Answer) else _renamed(outcome))


def _renamed(error: ServeError) -> ServeError:
    """Returns an error with the name that this protocol has for the field of a file."""
    return BadImage(error.index, error.error, _FILES) if isinstance(error, BadImage) else error
