"""In place of tritonserver: the options, the repository and the one method that the runner uses.

    python -m tests.benchmarks.peers.stand_in_triton --installation DIR --model-repository=...

Their numbers do not matter, as the file is text. Source of the fields:
https://github.com/triton-inference-server/common, protobuf/model_config.proto.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from benchmarks.harness.open_inference import MODEL_INFER, ModelInferRequest, ModelInferResponse

_CONFIG = """
name: "stand_in_triton.proto" package: "inference" syntax: "proto3"
message_type {
  name: "Tensor"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "data_type" number: 2 type_name: ".inference.DataType" label: LABEL_OPTIONAL }
  field { name: "dims" number: 3 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "Group"
  field { name: "kind" number: 1 type_name: ".inference.Kind" label: LABEL_OPTIONAL }
  field { name: "count" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
}
message_type {
  name: "Delay"
  field { name: "max_queue_delay_microseconds" number: 1 type: TYPE_UINT64 label: LABEL_OPTIONAL }
}
message_type {
  name: "Value"
  field { name: "string_value" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type {
  name: "Parameter"
  field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type_name: ".inference.Value" label: LABEL_OPTIONAL }
}
message_type {
  name: "ModelConfig"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "backend" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "max_batch_size" number: 3 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "input" number: 4 type_name: ".inference.Tensor" label: LABEL_REPEATED }
  field { name: "output" number: 5 type_name: ".inference.Tensor" label: LABEL_REPEATED }
  field { name: "instance_group" number: 6 type_name: ".inference.Group" label: LABEL_REPEATED }
  field { name: "dynamic_batching" number: 7 type_name: ".inference.Delay" label: LABEL_OPTIONAL }
  field { name: "parameters" number: 8 type_name: ".inference.Parameter" label: LABEL_REPEATED }
}
enum_type {
  name: "DataType"
  value { name: "TYPE_INVALID" number: 0 }
  value { name: "TYPE_UINT8" number: 2 }
  value { name: "TYPE_FP32" number: 11 }
}
enum_type {
  name: "Kind"
  value { name: "KIND_AUTO" number: 0 }
  value { name: "KIND_CPU" number: 2 }
}
"""


def read_config(file: Path) -> Any:
    """What a config.pbtxt says; an error ends the program, as it does Triton."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_CONFIG, descriptor_pb2.FileDescriptorProto()))
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return text_format.Parse(file.read_text(), message())


class Model:
    """The one model of a repository."""

    def __init__(self, repository: Path) -> None:
        [folder] = repository.iterdir()
        self._config = read_config(folder / "config.pbtxt")
        assert self._config.name == folder.name
        assert self._config.backend == "onnxruntime"
        assert self._config.dynamic_batching.max_queue_delay_microseconds in (0, 1000)
        assert [one.count for one in self._config.instance_group] in ([1], [2])
        [file] = folder.glob("*/model.onnx")
        self._session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])

    def infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """An answer to ModelInfer."""
        [tensor] = request.inputs
        [stated], [output] = self._config.input, self._config.output
        if tensor.shape[0] > self._config.max_batch_size or tensor.shape[1:] != stated.dims:
            expected = f"[-1,{','.join(map(str, stated.dims))}]"
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"unexpected shape, expecting {expected}"
            )
        pixels = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
        try:
            [rows] = self._session.run([output.name], {tensor.name: pixels})
        except ort_errors.InvalidArgument as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
        response = ModelInferResponse()
        response.outputs.add(name=output.name, datatype="FP32", shape=rows.shape)
        response.raw_output_contents.append(rows.tobytes())
        return response


def main() -> None:
    """Serves until killed."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--installation", type=Path, required=True)
    for option in ("model-repository", "backend-directory", "grpc-address", "grpc-port"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("allow-http", "allow-metrics", "log-info"):
        parser.add_argument(f"--{option}", choices=("true", "false"), default="true")
    options = parser.parse_args()
    assert options.backend_directory == str(options.installation / "backends")
    assert os.environ["LD_LIBRARY_PATH"].split(":")[0] == str(options.installation / "lib")
    model = Model(Path(options.model_repository))
    handler = grpc.unary_unary_rpc_method_handler(
        model.infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
    )
    service, _, method = MODEL_INFER.strip("/").partition("/")
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    server.add_insecure_port(f"{options.grpc_address}:{options.grpc_port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
