"""What a guard passes on of HTTP/2, byte by byte, without connections."""

import gzip
import struct
from collections.abc import Callable

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.http2_frames import (
    PREFACE,
    Code,
    Flag,
    Kind,
    call_fields,
    frame,
    message,
    open_window,
    reset,
    settings_frame,
)
from convserve_server.transports.guard import caller_field, frames
from convserve_server.transports.guard.exchange import Exchange
from convserve_server.transports.guard.frames import ProtocolFault
from convserve_server.transports.guard.memory import RequestMemory

LIMIT = 4096
#: What an open call counts, bytes.
CALL = 2**14
NAME = "guard-0123"
FIELD = caller_field.encode(NAME, "ipv4:192.0.2.1:5", "spiffe://é/x")
GREETING = settings_frame({})
BLOCK = Encoder().encode(call_fields("/a.B/C"))


class Watched:
    """An exchange, and all that it has sent."""

    def __init__(self, memory: RequestMemory | None = None, *, greeted: bool = True) -> None:
        self.memory = memory or RequestMemory(2**20, 2**20)
        self.to_worker = self.to_client = b""
        #: Reasons of calls that were refused.
        self.refused: list[str] = []
        self.exchange = Exchange(
            FIELD, LIMIT, self.memory, self.flush, lambda error: self.refused.append(error.reason)
        )
        if greeted:
            self.worker(GREETING)
            self.client(PREFACE)
            self.to_worker = self.to_client = b""

    def flush(self) -> None:
        self.to_worker += b"".join(self.exchange.to_worker)
        self.to_client += b"".join(self.exchange.to_client)
        self.exchange.to_worker.clear()
        self.exchange.to_client.clear()

    def client(self, *parts: bytes) -> None:
        for part in parts:
            self.exchange.from_client(part)
            self.flush()

    def worker(self, *parts: bytes) -> None:
        for part in parts:
            self.exchange.from_worker(part)
            self.flush()

    def statuses(self) -> dict[int, str]:
        """gRPC's status of each answer to the client, by stream."""
        found = {}
        for kind, _, stream, payload in parsed(self.to_client):
            if kind == Kind.HEADERS:
                found[stream] = dict(fields_in(payload))["grpc-status"]
        return found

    def kinds(self, of: str) -> list[tuple[int, int]]:
        """Kind and stream of each frame that was sent to a side."""
        return [(kind, stream) for kind, _, stream, _ in parsed(getattr(self, of))]


def parsed(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """All frames: kind, flags, stream, payload."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        found.append((kind, flags, stream, data[9 : 9 + size]))
        assert len(data) >= 9 + size
        data = data[9 + size :]
    return found


def headers(stream: int, flags: int = Flag.END_HEADERS, block: bytes = BLOCK) -> bytes:
    return frame(Kind.HEADERS, flags, stream, block)


def data(stream: int, payload: bytes, flags: int = Flag.END_STREAM) -> bytes:
    return frame(Kind.DATA, flags, stream, payload)


def fields_in(block: bytes) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in Decoder().decode(block)]


LONG = message(b"y" * 90)
#: What a client may send of a call, on some stream.
CALLS = st.sampled_from(
    [
        lambda n: headers(n) + data(n, message(b"x" * 50)),
        lambda n: headers(n) + data(n, LONG[:30], 0) + data(n, LONG[30:]),
        lambda n: headers(n) + data(n, b"\0\0", 0) + data(n, b"\0\0\3abc"),
        lambda n: headers(n) + data(n, message(b""), 0) + data(n, b""),
        lambda n: headers(n, Flag.END_HEADERS | Flag.END_STREAM),
        lambda n: headers(n) + reset(n, Code.CANCEL),
        lambda n: headers(n) + data(n, message(gzip.compress(bytes(500)), compressed=True)),
        lambda n: headers(n) + data(n, b"\3" + message(b"z") + bytes(3), 1 | frames.PADDED),
        lambda n: open_window(0, 5) + frame(Kind.PING, 0, 0, bytes(8)) + frame(77, 0, 0, b"new"),
    ]
)


def chunks_of(whole: bytes, cuts: list[int]) -> list[bytes]:
    points = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in zip(points, points[1:], strict=False)]


@given(st.lists(CALLS, max_size=6), st.lists(st.integers(0, 10**6), max_size=12))
def test_valid_calls_pass_unchanged_but_for_the_field_however_they_are_cut(
    calls: list[Callable[[int], bytes]], cuts: list[int]
) -> None:
    sent = b"".join(make(1 + 2 * index) for index, make in enumerate(calls))
    watched = Watched(greeted=False)
    watched.worker(GREETING)
    watched.client(*chunks_of(PREFACE + settings_frame({}) + sent, cuts))
    assert watched.to_worker.startswith(PREFACE)
    expected = [
        (kind, flags, stream, payload + FIELD if kind == Kind.HEADERS else payload)
        for kind, flags, stream, payload in parsed(settings_frame({}) + sent)
    ]
    assert parsed(watched.to_worker[len(PREFACE) :]) == expected
    assert watched.to_client == GREETING
    open_calls = len(watched.exchange.streams) * CALL
    assert watched.memory.held == watched.exchange._calls.held == open_calls


@given(st.lists(st.integers(0, 10**6), max_size=12), st.integers(0, 70_000))
def test_answers_pass_unchanged_however_they_are_cut(cuts: list[int], size: int) -> None:
    sent = b"".join(
        [
            GREETING,
            frame(Kind.HEADERS, 0, 1, b"\x88"),
            frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, b"\x88"),
            data(1, bytes(size), 0),
            frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, b"\x88"),
        ]
    )
    watched = Watched(greeted=False)
    watched.client(PREFACE + headers(1) + data(1, message(b"x")))
    assert set(watched.exchange.streams) == {1}
    watched.worker(*chunks_of(sent, cuts))
    assert watched.to_client == sent
    assert not watched.exchange.streams


@given(st.binary(max_size=300), st.lists(st.integers(0, 10**6), max_size=6), st.booleans())
def test_garbage_passes_or_ends_the_connection(
    garbage: bytes, cuts: list[int], greeted: bool
) -> None:
    watched = Watched(greeted=greeted)
    try:
        watched.client(*chunks_of(headers(1) * greeted + garbage, cuts))
    except ProtocolFault as fault:
        watched.exchange.end(fault)
        watched.flush()
        if greeted:
            assert watched.kinds("to_client")[-1] == (Kind.GOAWAY, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 11), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=20)
        ),
        max_size=12,
    )
)
def test_frames_in_any_order_pass_or_end_the_connection(
    sent: list[tuple[int, int, int, bytes]],
) -> None:
    watched = Watched()
    try:
        watched.client(*(frame(*each) for each in sent))
    except ProtocolFault:
        return
    assert watched.exchange._calls.held == watched.memory.held >= 0


def test_client_that_speaks_no_http2_is_refused_at_the_first_wrong_byte() -> None:
    watched = Watched(greeted=False)
    watched.client(PREFACE[:10])
    with pytest.raises(ProtocolFault, match="not HTTP/2"):
        watched.client(b"GET / HTTP/1.1")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([headers(1)], id="one frame"),
        pytest.param([headers(1, Flag.END_HEADERS | 0x20, bytes(5) + BLOCK)], id="with priority"),
        pytest.param(
            [headers(1, Flag.END_HEADERS | 8, b"\2" + BLOCK + bytes(2))], id="with padding"
        ),
        pytest.param(
            [headers(1, 0, BLOCK[:9]), frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, BLOCK[9:])],
            id="in two frames",
        ),
        pytest.param([headers(1, Flag.END_HEADERS, bytes(16384))], id="no space in the frame"),
    ],
)
def test_each_call_gets_the_field_as_its_last(sent: list[bytes]) -> None:
    watched = Watched()
    watched.client(*sent)
    found = parsed(watched.to_worker)
    assert found[-1][3].endswith(FIELD)
    assert found[-1][1] & Flag.END_HEADERS
    assert not any(flags & Flag.END_HEADERS for _, flags, _, _ in found[:-1])
    assert all(len(payload) <= 16384 for _, _, _, payload in found)
    assert fields_in(FIELD) == [(NAME, "ipv4:192.0.2.1:5 spiffe%3A%2F%2F%C3%A9%2Fx")]


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
def test_message_that_claims_too_much_is_refused_before_a_byte_is_passed_on(cut: int) -> None:
    watched = Watched()
    body = message(b"x" * 40, size=2**32 - 1)
    watched.client(headers(1), data(1, body[:cut], 0), data(1, body[cut:], 0))
    assert watched.statuses() == {1: "8"}
    assert watched.kinds("to_worker")[-1] == (Kind.RST_STREAM, 1)
    passed = [payload for kind, _, _, payload in parsed(watched.to_worker) if kind == Kind.DATA]
    assert sum(map(len, passed)) <= 4
    watched.to_worker = watched.to_client = b""
    watched.client(data(1, bytes(100), 0), headers(3), data(3, message(b"x")))
    assert watched.kinds("to_client") == [(Kind.WINDOW_UPDATE, 0)]
    assert watched.kinds("to_worker") == [(Kind.HEADERS, 3), (Kind.DATA, 3)]


def test_refused_call_is_answered_in_the_words_of_grpcio() -> None:
    watched = Watched()
    watched.client(headers(1), data(1, message(bytes(LIMIT + 1))))
    (_, flags, _, block), *rest = parsed(watched.to_client)
    fields = dict(fields_in(block))
    assert fields[":status"] == "200"
    assert fields["grpc-message"] == "SERVER: Received message larger than max (4097 vs. 4096)"
    assert fields["grpc-retry-pushback-ms"] == "-1"
    assert flags == Flag.END_HEADERS | Flag.END_STREAM
    assert [kind for kind, *_ in rest] == [Kind.WINDOW_UPDATE], "the request is whole: no reset"


def test_several_messages_that_a_server_has_to_keep_are_together_as_large_as_one() -> None:
    watched = Watched()
    watched.client(headers(1))
    for _ in range(5):
        watched.client(data(1, message(bytes(1000)), 0))
    assert watched.statuses() == {1: "8"}


def test_stream_that_the_server_has_answered_may_go_on_for_ever() -> None:
    watched = Watched()
    watched.client(headers(1), data(1, message(bytes(1000)), 0))
    assert watched.memory.held == CALL + 1005
    watched.worker(frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"\x88"))
    assert watched.memory.held == CALL
    for _ in range(20):
        watched.client(data(1, message(bytes(1000)), 0))
    assert watched.kinds("to_client") == [(Kind.HEADERS, 1)], "no refusal"
    assert watched.kinds("to_worker").count((Kind.DATA, 1)) == 21


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(bytes(2**26)), id="bomb"),
        pytest.param(gzip.compress(b"x") + gzip.compress(bytes(2**26)), id="in a second piece"),
    ],
)
def test_compressed_message_over_the_limit_never_is_whole_at_the_worker(body: bytes) -> None:
    memory = RequestMemory(2**20, 2**20)
    watched = Watched(memory)
    watched.exchange._calls._max_message_bytes = 2**20
    sent = message(body, compressed=True)
    watched.client(headers(1))
    for start in range(0, len(sent), 10_000):
        last = Flag.END_STREAM if start + 10_000 >= len(sent) else 0
        watched.client(data(1, sent[start : start + 10_000], last))
    assert watched.statuses() == {1: "8"}
    ends = [flags for kind, flags, *_ in parsed(watched.to_worker) if kind == Kind.DATA]
    assert Flag.END_STREAM not in ends


def test_connection_that_holds_most_loses_its_largest_request() -> None:
    memory = RequestMemory(most=4 * CALL + 3000, most_of_one=3 * CALL + 2500)
    small, large = Watched(memory), Watched(memory)
    small.client(headers(1), data(1, message(bytes(900), size=1000), 0))
    large.client(headers(1), data(1, message(bytes(200), size=1000), 0))
    large.client(headers(3), data(3, message(bytes(1500), size=2000), 0))
    assert not large.to_client
    small.client(headers(3), data(3, message(bytes(500), size=1000), 0))
    assert large.statuses() == {3: "8"}
    assert (Kind.RST_STREAM, 3) in large.kinds("to_worker")
    assert not small.to_client
    assert memory.held == small.exchange._calls.held + large.exchange._calls.held < 3000 + 4 * CALL
    large.client(headers(5), data(5, message(bytes(2000), size=3000), 0))
    large.client(headers(7), data(7, message(bytes(600), size=3000), 0))
    assert large.statuses() == {3: "8", 5: "8"}, "more than one connection may"


def test_calls_without_messages_and_answers_not_read_count_too() -> None:
    memory = RequestMemory(most=100 * CALL, most_of_one=60 * CALL)
    other, attacker, second = Watched(memory), Watched(memory), Watched(memory)
    other.client(headers(1) + data(1, message(b"x")))
    attacker.client(b"".join(headers(1 + 2 * number) for number in range(200)))
    assert attacker.exchange._calls.held == 60 * CALL
    assert len(attacker.statuses()) == len(attacker.refused) == 140
    second.client(b"".join(headers(n) + data(n, message(b"x")) for n in range(1, 160, 2)))
    resets = [p for kind, _, _, p in parsed(second.to_client) if kind == Kind.RST_STREAM]
    assert len(resets) == len(second.refused) >= 20
    assert {*resets} == {struct.pack(">I", Code.ENHANCE_YOUR_CALM)}, "an answer may have begun"
    assert memory.held <= 100 * CALL
    assert not other.to_client
    for one in (other, attacker, second):
        one.exchange.close()
    assert memory.held == 0
    assert not memory.holders


def test_request_that_does_not_get_on_is_ended() -> None:
    watched = Watched()
    watched.client(headers(1), headers(3), data(3, b"\0", 0), headers(5))
    watched.client(data(5, message(b"x")))
    for _ in range(2):
        watched.exchange.look(end_slow=True)
    assert watched.statuses() == {1: "4", 3: "4"}
    assert watched.refused == ["REQUEST_TOO_SLOW"] * 2
    assert watched.memory.held == CALL, "of the one that is whole"
    watched.client(headers(7))
    watched.client(data(7, message(bytes(2000), size=4000), 0))
    watched.exchange.look(end_slow=True)
    watched.client(data(7, bytes(1500), 0))
    watched.exchange.look(end_slow=True)
    assert 7 not in watched.statuses()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(Kind.DATA, 0, 1, bytes(16385)), 6, id="long frame"),
        pytest.param(headers(1, 0) + data(1, b""), 1, id="frame within header fields"),
        pytest.param(frame(Kind.CONTINUATION, 0, 1, b""), 1, id="fields that go on with nothing"),
        pytest.param(
            headers(1, 0) + frame(Kind.CONTINUATION, 0, 1, b"") * 9, 11, id="endless fields"
        ),
        pytest.param(frame(Kind.PUSH_PROMISE, 4, 1, bytes(4)), 1, id="push"),
        pytest.param(headers(1) + data(1, b"\5ab", 8), 1, id="padding longer than the frame"),
        pytest.param(frame(Kind.SETTINGS) * 10_001, 11, id="flood of settings"),
        pytest.param(frame(Kind.PING, 0, 0, bytes(8)) * 10_001, 11, id="flood of pings"),
        pytest.param(headers(1) + data(1, b"", 0) * 10_001, 11, id="flood of empty data"),
        pytest.param(headers(2**31 + 1), 1, id="stream of 32 bits"),
    ],
)
def test_client_that_breaks_a_rule_is_given_up_and_hears_why(sent: bytes, code: int) -> None:
    watched = Watched()
    with pytest.raises(ProtocolFault) as raised:
        watched.client(sent)
    assert raised.value.code == code
    watched.flush()
    watched.exchange.end(raised.value)
    watched.flush()
    kind, _, _, payload = parsed(watched.to_client)[-1]
    assert kind == Kind.GOAWAY
    assert payload[4:8] == struct.pack(">I", code)


def test_client_is_asked_to_leave_in_two_steps_and_its_calls_are_finished() -> None:
    watched = Watched()
    watched.client(headers(1), data(1, message(b"x")))
    watched.worker(frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"\x88")[:9])
    watched.exchange.leave()
    assert not watched.to_client.endswith(b"convserv"), "within a frame of the worker"
    watched.worker(frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"\x88")[9:])
    (_, _, _, first), (_, _, _, ping) = parsed(watched.to_client)[-2:]
    assert first[:4] == struct.pack(">I", 2**31 - 1)
    watched.client(headers(3), frame(Kind.PING, Flag.ACK, 0, ping))
    assert (Kind.PING, 0) not in watched.kinds("to_worker")
    for stream in (1, 3):
        for _ in range(3):
            watched.exchange.look(end_slow=False)
        assert not watched.exchange.ended
        watched.worker(headers(stream, Flag.END_HEADERS | Flag.END_STREAM, b"\x88"))
    watched.exchange.look(end_slow=False)
    assert watched.exchange.ended
    assert parsed(watched.to_client)[-1][3][:4] == struct.pack(">I", 3)
