"""ModelInfer: what is accepted, what is refused and in which words, what comes back."""

import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2
from numpy.typing import NDArray

from convserve_imaging.errors import DamagedPictureError
from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.errors import BadImage, QueueFull
from convserve_server.core.jobs import Priority
from convserve_server.engines.signatures import OPEN, TensorSpec
from convserve_server.engines.tensors import DTYPES, Tensors
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import failure_status
from convserve_server.protocols.open_inference.service import MODEL_INFER, OpenInference
from convserve_server.protocols.router import Router
from convserve_server.protocols.streams import StreamBudget
from tests.bundles import CLASSES, SHAPE, digit_of
from tests.server.in_process_transport import InProcessTransport
from tests.server.open_inference_core import MAX_ROWS, FakeCore, bundle, description

SIZE = int(np.prod(SHAPE))
Request = pb.ModelInferRequest
Contents = pb.InferTensorContents


def ask(core: Any, request: Request | bytes) -> bytes | Failure:
    """Passes a request to the service over a core."""
    transport = InProcessTransport()
    transport.start(Router([OpenInference(core, StreamBudget(2**20))]))
    payload = request if isinstance(request, bytes) else request.SerializeToString()
    return transport.ask(MODEL_INFER, payload).result(timeout=60.0)


def response_to(core: Any, request: Request) -> pb.ModelInferResponse:
    answer = ask(core, request)
    assert isinstance(answer, bytes), answer
    return pb.ModelInferResponse.FromString(answer)


def refusal_of(core: Any, request: Request | bytes) -> str:
    """The message of a request that is refused as invalid, whose details name the same field."""
    failure = ask(core, request)
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INVALID_ARGUMENT, failure
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in failure_status(failure).details)
    (violation,) = bad.field_violations
    assert failure.message == f"{violation.field}: {violation.description}"
    return failure.message


def pixels(count: int = 1) -> bytes:
    return b"".join(digit_of(number).tobytes() for number in range(count))


def tensor(
    datatype: str = "UINT8",
    shape: Sequence[int] = (1, *SHAPE),
    name: str = "pixels",
    **fields: Any,
) -> Request.InferInputTensor:
    return Request.InferInputTensor(name=name, datatype=datatype, shape=shape, **fields)


def infer(*inputs: Request.InferInputTensor, raw: Sequence[bytes] = (), **fields: Any) -> Request:
    return Request(**{"model_name": "mnist", "inputs": inputs, "raw_input_contents": raw, **fields})


def array_of(response: pb.ModelInferResponse, index: int = 0) -> NDArray[Any]:
    """An output that is not of BYTES."""
    output = response.outputs[index]
    dtype = DTYPES[output.datatype].newbyteorder("<")
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(output.shape)


def texts_of(response: pb.ModelInferResponse, index: int = 0) -> list[str]:
    """An output of BYTES."""
    return [part.decode() for part in split(response.raw_output_contents[index])]


def split(data: bytes) -> list[bytes]:
    parts = []
    while data:
        size = int.from_bytes(data[:4], "little")
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    return parts


def lengths_and(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def rows(images: Any) -> NDArray[np.float32]:
    """What the bundle gives: the first pixels of each image."""
    result: NDArray[np.float32] = images.reshape(len(images), -1)[:, :CLASSES].astype(np.float32)
    return result


@pytest.fixture
def core() -> FakeCore:
    core = FakeCore(bundle(), bundle(version=7))
    core.labels = {"stable": 1}
    core.run = rows
    return core


# --- bundles: pixels -----------------------------------------------------------------------------


def test_pixels_as_bytes_are_answered_with_rows_and_the_id(core: FakeCore) -> None:
    response = response_to(
        core, infer(tensor(shape=(3, *SHAPE)), raw=[pixels(3)], id="7", model_version="1")
    )
    assert (response.model_name, response.model_version, response.id) == ("mnist", "1", "7")
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("probabilities", "FP32", [3, 10])
    assert not output.HasField("contents")
    assert array_of(response).argmax(axis=1).tolist() == [0, 1, 2]
    (images,) = core.inputs
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.uint8


def test_answers_do_not_share_ids_nor_shapes(core: FakeCore) -> None:
    for count, name in [(1, "a"), (2, ""), (1, "b" * 200), (1, "")]:
        response = response_to(
            core, infer(tensor(shape=(count, *SHAPE)), raw=[pixels(count)], id=name)
        )
        assert response.id == name
        assert list(response.outputs[0].shape) == [count, CLASSES]


@pytest.mark.parametrize(
    "contents",
    [
        {"contents": Contents(uint_contents=pixels())},
        {"datatype": "FP32", "contents": Contents(fp32_contents=[float(one) for one in pixels()])},
    ],
)
def test_typed_contents_are_the_same_as_raw_ones(core: FakeCore, contents: Any) -> None:
    typed = response_to(core, infer(tensor(**contents)))
    raw = response_to(core, infer(tensor(), raw=[pixels()]))
    assert typed == raw


def test_floats_are_rounded_to_the_nearest_whole_number(core: FakeCore) -> None:
    floats = np.zeros((1, *SHAPE), "<f4")
    floats.flat[:7] = 0.4, 0.6, 254.6, 255.0, 1.5, 2.5, -0.0
    response_to(core, infer(tensor("FP32"), raw=[floats.tobytes()]))
    (images,) = core.inputs
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.uint8
    assert images.flat[:8].tolist() == [0, 1, 255, 255, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-0.25, "-0.25"),
        (-1e-45, "-1.4013e-45"),
        (255.5, "255.5"),
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
    ],
)
def test_floats_out_of_range_are_refused(core: FakeCore, value: float, shown: str) -> None:
    floats = np.zeros((1, *SHAPE), "<f4")
    floats.flat[5] = value
    assert refusal_of(core, infer(tensor("FP32"), raw=[floats.tobytes()])) == (
        f"inputs[0]: expected FP32 from 0 to 255 for model mnist, got {shown}"
    )


WRONG = "for model mnist, got"
MALFORMED: dict[str, tuple[Request, str]] = {
    "no inputs": (infer(), "inputs: expected pixels for model mnist, got none"),
    "unknown input": (
        infer(tensor(name="image"), raw=[pixels()]),
        f"inputs[0].name: expected 'pixels' {WRONG} 'image'",
    ),
    "same input twice": (
        infer(tensor(), tensor(), raw=[pixels(), pixels()]),
        "inputs[1].name: expected each input once, got 'pixels' again",
    ),
    "other datatype": (
        infer(tensor("INT64"), raw=[pixels()]),
        f"inputs[0].datatype: expected UINT8, FP32 or BYTES {WRONG} 'INT64'",
    ),
    "unknown datatype": (
        infer(tensor("x" * 500), raw=[pixels()]),
        f"inputs[0].datatype: expected UINT8, FP32 or BYTES {WRONG} '{'x' * 95}…{'x' * 95}'",
    ),
    "other height": (
        infer(tensor(shape=(1, 27, 28, 1)), raw=[pixels()]),
        f"inputs[0].shape: expected [-1, 28, 28, 1] {WRONG} [1, 27, 28, 1]",
    ),
    "other rank": (
        infer(tensor(shape=(28, 28)), raw=[pixels()]),
        f"inputs[0].shape: expected [-1, 28, 28, 1] {WRONG} [28, 28]",
    ),
    "no shape": (
        infer(tensor(shape=()), raw=[pixels()]),
        f"inputs[0].shape: expected [-1, 28, 28, 1] {WRONG} []",
    ),
    "very long shape": (
        infer(tensor(shape=(1,) * 10_000), raw=[pixels()]),
        f"inputs[0].shape: expected [-1, 28, 28, 1] {WRONG} "
        f"[{', '.join('1' * 16)}] and 9984 more sizes",
    ),
    "negative rows": (
        infer(tensor(shape=(-1, *SHAPE)), raw=[pixels()]),
        f"inputs[0].shape: expected no negative sizes {WRONG} [-1, 28, 28, 1]",
    ),
    "no rows": (
        infer(tensor(shape=(0, *SHAPE)), raw=[b""]),
        f"inputs[0].shape: expected 1 to {MAX_ROWS} rows {WRONG} 0",
    ),
    "too many rows": (
        infer(tensor(shape=(9, *SHAPE)), raw=[pixels(9)]),
        f"inputs[0].shape: expected 1 to {MAX_ROWS} rows {WRONG} 9",
    ),
    "rows whose product is more than 64 bits": (
        infer(tensor(shape=(2**62, *SHAPE)), raw=[pixels()]),
        f"inputs[0].shape: expected 1 to {MAX_ROWS} rows {WRONG} {2**62}",
    ),
    "too few bytes": (
        infer(tensor(), raw=[pixels()[1:]]),
        "raw_input_contents[0]: expected 784 bytes for UINT8 [1, 28, 28, 1], got 783",
    ),
    "too many bytes": (
        infer(tensor(), raw=[pixels() + b"0"]),
        "raw_input_contents[0]: expected 784 bytes for UINT8 [1, 28, 28, 1], got 785",
    ),
    "bytes of another type": (
        infer(tensor("FP32"), raw=[pixels()]),
        "raw_input_contents[0]: expected 3136 bytes for FP32 [1, 28, 28, 1], got 784",
    ),
    "no contents": (
        infer(tensor()),
        "inputs[0].contents.uint_contents: expected 784 elements for UINT8 [1, 28, 28, 1], got 0",
    ),
    "too few elements": (
        infer(tensor(contents=Contents(uint_contents=[1, 2, 3]))),
        "inputs[0].contents.uint_contents: expected 784 elements for UINT8 [1, 28, 28, 1], got 3",
    ),
    "elements of another type": (
        infer(tensor(contents=Contents(fp32_contents=[1.0]))),
        "inputs[0].contents: expected uint_contents for UINT8, got fp32_contents",
    ),
    "elements of two types": (
        infer(tensor(contents=Contents(uint_contents=pixels(), bytes_contents=[b""]))),
        "inputs[0].contents: expected uint_contents for UINT8, got bytes_contents",
    ),
    "elements out of range": (
        infer(tensor(contents=Contents(uint_contents=[256] + [0] * (SIZE - 1)))),
        "inputs[0].contents.uint_contents: expected 0 to 255 for UINT8, got 256",
    ),
    "raw and typed": (
        infer(tensor(contents=Contents(uint_contents=pixels())), raw=[pixels()]),
        "inputs[0].contents: expected none beside raw_input_contents, got some",
    ),
    "raw contents without an input": (
        infer(tensor(), raw=[pixels(), pixels()]),
        "raw_input_contents: expected one for each of 1 inputs, got 2",
    ),
    "shared memory": (
        infer(tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="a")})),
        "inputs[0].parameters.shared_memory_region: expected a tensor in the message, since this "
        "server shares no memory with clients, got one in shared memory",
    ),
    "output in shared memory": (
        infer(
            tensor(),
            raw=[pixels()],
            outputs=[
                Request.InferRequestedOutputTensor(
                    name="probabilities",
                    parameters={"shared_memory_region": pb.InferParameter(string_param="a")},
                )
            ],
        ),
        "outputs[0].parameters.shared_memory_region: expected a tensor in the message, since this "
        "server shares no memory with clients, got one in shared memory",
    ),
    "unknown output": (
        infer(
            tensor(), raw=[pixels()], outputs=[Request.InferRequestedOutputTensor(name="logits")]
        ),
        f"outputs[0].name: expected 'probabilities' {WRONG} 'logits'",
    ),
    "same output twice": (
        infer(
            tensor(),
            raw=[pixels()],
            outputs=[Request.InferRequestedOutputTensor(name="probabilities")] * 2,
        ),
        "outputs[1].name: expected each output once, got 'probabilities' again",
    ),
    "version that cannot be": (
        infer(tensor(), raw=[pixels()], model_version="0"),
        "model_version: expected as a version 1, 2, 3 and so on, at most 18 digits, or a label, "
        "got '0'",
    ),
    "version of many digits": (
        infer(tensor(), raw=[pixels()], model_version="9" * 5000),
        "model_version: expected as a version 1, 2, 3 and so on, at most 18 digits, or a label, "
        f"got '{'9' * 95}…{'9' * 95}'",
    ),
    "long id": (
        infer(tensor(), raw=[pixels()], id="x" * 1025),
        "id: expected at most 1024 bytes, got 1025",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_names_field_expected_and_got(core: FakeCore, case: str) -> None:
    request, message = MALFORMED[case]
    assert refusal_of(core, request) == message
    assert core.inputs == []


def test_bytes_that_are_no_message_are_refused(core: FakeCore) -> None:
    assert refusal_of(core, b"\xff\xff\xff") == (
        "request: expected a inference.ModelInferRequest, got 3 bytes that are not one"
    )


def test_model_that_does_not_exist_is_not_found(core: FakeCore) -> None:
    failure = ask(core, infer(tensor(), raw=[pixels()], model_name="no"))
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.NOT_FOUND


@pytest.mark.parametrize(("asked", "version"), [("", "7"), ("1", "1"), ("stable", "1")])
def test_version_is_the_newest_a_number_or_a_label(
    core: FakeCore, asked: str, version: str
) -> None:
    request = infer(tensor(), raw=[pixels()], model_version=asked)
    assert response_to(core, request).model_version == version


def test_rows_that_are_not_finite_are_a_fault_of_ours(core: FakeCore) -> None:
    core.damaged = True
    failure = ask(core, infer(tensor(), raw=[pixels()]))
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INTERNAL


def test_empty_typed_contents_beside_raw_ones_are_accepted(core: FakeCore) -> None:
    response_to(core, infer(tensor(contents=Contents()), raw=[pixels()]))


# --- bundles: files ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("raw", [True, False])
def test_files_are_elements_of_bytes(core: FakeCore, shape: tuple[int, ...], raw: bool) -> None:
    files = [b"first\0\0", b"second"]
    if raw:
        request = infer(tensor("BYTES", shape), raw=[lengths_and(*files)], id="5")
    else:
        request = infer(tensor("BYTES", shape, contents=Contents(bytes_contents=files)), id="5")
    response = response_to(core, request)
    assert core.inputs == [files]
    assert response.id == "5"
    assert list(response.outputs[0].shape) == [2, CLASSES]


def test_bad_file_fails_the_call_and_is_named_by_its_index(core: FakeCore) -> None:
    core.failures = {1: BadImage(1, DamagedPictureError("the JPEG is damaged"))}
    failure = ask(core, infer(tensor("BYTES", (3,)), raw=[lengths_and(b"a", b"b", b"c")]))
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INVALID_ARGUMENT
    assert failure.message == "inputs[0].contents[1]: the JPEG is damaged"
    assert failure.reason == "DAMAGED"


FILES = "raw_input_contents[0]: expected {} elements of BYTES, each after its length of 4 bytes, "
BAD_FILES: dict[str, tuple[Request, str]] = {
    "other rank": (
        infer(tensor("BYTES", (1, 1, 1)), raw=[lengths_and(b"a")]),
        f"inputs[0].shape: expected [-1] or [-1, 1] of BYTES {WRONG} [1, 1, 1]",
    ),
    "several columns": (
        infer(tensor("BYTES", (1, 2)), raw=[lengths_and(b"a", b"b")]),
        f"inputs[0].shape: expected [-1] or [-1, 1] of BYTES {WRONG} [1, 2]",
    ),
    "no shape": (
        infer(tensor("BYTES", ()), raw=[lengths_and(b"a")]),
        f"inputs[0].shape: expected [-1] or [-1, 1] of BYTES {WRONG} []",
    ),
    "negative": (
        infer(tensor("BYTES", (-1,)), raw=[lengths_and(b"a")]),
        f"inputs[0].shape: expected [-1] or [-1, 1] of BYTES {WRONG} [-1]",
    ),
    "none": (
        infer(tensor("BYTES", (0,)), raw=[b""]),
        f"inputs[0].shape: expected 1 to {MAX_ROWS} rows {WRONG} 0",
    ),
    "too many": (
        infer(tensor("BYTES", (2**40,)), raw=[lengths_and(b"a")]),
        f"inputs[0].shape: expected 1 to {MAX_ROWS} rows {WRONG} {2**40}",
    ),
    "fewer than stated": (
        infer(tensor("BYTES", (2,)), raw=[lengths_and(b"a")]),
        FILES.format(2) + "got 5 bytes that are not those",
    ),
    "more than stated": (
        infer(tensor("BYTES", (1,)), raw=[lengths_and(b"a", b"b")]),
        FILES.format(1) + "got 10 bytes that are not those",
    ),
    "length beyond the end": (
        infer(tensor("BYTES", (1,)), raw=[b"\xff\xff\xff\xffabc"]),
        FILES.format(1) + "got 7 bytes that are not those",
    ),
    "part of a length": (
        infer(tensor("BYTES", (1,)), raw=[b"\0\0"]),
        FILES.format(1) + "got 2 bytes that are not those",
    ),
    "typed, fewer than stated": (
        infer(tensor("BYTES", (2,), contents=Contents(bytes_contents=[b"a"]))),
        "inputs[0].contents.bytes_contents: expected 2 elements for BYTES [2], got 1",
    ),
    "other name": (
        infer(tensor("BYTES", (1,), name="image"), raw=[lengths_and(b"a")]),
        f"inputs[0].name: expected 'pixels' {WRONG} 'image'",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_malformed_files_are_refused(core: FakeCore, case: str) -> None:
    request, message = BAD_FILES[case]
    assert refusal_of(core, request) == message
    assert core.inputs == []


# --- classification ------------------------------------------------------------------------------


def classified(k: object, name: str = "probabilities", **fields: Any) -> Request:
    kind = {int: "int64_param", str: "string_param", bool: "bool_param", float: "double_param"}
    parameter = pb.InferParameter(**{kind[type(k)]: k})  # type: ignore[arg-type]
    output = Request.InferRequestedOutputTensor(name=name, parameters={"classification": parameter})
    return infer(**{"outputs": [output], **fields})


def with_pixels(request: Request, count: int = 1) -> Request:
    request.inputs.append(tensor(shape=(count, *SHAPE)))
    request.raw_input_contents.append(pixels(count))
    return request


def test_classification_answers_values_indices_and_labels(core: FakeCore) -> None:
    core.run = lambda images: np.array([[0.25, 0.5, 0.25] + [0.0] * 7] * len(images), np.float32)
    response = response_to(core, with_pixels(classified(2), 2))
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("probabilities", "BYTES", [2, 2])
    assert texts_of(response) == ["0.500000:1:digit 1", "0.250000:0:digit 0"] * 2


def test_classification_of_more_classes_than_there_are_is_all_of_them(core: FakeCore) -> None:
    response = response_to(core, with_pixels(classified(2**40)))
    assert list(response.outputs[0].shape) == [1, CLASSES]
    assert len(texts_of(response)) == CLASSES


def test_classification_of_none_is_the_tensor(core: FakeCore) -> None:
    assert response_to(core, with_pixels(classified(0))).outputs[0].datatype == "FP32"


@pytest.mark.parametrize(("k", "shown"), [(-1, "-1"), ("3", "'3'"), (True, "True"), (1.5, "1.5")])
def test_classification_by_what_is_no_number_is_refused(
    core: FakeCore, k: object, shown: str
) -> None:
    assert refusal_of(core, with_pixels(classified(k))) == (
        "outputs[0].parameters.classification: expected a whole number that is not negative, "
        f"got {shown}"
    )


@pytest.mark.parametrize("datatype", ["INT8", "UINT64", "INT64", "FP16", "FP64"])
def test_classification_of_other_models_has_no_labels(datatype: str) -> None:
    values = np.array([[[3, 9], [9, 1]]], DTYPES[datatype])
    core = FakeCore(
        description(
            "any", [TensorSpec("x", datatype, (OPEN, 2, 2))], [TensorSpec("y", datatype, (OPEN, 4))]
        )
    )
    request = classified(
        3, "y", model_name="any", inputs=[tensor(datatype, (1, 2, 2), "x")],
        raw_input_contents=[values.tobytes()],
    )  # fmt: skip
    texts = texts_of(response_to(core, request))
    assert [text.split(":")[1] for text in texts] == ["1", "2", "0"]
    assert [float(text.split(":")[0]) for text in texts] == [9, 9, 3]


@pytest.mark.parametrize("datatype", ["BOOL", "BYTES"])
def test_classification_of_what_has_no_order_is_refused(datatype: str) -> None:
    core = FakeCore(
        description("any", [TensorSpec("x", "INT8", (OPEN,))], [TensorSpec("y", datatype, (OPEN,))])
    )
    request = classified(
        1, "y", model_name="any", inputs=[tensor("INT8", (1,), "x")], raw_input_contents=[b"a"]
    )
    assert refusal_of(core, request) == (
        "outputs[0].parameters.classification: expected an output of numbers, "
        f"got one of {datatype}"
    )


# --- other models --------------------------------------------------------------------------------

ELEMENTS: dict[str, Sequence[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 255, 7],
    "UINT16": [0, 65535, 7],
    "UINT32": [0, 2**32 - 1, 7],
    "UINT64": [0, 2**64 - 1, 7],
    "INT8": [-128, 127, 0],
    "INT16": [-32768, 32767, 0],
    "INT32": [-(2**31), 2**31 - 1, 0],
    "INT64": [-(2**63), 2**63 - 1, 0],
    "FP16": [0.5, -1.0, 65504.0],
    "FP32": [0.5, -1.0, 1e30],
    "FP64": [0.5, -1.0, 1e300],
    "BYTES": [b"", b"text\0", b"\xff"],
}
FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def identity(datatype: str, shape: tuple[int, ...] = (OPEN,), *, batched: bool = True) -> FakeCore:
    """A core with a model that gives what it is given."""
    spec = TensorSpec("x", datatype, shape)
    result = TensorSpec("y", datatype, shape)
    return FakeCore(description("any", [spec], [result], batched=batched))


def raw_of(datatype: str) -> bytes:
    values = ELEMENTS[datatype]
    if datatype == "BYTES":
        return lengths_and(*values)
    return np.array(values, DTYPES[datatype].newbyteorder("<")).tobytes()


@pytest.mark.parametrize("datatype", ELEMENTS)
def test_raw_elements_of_every_type_come_back_as_they_are(datatype: str) -> None:
    core = identity(datatype)
    request = infer(tensor(datatype, (3,), "x"), raw=[raw_of(datatype)], model_name="any")
    response = response_to(core, request)
    assert response.raw_output_contents[0] == raw_of(datatype)
    assert response.outputs[0].datatype == datatype
    (tensors,) = core.inputs
    assert isinstance(tensors, Tensors)
    assert tensors.arrays[0].dtype == DTYPES[datatype]
    assert len(tensors) == 3


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_elements_of_every_type_come_back_raw(datatype: str) -> None:
    contents = Contents(**{FIELDS[datatype]: ELEMENTS[datatype]})
    request = infer(tensor(datatype, (3,), "x", contents=contents), model_name="any")
    response = response_to(identity(datatype), request)
    assert response.raw_output_contents[0] == raw_of(datatype)


def test_texts_that_a_model_gives_are_encoded() -> None:
    core = identity("BYTES")
    core.run = lambda _: Tensors((np.array(["äöü", b"\xff"], np.object_),), 2)
    request = infer(tensor("BYTES", (2,), "x"), raw=[lengths_and(b"", b"")], model_name="any")
    data = response_to(core, request).raw_output_contents[0]
    assert split(data) == ["äöü".encode(), b"\xff"]


def test_half_floats_have_no_typed_contents() -> None:
    request = infer(
        tensor("FP16", (1,), "x", contents=Contents(fp32_contents=[1.0])), model_name="any"
    )
    assert refusal_of(identity("FP16"), request) == (
        "inputs[0].contents: expected raw_input_contents for FP16, got none"
    )


def test_bytes_that_are_no_truth_values_are_refused() -> None:
    request = infer(tensor("BOOL", (2,), "x"), raw=[b"\1\2"], model_name="any")
    assert refusal_of(identity("BOOL"), request) == (
        "raw_input_contents[0]: expected bytes 0 or 1 for BOOL, got 2"
    )


@pytest.mark.parametrize(
    ("shape", "given"),
    [((), ()), ((2, 2), (2, 2)), ((OPEN, 3), (0, 3)), ((OPEN, OPEN, 1), (2, 1, 1))],
)
def test_models_that_are_not_batched_have_any_rank(
    shape: tuple[int, ...], given: tuple[int, ...]
) -> None:
    values = np.arange(np.prod(given, dtype=int), dtype="<i4").reshape(given)
    request = infer(tensor("INT32", given, "x"), raw=[values.tobytes()], model_name="any")
    core = identity("INT32", shape, batched=False)
    # An empty raw tensor is the same as none at all to protobuf's users, but not on the wire.
    assert array_of(response_to(core, request)).tolist() == values.tolist()
    (tensors,) = core.inputs
    assert len(tensors) == 1


def test_huge_shapes_allocate_nothing() -> None:
    core = identity("INT64", (OPEN, OPEN, OPEN, OPEN), batched=False)
    shape = (2**62, 2**62, 2**62, 2)
    request = infer(tensor("INT64", shape, "x"), raw=[b"12345678"], model_name="any")
    assert refusal_of(core, request) == (
        f"raw_input_contents[0]: expected {2**190} bytes for INT64 {list(shape)}, got 8"
    )
    typed = infer(
        tensor("INT64", shape, "x", contents=Contents(int64_contents=[1])), model_name="any"
    )
    assert "expected " + str(2**187) + " elements" in refusal_of(core, typed)


def test_negative_size_of_an_open_axis_is_refused() -> None:
    request = infer(tensor("INT8", (2, -1), "x"), raw=[b"ab"], model_name="any")
    assert refusal_of(identity("INT8", (OPEN, OPEN)), request) == (
        "inputs[0].shape: expected no negative sizes for model any, got [2, -1]"
    )


def two_inputs() -> FakeCore:
    core = FakeCore(
        description(
            "any",
            [TensorSpec("a", "INT32", (OPEN, 2)), TensorSpec("b", "FP32", (OPEN, OPEN))],
            [TensorSpec("b", "FP32", (OPEN, OPEN)), TensorSpec("a", "INT32", (OPEN, 2))],
        )
    )
    core.run = lambda tensors: Tensors(tensors.arrays[::-1], len(tensors))
    return core


A = np.arange(4, dtype="<i4").reshape(2, 2)
B = np.arange(6, dtype="<f4").reshape(2, 3)


def test_inputs_come_in_any_order_and_outputs_in_that_of_the_request() -> None:
    inputs = [tensor("FP32", (2, 3), "b"), tensor("INT32", (2, 2), "a")]
    raw = [B.tobytes(), A.tobytes()]
    whole = response_to(two_inputs(), infer(*inputs, raw=raw, model_name="any"))
    assert [output.name for output in whole.outputs] == ["b", "a"]
    assert array_of(whole, 0).tolist() == B.tolist()
    assert array_of(whole, 1).tolist() == A.tolist()
    outputs = [Request.InferRequestedOutputTensor(name=name) for name in ("a", "b")]
    other = response_to(two_inputs(), infer(*inputs, raw=raw, model_name="any", outputs=outputs))
    assert [output.name for output in other.outputs] == ["a", "b"]
    assert array_of(other, 0).tolist() == A.tolist()
    one = response_to(two_inputs(), infer(*inputs, raw=raw, model_name="any", outputs=outputs[:1]))
    assert [output.name for output in one.outputs] == ["a"]
    assert len(one.raw_output_contents) == 1


@pytest.mark.parametrize(
    ("inputs", "raw", "message"),
    [
        (
            [tensor("INT32", (2, 2), "a")],
            [A.tobytes()],
            "inputs: expected a, b for model any, got a",
        ),
        (
            [tensor("INT32", (2, 2), "a"), tensor("FP32", (1, 6), "b")],
            [A.tobytes(), B.tobytes()],
            "inputs[1].shape: expected 2 rows, as inputs[0] has, got 1",
        ),
        (
            [tensor("INT32", (2, 2), "a"), tensor("FP32", (2, 3), "b")],
            [A.tobytes()],
            "raw_input_contents: expected one for each of 2 inputs, got 1",
        ),
        (
            [
                tensor("INT32", (2, 2), "a"),
                tensor("FP32", (2, 3), "b", contents=Contents(fp32_contents=B.ravel())),
            ],
            [A.tobytes(), b""],
            "inputs[1].contents: expected none beside raw_input_contents, got some",
        ),
    ],
)
def test_several_inputs_must_fit_together(
    inputs: Sequence[Request.InferInputTensor], raw: Sequence[bytes], message: str
) -> None:
    assert refusal_of(two_inputs(), infer(*inputs, raw=raw, model_name="any")) == message


# --- parameters ----------------------------------------------------------------------------------


def parameter(value: int | str | bool | float, kind: str = "") -> pb.InferParameter:
    names = {int: "int64_param", str: "string_param", bool: "bool_param", float: "double_param"}
    return pb.InferParameter(**{kind or names[type(value)]: value})  # type: ignore[arg-type]


def asked(core: FakeCore, **parameters: pb.InferParameter) -> tuple[float | None, Priority | None]:
    response_to(core, infer(tensor(), raw=[pixels()], parameters=parameters))
    return core.asked[-1]


def test_timeout_is_in_microseconds_and_zero_is_none(core: FakeCore) -> None:
    before = time.monotonic()
    deadline, _ = asked(core, timeout=parameter(5_000_000))
    assert deadline is not None
    assert before + 5 <= deadline <= time.monotonic() + 5
    assert asked(core, timeout=parameter(0)) == (None, None)
    assert asked(core, timeout=parameter(7, "uint64_param"))[0] is not None


@pytest.mark.parametrize(
    ("level", "priority"),
    [(0, None), (1, Priority.INTERACTIVE), (2, Priority.BATCH), (99, Priority.BATCH)],
)
@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_priority_is_a_level(
    core: FakeCore, level: int, priority: Priority | None, kind: str
) -> None:
    assert asked(core, priority=parameter(level, kind)) == (None, priority)


@pytest.mark.parametrize("name", ["timeout", "priority"])
@pytest.mark.parametrize(
    ("value", "shown"), [(-1, "-1"), ("soon", "'soon'"), (True, "True"), (0.5, "0.5")]
)
def test_parameter_that_is_no_number_is_refused(
    core: FakeCore, name: str, value: int | str, shown: str
) -> None:
    request = infer(tensor(), raw=[pixels()], parameters={name: parameter(value)})
    assert refusal_of(core, request) == (
        f"parameters.{name}: expected a whole number that is not negative, got {shown}"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("sequence_id", 5), ("sequence_id", "five"), ("sequence_start", True), ("sequence_end", True)],
)
def test_sequences_are_refused(core: FakeCore, name: str, value: int | str) -> None:
    request = infer(tensor(), raw=[pixels()], parameters={name: parameter(value)})
    assert refusal_of(core, request) == (
        f"parameters.{name}: expected none, since no model here keeps state between requests, "
        "got one"
    )


def test_other_parameters_are_ignored(core: FakeCore) -> None:
    parameters = {
        "sequence_id": parameter(0), "sequence_start": parameter(False),
        "binary_data_output": parameter(True), "of_my_own": parameter("x"), "empty":
        pb.InferParameter(),
    }  # fmt: skip
    assert asked(core, **parameters) == (None, None)
    own = {"binary_data": parameter(True), "mine": parameter(1)}
    outputs = [Request.InferRequestedOutputTensor(name="probabilities", parameters=own)]
    response_to(core, infer(tensor(parameters=own), raw=[pixels()], outputs=outputs))


# --- under overload ------------------------------------------------------------------------------


def test_calls_are_refused_before_they_are_parsed_once_one_was(core: FakeCore) -> None:
    transport = InProcessTransport()
    service: Any = core
    transport.start(Router([OpenInference(service, StreamBudget(2**20))]))
    garbage = Request(model_name="mnist").SerializeToString() + b"\xff"

    def outcome(payload: bytes) -> int:
        answer = transport.ask(MODEL_INFER, payload).result(timeout=60.0)
        assert isinstance(answer, Failure)
        return answer.code

    assert outcome(garbage) == code_pb2.INVALID_ARGUMENT
    core.refuses = QueueFull("full", 1.0)
    assert outcome(garbage) == code_pb2.INVALID_ARGUMENT
    good = infer(tensor(), raw=[pixels()]).SerializeToString()
    assert outcome(good) == code_pb2.RESOURCE_EXHAUSTED
    assert outcome(garbage) == code_pb2.RESOURCE_EXHAUSTED
    # Its model cannot be seen without parsing.
    assert outcome(b"\xff") == code_pb2.INVALID_ARGUMENT
