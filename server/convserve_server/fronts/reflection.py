"""grpc.reflection, versions v1 and v1alpha, of the services of a server.

grpcio-reflection brings v1alpha alone. v1 has the same messages under another package, so one
handler serves both, and only their descriptors differ.

Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from convserve_server.fronts.writing import write

SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)

#: Names of symbols and files are short, and what is asked is repeated in the answer.
_MOST_BYTES = 4096


def handlers(services: Sequence[str]) -> list[grpc.GenericRpcHandler]:
    """The handlers of both versions.

    Args:
        services: full names, other than those of reflection, whose descriptors are in the default
            pool.
    """
    servicer = reflection.aio.ReflectionServicer([*services, *SERVICES], _pool(services))

    async def handle(_: Any, context: Any) -> None:
        async for reply in servicer.ServerReflectionInfo(_requests(context), context):
            await write(context, reply.SerializeToString())

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(handle)
    return [
        grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        for service in SERVICES
    ]


async def _requests(context: Any) -> AsyncIterator[Any]:
    """The requests of a stream, which ends with INVALID_ARGUMENT at one that is none."""
    while (payload := await context.read()) is not grpc.aio.EOF:
        problem = ""
        request = reflection_pb2.ServerReflectionRequest()
        if len(payload) > _MOST_BYTES:
            problem = f"request: expected at most {_MOST_BYTES} bytes, got {len(payload)}"
        else:
            try:
                request.ParseFromString(payload)
            except DecodeError:
                problem = f"request: is no ServerReflectionRequest ({len(payload)} bytes)"
        if problem:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        yield request


def _pool(services: Sequence[str]) -> descriptor_pool.DescriptorPool:
    """The files that describe the services and reflection, and those that they import."""
    pool = descriptor_pool.DescriptorPool()
    default: Any = descriptor_pool.Default()
    added: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            pool.AddSerializedFile(file.serialized_pb)

    for service in (*services, reflection.SERVICE_NAME):
        add(default.FindFileContainingSymbol(service))
    pool.Add(_version_1())
    return pool


def _version_1() -> descriptor_pb2.FileDescriptorProto:
    """grpc/reflection/v1/reflection.proto, but for options of other languages."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    alpha.ClearField("options")
    text = text_format.MessageToString(alpha).replace(
        "grpc.reflection.v1alpha", "grpc.reflection.v1"
    )
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    file.name = "grpc/reflection/v1/reflection.proto"
    return file
