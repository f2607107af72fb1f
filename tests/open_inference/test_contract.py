"""Our contract is that of the public specification, as the clients of others have it."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from tests.conformance.messages import file_descriptor
from tests.open_inference.conftest import output_of

pytestmark = pytest.mark.foreign

_SCRIPT = (
    "from tritonclient.grpc import model_config_pb2, service_pb2\n"
    "for file in (service_pb2, model_config_pb2):\n"
    "    print(file.DESCRIPTOR.serialized_pb.hex())\n"
)

#: Of the specification alone: Triton's clients skip it, as they do any field that is unknown.
OURS_ALONE = {
    "ModelMetadataResponse.PropertiesEntry.key",
    "ModelMetadataResponse.PropertiesEntry.value",
    "ModelMetadataResponse.properties",
}


def fields(messages: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each field of messages by its name, with all that is on the wire."""
    for message in messages:
        name = f"{prefix}{message.name}"
        for field in message.field:
            oneof = field.HasField("oneof_index")
            yield (
                f"{name}.{field.name}",
                (field.number, field.type, field.label, field.type_name, oneof),
            )
        yield from fields(message.nested_type, f"{name}.")


def numbers(enums: Any) -> dict[str, int]:
    return {f"{enum.name}.{value.name}": value.number for enum in enums for value in enum.value}


@pytest.mark.parametrize("environment", ["tritonclient-2.73", "tritonclient-2.41"])
def test_contract_is_that_of_tritonclient(environment: str) -> None:
    theirs = [
        descriptor_pb2.FileDescriptorProto.FromString(bytes.fromhex(line))
        for line in output_of(environment, "-c", _SCRIPT).split()
    ]
    ours = file_descriptor()
    known = {name: value for file in theirs for name, value in fields(file.message_type)}
    mine = dict(fields(ours.message_type))
    assert len(mine) > 57  # As many as the specification alone has.
    assert {name for name, value in mine.items() if known.get(name) != value} == OURS_ALONE
    values = {name: value for file in theirs for name, value in numbers(file.enum_type).items()}
    assert numbers(ours.enum_type).items() <= values.items()
    methods = {
        method.name: (method.input_type, method.output_type,
                      method.client_streaming, method.server_streaming)
        for file in theirs for service in file.service for method in service.method
    }  # fmt: skip
    (service,) = ours.service
    for method in service.method:
        shape = (method.input_type, method.output_type,
                 method.client_streaming, method.server_streaming)  # fmt: skip
        assert methods[method.name] == shape
