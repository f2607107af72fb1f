"""grpc.reflection, v1 and v1alpha, on every front."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2

from tests.server.conftest import WAIT_S, Serve, Served
from tests.server.transports.test_conformance import failure

SERVICES = [
    "convserve.v1.Classifier",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
]


def ask(served: Served, version: str, *payloads: bytes) -> list[Any]:
    """What a server says to requests of a version of reflection, which differ in no byte."""
    channel: Any = served.channel
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(call(iter(payloads), timeout=WAIT_S))


def request(**fields: object) -> bytes:
    message: Any = reflection_pb2.ServerReflectionRequest(**fields)
    payload: bytes = message.SerializeToString()
    return payload


def files_of(served: Served, version: str, symbol: str) -> descriptor_pool.DescriptorPool:
    """A pool of nothing but the files that a server sends for a symbol, which must be whole."""
    (reply,) = ask(served, version, request(file_containing_symbol=symbol))
    files = {}
    for data in reply.file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        files[file.name] = file
    pool = descriptor_pool.DescriptorPool()

    def add(name: str) -> None:
        file = files.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for name in [*files]:
        add(name)
    return pool


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services(serve: Serve, front: str, version: str) -> None:
    (reply,) = ask(serve(front), version, request(list_services=""))
    assert [service.name for service in reply.list_services_response.service] == SERVICES


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("name", SERVICES)
def test_reflection_describes_every_service_that_it_lists(
    serve: Serve, front: str, version: str, name: str
) -> None:
    service = files_of(serve(front), version, name).FindServiceByName(name)
    assert service.full_name == name
    assert len(service.methods) >= 1


def test_version_1_can_be_used_from_its_own_description(serve: Serve, front: str) -> None:
    served = serve(front)
    name = "grpc.reflection.v1.ServerReflection"
    pool = files_of(served, "v1", name)
    (method,) = pool.FindServiceByName(name).methods
    assert method.input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"
    assert method.input_type.file.name == "grpc/reflection/v1/reflection.proto"
    request_type: Any = message_factory.GetMessageClass(method.input_type)
    response_type: Any = message_factory.GetMessageClass(method.output_type)
    channel: Any = served.channel
    call = channel.stream_stream(
        f"/{name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response_type.FromString,
    )
    asked = request_type(file_by_filename="convserve_protos/classifier.proto")
    (reply,) = call(iter([asked]), timeout=WAIT_S)
    names = [
        descriptor_pb2.FileDescriptorProto.FromString(data).name
        for data in reply.file_descriptor_response.file_descriptor_proto
    ]
    assert "convserve_protos/classifier.proto" in names
    assert "google/rpc/status.proto" in names


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"\xff\xff", "request: expected a ServerReflectionRequest, got 2 bytes that are not one"),
        (b"\x22\xff\x7f" + b"x" * 16383, "request: expected at most 4096 bytes, got 16386"),
    ],
    ids=["garbage", "long"],
)
def test_bad_reflection_is_refused(
    serve: Serve, front: str, version: str, payload: bytes, problem: str
) -> None:
    error = failure(lambda: ask(serve(front), version, payload))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == problem


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_that_is_off_is_not_there(serve: Serve, front: str, version: str) -> None:
    served = serve(front, reflection="off")
    method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    with grpc.insecure_channel(served.address) as channel:
        call: Any = channel.stream_stream(method)
        with pytest.raises(grpc.RpcError) as caught:
            next(call(iter([b""]), timeout=WAIT_S))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "reflection" not in str(caught.value.details()).partition("services:")[2]
