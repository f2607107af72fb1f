"""Messages between a worker and its supervisor."""

import socket
import threading
from collections.abc import Iterator
from typing import get_args

import pytest

from convserve_server.core.permits import Bundle, Verdict
from convserve_server.process.channel import Channel
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import (
    Alive,
    AsksToListen,
    AsksToLoad,
    CannotStart,
    Changed,
    Failed,
    Loaded,
    MayListen,
    Message,
    Problem,
    Ready,
    Serves,
    decode,
    encode,
    one_line,
)

PATIENCE_S = 20.0
BUNDLE = Bundle("mnist", 1, "a" * 64)
ALL: tuple[Message, ...] = (
    Alive(),
    AsksToLoad(BUNDLE),
    Loaded(BUNDLE),
    Failed(BUNDLE, "is garbage"),
    Serves((BUNDLE, Bundle("cats", 2, "b" * 64))),
    Problem("mnist/v2", "expected a number"),
    AsksToListen(),
    Ready(),
    CannotStart("no CUDA"),
    Verdict(BUNDLE, "refused", "is garbage"),
    MayListen(("cats",)),
    Changed(),
)


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_message_comes_back_as_it_was_and_is_one_line(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_every_message_is_among_them() -> None:
    assert {type(message) for message in ALL} == set(get_args(Message))


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"no", b'{"Alive": {"x": 1}}', b'{"What": {}}']
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="message: expected one of Alive, "):
        decode(line)


def test_reason_is_one_line_and_bounded() -> None:
    assert one_line("two\n  lines") == "two lines"
    assert len(one_line("x" * 10_000)) == 2000


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def test_messages_are_put_together_from_pieces(ends: tuple[Channel, socket.socket]) -> None:
    channel, worker = ends
    assert channel.receive() == []
    data = encode(Loaded(BUNDLE)) + encode(Alive())
    worker.send(data[:20])
    assert channel.receive() == []
    worker.send(data[20:])
    assert channel.receive() == [Loaded(BUNDLE), Alive()]
    worker.close()
    assert channel.receive() is None


def test_worker_that_does_not_read_holds_up_nobody(ends: tuple[Channel, socket.socket]) -> None:
    channel, worker = ends
    count = 0
    while not channel.wants_to_write:
        channel.send(Changed())
        count += 1
    channel.send(Ready())
    # All comes once it reads.
    received = b""
    while received.count(b"\n") < count + 1:
        received += worker.recv(65536)
        channel.flush()
    assert not channel.wants_to_write
    assert decode(received.splitlines()[-1]) == Ready()


def test_message_that_cannot_be_read_leaves_the_others(
    ends: tuple[Channel, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    channel, worker = ends
    worker.send(b"nonsense\n" + encode(Ready()))
    assert channel.receive() == [Ready()]
    assert "a message of a worker cannot be read" in caplog.text


class Script:
    """A supervisor that answers by a script, on a thread of its own."""

    def __init__(self, connection: socket.socket, answers: dict[type, list[Message]]) -> None:
        self.seen: list[Message] = []
        self._connection = connection
        self._answers = answers
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._connection.makefile("rb") as lines:
            for line in lines:
                message = decode(line)
                if isinstance(message, Alive):
                    continue
                self.seen.append(message)
                for answer in self._answers.get(type(message), [])[:2]:
                    self._connection.sendall(encode(answer))
                    self._answers[type(message)].remove(answer)


def test_worker_waits_while_another_tries_and_asks_again_when_that_has_ended() -> None:
    ours, theirs = socket.socketpair()
    waits, may = Verdict(BUNDLE, "wait"), Verdict(BUNDLE, "load")
    script = Script(theirs, {AsksToLoad: [waits, Changed(), may]})
    ended = threading.Event()
    link = SupervisorLink(ours, ended.set)
    link.start(heartbeat_s=PATIENCE_S)
    assert link.ask(BUNDLE, PATIENCE_S) == may
    assert script.seen == [AsksToLoad(BUNDLE)] * 2
    theirs.shutdown(socket.SHUT_RDWR)
    assert ended.wait(PATIENCE_S)
    # Nobody listens any more, and nothing breaks.
    link.send(Ready())
    ours.close()
    theirs.close()


def test_heartbeat_comes_by_itself() -> None:
    ours, theirs = socket.socketpair()
    link = SupervisorLink(ours, lambda: None)
    link.start(heartbeat_s=0.05)
    with theirs.makefile("rb") as lines:
        assert [decode(next(lines)) for _ in range(3)] == [Alive()] * 3
    theirs.close()
    ours.close()
