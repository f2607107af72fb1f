"""The messages of the Open Inference Protocol that ask a model and answer, with the fields used.

Source: https://github.com/kserve/open-inference-protocol, open_inference_grpc.proto.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"

_FILE = """
name: "benchmarks/harness/open_inference.proto"
package: "inference"
syntax: "proto3"
message_type {
  name: "Tensor"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "datatype" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "shape" number: 3 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "ModelInferRequest"
  field { name: "model_name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "inputs" number: 5 type_name: ".inference.Tensor" label: LABEL_REPEATED }
  field { name: "raw_input_contents" number: 7 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "ModelInferResponse"
  field { name: "outputs" number: 5 type_name: ".inference.Tensor" label: LABEL_REPEATED }
  field { name: "raw_output_contents" number: 6 type: TYPE_BYTES label: LABEL_REPEATED }
}
"""

_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_FILE, descriptor_pb2.FileDescriptorProto()))


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


ModelInferRequest = _class("ModelInferRequest")
ModelInferResponse = _class("ModelInferResponse")
