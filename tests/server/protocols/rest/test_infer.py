"""Open Inference by REST: tensors in JSON and behind it, and the errors of those that are wrong."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convserve_protos import open_inference_pb2 as pb
from convserve_server.engines.tensors import DTYPES
from convserve_server.protocols.rest.infer import infer
from convserve_server.protocols.rest.json_tensors import json_elements, raw_elements
from convserve_server.protocols.rest.messages import (
    HttpAnswer,
    HttpRequest,
    Operation,
    Problem,
    RestOptions,
)
from tests.bundles import SHAPE, digit_of
from tests.server.conftest import WAIT_S, Serve, Served
from tests.server.http_client import PNG, HttpClient, Reply

URL = "/v2/models/mnist/infer"
LENGTH = "Inference-Header-Content-Length"
OPTIONS = RestOptions(max_message_bytes=2**20, max_images=8)
NUMBERS = sorted(DTYPES.keys() - {"BYTES", "BOOL"})


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(http=True)


@pytest.fixture
def client(served: Served) -> Iterator[HttpClient]:
    with HttpClient(served.http_port) as client:
        yield client


def tensor(data: Any = None, **fields: Any) -> dict[str, Any]:
    """One image for the model, or what is given in place of its parts."""
    whole = {"name": "pixels", "datatype": "UINT8", "shape": [1, *SHAPE], "data": data}
    return {name: value for name, value in {**whole, **fields}.items() if value is not None}


def ask(
    client: HttpClient,
    *inputs: dict[str, Any],
    behind: bytes | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Reply:
    head = json.dumps({"inputs": inputs, **fields}).encode()
    lengths = {} if behind is None else {LENGTH: str(len(head))}
    return client.ask("POST", URL, head + (behind or b""), {**lengths, **(headers or {})})


def probabilities(served: Served, class_: int) -> list[float]:
    """Those of the same digit by gRPC."""
    request = pb.ModelInferRequest(model_name="mnist")
    request.inputs.add(name="pixels", datatype="UINT8", shape=[1, *SHAPE])
    request.raw_input_contents.append(digit_of(class_).tobytes())
    call: Any = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    response = pb.ModelInferResponse.FromString(call(request.SerializeToString(), timeout=WAIT_S))
    row: list[float] = np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return row


def test_json_nested_or_flat_answers_as_grpc_does(served: Served, client: HttpClient) -> None:
    expected = probabilities(served, 3)
    image = digit_of(3)
    for data in (image[np.newaxis].tolist(), image.ravel().tolist()):
        reply = ask(client, tensor(data), id="one")
        answer = reply.json
        (output,) = answer.pop("outputs")
        assert answer == {"model_name": "mnist", "model_version": "1", "id": "one"}
        row = output.pop("data")
        assert output == {"name": "probabilities", "datatype": "FP32", "shape": [1, 10]}
        assert [np.float32(each) for each in row] == expected
    floats = image.astype(np.float32).ravel().tolist()
    assert ask(client, tensor(floats, datatype="FP32")).json["outputs"][0]["data"] == row


def test_bytes_behind_the_json_and_in_the_answer(served: Served, client: HttpClient) -> None:
    expected = probabilities(served, 5)
    data = digit_of(5).tobytes()
    sized = tensor(parameters={"binary_data_size": len(data)})
    for fields in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
        {"outputs": [{"name": "probabilities"}], "parameters": {"binary_data_output": True}},
    ):
        reply = ask(client, sized, behind=data, **fields)
        assert reply.headers["content-type"] == "application/octet-stream"
        length = int(reply.headers[LENGTH.lower()])
        (output,) = json.loads(reply.body[:length])["outputs"]
        assert output["parameters"] == {"binary_data_size": 40}
        assert np.frombuffer(reply.body[length:], np.float32).tolist() == expected
    one = {"name": "probabilities", "parameters": {"binary_data": False}}
    reply = ask(client, sized, behind=data, outputs=[one], parameters={"binary_data_output": True})
    assert [np.float32(each) for each in reply.json["outputs"][0]["data"]] == expected


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_body_has_the_length_of_its_json_before(
    client: HttpClient, encoding: str
) -> None:
    data = digit_of(5).tobytes()
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": len(data)})]}).encode()
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    headers = {LENGTH: str(len(head)), "Content-Encoding": encoding, "Accept-Encoding": encoding}
    reply = client.ask("POST", URL, pack(head + data), headers)
    assert reply.json["outputs"][0]["shape"] == [1, 10]


def test_pictures_are_bytes_and_classes_can_be_asked_for(client: HttpClient) -> None:
    element = len(PNG).to_bytes(4, "little") + PNG
    picture = tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": len(element)})
    wanted = {"name": "probabilities", "parameters": {"classification": 2}}
    (output,) = ask(client, picture, behind=element, outputs=[wanted]).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert [each.split(":")[2] for each in output["data"]] == ["0", "1"]
    bad = tensor(["a text"], datatype="BYTES", shape=[1])
    reply = ask(client, bad)
    assert (reply.status, reply.json["reason"]) == (400, "NOT_A_PICTURE")
    assert reply.json["field"] == "inputs[0].data[0]"


#: What is asked; then the message of its error.
GOOD = [0] * 784
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "inputs: expected in the request, got none"),
    ({"inputs": 3}, "inputs: expected an array, got a whole number"),
    ({"inputs": []}, "inputs: expected pixels for model mnist, got none"),
    ({"inputs": [tensor(GOOD, name=None)]}, "inputs[0].name: expected in the request, got none"),
    ({"inputs": [tensor(GOOD, name=7)]}, "inputs[0].name: expected a string, got a whole number"),
    ({"inputs": [tensor(GOOD, name="x")]},
     "inputs[0].name: expected 'pixels' for model mnist, got 'x'"),
    ({"inputs": [tensor(GOOD, datatype="INT8")]},
     "inputs[0].datatype: expected UINT8, FP32 or BYTES for model mnist, got 'INT8'"),
    ({"inputs": [tensor(GOOD, datatype="FP8")]},
     "inputs[0].data: expected binary data for 'FP8', got JSON"),
    ({"inputs": [tensor(GOOD, shape=[1, 28, 27, 1])]},
     "inputs[0].data: expected 756 elements for UINT8 [1, 28, 27, 1], got 784"),
    ({"inputs": [tensor(GOOD, shape=[-1])]},
     "inputs[0].shape[0]: expected a whole number >= 0, got -1"),
    ({"inputs": [tensor([0] * 783 + [256])]},
     "inputs[0].data[783]: expected a whole number <= 255, got 256"),
    ({"inputs": [tensor([0] * 783 + [1.5])]},
     "inputs[0].data[783]: expected a whole number, got a number"),
    ({"inputs": [tensor([[0, 1], [2]], shape=[2, 2])]},
     "inputs[0].data: expected arrays as the shape [2, 2] has, got one of 1 in place of 2 on "
     "axis 1"),
    ({"inputs": [tensor([[0]], shape=[1, 1, 1])]},
     "inputs[0].data: expected a flat array, or 3 nested ones as the shape [1, 1, 1] has, got 2 "
     "nested ones"),
    ({"inputs": [tensor([1e39], datatype="FP32", shape=[1])]},
     "inputs[0].data: expected numbers for FP32, got 1e+39"),
    ({"inputs": [tensor([2**64], datatype="UINT64", shape=[1])]},
     "inputs[0].data: expected numbers for UINT64, got larger ones"),
    ({"inputs": [tensor()]},
     "inputs[0].data: expected an array, or binary_data_size of what is behind the JSON, got "
     "neither"),
    ({"inputs": [tensor(GOOD, parameters={"binary_data_size": 0})]},
     "inputs[0].data: expected none beside binary_data_size, got some"),
    ({"inputs": [tensor(parameters={"binary_data_size": 1})]},
     "inputs[0].parameters.binary_data_size: expected at most the 0 bytes that are left behind the "
     "JSON, got 1"),
    ({"inputs": [tensor(parameters={"binary_data_size": "1"})]},
     "inputs[0].parameters.binary_data_size: expected a size, got '1'"),
    ({"inputs": [tensor(parameters={"shared_memory_region": "a"})]},
     "inputs[0].parameters.shared_memory_region: expected a tensor in the message, since this "
     "server shares no memory with clients, got one in shared memory"),
    ({"inputs": [tensor(GOOD)], "parameters": {"binary_data_output": 1}},
     "parameters.binary_data_output: expected true or false, got 1"),
    ({"inputs": [tensor(GOOD)], "parameters": {"x": 2**63}},
     "parameters.x: expected a number of 64 bits, got 9223372036854775808"),
    ({"inputs": [tensor(GOOD)], "outputs": [{"name": "x"}]},
     "outputs[0].name: expected 'probabilities' for model mnist, got 'x'"),
    ({"inputs": [tensor(GOOD)], "id": "a" * 1025}, "id: expected at most 1024 bytes, got 1025"),
]  # fmt: skip


def test_what_is_wrong_is_named_by_its_path(client: HttpClient) -> None:
    for body, message in WRONG:
        reply = client.ask("POST", URL, json.dumps(body).encode())
        assert (reply.status, reply.json["error"]) == (400, message)
        assert reply.json["error"] == "{field}: expected {expected}, got {got}".format(**reply.json)


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"", {}, "body: expected JSON, got none"),
        (b"{", {}, "body: expected JSON, got Input data was truncated"),
        (b"[]", {}, "body: expected an object, got an array"),
        (b'{"inputs": "a"}', {}, "inputs: expected an array, got a string"),
        (b'{"id": "\xff"}', {}, "body: expected JSON, got bytes that are not UTF-8"),
        (b'{"x":' + b"[" * 100_000, {},
         "body: expected JSON, got brackets within brackets without end"),
        (b"{}", {LENGTH: "3"},
         f"{LENGTH.lower()}: expected a whole number from 0 to 2, got '3'"),
        (b'{"inputs": []}a', {LENGTH: "14"},
         "body: expected 0 bytes behind the JSON, as the inputs state, got 1"),
    ],
)  # fmt: skip
def test_body_that_is_not_json_says_what_it_is(
    client: HttpClient, body: bytes, headers: dict[str, str], message: str
) -> None:
    reply = client.ask("POST", URL, body, headers)
    assert reply.status == 400
    assert reply.json["error"] == message
    assert ask(client, tensor(GOOD)).status == 200


def operation(body: dict[str, Any]) -> Operation:
    request = HttpRequest("POST", URL, "", {}, json.dumps(body).encode())
    return infer(request, {"model": "m", "version": "stable"}, OPTIONS)


def test_parameters_keep_their_types() -> None:
    given_ = {"a": True, "b": 1, "c": -1.5, "d": "x", "timeout": 7}
    body = {"inputs": [tensor([0], parameters=given_)], "parameters": given_, "outputs": None}
    body["inputs"][0]["shape"] = [1]  # type: ignore[index]
    message = pb.ModelInferRequest.FromString(operation(body).payload)
    assert (message.model_name, message.model_version) == ("m", "stable")
    for found in (message.parameters, message.inputs[0].parameters):
        assert {name: each.WhichOneof("parameter_choice") for name, each in found.items()} == {
            "a": "bool_param", "b": "int64_param", "c": "double_param", "d": "string_param",
            "timeout": "int64_param",
        }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_json_does_not_have_is_refused_with_the_way_out(value: float) -> None:
    response = pb.ModelInferResponse(model_name="m", model_version="1")
    response.outputs.add(name="y", datatype="FP32", shape=[2])
    response.raw_output_contents.append(np.array([1.0, value], np.float32).tobytes())
    body: dict[str, Any] = {"inputs": [], "outputs": [{"name": "y"}]}
    with pytest.raises(Problem) as caught:
        operation(body).answer(response.SerializeToString())
    assert str(caught.value) == (
        f"outputs[0].data: expected finite numbers for JSON, got {value}; ask for binary_data"
    )
    body["outputs"][0]["parameters"] = {"binary_data": True}
    answer = operation(body).answer(response.SerializeToString())
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 200


def test_bytes_that_are_not_utf_8_are_refused_with_the_way_out() -> None:
    with pytest.raises(Problem, match="UTF-8 for JSON, got other bytes; ask for binary_data"):
        json_elements(b"\1\0\0\0\xff", "BYTES", "outputs[0].data")
    assert json_elements(b"\2\0\0\0\xc3\xa9\0\0\0\0", "BYTES", "y") == ["é", ""]


@given(
    st.sampled_from(NUMBERS).flatmap(
        lambda datatype: st.tuples(
            st.just(datatype),
            arrays.arrays(
                DTYPES[datatype],
                arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
                elements={"allow_nan": False, "allow_infinity": False}
                if DTYPES[datatype].kind == "f"
                else None,
            ),
        )
    )
)
def test_elements_come_back_bit_by_bit(case: tuple[str, np.ndarray[Any, Any]]) -> None:
    datatype, array = case
    shape = list(array.shape)
    flat = json_elements(array.tobytes(), datatype, "x")
    nested = np.array(flat, object).reshape(shape).tolist()
    for data in (flat, nested):
        raw = raw_elements(json.dumps(data).encode(), datatype, shape, "x")
        assert raw == array.tobytes()


@pytest.mark.parametrize(
    ("datatype", "values", "raw"),
    [
        ("BOOL", [True, False], b"\1\0"),
        ("BYTES", ["é", ""], b"\2\0\0\0\xc3\xa9\0\0\0\0"),
        ("FP32", [1, 2.5], np.array([1, 2.5], "<f4").tobytes()),
    ],
)
def test_elements_of_other_types(datatype: str, values: list[Any], raw: bytes) -> None:
    assert raw_elements(json.dumps(values).encode(), datatype, [2], "x") == raw
    assert json_elements(raw, datatype, "x") == values
    wrong: list[Any] = [[], {}] if datatype != "FP32" else ["1", True]
    for each in wrong:
        with pytest.raises(Problem, match=r"x(\[1\])?: expected"):
            raw_elements(json.dumps([values[0], each]).encode(), datatype, [2], "x")
