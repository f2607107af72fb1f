"""grpc.reflection, versions v1 and v1alpha, of the services of a server.

grpcio-reflection brings v1alpha alone. v1 has the same messages under another package, so one
handler serves both, and only their descriptors differ.

Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from convserve_server.core.errors import InvalidRequest, ServeError
from convserve_server.protocols import grpc_errors
from convserve_server.protocols.base import Failure, Stream, StreamHandler, UnaryHandler

SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)

#: Names of symbols and files are short, and what is asked is repeated in the answer.
_MAX_BYTES = 4096


class Reflection:
    """One version of the service.

    Args:
        name: of SERVICES.
        servicer: that answers for both.
    """

    def __init__(self, name: str, servicer: Any) -> None:
        self.name = name
        self._servicer = servicer

    def unary(self) -> Mapping[str, UnaryHandler]:
        """See Service.unary."""
        return {}

    def streams(self) -> Mapping[str, StreamHandler]:
        """See Service.streams."""
        return {"ServerReflectionInfo": self._answer}

    def failure(self, error: ServeError) -> Failure:
        """See Service.failure."""
        return grpc_errors.to_failure(error)

    def drain(self) -> None:
        """See Service.drain; clients ask and go, nothing is in flight for long."""

    async def _answer(self, stream: Stream) -> None:
        async for reply in self._servicer.ServerReflectionInfo(_requests(stream), None):
            await stream.write(reply.SerializeToString())


def make_reflection(services: Sequence[str]) -> list[Reflection]:
    """Returns both versions of the service.

    Args:
        services: full names, other than those of reflection. Those whose descriptors are not in
            the default pool, since they have no .proto, are left out.
    """
    services = [name for name in services if _is_described(name)]
    servicer = reflection.aio.ReflectionServicer([*services, *SERVICES], _pool(services))
    return [Reflection(name, servicer) for name in SERVICES]


async def _requests(stream: Stream) -> AsyncIterator[Any]:
    """Yields the requests of a stream, up to the first that is not one."""
    while (payload := await stream.read()) is not None:
        request = reflection_pb2.ServerReflectionRequest()
        if len(payload) > _MAX_BYTES:
            raise InvalidRequest(
                "request", f"expected at most {_MAX_BYTES} bytes, got {len(payload)}"
            )
        try:
            request.ParseFromString(payload)
        except DecodeError as error:
            raise InvalidRequest(
                "request",
                f"expected a ServerReflectionRequest, got {len(payload)} bytes that are not one",
            ) from error
        yield request


def _is_described(service: str) -> bool:
    """Whether the default pool has the descriptor of a service."""
    default: Any = descriptor_pool.Default()
    try:
        default.FindServiceByName(service)
    except KeyError:
        return False
    return True


def _pool(services: Sequence[str]) -> descriptor_pool.DescriptorPool:
    """Returns the files that describe the services and reflection, and those that they import."""
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
    """Returns grpc/reflection/v1/reflection.proto, but for options of other languages."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    alpha.ClearField("options")
    text = text_format.MessageToString(alpha).replace(
        "grpc.reflection.v1alpha", "grpc.reflection.v1"
    )
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    file.name = "grpc/reflection/v1/reflection.proto"
    return file
