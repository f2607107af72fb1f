"""Messages between a worker and its supervisor."""

import queue
import socket
import threading
from collections.abc import Iterator
from typing import get_args

import pytest

from convserve_server.core.descriptions import Findings, ModelDescription, signature_of_images
from convserve_server.core.tables import Bundle, IdleModel, Refusal, ServedModel, Table
from convserve_server.engines.signatures import OPEN, Signature, TensorSpec
from convserve_server.process.channel import Channel
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import (
    AdminReply,
    AdminRequest,
    Alive,
    CannotStart,
    Commit,
    Failed,
    InUse,
    Joins,
    Leave,
    Listen,
    Loading,
    Message,
    Mirrored,
    Prepare,
    Prepared,
    Ready,
    Retire,
    Retired,
    SetAccessLog,
    SetLogLevel,
    Stage,
    Staged,
    Status,
    UseKeys,
    UseSettings,
    Wanted,
    WorkerPorts,
    decode,
    encode,
    one_line,
)

PATIENCE_S = 60.0
BUNDLE = Bundle("mnist", 1, "a" * 64)
TABLE = Table(
    3,
    (ServedModel("mnist", (BUNDLE,), {"stable": 1}),),
    (Refusal("cats", 2, "is garbage"),),
    ("dogs",),
)
FINDINGS = Findings(
    ModelDescription(
        "mnist",
        1,
        ("a", "b"),
        (2, 3, 1),
        2,
        "CPU",
        b"\x00\xff{",
        signature_of_images((2, 3, 1), 2),
        64,
    ),  # fmt: skip
    {1: 0.25, 64: 1.5},
    123,
)
OTHER_MODEL = ModelDescription(
    "any", 2, (), (0, 0, 0), 0, "CPU", b"",
    Signature(
        (TensorSpec("ids", "INT64", (OPEN, OPEN)), TensorSpec("factor", "FP16", ())),
        (TensorSpec("y", "FP32", (OPEN, 3)),),
        batched=False,
    ),
    1,
)  # fmt: skip
ALL: tuple[Message, ...] = (
    Alive(("mnist",)),
    Wanted("mnist"),
    Joins(),
    Loading(BUNDLE),
    Prepared(BUNDLE, FINDINGS),
    Failed(BUNDLE, "is garbage"),
    Staged(3),
    Retired(BUNDLE),
    Ready(),
    Ready(40001),
    WorkerPorts((40001, 40002)),
    CannotStart("no CUDA"),
    Prepare(BUNDLE, "/models/mnist/1/model.onnx", {1: 0.25}),
    Stage(TABLE),
    Commit(3),
    Retire(BUNDLE),
    Listen(),
    Leave(),
    SetLogLevel("debug"),
    SetAccessLog("all", 0.5),
    UseKeys("[anonymous]\n"),
    AdminRequest(1, "set_label", "mnist", None, "stable"),
    AdminReply(1, "NotFound", "model", "no model", (Status("m", 1, "served", "", ("a",), True),)),
    Mirrored(True, 1.5, "no route"),
    InUse(("mnist/1",), ("mnist/2",)),
    UseSettings("{}"),
)


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_message_comes_back_as_it_was_and_is_one_line(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    decoded = decode(line)
    # Descriptions are compared by what they hold, not as objects.
    assert (type(decoded), encode(decoded)) == (type(message), line)
    assert isinstance(message, Prepared) or decoded == message


def test_bytes_and_tuples_of_a_message_keep_their_types() -> None:
    decoded = decode(encode(Prepared(BUNDLE, FINDINGS)))
    assert isinstance(decoded, Prepared)
    description = decoded.findings.description
    assert (description.manifest, description.image_shape) == (b"\x00\xff{", (2, 3, 1))
    assert decoded.findings.batch_s == {1: 0.25, 64: 1.5}


def test_signature_comes_back_as_it_was_with_what_is_loaded_and_what_is_idle() -> None:
    findings = Findings(OTHER_MODEL, {}, 0)
    decoded = decode(encode(Prepared(BUNDLE, findings)))
    assert isinstance(decoded, Prepared)
    assert decoded.findings.description.signature == OTHER_MODEL.signature
    assert not decoded.findings.description.is_bundle
    table = Table(4, idle=(IdleModel("any", (OTHER_MODEL,), {"stable": 2}, 0.5),))
    staged = decode(encode(Stage(table)))
    assert isinstance(staged, Stage)
    [model] = staged.table.idle
    assert model.versions[0].signature == OTHER_MODEL.signature


def test_every_message_is_among_them() -> None:
    assert {type(message) for message in ALL} == set(get_args(Message))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"no",
        b'{"Alive": {"x": 1}}',
        b'{"What": {}}',
        b'{"Staged": {"generation": "3"}}',
        b'{"AdminRequest": {"number": 1, "action": "stop"}}',
    ],
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
    data = encode(Retired(BUNDLE)) + encode(Alive())
    worker.send(data[:20])
    assert channel.receive() == []
    worker.send(data[20:])
    assert channel.receive() == [Retired(BUNDLE), Alive()]
    worker.close()
    assert channel.receive() is None


def test_worker_that_does_not_read_holds_up_nobody(ends: tuple[Channel, socket.socket]) -> None:
    channel, worker = ends
    count = 0
    while not channel.wants_to_write:
        channel.send(Listen())
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


def test_messages_of_the_supervisor_are_followed_and_its_end_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    ended = threading.Event()
    followed: queue.SimpleQueue[Message] = queue.SimpleQueue()
    link = SupervisorLink(ours, ended.set)
    link.on(Retire, followed.put)
    link.start(heartbeat_s=PATIENCE_S)
    # One that cannot be read, and one that nobody here wants.
    theirs.sendall(b"nonsense\n" + encode(Listen()) + encode(Retire(BUNDLE)))
    assert followed.get(timeout=PATIENCE_S) == Retire(BUNDLE)
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
