"""Models that are not bundles, from the folder through the core to an answer."""

import hashlib
import queue
from pathlib import Path

import grpc
import numpy as np
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import Answer, Outcome
from convserve_server.core.classifier import Classifier
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest
from convserve_server.engines.tensors import Tensors
from tests import onnx_models
from tests.bundles import write_bundle
from tests.server.conftest import WAIT_S, Serve, request_for
from tests.server.echo_protocol import Echo


class Asks:
    """What a protocol gives for a call with tensors, and its outcome; see InputsAnswer."""

    def __init__(self, *arrays: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> None:
        self._arrays = arrays
        self._outcomes: queue.Queue[Outcome] = queue.Queue()
        self.description: ModelDescription | None = None

    def inputs(self, model: ModelDescription) -> Tensors:
        self.description = model
        return Tensors(self._arrays, len(self._arrays[0]) if model.signature.batched else 1)

    @property
    def size(self) -> int:
        return 0

    def queued(self) -> None:
        pass

    def finish(self, outcome: Outcome) -> None:
        self._outcomes.put(outcome)

    def outcome(self) -> Outcome:
        return self._outcomes.get(timeout=WAIT_S)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    write_bundle(models)
    onnx_models.write(models, "words", onnx_models.embedding())
    onnx_models.write(models, "text", onnx_models.text())
    return models


@pytest.fixture
def classifier(models: Path, serve: Serve) -> Classifier:
    """The core of a worker that serves these models."""
    kept: list[Classifier] = []

    def keep(classifier: Classifier) -> Echo:
        kept.append(classifier)
        return Echo(classifier)

    assert serve(services=[keep]).models == models
    return kept[0]


def test_tensors_in_tensors_out(classifier: Classifier) -> None:
    call = Asks(np.array([[0, 4], [1, 3]]))
    classifier.submit("words", None, call)
    answer = call.outcome()
    assert isinstance(answer, Answer)
    assert isinstance(answer.outputs, Tensors)
    assert answer.outputs.arrays[0].tolist() == [[2, -2], [2, -2]]
    assert call.description is not None
    assert str(call.description) == "words/1"
    assert not call.description.is_bundle
    assert (call.description.labels, call.description.classes) == ((), 0)
    assert call.description.max_batch == 8


def test_values_out_of_range_are_an_error_of_the_call(classifier: Classifier) -> None:
    bad, good = Asks(np.array([[99]])), Asks(np.array([[3]]))
    classifier.submit("words", 1, bad)
    classifier.submit("words", 1, good)
    error = bad.outcome()
    assert isinstance(error, InvalidRequest)
    assert str(error).startswith(
        "inputs: expected values that the model can compute, got indices element out of data bounds"
    )
    assert isinstance(good.outcome(), Answer)


def test_models_are_there_and_what_is_refused_says_why(classifier: Classifier) -> None:
    assert [str(model) for model in classifier.models()] == ["mnist/1", "words/1"]
    [(model, reason)] = classifier.refused().items()
    assert model == ("text", 1)
    assert reason.startswith("inputs.x: expected a tensor of ")


@pytest.mark.parametrize("encoded", [False, True])
def test_model_that_classifies_no_images_says_how_to_ask_it(
    encoded: bool, models: Path, serve: Serve, front: str
) -> None:
    served = serve(front)
    request = request_for(3, model="words")
    if encoded:
        request.encoded.images.append(b"a picture")
    with pytest.raises(grpc.RpcError) as refused:
        served.classify(request).result()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == (
        "model: expected a bundle, which classifies images, got 'words', another ONNX file; ask it "
        "by Open Inference"
    )
    assert served.stub.ListModels(pb.ListModelsRequest()).models[0].name == "mnist"
    assert len(served.stub.ListModels(pb.ListModelsRequest()).models) == 1


def test_external_data_that_is_exchanged_is_another_version(tmp_path: Path, serve: Serve) -> None:
    """As a model file that changes in place: the one that was loaded is served on."""
    models = tmp_path / "models"
    path = onnx_models.write(models, "parts", onnx_models.external())
    path.with_name("weights.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    served = serve()
    [first] = served.worker.repository.models()
    assert str(first.description) == "parts/1"
    assert first.digest != hashlib.sha256(path.read_bytes()).hexdigest()
