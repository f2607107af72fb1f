"""The methods of inference.GRPCInferenceService."""

from collections.abc import Mapping
from importlib.metadata import version as version_of

from google.protobuf.message import Message

from convserve_bundle.contract import NAME_RULE, is_name
from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.administration import Administration, Done, VersionStatus
from convserve_server.core.classifier import Classifier
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import (
    InvalidRequest,
    NotExplicit,
    NotFound,
    NotReady,
    PermissionDenied,
    ServeError,
    quoted,
)
from convserve_server.protocols import grpc_errors
from convserve_server.protocols.base import Call, Failure, StreamHandler, UnaryHandler
from convserve_server.protocols.early_refusal import EarlyRefusal
from convserve_server.protocols.messages import parse
from convserve_server.protocols.open_inference.infer import Inference
from convserve_server.protocols.open_inference.models import (
    config_of,
    index_of,
    metadata_of,
    statistics_of,
    statuses_of,
)
from convserve_server.protocols.open_inference.requests import (
    most_urgent,
    named_model,
    version_choice,
)
from convserve_server.protocols.open_inference.stream_messages import InferMessages
from convserve_server.protocols.streams import RequestStreams, StreamBudget
from convserve_server.telemetry.statistics import Statistics, VersionStatistics

SERVICE = "inference.GRPCInferenceService"
MODEL_INFER = f"/{SERVICE}/ModelInfer"

#: Those of Triton's extensions that are here, by its names.
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
)

_UNLOAD_DEPENDENTS = "unload_dependents"


class OpenInference:
    """The service, over the core.

    Args:
        classifier: the core.
        budget: what streams may hold: requests without an answer, answers that are not read.
        statistics: of all workers; None: nothing is counted.
        administration: of all workers; None: nobody can load or unload models, and only what this
            process serves is listed.
        may_load: whether callers may load and unload models, those that are loaded explicitly.
        max_answer_bytes: of the tensors in an answer.
    """

    name = SERVICE

    def __init__(
        self,
        classifier: Classifier,
        budget: StreamBudget,
        statistics: Statistics | None = None,
        administration: Administration | None = None,
        *,
        may_load: bool = False,
        max_answer_bytes: int = 2**26,
    ) -> None:
        self._classifier = classifier
        self._statistics = statistics
        self._administration = administration
        self._may_load = may_load
        submit = Inference(classifier, max_answer_bytes).submit
        self._calls = EarlyRefusal(classifier, named_model, most_urgent, submit)
        self._streams = RequestStreams(MODEL_INFER, InferMessages(), budget)

    def unary(self) -> Mapping[str, UnaryHandler]:
        """See Service.unary."""
        return {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._calls,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    def streams(self) -> Mapping[str, StreamHandler]:
        """See Service.streams."""
        return {"ModelStreamInfer": self._streams.handle}

    def failure(self, error: ServeError) -> Failure:
        """See Service.failure."""
        return grpc_errors.to_failure(error)

    def drain(self) -> None:
        """See Service.drain."""
        self._streams.stop()

    def _server_live(self, call: Call) -> None:
        parse(pb.ServerLiveRequest(), call.payload)
        call.reply(pb.ServerLiveResponse(live=True).SerializeToString())

    def _server_ready(self, call: Call) -> None:
        parse(pb.ServerReadyRequest(), call.payload)
        ready = bool(self._classifier.models())
        call.reply(pb.ServerReadyResponse(ready=ready).SerializeToString())

    def _model_ready(self, call: Call) -> None:
        """Serves ModelReady. What does not exist is not ready, and no error.

        So does Triton, and the callers of tritonclient's is_model_ready expect a truth value, in
        loops that wait for a model that somebody else is about to load.
        """
        request = pb.ModelReadyRequest()
        parse(request, call.payload)
        try:
            self._described(call, request)
            ready = True
        except (NotFound, NotReady):
            ready = False
        call.reply(pb.ModelReadyResponse(ready=ready).SerializeToString())

    def _server_metadata(self, call: Call) -> None:
        parse(pb.ServerMetadataRequest(), call.payload)
        response = pb.ServerMetadataResponse(
            name="convserve", version=version_of("convserve"), extensions=EXTENSIONS
        )
        call.reply(response.SerializeToString())

    def _model_metadata(self, call: Call) -> None:
        request = pb.ModelMetadataRequest()
        parse(request, call.payload)
        model = self._described(call, request)
        versions = [one.version for one in self._classifier.models() if one.name == model.name]
        labels = self._classifier.version_labels(model.name)
        call.reply(metadata_of(model, versions, labels).SerializeToString())

    def _model_config(self, call: Call) -> None:
        request = pb.ModelConfigRequest()
        parse(request, call.payload)
        config = config_of(self._described(call, request), self._classifier.max_images)
        call.reply(pb.ModelConfigResponse(config=config).SerializeToString())

    def _model_statistics(self, call: Call) -> None:
        """Serves ModelStatistics: every version that is served, and what was counted of it."""
        request = pb.ModelStatisticsRequest()
        parse(request, call.payload)
        if request.name:
            model = self._described(call, request)
            wanted = [
                one
                for one in self._classifier.models()
                if one.name == model.name and (not request.version or one.version == model.version)
            ]
        elif request.version:
            raise InvalidRequest("version", "expected none without a name, got one")
        else:
            wanted = [one for one in self._classifier.models() if call.sees(one.name)]
        counted = (
            {}
            if self._statistics is None
            else {(one.name, one.version): one for one in self._statistics.versions()}
        )
        response = pb.ModelStatisticsResponse(
            model_stats=[
                statistics_of(
                    counted.get((one.name, one.version), VersionStatistics(one.name, one.version))
                )
                for one in wanted
            ]
        )
        call.reply(response.SerializeToString())

    def _index(self, call: Call) -> None:
        """Serves RepositoryIndex: the versions in the folder, or those this process serves."""
        request = pb.RepositoryIndexRequest()
        parse(request, call.payload)
        ready = request.ready

        def done(statuses: list[VersionStatus]) -> None:
            statuses = [one for one in statuses if call.sees(one.name)]
            call.reply(index_of(statuses, ready).SerializeToString())

        if self._administration is None:
            done(statuses_of(self._classifier.models(), self._classifier.refused()))
        else:
            self._administration.statuses(done)

    def _load(self, call: Call) -> None:
        """Serves RepositoryModelLoad; what is asked for is done also if the caller goes away."""
        administration = self._allowed()
        request = pb.RepositoryModelLoadRequest()
        parse(request, call.payload)
        name = _loadable(call, request.model_name)
        for key in request.parameters:
            raise InvalidRequest(
                "parameters",
                f"expected none, since models come from the models folder alone, got {quoted(key)}",
            )
        administration.load(name, None, self._done(call, pb.RepositoryModelLoadResponse()))

    def _unload(self, call: Call) -> None:
        """Serves RepositoryModelUnload: all versions of a model."""
        administration = self._allowed()
        request = pb.RepositoryModelUnloadRequest()
        parse(request, call.payload)
        name = _loadable(call, request.model_name)
        for key in request.parameters:
            if key != _UNLOAD_DEPENDENTS:
                raise InvalidRequest(
                    "parameters", f"expected {_UNLOAD_DEPENDENTS} or none, got {quoted(key)}"
                )
        administration.unload(name, None, self._done(call, pb.RepositoryModelUnloadResponse()))

    def _allowed(self) -> Administration:
        """Returns what loads and unloads models.

        Raises:
            PermissionDenied: if this server does not let callers do that.
        """
        if self._administration is None or not self._may_load:
            raise PermissionDenied("this server does not load or unload models for its callers")
        return self._administration

    def _done(self, call: Call, response: Message) -> Done:
        """Returns what answers a call when every worker does what it asked for."""

        def done(error: ServeError | None) -> None:
            if error is None:
                call.reply(response.SerializeToString())
            elif isinstance(error, NotExplicit):
                # Which models callers may load is for their owner to say.
                call.fail(self.failure(PermissionDenied(str(error))))
            else:
                call.fail(self.failure(error))

        return done

    def _described(
        self,
        call: Call,
        request: pb.ModelReadyRequest
        | pb.ModelMetadataRequest
        | pb.ModelConfigRequest
        | pb.ModelStatisticsRequest,
    ) -> ModelDescription:
        """Returns the version that a request is about.

        Raises:
            InvalidRequest, ModelLoading, NotFound: see version_choice and Classifier.describe.
            PermissionDenied: see Access.check_model.
        """
        if call.access is not None:
            call.access.check_model(request.name)
        version = version_choice(request.version, "version")
        return self._classifier.describe(request.name, version)


def _loadable(call: Call, name: str) -> str:
    """Returns the name of a model that may exist.

    Raises:
        InvalidRequest: if that cannot be the name of one.
        PermissionDenied: see Access.check_model.
    """
    if call.access is not None:
        call.access.check_model(name)
    if not is_name(name):
        raise InvalidRequest("model_name", f"{NAME_RULE}, got {quoted(name)}")
    return name
