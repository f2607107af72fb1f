"""Models whose images have several labels: what each protocol answers; others are as ever."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convserve_bundle.errors import BundleError
from convserve_protos import classifier_pb2 as pb
from convserve_protos import open_inference_pb2 as inference_pb
from convserve_protos.bundle_pb2 import OUTPUT_MULTI_LABEL, OUTPUT_SOFTMAX
from convserve_server.engines.bundles import load_model
from convserve_server.engines.loader import EngineOptions
from convserve_server.engines.output_check import check_outputs
from tests.bundles import (
    COLOURS,
    PHOTO_SHAPE,
    THRESHOLDS,
    photo_manifest,
    several_manifest,
    write_several_bundle,
)
from tests.server.conftest import WAIT_S, Serve, request_for
from tests.server.http_client import HttpClient

#: Levels of red, green and blue: all labels, none, two, and one on either side of its threshold.
LEVELS = np.array(
    [[255, 255, 255], [0, 0, 0], [255, 0, 255], [128, 113, 142], [127, 114, 141]], np.uint8
)


def pictures() -> NDArray[np.uint8]:
    """uint8 [5, 150, 150, 3], each of one colour."""
    return np.ascontiguousarray(np.broadcast_to(LEVELS[:, None, None], (len(LEVELS), *PHOTO_SHAPE)))


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return file.getvalue()


def rows() -> NDArray[np.float32]:
    """What the model says of them."""
    logits = 20.0 * LEVELS.astype(np.float64) / 255 - 10
    found: NDArray[np.float32] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return found


def expected(row: NDArray[np.float32]) -> list[int]:
    """The labels of an image, the most probable first."""
    order = np.argsort(-row, kind="stable").tolist()
    return [index for index in order if row[index] >= np.float32(THRESHOLDS[index])]


def request(**fields: object) -> pb.ClassifyRequest:
    height, width, channels = PHOTO_SHAPE
    data = pictures().tobytes()
    pixels = pb.Pixels(count=len(LEVELS), height=height, width=width, channels=channels, data=data)
    return pb.ClassifyRequest(**{"model": "tags", "pixels": pixels, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_images_have_the_labels_that_reach_their_thresholds(
    serve: Serve, front: str, top_k: int | None
) -> None:
    served = serve(front, several=True)
    asked = request() if top_k is None else request(top_k=top_k)
    response = served.classify(asked).result()
    assert response.thresholds == list(THRESHOLDS)
    found = [each.prediction for each in response.results]
    assert len(found) == len(LEVELS)
    for prediction, row in zip(found, rows(), strict=True):
        assigned = expected(row)
        assert list(prediction.assigned) == assigned
        assert np.allclose(prediction.assigned_probabilities, row[assigned], atol=1e-6)
        order = np.argsort(-row, kind="stable")[:top_k].tolist()
        assert list(prediction.classes) == ([] if top_k is None else order)
        shown = row if top_k is None else row[order]
        assert np.allclose(prediction.probabilities, shown, atol=1e-6)
    assert {len(each.assigned) for each in found} == {0, 1, 2, 3}


def test_files_have_their_labels_beside_one_that_is_damaged(serve: Serve, front: str) -> None:
    served = serve(front, several=True)
    images = [jpeg(each) for each in pictures()[:3]]
    encoded = pb.EncodedImages(images=[images[0], b"\xff\xd8\xff", images[1], images[2]])
    for fields in ({}, {"top_k": 2}, {"return_pixels": True}):
        asked = pb.ClassifyRequest(model="tags", encoded=encoded, **fields)
        response = served.classify(asked).result()
        assert [each.WhichOneof("outcome") for each in response.results] == [
            "prediction", "error", "prediction", "prediction",
        ]  # fmt: skip
        assert [sorted(each.prediction.assigned) for each in response.results] == [
            [0, 1, 2], [], [], [0, 2],
        ]  # fmt: skip


def test_answers_of_other_models_have_not_a_byte_more(serve: Serve, front: str) -> None:
    served = serve(front)
    for fields in ({}, {"top_k": 2}):
        response = served.classify(request_for(3, 7, **fields)).result()
        response.ClearField("timings")
        names = {field.name for field, _ in response.ListFields()}
        assert names == {"model", "version", "labels", "results"}
        of_images = {
            field.name for each in response.results for field, _ in each.prediction.ListFields()
        }
        assert of_images == ({"probabilities", "classes"} if fields else {"probabilities"})


def test_models_say_what_they_answer(serve: Serve) -> None:
    served = serve(several=True)
    (model,) = served.stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S).models
    assert model.manifest.output == OUTPUT_MULTI_LABEL
    assert list(model.manifest.thresholds) == list(THRESHOLDS)
    ask = served.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelMetadata",
        inference_pb.ModelMetadataRequest.SerializeToString,
        inference_pb.ModelMetadataResponse.FromString,
    )
    properties = ask(inference_pb.ModelMetadataRequest(name="tags"), timeout=WAIT_S).properties
    assert properties["output"] == "multi_label"
    assert json.loads(properties["thresholds"]) == list(THRESHOLDS)


def test_open_inference_answers_the_same_probabilities(serve: Serve, front: str) -> None:
    served = serve(front, several=True)
    ask = served.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        inference_pb.ModelInferRequest.SerializeToString,
        inference_pb.ModelInferResponse.FromString,
    )
    asked = inference_pb.ModelInferRequest(model_name="tags")
    asked.inputs.add(name="pixels", datatype="UINT8", shape=[len(LEVELS), *PHOTO_SHAPE])
    asked.raw_input_contents.append(pictures().tobytes())
    response = ask(asked, timeout=WAIT_S)
    found = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(len(LEVELS), -1)
    assert np.allclose(found, rows(), atol=1e-6)


def test_http_answers_the_same_labels(serve: Serve) -> None:
    served = serve(several=True, http=True)
    with HttpClient(served.http_port) as client:
        for picture, assigned in ((2, {"red", "blue"}), (1, set())):
            path = "/v1/models/tags:classify?top_k=1"
            answer = client.ask("POST", path, jpeg(pictures()[picture])).json
            assert answer["thresholds"] == dict(zip(COLOURS, THRESHOLDS, strict=True))
            (result,) = answer["results"]
            assert {each["label"] for each in result["assigned"]} == assigned
            assert len(result["classes"]) == 1
        (model,) = client.ask("GET", "/v1/models").json["models"]
        assert model["output"] == "multi_label"
        assert model["thresholds"] == dict(zip(COLOURS, THRESHOLDS, strict=True))


def test_http_answers_of_other_models_have_no_labels_beside_their_classes(serve: Serve) -> None:
    served = serve(photos=True, http=True)
    with HttpClient(served.http_port) as client:
        answer = client.ask("POST", "/v1/models/colours:classify", jpeg(pictures()[0])).json
        assert answer.keys() == {"model", "version", "results", "timings"}
        assert answer["results"][0].keys() == {"label", "probability", "classes"}
        (model,) = client.ask("GET", "/v1/models").json["models"]
        assert model["output"] == "softmax"
        assert "thresholds" not in model


def test_rows_need_not_sum_to_1_where_images_have_several_labels(tmp_path: Path) -> None:
    several = several_manifest("tags")
    row = np.array([[0.9, 0.8, 0.1]], np.float32)
    check_outputs(several, row)
    with pytest.raises(BundleError, match="rows that sum to 1, got a sum of 1.8"):
        check_outputs(photo_manifest(), row)
    for value in (1.5, np.nan):
        with pytest.raises(BundleError, match="probabilities: expected"):
            check_outputs(several, np.array([[0.9, 0.8, value]], np.float32))
    loaded = load_model(write_several_bundle(tmp_path), EngineOptions("cpu", max_batch=2))
    assert loaded.thresholds == THRESHOLDS  # type: ignore[union-attr]


def test_softmax_that_is_stated_is_as_one_that_is_not() -> None:
    stated = photo_manifest()
    stated.output = OUTPUT_SOFTMAX
    with pytest.raises(BundleError, match="sum to 1"):
        check_outputs(stated, np.array([[0.9, 0.8, 0.1]], np.float32))
