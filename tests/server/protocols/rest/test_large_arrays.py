"""Large JSON: read piece by piece with the same result, and bounded before it is read."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from convserve_server.engines.tensors import DTYPES
from convserve_server.protocols.rest import json_tensors, large_arrays
from convserve_server.protocols.rest.json_bodies import MOST_VALUES, check_values, read_json
from convserve_server.protocols.rest.json_tensors import json_elements, raw_elements
from convserve_server.protocols.rest.messages import Problem

NESTED = "x: expected arrays as the shape [2, 2] has, or one, got others"


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_tensors, "LARGE_BYTES", 0)
    monkeypatch.setattr(large_arrays, "_PIECE_BYTES", 8)


def values(datatype: str, shape: list[int]) -> NDArray[Any]:
    random = np.random.default_rng(7)
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return random.normal(0, 1e3, shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("datatype", [each for each in DTYPES if each != "BYTES"])
@pytest.mark.parametrize("shape", [[1], [7], [1, 1], [5, 1], [1, 5], [3, 4], [2, 3, 4], [1, 1, 9]])
@pytest.mark.parametrize("indent", [None, 1])
def test_array_is_read_as_it_is_at_once(
    datatype: str, shape: list[int], indent: int | None
) -> None:
    array = values(datatype, shape)
    for given in (array, array.ravel()):
        data = json.dumps(given.tolist(), indent=indent).encode()
        found = raw_elements(data, datatype, shape, "x")
        assert found == array.astype(array.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize(
    ("data", "shape", "message"),
    [
        ("[1,2,3]", [2], "x: expected 2 elements for the shape [2], got 3"),
        ("[1,2]", [3], "x: expected 3 elements for the shape [3], got 2"),
        ("[[1,2],[3]]", [3], "x: expected arrays as the shape [3] has, or one, got others"),
        ("[[1,2,3],[4]]", [2, 2], NESTED),
        ("[[1,2],3,4]", [2, 2], NESTED),
        ("[[[1,2]],[[3,4]]]", [2, 2], NESTED),
        ("[]", [1], "x: expected 1 elements, got 0"),
        ("[[],1]", [2], "x: expected arrays as the shape [2] has, or one, got others"),
        ("[1,300]", [2], "x: expected values of UINT8, got another among elements 0 to 1"),
        ("[1,1.5]", [2], "x: expected values of UINT8, got another among elements 0 to 1"),
        ("[11111111,1]", [2], "x: expected values of UINT8, got another among elements 0 to 0"),
        ("[1,null]", [2], "x: expected values of UINT8, got another among elements 0 to 1"),
        ('[1,"2"]', [2], "x: expected an array of numbers, or of true and false, got others"),
        ('[{"a":1}]', [1], "x: expected an array of numbers, or of true and false, got others"),
        ("7", [1], "x: expected arrays as the shape [1] has, or one, got others"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(data: str, shape: list[int], message: str) -> None:
    with pytest.raises(Problem) as caught:
        raw_elements(data.encode(), "UINT8", shape, "x")
    assert str(caught.value) == message
    assert caught.value.status == 400


def test_tensor_of_too_many_elements_is_not_read() -> None:
    with pytest.raises(Problem, match=f"^x: expected at most {MOST_VALUES} elements as JSON, got"):
        raw_elements(b"[1]", "FP32", [MOST_VALUES + 1], "x")


def test_answer_of_too_many_elements_is_no_json() -> None:
    with pytest.raises(Problem) as caught:
        json_elements(bytes(MOST_VALUES + 1), "UINT8", "outputs[0].data")
    assert caught.value.reason == "NOT_IN_JSON"
    assert len(json_elements(bytes(MOST_VALUES), "UINT8", "x")) == MOST_VALUES


def test_floats_become_the_shortest_text_in_whatever_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    array = values("FP32", [100])
    whole = json_elements(array.tobytes(), "FP32", "x")
    monkeypatch.setattr(json_tensors, "_PIECE", 7)
    assert json_elements(array.tobytes(), "FP32", "x") == whole
    assert np.array_equal(np.array(whole, np.float32), array)


@pytest.mark.parametrize("value", [b"0,", b"[],", b"[", b'{"":0},'])
def test_json_of_too_many_values_is_not_read(value: bytes) -> None:
    data = b"[" + value * (MOST_VALUES + 1)
    with pytest.raises(Problem) as caught:
        read_json(data, msgspec.json.Decoder())
    assert (caught.value.status, caught.value.reason) == (413, "MESSAGE_TOO_LARGE")
    check_values(b"[" + b"0," * 10, 12)
    with pytest.raises(Problem):
        check_values(b"[" + b"0," * 12, 12)
