"""Triton: gRPC, Open Inference Protocol, dynamic batching on, the backend of ONNX Runtime.

    python -m benchmarks.peers.servers.triton_server models/mnist/1/model.onnx --repository DIR
        --tritonserver /opt/tritonserver --instances 2 --max-delay-us 1000

Writes a repository of the one model into an empty folder and becomes the server. The program, its
libraries and the backend are those of a folder as NVIDIA's container has it. Each instance has one
thread, as there is one for each CPU at the most. Sources:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html,
https://github.com/triton-inference-server/onnxruntime_backend (README.md, Model Config Options).
"""

import argparse
import os
import shutil
from pathlib import Path

import onnxruntime as ort

from benchmarks.peers.servers.free_port import announced_port

_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 64
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: {image} }} ]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
dynamic_batching {{ max_queue_delay_microseconds: {max_delay_us} }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
"""


def write_repository(folder: Path, model: Path, instances: int, max_delay_us: int) -> None:
    """Writes the model file, with what Triton is to know of it.

    Args:
        folder: that is served; empty.
        model: the model file NAME/VERSION/model.onnx.
        instances: of the session, which run batches at the same time.
        max_delay_us: maximum batching delay, µs.
    """
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = model.parent.parent.name
    version = folder / name / model.parent.name
    version.mkdir(parents=True)
    shutil.copy(model, version / "model.onnx")
    config = _CONFIG.format(
        name=name,
        image=session.get_inputs()[0].shape[1:],
        classes=session.get_outputs()[0].shape[1],
        instances=instances,
        max_delay_us=max_delay_us,
    )
    (folder / name / "config.pbtxt").write_text(config)


def main() -> None:
    """Serves until a signal stops it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--tritonserver", type=Path, required=True)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--max-delay-us", type=int, default=0)
    arguments = parser.parse_args()
    write_repository(
        arguments.repository, arguments.model, arguments.instances, arguments.max_delay_us
    )
    folder = arguments.tritonserver
    program = str(folder / "bin" / "tritonserver")
    libraries = [str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
    command = [program, f"--model-repository={arguments.repository}"]
    command += [f"--backend-directory={folder / 'backends'}"]
    command += ["--grpc-address=127.0.0.1", f"--grpc-port={announced_port()}"]
    command += ["--allow-http=false", "--allow-metrics=false", "--log-info=false"]
    os.execv(program, command)


if __name__ == "__main__":
    main()
