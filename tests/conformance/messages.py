"""The messages of the protocol, in a descriptor pool of their own.

The Python that is generated from the contract registers them for the whole process, where a client
of another project may have registered its own of the same names. So its serialized descriptor is
read from that file, which is not imported.
"""

import ast
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_CONTRACT = Path(__file__).parents[2] / "protos" / "convserve_protos" / "open_inference_pb2.py"

#: What every method's path begins with.
SERVICE = "/inference.GRPCInferenceService/"


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The contract as protobuf describes it."""
    for node in ast.walk(ast.parse(_CONTRACT.read_text(), str(_CONTRACT))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "AddSerializedFile"
        ):
            return descriptor_pb2.FileDescriptorProto.FromString(ast.literal_eval(node.args[0]))
    raise LookupError(f"{_CONTRACT}: expected a call of AddSerializedFile, got none")


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(file_descriptor())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


ServerLiveRequest = _message("ServerLiveRequest")
ServerLiveResponse = _message("ServerLiveResponse")
ServerReadyRequest = _message("ServerReadyRequest")
ServerReadyResponse = _message("ServerReadyResponse")
ModelReadyRequest = _message("ModelReadyRequest")
ModelReadyResponse = _message("ModelReadyResponse")
ServerMetadataRequest = _message("ServerMetadataRequest")
ServerMetadataResponse = _message("ServerMetadataResponse")
ModelMetadataRequest = _message("ModelMetadataRequest")
ModelMetadataResponse = _message("ModelMetadataResponse")
ModelInferRequest = _message("ModelInferRequest")
ModelInferResponse = _message("ModelInferResponse")
ModelStreamInferResponse = _message("ModelStreamInferResponse")
ModelConfigRequest = _message("ModelConfigRequest")
ModelConfigResponse = _message("ModelConfigResponse")
ModelStatisticsRequest = _message("ModelStatisticsRequest")
ModelStatisticsResponse = _message("ModelStatisticsResponse")
RepositoryIndexRequest = _message("RepositoryIndexRequest")
RepositoryIndexResponse = _message("RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("RepositoryModelLoadRequest")
RepositoryModelUnloadRequest = _message("RepositoryModelUnloadRequest")
