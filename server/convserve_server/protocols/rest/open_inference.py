"""What there is to ask of Open Inference beside inference: server, models, statistics, repository.

Each path is one method of inference.GRPCInferenceService, and its answer that message as JSON, with
the names of the fields.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md;
Triton's extensions: docs/protocol/extension_model_configuration.md, extension_model_repository.md,
extension_statistics.md of https://github.com/triton-inference-server/server.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message

from convserve_protos import open_inference_pb2 as pb
from convserve_server.protocols.rest.errors import failure_answer
from convserve_server.protocols.rest.infer import SERVICE, Parameters, set_parameters
from convserve_server.protocols.rest.json_bodies import read_json
from convserve_server.protocols.rest.messages import (
    HttpAnswer,
    HttpRequest,
    Operation,
    RestOptions,
)
from convserve_server.protocols.rest.parameters import timeout_of


class _Index(msgspec.Struct):
    ready: bool = False


class _Change(msgspec.Struct):
    parameters: Parameters | None = None


_INDEX = msgspec.json.Decoder(_Index)
_CHANGE = msgspec.json.Decoder(_Change)


def server(request: HttpRequest, _: Mapping[str, str], __: RestOptions) -> Operation:
    """Returns the call that describes the server."""
    return _operation(request, "ServerMetadata", b"", _as_json(pb.ServerMetadataResponse))


def model(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that describes a model."""
    call = pb.ModelMetadataRequest(**_named(parameters)).SerializeToString()
    return _operation(request, "ModelMetadata", call, _as_json(pb.ModelMetadataResponse))


def ready(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that says whether a model is ready."""
    name = parameters["model"]

    def answer(payload: bytes) -> HttpAnswer:
        found = pb.ModelReadyResponse.FromString(payload).ready
        body = msgspec.json.encode({"name": name, "ready": found})
        return HttpAnswer(200 if found else 503, body)

    call = pb.ModelReadyRequest(**_named(parameters)).SerializeToString()
    return _operation(request, "ModelReady", call, answer)


def config(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that has a model's configuration."""

    def answer(payload: bytes) -> HttpAnswer:
        return _json(plain(pb.ModelConfigResponse.FromString(payload).config))

    call = pb.ModelConfigRequest(**_named(parameters)).SerializeToString()
    return _operation(request, "ModelConfig", call, answer)


def statistics(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that says what a model, or all of them, has done."""
    call = pb.ModelStatisticsRequest(**_named(parameters)).SerializeToString()
    return _operation(request, "ModelStatistics", call, _as_json(pb.ModelStatisticsResponse))


def index(request: HttpRequest, _: Mapping[str, str], __: RestOptions) -> Operation:
    """Returns the call that lists the versions in the models folder."""
    given = read_json(request.body or b"{}", _INDEX)

    def answer(payload: bytes) -> HttpAnswer:
        models = pb.RepositoryIndexResponse.FromString(payload).models
        return _json([plain(each) for each in models])

    call = pb.RepositoryIndexRequest(ready=given.ready).SerializeToString()
    return _operation(request, "RepositoryIndex", call, answer)


def load(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that has a model loaded."""
    call = pb.RepositoryModelLoadRequest(model_name=parameters["model"])
    return _change(request, "RepositoryModelLoad", call)


def unload(request: HttpRequest, parameters: Mapping[str, str], _: RestOptions) -> Operation:
    """Returns the call that has a model unloaded."""
    call = pb.RepositoryModelUnloadRequest(model_name=parameters["model"])
    return _change(request, "RepositoryModelUnload", call)


def plain(message: Message) -> dict[str, Any]:
    """Returns a message as JSON has it: all fields, numbers as numbers, enumerations as names.

    protobuf's own JSON writes numbers of 64 bits as texts, which clients of this protocol do not
    expect.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                found[field.name] = dict(value)
            elif field.is_repeated:
                found[field.name] = [plain(each) for each in value]
            elif message.HasField(field.name):
                found[field.name] = plain(value)
        elif field.is_repeated:
            found[field.name] = list(value)
        elif field.enum_type is not None:
            found[field.name] = field.enum_type.values_by_number[value].name
        else:
            found[field.name] = value
    return found


def _change(request: HttpRequest, method: str, call: Any) -> Operation:
    given = read_json(request.body or b"{}", _CHANGE)
    set_parameters(call.parameters, given.parameters or {}, "")
    return _operation(request, method, call.SerializeToString(), _done)


def _done(_: bytes) -> HttpAnswer:
    return HttpAnswer(200, b"{}")


def _operation(
    request: HttpRequest, method: str, call: bytes, answer: Callable[[bytes], HttpAnswer]
) -> Operation:
    return Operation(f"{SERVICE}/{method}", call, answer, failure_answer, timeout_of(request))


def _named(parameters: Mapping[str, str]) -> dict[str, str]:
    """Returns the fields of a message that name a model; none for all models."""
    if "model" not in parameters:
        return {}
    return {"name": parameters["model"], "version": parameters.get("version", "")}


def _as_json(kind: type[Message]) -> Callable[[bytes], HttpAnswer]:
    """Returns a function that makes the answer of a message."""

    def answer(payload: bytes) -> HttpAnswer:
        return _json(plain(kind.FromString(payload)))

    return answer


def _json(value: Any) -> HttpAnswer:
    return HttpAnswer(200, msgspec.json.encode(value))
