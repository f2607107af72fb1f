"""Writes convserve.protoset: the services that Envoy answers as JSON, with all that they import.

    python deploy/envoy/protoset.py

It is a FileDescriptorSet (google/protobuf/descriptor.proto). The details of errors are in it, since
Envoy writes them as JSON too. Other programs can use it as well: `grpcurl -protoset`.
"""

from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2

from convserve_protos import classifier_pb2, open_inference_pb2

FILE = Path(__file__).with_name("convserve.protoset")


def protoset() -> bytes:
    """Returns the file's content; each .proto after those that it imports."""
    found: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            add(imported)
        found.setdefault(file.name, file)

    for module in (error_details_pb2, classifier_pb2, open_inference_pb2):
        add(module.DESCRIPTOR)
    result = FileDescriptorSet()
    for file in found.values():
        result.file.add().ParseFromString(file.serialized_pb)
    return result.SerializeToString(deterministic=True)


if __name__ == "__main__":
    FILE.write_bytes(protoset())
