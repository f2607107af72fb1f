"""Pictures by HTTP: what answers look like, and everything that can be wrong with a request."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.engines.base import Pixels
from convserve_server.protocols.rest.classify import list_models
from convserve_server.protocols.rest.messages import HttpAnswer, HttpRequest, RestOptions
from tests.bundles import photo_manifest, write_bundle
from tests.server.conftest import WAIT_S, Serve, Served, answers, request_for
from tests.server.http_client import PNG, HttpClient, multipart
from tests.server.transports.test_conformance import until
from tests.server.transports.test_conformance_departures import waiting

URL = "/v1/models/mnist:classify"


def strengths(batch: Pixels) -> NDArray[np.generic]:
    """What speaks for each class: the ink of ten rows, all of them different."""
    ink: NDArray[np.generic] = batch[:, 6:26:2, :, 0].mean(axis=2) * 4 + np.arange(10) / 7
    return ink


@pytest.fixture
def served(serve: Serve) -> Served:
    served = serve(http=True)
    served.engine.strengths = strengths  # type: ignore[method-assign]
    return served


@pytest.fixture
def client(served: Served) -> Iterator[HttpClient]:
    with HttpClient(served.http_port) as client:
        yield client


def test_answer_is_that_of_grpc_to_the_last_bit(served: Served, client: HttpClient) -> None:
    request = pb.ClassifyRequest(model="mnist", top_k=10, return_pixels=True)
    request.encoded.images.append(PNG)
    response = served.stub.Classify(request, timeout=WAIT_S)
    prediction = response.results[0].prediction
    # Whatever type is stated: curl states that of a form.
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
        answer = client.ask("POST", f"{URL}?pixels=true", PNG, headers).json
        assert (answer["model"], answer["version"]) == ("mnist", 1)
        (result,) = answer["results"]
        assert [each["label"] for each in result["classes"]] == [
            response.labels[index] for index in prediction.classes
        ]
        probabilities = [each["probability"] for each in result["classes"]]
        assert [np.float32(each) for each in probabilities] == prediction.probabilities
        assert all(len(str(each)) <= 15 for each in probabilities)
        assert {name: result[name] for name in ("label", "probability")} == result["classes"][0]
        assert answer["timings"].keys() == {"queue_us", "compute_us", "decode_us"}


def test_pixels_that_the_model_has_seen_come_with_their_shape(
    served: Served, client: HttpClient
) -> None:
    answer = client.ask("POST", f"{URL}?pixels=1&top_k=1", PNG).json
    pixels = answer["results"][0]["pixels"]
    assert (pixels["height"], pixels["width"], pixels["channels"]) == (28, 28, 1)
    seen = served.engine.seen[-1]
    assert base64.b64decode(pixels["data"]) == seen.tobytes()
    assert "pixels" not in client.ask("POST", f"{URL}?pixels=false", PNG).json["results"][0]


def test_several_files_are_answered_in_their_order_and_a_bad_one_fails_alone(
    client: HttpClient,
) -> None:
    body, headers = multipart(PNG, b"a text", PNG)
    reply = client.ask("POST", f"{URL}?top_k=2", body, headers)
    first, bad, last = reply.json["results"]
    assert first == last
    assert len(first["classes"]) == 2
    assert bad["error"] == {
        "error": "files[1]: not a picture: it looks like text",
        "reason": "NOT_A_PICTURE",
        "field": "files[1]",
        "expected": "a whole picture file of a format that the model reads",
        "got": "not a picture: it looks like text",
    }


def test_version_is_a_number_or_a_label(serve: Serve, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    served = serve(http=True, versions=2, by_model={"mnist": {"labels": {"stable": 1}}})
    with HttpClient(served.http_port) as client:
        for version, expected in (("1", 1), ("2", 2), ("stable", 1)):
            reply = client.ask("POST", f"/v1/models/mnist/versions/{version}:classify", PNG)
            assert reply.json["version"] == expected
        models = client.ask("GET", "/v1/models").json["models"]
        assert [(each["version"], each["default"], each["version_labels"]) for each in models] == [
            (2, True, []), (1, False, ["stable"]),
        ]  # fmt: skip


def test_models_are_listed(serve: Serve) -> None:
    with HttpClient(serve(http=True, photos=True).http_port) as client:
        answer = client.ask("GET", "/v1/models").json
    assert answer == {
        "models": [
            {
                "name": "colours",
                "version": 1,
                "default": True,
                "version_labels": [],
                "labels": ["red", "green", "blue"],
                "execution_provider": "HeldExecutionProvider",
                "output": "softmax",
                "input": {
                    "height": 150, "width": 150, "channels": 3, "kind": "photo",
                    "resize": photo_manifest().input.resize, "file_formats": ["JPEG"],
                },
                "metrics": dict(photo_manifest().metrics),
            }
        ],
        "refused": [],
    }  # fmt: skip


def test_versions_that_are_refused_are_listed_with_their_reason() -> None:
    listed = pb.ListModelsResponse()
    listed.models.add(name="plain", version=3)
    listed.refused.add(name="broken", version=1, reason="not an ONNX file")
    request = HttpRequest("GET", "/v1/models", "", {}, b"")
    options = RestOptions(max_message_bytes=1, max_images=1)
    answer = list_models(request, {}, options).answer(listed.SerializeToString())
    assert isinstance(answer, HttpAnswer)
    found = json.loads(answer.body)
    assert found["refused"] == [{"name": "broken", "version": 1, "reason": "not an ONNX file"}]
    # Of a model that is not a bundle, nothing is known of pictures.
    assert found["models"][0].keys() == {
        "name", "version", "default", "version_labels", "labels", "execution_provider",
    }  # fmt: skip


FORM = "multipart/form-data; boundary=XX"
PART = b'--XX\r\nContent-Disposition: form-data; name="f"; filename="1"\r\n\r\n'

#: Target, headers, body; then status, reason, field and what was got.
WRONG = [
    ("", {}, b"", 400, "INVALID_REQUEST", "body", "none"),
    ("", {}, b"a text", 400, "NOT_A_PICTURE", "body", "not a picture: it looks like text"),
    ("", {}, PNG[:60], 400, "TRUNCATED", "body", None),
    ("?top_k=11", {}, PNG, 400, "INVALID_REQUEST", "top_k", "11"),
    ("?top_k=0", {}, PNG, 400, "INVALID_REQUEST", "top_k", "0"),
    ("?top_k=-1", {}, PNG, 400, "INVALID_REQUEST", "top_k", "'-1'"),
    ("?top_k=4294967296", {}, PNG, 400, "INVALID_REQUEST", "top_k", "'4294967296'"),
    ("?top_k=%D9%A3", {}, PNG, 400, "INVALID_REQUEST", "top_k", "'٣'"),
    ("?top_k=1&top_k=2", {}, PNG, 400, "INVALID_REQUEST", "top_k", "it twice"),
    ("?topk=1", {}, PNG, 400, "INVALID_REQUEST", "query", "'topk'"),
    ("?top_k=%FF", {}, PNG, 400, "INVALID_REQUEST", "query", "others"),
    ("?" + "&" * 40, {}, PNG, 400, "INVALID_REQUEST", "query", "others"),
    ("?pixels=maybe", {}, PNG, 400, "INVALID_REQUEST", "pixels", "'maybe'"),
    ("", {"x-timeout-ms": "0"}, PNG, 400, "INVALID_REQUEST", "x-timeout-ms", "'0'"),
    ("", {"x-timeout-ms": "1s"}, PNG, 400, "INVALID_REQUEST", "x-timeout-ms", "'1s'"),
    ("", {"x-request-id": "a" * 129}, PNG, 400, "INVALID_REQUEST", "id", "129"),
    ("", {"Content-Encoding": "br"}, PNG, 415, "UNSUPPORTED_ENCODING", "content-encoding", "'br'"),
    ("", {"Content-Encoding": "gzip"}, PNG, 400, "INVALID_REQUEST", "body", "others"),
    ("", {"Content-Type": "multipart/mixed; boundary=XX"}, PNG, 415, "UNSUPPORTED_TYPE",
     "content-type", "'multipart/mixed'"),
    ("", {"Content-Type": "multipart/form-data"}, PNG, 400, "INVALID_REQUEST", "boundary", "0"),
    ("", {"Content-Type": FORM}, b"", 400, "INVALID_REQUEST", "body", "none"),
    ("", {"Content-Type": FORM}, b"no part", 400, "INVALID_REQUEST", "body", None),
    ("", {"Content-Type": FORM}, b"--XX--\r\n", 400, "INVALID_REQUEST", "files", "none"),
    ("", {"Content-Type": FORM}, PART + PNG, 400, "INVALID_REQUEST", "body", "none"),
    ("", {"Content-Type": FORM}, PART + b"a\r\n" + PART + b"b\r\n" + PART, 400,
     "INVALID_REQUEST", "files", "more"),
    ("", {"Content-Type": FORM},
     b'--XX\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n--XX--\r\n',
     400, "INVALID_REQUEST", "files[0]", "the form field 'top_k'"),
    ("", {"Content-Type": FORM}, b"--XX\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400,
     "INVALID_REQUEST", "body", None),
    ("", {"Content-Type": FORM}, PART.replace(b"\r\n\r\n",
     b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"a\r\n--XX--\r\n", 400,
     "INVALID_REQUEST", "files[0]", "them as 'base64'"),
]  # fmt: skip


def test_everything_wrong_is_json_with_field_expected_and_got(serve: Serve) -> None:
    served = serve(http=True, max_images=2)
    with HttpClient(served.http_port) as client:
        for target, headers, body, status, reason, field, got in WRONG:
            reply = client.ask("POST", URL + target, body, headers)
            found = reply.json
            assert (reply.status, found["reason"], found["field"]) == (status, reason, field), found
            assert found["expected"], found
            assert got is None or found["got"] == got, found
            assert found["error"].startswith(f"{field}: "), found


@pytest.mark.parametrize(
    ("target", "status", "field", "got"),
    [
        ("/v1/models/none:classify", 404, "model", "none"),
        ("/v1/models/n%6Fne:classify", 404, "model", "none"),
        ("/v1/models/%FF:classify", 400, "model", "other bytes"),
        ("/v1/models/mnist/versions/9:classify", 404, "version", "9"),
        ("/v1/models/mnist/versions/stable:classify", 404, "version", "stable"),
        ("/v1/models/mnist/versions/0:classify", 400, "version", "'0'"),
        ("/v1/models/mnist/versions/9999999999999999999:classify", 400, "version", None),
        ("/v1/models/mnist:classify/", 404, "path", None),
        ("/v1/models/:classify", 404, "path", None),
        ("/v1/models/mnist", 404, "path", None),
        ("/v1/models/../../etc/passwd", 404, "path", None),
        ("/v1/models", 405, "method", "'POST'"),
        ("/v2/health/live", 405, "method", "'POST'"),
    ],
)
def test_path_that_leads_nowhere_says_what_there_is(
    client: HttpClient, target: str, status: int, field: str, got: str | None
) -> None:
    reply = client.ask("POST", target, PNG)
    assert (reply.status, reply.json["field"]) == (status, field)
    assert reply.json["expected"]
    assert got is None or reply.json["got"] == got


def test_queue_that_is_full_says_when_to_ask_again(serve: Serve) -> None:
    served = serve(http=True, max_queue=1)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    queued = served.classify(request_for(0))
    until(lambda: waiting(served) == 1)
    with HttpClient(served.http_port) as client:
        reply = client.ask("POST", URL, PNG)
    served.engine.release()
    assert (reply.status, reply.json["reason"]) == (429, "QUEUE_FULL")
    assert reply.json["retry_after_s"] > 0
    assert int(reply.headers["retry-after"]) >= reply.json["retry_after_s"]
    assert answers(running.result()) == answers(queued.result()) == [0]
