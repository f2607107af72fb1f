"""Requests that are read without parsing say what the parser says."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import Answer
from convserve_server.core.descriptions import ModelDescription, signature_of_images
from convserve_server.core.errors import InvalidRequest, ServeError
from convserve_server.protocols.base import Call
from convserve_server.protocols.convserve_v1.answers import PixelsReply
from convserve_server.protocols.convserve_v1.known_requests import (
    KnownRequests,
    data_span,
    parsed_pixels,
)
from convserve_server.protocols.convserve_v1.requests import PixelsRequest

#: What a request says, with its pixels as bytes.
Stated = tuple[str, str, object, int | None, tuple[int, int, int, int], bytes]


def stated(request: PixelsRequest, buffer: bytes) -> Stated:
    one, at = request, request.at
    pixels = buffer[at : at + one.size]
    return one.request_id, one.model, one.version, one.top_k, one.shape, pixels


def parsed(payload: bytes) -> Stated | None:
    """What the parser says; None for what is served in another way, or refused."""
    request = pb.ClassifyRequest()
    try:
        request.ParseFromString(payload)
        if not request.HasField("pixels") or request.return_pixels:
            return None
        return stated(parsed_pixels(request), request.pixels.data)
    except (DecodeError, ServeError):
        return None


def known(*payloads: bytes) -> KnownRequests:
    """What a server knows that has served requests."""
    requests = KnownRequests()
    for payload in payloads:
        if parsed(payload) is not None:
            requests.add(payload, parsed_pixels(pb.ClassifyRequest.FromString(payload)))
    return requests


def ask(model: str = "mnist", data: bytes = bytes(784), **fields: object) -> pb.ClassifyRequest:
    pixels = pb.Pixels(count=1, height=28, width=28, channels=1, data=data)
    return pb.ClassifyRequest(model=model, pixels=pixels, **fields)  # type: ignore[arg-type]


numbers = st.integers(0, 2**32 - 1)
requests = st.builds(
    pb.ClassifyRequest,
    id=st.sampled_from(["", "", "7", "a" * 130]),
    model=st.sampled_from(["mnist", "cats", ""]),
    version=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    version_label=st.sampled_from(["", "", "stable"]),
    top_k=st.one_of(st.none(), numbers),
    return_pixels=st.sampled_from([None, False, True]),
    pixels=st.builds(
        pb.Pixels,
        count=numbers, height=numbers, width=numbers, channels=numbers,
        data=st.binary(max_size=40),
    ),
)  # fmt: skip


@st.composite
def alike(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request, and bytes that are nearly the same."""
    payload = draw(requests).SerializeToString()
    other = bytearray(payload)
    for _ in range(draw(st.integers(0, 3))):
        if other:
            other[draw(st.integers(0, len(other) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        # Another field behind it, or the same once more: the last one counts.
        other += draw(requests).SerializeToString()
    if draw(st.booleans()):
        payload += draw(requests).SerializeToString()
    return payload, bytes(other)


@given(pair=alike())
def test_what_is_found_is_what_the_parser_finds(pair: tuple[bytes, bytes]) -> None:
    first, second = pair
    requests = known(first)
    for payload in (first, second):
        found = requests.find(payload)
        assert found is None or stated(found, payload) == parsed(payload)


@given(request=requests, data=st.data())
def test_other_pixels_of_the_same_size_are_found(
    request: pb.ClassifyRequest, data: st.DataObject
) -> None:
    payload = request.SerializeToString()
    request.pixels.data = data.draw(
        st.binary(min_size=len(request.pixels.data), max_size=len(request.pixels.data))
    )
    other = request.SerializeToString()
    found = known(payload).find(other)
    if parsed(payload) is None or not request.pixels.data:
        assert found is None
    else:
        assert found is not None
        assert stated(found, other) == parsed(other)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "mnisu"}, {"id": "x"}, {"top_k": 3}, {"version": 1}, {"data": bytes(783)},
        {"version_label": "stable"}, {"return_pixels": True},
    ],
)  # fmt: skip
def test_any_other_field_makes_another_request(change: dict[str, object]) -> None:
    assert known(ask().SerializeToString()).find(
        ask(**change).SerializeToString()  # type: ignore[arg-type]
    ) is None  # fmt: skip


def test_pixels_are_a_view_of_the_request() -> None:
    requests = known(ask(top_k=2, id="7").SerializeToString())
    payload = ask(top_k=2, id="7", data=bytes(range(256)) * 3 + bytes(16)).SerializeToString()
    found = requests.find(payload)
    assert found is not None
    pixels = found.pixels(payload)
    assert np.shares_memory(pixels, np.frombuffer(payload, np.uint8))
    assert pixels.shape == (1, 28, 28, 1)
    assert pixels.reshape(-1)[:256].tolist() == list(range(256))


def version_of(number: int, side: int = 28) -> ModelDescription:
    shape = side, side, 1
    return ModelDescription(
        "mnist", number, ("a", "b"), shape, 2, "CPUExecutionProvider", b"manifest",
        signature_of_images(shape, 2), 64,
    )  # fmt: skip


def test_a_request_that_was_accepted_is_checked_anew_for_another_version() -> None:
    payload = ask(id="7").SerializeToString()
    request = known(payload).find(payload)
    assert request is not None
    answers: list[bytes] = []
    call = cast("Call", SimpleNamespace(model="", access=None, reply=answers.append))
    first, second, larger = version_of(1), version_of(2), version_of(3, side=32)
    rows = np.array([[0.25, 0.75]], np.float32)
    # Replies that were begun before another one had the request checked answer for their version.
    replies = [PixelsReply(call, request, payload, 10) for _ in range(3)]
    for reply, version in zip(replies, (first, second, first), strict=True):
        assert reply.inputs(version).shape == (1, 28, 28, 1)
    for reply in replies:
        reply.finish(Answer(rows, 0.0, 0.0))
    found = [pb.ClassifyResponse.FromString(answer) for answer in answers]
    assert [(one.id, one.version) for one in found] == [("7", 1), ("7", 2), ("7", 1)]
    with pytest.raises(InvalidRequest, match="expected 32"):
        PixelsReply(call, request, payload, 10).inputs(larger)


def test_pixels_that_come_twice_are_left_to_the_parser() -> None:
    payload = ask().SerializeToString()
    assert data_span(payload) is not None
    assert data_span(payload + payload) is None
    assert known(payload + payload).find(payload + payload) is None


def test_so_many_are_known_and_no_more() -> None:
    payloads = [ask(model="m" * (n + 1)).SerializeToString() for n in range(1000)]
    requests = known(*payloads)
    assert sum(requests.find(payload) is not None for payload in payloads) <= 64
    same_length = [ask(model=f"m{n:03d}").SerializeToString() for n in range(1000)]
    requests = known(*same_length)
    assert [requests.find(payload) is not None for payload in same_length] == [
        n >= 996 for n in range(1000)
    ]


@given(payload=st.binary(max_size=60))
def test_bytes_that_are_no_request_raise_nothing(payload: bytes) -> None:
    data_span(payload)
    known(payload).find(payload)
