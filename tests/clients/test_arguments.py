"""Whatever a caller passes is converted, or refused by its name before anything is sent."""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve import Health, InvalidRequest
from convserve.arguments import (
    LONGEST_S,
    shown,
    validate_flag,
    validate_int,
    validate_seconds,
    validate_text,
)
from convserve.deadline import Deadline
from convserve.encoded import File
from convserve.pending_requests import Item
from tests.clients.both_clients import AnyClient
from tests.clients.conftest import Connect
from tests.clients.scripted_server import ScriptedServer, expected_label

DIGIT = np.zeros((28, 28), np.uint8)

TIMEOUTS: list[tuple[Any, float]] = [
    (5, 5.0),
    (5.5, 5.5),
    (np.float64(5), 5.0),
    (np.float32(5), 5.0),
    (np.float16(5), 5.0),
    (np.int8(5), 5.0),
    (np.uint64(5), 5.0),
    (Fraction(11, 2), 5.5),
    (9e9, LONGEST_S),
    (1e10, LONGEST_S),
    (1e300, LONGEST_S),
    (10**400, LONGEST_S),
]

NO_TIMEOUTS: list[Any] = [
    *(0, -1, -0.0, float("nan"), float("inf"), -(10**400), np.float32("nan"), np.float32(0)),
    *(True, np.bool_(True), "5", b"5", 5j, Decimal(5), np.array([5.0]), [5], Path("5")),
]


@pytest.mark.parametrize(("timeout", "expected"), TIMEOUTS, ids=lambda value: shown(value)[:20])
def test_number_of_any_kind_is_a_timeout(connect: Connect, timeout: Any, expected: float) -> None:
    converted = validate_seconds("timeout", timeout)
    assert (type(converted), converted) == (float, expected)
    assert type(Deadline.after(converted).left_s()) is float
    client = connect(timeout=timeout)
    assert client.classify(DIGIT).label == "0"
    assert client.classify(DIGIT, timeout=timeout).label == "0"
    assert dict(client.stream([DIGIT], timeout=timeout)).keys() == {0}
    assert client.health(timeout=timeout) is Health.SERVING


@pytest.mark.parametrize("timeout", NO_TIMEOUTS, ids=lambda value: shown(value)[:20])
def test_what_is_no_timeout_is_refused(
    connect: Connect, server: ScriptedServer, timeout: Any
) -> None:
    expected = re.escape(f"timeout: expected a number of seconds above 0, got {shown(timeout)}")
    with pytest.raises(InvalidRequest, match=f"^{expected}$"):
        connect(timeout=timeout)
    client = connect()
    calls: list[Callable[[], object]] = [
        lambda: client.classify(DIGIT, timeout=timeout),
        lambda: client.classify_images(b"a", timeout=timeout),
        lambda: list(client.stream([DIGIT], timeout=timeout)),
        lambda: client.models(timeout=timeout),
        lambda: client.health(timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match=f"^{expected}$"):
            call()
    assert server.requests == []


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_integer_of_numpy_is_one_of_python(value: Any) -> None:
    converted = validate_int("top_k", value, 1, 9)
    assert (type(converted), converted) == (int, 2)


INTEGERS = ["max_images_per_call", "max_bytes_per_call", "max_in_flight"]
NO_INTEGERS: list[Any] = [
    *(0, -1, 10**400, 10**5000, 1.5, 2.0, np.float32(2), float("nan"), True, np.bool_(True)),
    *("2", b"2", [2], np.array([2, 3])),
]


@pytest.mark.parametrize("value", NO_INTEGERS, ids=lambda value: shown(value)[:20])
def test_what_is_no_integer_is_refused(
    connect: Connect, server: ScriptedServer, value: Any
) -> None:
    got = re.escape(shown(value))
    for option in (*INTEGERS, "timeout"):
        if option != "timeout":
            pattern = f"^{option}: expected an integer of 1 to [0-9]+, got {got}$"
            with pytest.raises(InvalidRequest, match=pattern):
                connect(**{option: value})
    for option in ("version", "top_k"):
        pattern = f"^{option}: expected an integer of 1 to [0-9]+, got {got}$"
        with pytest.raises(InvalidRequest, match=pattern):
            connect(model=None).classify(DIGIT, **{option: value})
    result = connect().classify(DIGIT)
    before = len(server.requests)
    with pytest.raises(InvalidRequest, match=f"^k: expected an integer of 1 to 10, got {got}$"):
        result.top(value)
    assert len(server.requests) == before == 1


def test_numbers_of_numpy_reach_the_server(connect: Connect, server: ScriptedServer) -> None:
    client = connect(
        max_images_per_call=np.int64(1), max_in_flight=np.uint8(2), wait_for_ready=np.bool_(True)
    )
    answer = client.classify(np.stack([DIGIT, DIGIT]), version=np.int32(3), top_k=np.uint16(2))
    assert (len(server.requests), server.requests[0].version, server.requests[0].top_k) == (2, 3, 2)
    assert len(answer[0].top(np.int64(1))) == 1  # type: ignore[arg-type]


TEXTS: list[tuple[Any, str]] = [
    (5, "a str, got 5"),
    (b"mnist", "a str, got b'mnist'"),
    (Path("mnist"), "a str, got "),
    (["mnist"], "a str, got ['mnist']"),
    ("\udc80", "text of whole characters, got '\\udc80'"),
]


@pytest.mark.parametrize(("value", "reason"), TEXTS, ids=lambda value: repr(value)[:20])
def test_what_is_no_name_is_refused(
    connect: Connect, server: ScriptedServer, value: Any, reason: str
) -> None:
    client = connect()
    calls: list[tuple[str, Callable[[], object]]] = [
        ("model", lambda: connect(model=value)),
        ("model", lambda: client.classify(DIGIT, model=value)),
        ("model", lambda: client.classify_images(b"a", model=value)),
        ("model", lambda: list(client.stream([DIGIT], model=value))),
        ("service", lambda: client.health(value)),
    ]
    for field, call in calls:
        with pytest.raises(InvalidRequest, match=f"^{field}: expected {re.escape(reason)}"):
            call()
    assert server.requests == []


@pytest.mark.parametrize("value", ["no", 1, None, np.array([True])], ids=repr)
def test_what_is_neither_true_nor_false_is_refused(connect: Connect, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^wait_for_ready: expected True or False, got "):
        connect(wait_for_ready=value)


@pytest.mark.parametrize("items", [None, 5, "cat.jpg", b"cat", Path("cat.jpg")], ids=repr)
def test_items_that_are_no_images_end_a_stream(connect: Connect, items: Any) -> None:
    expected = f"^items: expected an iterable of images, got {type(items).__name__}$"
    with pytest.raises(InvalidRequest, match=expected):
        list(connect().stream(items))


class Fails:
    """As an array in the memory of a GPU, which NumPy cannot read."""

    def __array__(self, *_: object, **__: object) -> npt.NDArray[np.uint8]:
        raise TypeError("is on a GPU: call cpu() first")


PIXELS: list[tuple[Any, str]] = [
    ([], "one image at least, uint8 .*, got nothing, of shape \\[0\\]"),
    (None, "uint8 .*, got NoneType"),
    (5, "uint8 .*, got int64"),
    ("cat.jpg", "uint8 .*, got <U7; picture files go to classify_images"),
    (Path("cat.jpg"), "uint8 .*, got object; picture files go to classify_images"),
    (Fails(), "uint8 .*, got is on a GPU: call cpu\\(\\) first"),
    ([Fails()], "uint8 .*, got"),
    ({"a": 1}, "uint8 .*, got dict"),
]


@pytest.mark.parametrize(("pixels", "reason"), PIXELS, ids=lambda value: repr(value)[:20])
def test_what_is_no_pixels_is_refused(
    connect: Connect, server: ScriptedServer, pixels: Any, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^pixels: expected {reason}"):
        connect().classify(pixels)
    assert server.requests == []


def test_values_of_messages_are_short() -> None:
    assert shown("a") == "'a'"
    assert len(shown("a" * 1000)) < 100
    assert shown(10**5000) == "a int of very many digits"
    assert (
        validate_text("model", np.str_("mnist")),
        validate_flag("wait_for_ready", np.False_),
    ) == ("mnist", False)


def test_path_is_read(connect: Connect, server: ScriptedServer, tmp_path: Path) -> None:
    def first(client: AnyClient) -> list[bytes]:
        client.classify_images(tmp_path / "a.jpg")
        several: list[File] = [b"one", tmp_path / "a.jpg"]
        client.classify_images(several)
        two: list[File] = [tmp_path / "a.jpg", b"two"]
        items: list[Item] = [tmp_path / "a.jpg", two]
        list(client.stream(items))
        return [file for request in server.requests for file in request.encoded.images]

    (tmp_path / "a.jpg").write_bytes(b"of a file")
    assert first(connect()) == [b"of a file", b"one", b"of a file"]
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        connect().classify_images(tmp_path / "b.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InvalidRequest, match="got a file of 0 bytes"):
        connect().classify_images(tmp_path / "empty.jpg")


def test_digit_is_answered_as_before(connect: Connect, digits: npt.NDArray[np.uint8]) -> None:
    assert connect().classify(digits[0]).label == expected_label(digits[0])
