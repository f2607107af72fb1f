"""Pictures with several labels: drawn, trained on, published, served, each answered as by Keras."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest

from benchmarks.harness.ports import free_port
from convserve import Client
from convserve_protos import open_inference_pb2 as inference_pb
from convserve_trainer.datasets import photo_reader
from tests.system.conftest import ROOT, WAIT_S, StartServer

pytestmark = pytest.mark.timeout(1000)
RECIPE = """
task = "photos"
net = [
  { layer = "conv", filters = 8, stride = 2 },
  { layer = "conv", filters = 8, stride = 2 },
  { layer = "flatten" },
]
height = 24
width = 24
learning_rate = 0.01
epochs = 3
batch_size = 32
"""
#: Prints Keras's probabilities for a file of pixels.
KERAS = """
import json, sys
import keras
import numpy as np

net = keras.models.load_model(sys.argv[1], compile=False)
print(json.dumps(net.predict(np.load(sys.argv[2]), verbose=0).tolist()))
"""


def _run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=5 * WAIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _train(folder: Path, models: Path) -> None:
    """Draws pictures, and publishes a net of them."""
    (folder / "small.toml").write_text(RECIPE)
    _run(str(ROOT / "examples/shapes/make_shapes.py"), str(folder / "shapes"), "--pictures", "400")
    _run(
        *("-m", "convserve_trainer.main", "fit", "photos", "--models", str(models)),
        *("--data", str(folder / "shapes" / "shapes.csv"), "--formats", "all"),
        *("--recipe", str(folder / "small.toml"), "--name", "shapes"),
    )


def test_every_picture_has_the_labels_that_keras_gives_it(
    tmp_path: Path, models: Path, start_server: StartServer
) -> None:
    _train(tmp_path, models)
    files = sorted((tmp_path / "shapes").glob("*.[jp][pn]g"))[320:]
    pixels = np.stack(
        [photo_reader.read(path, 24, 24, method="picture-bilinear/1") for path in files]
    )
    np.save(tmp_path / "pixels.npy", pixels)
    net = str(models / "shapes" / "1" / "net.keras")
    printed = _run("-c", KERAS, net, str(tmp_path / "pixels.npy"))
    rows = np.array(json.loads(printed.splitlines()[-1]), np.float32)

    for front in ("native", "grpcio"):
        port = free_port()
        server = start_server("--workers", "1", "--front", front, "--http-port", str(port))
        address = server.wait_until_serving()
        with Client(address) as client:
            [info] = [each for each in client.models() if each.name == "shapes"]
            found = client.classify_images([path.read_bytes() for path in files], model="shapes")
        assert np.allclose(found.probabilities, rows, atol=1e-5)
        thresholds = np.array(info.thresholds, np.float32)
        assert found.thresholds == info.thresholds
        # A probability on a threshold may round to either side.
        near = np.abs(rows - thresholds).min(axis=1) < 1e-5
        expected = [
            {info.labels[index] for index in np.flatnonzero(row >= thresholds)} for row in rows
        ]
        assert len({len(each) for each in expected}) > 1
        sure = [number for number in range(len(files)) if not near[number]]
        assert len(sure) > 70
        for number in sure:
            assigned = found[number].assigned
            assert {each.label for each in assigned} == expected[number]
            probabilities = [each.probability for each in assigned]
            assert probabilities == sorted(probabilities, reverse=True)

        some = sure[:8]
        lines = _run(
            *("-m", "convserve.main", "classify", "--server", address, "--model", "shapes"),
            *("--format", "jsonl", *(str(files[number]) for number in some)),
        ).splitlines()
        for number, line in zip(some, lines, strict=True):
            answer = json.loads(line)
            assert {each["label"] for each in answer["assigned"]} == expected[number]
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/models/shapes:classify?top_k=1",
                files[number].read_bytes(),
            )
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                [result] = json.loads(reply.read())["results"]
            assert {each["label"] for each in result["assigned"]} == expected[number]
            assert len(result["classes"]) == 1

        asked = inference_pb.ModelInferRequest(model_name="shapes")
        asked.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
        asked.raw_input_contents.append(pixels.tobytes())
        with grpc.insecure_channel(address) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                inference_pb.ModelInferRequest.SerializeToString,
                inference_pb.ModelInferResponse.FromString,
            )
            [content] = infer(asked, timeout=WAIT_S).raw_output_contents
        answered = np.frombuffer(content, np.float32).reshape(rows.shape)
        assert np.allclose(answered, rows, atol=1e-5)
        assert server.terminate() == 0
