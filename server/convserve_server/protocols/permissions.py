"""Which permission each method needs: one table. A method that is not in it is refused."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from convserve_server.protocols.convserve_v1 import requests as classifier
from convserve_server.protocols.open_inference import requests as inference
from convserve_server.security.keys import Permission

_ASK, _LIST, _HEALTH = Permission.ASK, Permission.LIST, Permission.HEALTH
_REFLECTION, _ADMIN = Permission.REFLECTION, Permission.ADMIN


def unnamed(_: bytes) -> str | None:
    """Returns None: see Rule."""
    return None


class Rule(NamedTuple):
    """What a method needs.

    Attributes:
        permission: of the caller.
        named_model: returns the model that the bytes of a request name, without parsing them; None
            if that cannot be seen. The service looks again once it has parsed them.
        messages_count: of a stream: whether each of its messages is a call, which counts by
            itself.
    """

    permission: Permission
    named_model: Callable[[bytes], str | None] = unnamed
    messages_count: bool = False


RULES: Mapping[str, Rule] = {
    "/convserve.v1.Classifier/Classify": Rule(_ASK, classifier.named_model),
    "/convserve.v1.Classifier/StreamClassify": Rule(_ASK, messages_count=True),
    "/convserve.v1.Classifier/ListModels": Rule(_LIST),
    "/convserve.v1.Admin/LoadModel": Rule(_ADMIN),
    "/convserve.v1.Admin/UnloadModel": Rule(_ADMIN),
    "/convserve.v1.Admin/SetLabel": Rule(_ADMIN),
    "/convserve.v1.Admin/ListVersions": Rule(_ADMIN),
    "/inference.GRPCInferenceService/ServerLive": Rule(_HEALTH),
    "/inference.GRPCInferenceService/ServerReady": Rule(_HEALTH),
    "/inference.GRPCInferenceService/ModelReady": Rule(_HEALTH),
    "/inference.GRPCInferenceService/ServerMetadata": Rule(_LIST),
    "/inference.GRPCInferenceService/ModelMetadata": Rule(_LIST),
    "/inference.GRPCInferenceService/ModelConfig": Rule(_LIST),
    "/inference.GRPCInferenceService/ModelStatistics": Rule(_LIST),
    "/inference.GRPCInferenceService/RepositoryIndex": Rule(_LIST),
    "/inference.GRPCInferenceService/ModelInfer": Rule(_ASK, inference.named_model),
    "/inference.GRPCInferenceService/ModelStreamInfer": Rule(_ASK, messages_count=True),
    "/inference.GRPCInferenceService/RepositoryModelLoad": Rule(_ADMIN),
    "/inference.GRPCInferenceService/RepositoryModelUnload": Rule(_ADMIN),
    "/grpc.health.v1.Health/Check": Rule(_HEALTH),
    "/grpc.health.v1.Health/List": Rule(_HEALTH),
    "/grpc.health.v1.Health/Watch": Rule(_HEALTH),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Rule(_REFLECTION),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(_REFLECTION),
}
