"""The methods of convserve.v1.Classifier."""

from collections.abc import Mapping

from convserve_protos import classifier_pb2 as pb
from convserve_protos.bundle_pb2 import Manifest
from convserve_server.core.classifier import Classifier
from convserve_server.core.errors import InvalidRequest, ServeError, fitting
from convserve_server.protocols import grpc_errors
from convserve_server.protocols.access import Access
from convserve_server.protocols.base import Call, Failure, StreamHandler, UnaryHandler
from convserve_server.protocols.convserve_v1.answers import FilesReply, PixelsReply
from convserve_server.protocols.convserve_v1.known_requests import KnownRequests, parsed_pixels
from convserve_server.protocols.convserve_v1.requests import (
    check_id,
    named_model,
    version_choice,
)
from convserve_server.protocols.convserve_v1.stream_messages import ClassifyMessages
from convserve_server.protocols.early_refusal import EarlyRefusal
from convserve_server.protocols.messages import parse
from convserve_server.protocols.priority import priority_of
from convserve_server.protocols.streams import RequestStreams, StreamBudget

SERVICE = "convserve.v1.Classifier"
CLASSIFY = f"/{SERVICE}/Classify"

#: Of a version that is refused, bytes.
_MAX_REASON = 1000


class ConvserveV1:
    """The service, over the core.

    Args:
        classifier: the core.
        budget: what streams may hold: requests without an answer, answers that are not read.
    """

    name = SERVICE

    def __init__(self, classifier: Classifier, budget: StreamBudget) -> None:
        self._classifier = classifier
        self._calls = EarlyRefusal(classifier, named_model, priority_of, self._submit)
        self._known = KnownRequests()
        self._streams = RequestStreams(CLASSIFY, ClassifyMessages(), budget)

    def unary(self) -> Mapping[str, UnaryHandler]:
        """See Service.unary."""
        return {"Classify": self._calls, "ListModels": self._list_models}

    def streams(self) -> Mapping[str, StreamHandler]:
        """See Service.streams."""
        return {"StreamClassify": self._streams.handle}

    def failure(self, error: ServeError) -> Failure:
        """See Service.failure."""
        return grpc_errors.to_failure(error)

    def drain(self) -> None:
        """See Service.drain."""
        self._streams.stop()

    def _submit(self, call: Call) -> None:
        """Serves Classify: checks the request, queues its images; the answer follows.

        Raises:
            InvalidRequest: with the field, what was expected and what it was.
            NotFound, NotReady, QueueFull, CannotMeetDeadline: see there.
            PermissionDenied, RateLimited: see Access.
        """
        buffer = call.payload
        request = self._known.find(buffer)
        if request is None:
            message = pb.ClassifyRequest()
            parse(message, buffer)
            if message.HasField("encoded"):
                self._submit_files(call, message)
                return
            if message.return_pixels and message.HasField("pixels"):
                raise InvalidRequest("return_pixels", "expected files, got pixels")
            request = parsed_pixels(message)
            self._known.add(buffer, request)
            buffer = message.pixels.data
        if call.access is not None:
            self._check_access(call.access, request.model, request.shape[0])
        classifier = self._classifier
        call.on_cancel = classifier.submit(
            request.model,
            request.version,
            PixelsReply(call, request, buffer, classifier.max_images),
            deadline=call.deadline,
            connection=call.connection,
            priority=priority_of(call),
            idle_caller=call.idle_caller,
            notes=call.notes,
        )

    def _submit_files(self, call: Call, request: pb.ClassifyRequest) -> None:
        check_id(request)
        if call.access is not None:
            self._check_access(call.access, request.model, len(request.encoded.images))
        version = version_choice(request)
        files = list(request.encoded.images)
        if not 1 <= len(files) <= self._classifier.max_images:
            raise InvalidRequest(
                "encoded.images",
                f"expected 1 to {self._classifier.max_images}, got {len(files)}",
            )
        reply = FilesReply(call, request)
        call.on_cancel = self._classifier.submit_files(
            request.model,
            version,
            files,
            reply,
            deadline=call.deadline,
            connection=call.connection,
            priority=priority_of(call),
            notes=call.notes,
        )

    def _check_access(self, access: Access, model: str, images: int) -> None:
        """Checks whether a caller may ask a model; of too many images the most allowed count.

        Raises:
            PermissionDenied, RateLimited: see Access.
        """
        access.check_model(model)
        if access.counts_images:
            access.take_images(min(images, self._classifier.max_images))

    def _list_models(self, call: Call) -> None:
        """Serves ListModels: what is loaded, and what is refused."""
        parse(pb.ListModelsRequest(), call.payload)
        response = pb.ListModelsResponse()
        for model in self._classifier.models():
            if not model.is_bundle or not call.sees(model.name):
                continue
            labels = self._classifier.version_labels(model.name)
            response.models.add(
                name=model.name,
                version=model.version,
                manifest=Manifest.FromString(model.manifest),
                execution_provider=model.provider,
                version_labels=sorted(one for one in labels if labels[one] == model.version),
                default=model.version == self._classifier.default_version(model.name),
            )
        for (name, version), reason in sorted(
            self._classifier.refused().items(), key=lambda item: (item[0][0], -item[0][1])
        ):
            if call.sees(name):
                reason = fitting(reason, _MAX_REASON)
                response.refused.add(name=name, version=version, reason=reason)
        call.reply(response.SerializeToString())
