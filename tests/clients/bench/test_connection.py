"""The connection without its socket: what the server sends is written here, frame by frame."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve_bench import frames, header_blocks
from convserve_bench.connection import Connection, ProtocolError
from convserve_bench.outcomes import OK, Ended

FIELDS = [(b":method", b"POST"), (b"te", b"trailers")]
MESSAGE = b"\0\0\0\0\x05hello"
HEAD, _ = header_blocks.encode([(b":status", b"200"), (b"content-type", b"application/grpc")], 0)
LIMITS = {frames.MAX_CONCURRENT_STREAMS: 100}


def block(*fields: header_blocks.Field) -> bytes:
    return header_blocks.encode(fields, 0)[1]


GOOD = block((b"grpc-status", b"0"))
BUSY = block((b"grpc-status", b"8"), (b"grpc-message", b"queue%20full %E2%82%AC"))


def headers(stream: int, fields: bytes, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(frames.HEADERS, flags, stream, fields)


def trailers(stream: int, fields: bytes = GOOD) -> bytes:
    return headers(stream, fields, frames.END_HEADERS | frames.END_STREAM)


def data(stream: int, text: bytes, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags, stream, text)


def reply(stream: int, text: bytes) -> bytes:
    message = b"\0" + len(text).to_bytes(4, "big") + text
    return headers(stream, HEAD) + data(stream, message) + trailers(stream)


def connected(
    values: dict[int, int] | None = None, message: bytes = MESSAGE, last: int = 0
) -> Connection:
    connection = Connection(FIELDS, [message], last=last)
    assert sent(connection)[:2] == [(frames.SETTINGS, 0, 0), (frames.WINDOW_UPDATE, 0, 0)]
    assert not connection.capacity
    connection.feed(frames.settings(LIMITS if values is None else values))
    assert sent(connection) == [(frames.SETTINGS, frames.ACK, 0)]
    return connection


def take(connection: Connection) -> list[tuple[int, int, int, bytes]]:
    """Takes away what is to be sent: kind, flags, stream and payload of each frame."""
    out = b"".join(connection.out).removeprefix(frames.PREFACE)
    connection.out.clear()
    found = []
    while out:
        upper, lower, kind, flags, stream = frames.HEAD.unpack_from(out)
        end = frames.HEAD_BYTES + (upper << 16) + lower
        found.append((kind, flags, stream, out[frames.HEAD_BYTES : end]))
        out = out[end:]
    return found


def sent(connection: Connection) -> list[tuple[int, int, int]]:
    return [each[:3] for each in take(connection)]


def bytes_of(connection: Connection, stream: int) -> int:
    taken = take(connection)
    return sum(len(each[3]) for each in taken if each[0] == frames.DATA and each[2] == stream)


EVERYTHING = b"".join(
    (
        headers(1, HEAD),
        frames.frame(frames.PING, 0, 0, b"12345678"),
        data(1, b"\0\0\0\0\x06abc"),
        frames.frame(250, 0, 0, b"of a later standard"),
        # Padded, and its end in a second frame.
        data(1, b"\x03def" + b"\0" * 3, frames.PADDED),
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, GOOD[:5]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, GOOD[5:]),
        reply(5, b"five"),
        trailers(3, block((b":status", b"200"), (b"grpc-status", b"5"), (b"grpc-message", b"no"))),
        frames.rst_stream(7, frames.REFUSED_STREAM),
        reply(9, b""),
        reply(11, b"eleven"),
    )
)
ENDED = [
    (1, "OK", b"abcdef"),
    (5, "OK", b"five"),
    (3, "NOT_FOUND", b""),
    (7, "UNAVAILABLE", b""),
    (9, "OK", b""),
    (11, "OK", b"eleven"),
]


def check_everything(pieces: list[bytes]) -> None:
    connection = connected()
    connection.start([1.0, 3.0, 5.0, 7.0, 9.0, 11.0])
    take(connection)
    ended: list[Ended] = []
    for piece in pieces:
        ended += connection.feed(piece)
    assert [(each.started_s, each.status.name, each.reply) for each in ended] == ENDED
    assert take(connection) == [(frames.PING, frames.ACK, 0, b"12345678")]
    assert connection.in_flight == 0


def test_frames_come_byte_by_byte() -> None:
    check_everything([EVERYTHING[index : index + 1] for index in range(len(EVERYTHING))])


@given(st.sets(st.integers(1, len(EVERYTHING) - 1)))
def test_frames_come_in_any_pieces(cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), len(EVERYTHING)]
    check_everything([EVERYTHING[start:end] for start, end in pairwise(bounds)])


def test_call_is_headers_and_one_message() -> None:
    connection = connected()
    connection.start([1.0, 2.0])
    first, later = header_blocks.encode(FIELDS, header_blocks.DEFAULT_TABLE_BYTES)
    assert take(connection) == [
        (frames.HEADERS, frames.END_HEADERS, 1, first),
        (frames.DATA, frames.END_STREAM, 1, MESSAGE),
        (frames.HEADERS, frames.END_HEADERS, 3, later),
        (frames.DATA, frames.END_STREAM, 3, MESSAGE),
    ]
    assert connection.capacity == 98
    assert connection.feed(reply(3, b"right"))[0] == (2.0, OK, b"right")
    assert connection.capacity == 99


def test_server_table_that_shrinks_gets_the_fields_again() -> None:
    connection = connected()
    connection.start([1.0])
    connection.feed(frames.settings({frames.HEADER_TABLE_SIZE: 0}))
    take(connection)
    connection.start([1.0])
    (_, _, _, fields), _ = take(connection)
    assert header_blocks.decode(fields) == FIELDS
    assert fields[0] == 0x20


def test_status_and_message_of_an_error_are_read_each_time() -> None:
    connection = connected()
    connection.start([1.0, 2.0])
    both = connection.feed(trailers(1, BUSY) + trailers(3, BUSY))
    assert [each.status.name for each in both] == ["RESOURCE_EXHAUSTED"] * 2
    assert both[1].status.message == "queue full €"


def test_errors_of_one_status_have_the_message_of_the_first() -> None:
    connection = connected()
    connection.start([1.0, 2.0, 3.0])
    ended = []
    for stream, (number, message) in zip(
        (1, 3, 5), ((b"8", b"first"), (b"8", b"second"), (b"14", b"third")), strict=True
    ):
        fields = [(b":status", b"200"), (b"grpc-status", number), (b"grpc-message", message)]
        ended += connection.feed(trailers(stream, block(*fields)))
    assert [(each.status.name, each.status.message) for each in ended] == [
        ("RESOURCE_EXHAUSTED", "first"),
        ("RESOURCE_EXHAUSTED", "first"),
        ("UNAVAILABLE", "third"),
    ]


def test_reply_without_a_status_is_none() -> None:
    connection = connected()
    connection.start([1.0, 2.0, 3.0])
    ended = connection.feed(headers(1, HEAD) + data(1, MESSAGE, frames.END_STREAM))
    ended += connection.feed(trailers(3, block((b":status", b"200"), (b"x", b"y"))))
    ended += connection.feed(headers(5, block((b":status", b"404"), (b"server", b"other"))))
    assert [each.status.name for each in ended] == ["UNKNOWN", "UNKNOWN", "UNIMPLEMENTED"]
    assert "404" in ended[2].status.message


def test_message_larger_than_the_windows_goes_as_they_open() -> None:
    message = bytes(200_000)
    connection = connected(message=message)
    connection.start([1.0])
    assert bytes_of(connection, 1) == frames.DEFAULT_WINDOW
    connection.feed(frames.window_update(1, 50_000))
    assert bytes_of(connection, 1) == 0  # That of the connection is closed.
    connection.feed(frames.window_update(0, 30_000))
    assert bytes_of(connection, 1) == 30_000
    connection.feed(frames.window_update(0, 1_000_000))
    assert bytes_of(connection, 1) == 20_000
    connection.feed(frames.settings({frames.INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW + 10_000}))
    assert bytes_of(connection, 1) == 10_000
    connection.feed(frames.window_update(1, 1_000_000))
    *_, last = take(connection)
    assert last[:3] == (frames.DATA, frames.END_STREAM, 1)


def test_closed_window_of_the_connection_holds_later_calls() -> None:
    connection = connected()
    calls = frames.DEFAULT_WINDOW // len(MESSAGE) + 2
    connection.feed(frames.settings({frames.MAX_CONCURRENT_STREAMS: calls}))
    connection.start([1.0] * calls)
    lengths = [len(each[3]) for each in take(connection) if each[0] == frames.DATA]
    assert sum(lengths) == frames.DEFAULT_WINDOW
    connection.feed(frames.window_update(0, 1000))
    rest = [len(each[3]) for each in take(connection) if each[0] == frames.DATA]
    assert sum(lengths) + sum(rest) == calls * len(MESSAGE)


def test_frames_are_no_larger_than_the_server_accepts() -> None:
    connection = connected({frames.MAX_FRAME_SIZE: 20_000}, bytes(50_000))
    connection.start([1.0])
    sizes = [len(each[3]) for each in take(connection) if each[0] == frames.DATA]
    assert sizes == [20_000, 20_000, 10_000]


def test_received_bytes_are_allowed_again() -> None:
    connection = connected()
    connection.start([1.0])
    take(connection)
    half = frames.LARGEST_WINDOW // 2
    connection._received = half - 10
    connection.feed(data(1, bytes(10)))
    assert take(connection) == []
    connection.feed(data(1, bytes(10)))
    assert take(connection) == [(frames.WINDOW_UPDATE, 0, 0, struct.pack(">L", half + 10))]


def test_server_that_goes_away_gives_back_what_it_did_not_take() -> None:
    connection = connected()
    connection.start([1.0, 2.0, 3.0])
    last_and_code = struct.pack(">LL", 3, frames.NO_ERROR)
    assert connection.feed(frames.frame(frames.GOAWAY, 0, 0, last_and_code)) == []
    assert (connection.capacity, connection.going_away) == (0, True)
    assert connection.unprocessed == [3.0]
    ended = connection.feed(reply(1, b"a") + reply(3, b"b") + reply(5, b"c"))
    assert [each.started_s for each in ended] == [1.0, 2.0]


def test_last_stream_number_ends_the_connection() -> None:
    connection = connected(last=5)
    connection.start([1.0, 2.0])
    assert connection.capacity
    connection.start([3.0])
    assert (connection.capacity, connection.going_away) == (0, True)


def test_calls_that_are_late_are_reset_and_their_replies_ignored() -> None:
    connection = connected()
    connection.start([1.0, 2.0])
    before = connection.next_stream
    connection.start([3.0])
    take(connection)
    assert connection.expire(before) == [1.0, 2.0]
    code = struct.pack(">L", frames.CANCEL)
    assert take(connection) == [(frames.RST_STREAM, 0, each, code) for each in (1, 3)]
    assert [each.started_s for each in connection.feed(reply(1, b"") + reply(5, b""))] == [3.0]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (frames.HEAD.pack(1, 0, frames.DATA, 0, 1), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"1234567"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"12"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 0, 1, b"1234"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.CONTINUATION, 0, 1, GOOD), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0, 1, GOOD) + data(1, b"x"), frames.PROTOCOL_ERROR),
        (data(1, b"\x05abc", frames.PADDED), frames.PROTOCOL_ERROR),
        (headers(1, b"\xbe"), frames.COMPRESSION_ERROR),
        (frames.window_update(0, frames.LARGEST_WINDOW), frames.FLOW_CONTROL_ERROR),
    ],
)
def test_what_is_not_allowed_ends_the_connection(wrong: bytes, code: int) -> None:
    connection = connected()
    connection.start([1.0, 3.0])
    with pytest.raises(ProtocolError) as caught:
        connection.feed(reply(3, b"before") + wrong)
    assert caught.value.code == code
    # No call is forgotten: one was over, one is lost.
    assert [each.reply for each in caught.value.ended] == [b"before"]
    assert connection.lost() == [1.0]
