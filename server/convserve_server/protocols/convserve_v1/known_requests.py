"""Requests that differ from an earlier one in their pixels alone, read without parsing them.

Callers send the same bytes again and again: model, version, shape, and then other pixels. What
is before the pixels and behind them, together with the length, is what a parser would go by; so
if all of it is the same, so is what it would find.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from typing import NamedTuple

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.convserve_v1.requests import (
    NO_INPUT,
    PixelsRequest,
    check_id,
    version_choice,
)

#: Requests that are known, by their lengths: of so many, and so many of one length.
_MOST_LENGTHS = 64
_MOST_OF_A_LENGTH = 4
#: Bytes before and behind the pixels of one that is worth knowing.
_MOST_BYTES = 256

_PIXELS, _DATA = pb.ClassifyRequest.PIXELS_FIELD_NUMBER, pb.Pixels.DATA_FIELD_NUMBER
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


class _Known(NamedTuple):
    """A request that was parsed: the bytes around its pixels, and what they say."""

    head: bytes
    tail: bytes
    request: PixelsRequest


class KnownRequests:
    """The requests that were seen last; any thread may ask and add."""

    def __init__(self) -> None:
        # A list is never changed once it is here.
        self._by_length: dict[int, list[_Known]] = {}

    def find(self, payload: bytes) -> PixelsRequest | None:
        """Returns what a request says if one like it is known, else None."""
        for head, tail, request in self._by_length.get(len(payload), ()):
            if payload.startswith(head) and payload.endswith(tail):
                return request
        return None

    def add(self, payload: bytes, parsed: PixelsRequest) -> None:
        """Notes a request, if it may come again.

        Args:
            payload: its bytes.
            parsed: what they say.
        """
        span = data_span(payload)
        if span is None or span[1] != parsed.size or not parsed.size:
            return
        at, size = span
        head, tail = payload[:at], payload[at + size :]
        if len(head) + len(tail) > _MOST_BYTES:
            return
        alike = PixelsRequest(
            parsed.request_id, parsed.model, parsed.version, parsed.top_k, parsed.shape, at, size
        )
        if len(self._by_length) >= _MOST_LENGTHS and len(payload) not in self._by_length:
            self._by_length.clear()
        others = self._by_length.get(len(payload), [])
        self._by_length[len(payload)] = [
            _Known(head, tail, alike),
            *others[: _MOST_OF_A_LENGTH - 1],
        ]


def parsed_pixels(request: pb.ClassifyRequest) -> PixelsRequest:
    """Returns what a parsed request with pixels says, or one with no images; of pixels.data.

    Raises:
        InvalidRequest: Its id is too long, or it asks for a version and a label.
    """
    check_id(request)
    version = version_choice(request)
    pixels = request.pixels
    return PixelsRequest(
        request.id,
        request.model,
        version,
        request.top_k if request.HasField("top_k") else None,
        (pixels.count, pixels.height, pixels.width, pixels.channels),
        0,
        len(pixels.data) if request.HasField("pixels") else NO_INPUT,
    )


def data_span(payload: bytes) -> tuple[int, int] | None:
    """Returns where the pixels of a ClassifyRequest lie, as index and length in bytes.

    None if it is damaged, has none, or has a field twice in which they are: the last one counts
    then, which the bytes before them do not show.
    """
    try:
        outer = _only(payload, 0, len(payload), _PIXELS)
        return None if outer is None else _only(payload, outer[0], sum(outer), _DATA)
    except IndexError:
        return None


def _only(payload: bytes, at: int, end: int, number: int) -> tuple[int, int] | None:
    """Returns index and length of the only field with a number between two indices."""
    found = None
    while at < end:
        tag, at = _varint(payload, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(payload, at)
            size = 0
        elif kind in (_FIXED_64, _FIXED_32):
            size = 8 if kind == _FIXED_64 else 4
        elif kind == _BYTES:
            size, at = _varint(payload, at)
        else:
            return None
        if tag >> 3 == number:
            if found is not None or kind != _BYTES:
                return None
            found = at, size
        at += size
    return found if at == end else None


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    """Returns a number and the index behind it."""
    value = shift = 0
    while True:
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
