"""The first message to a worker."""

import json
import socket
import threading
from typing import Any

import pytest

from convserve_server.process.channel import Channel
from convserve_server.process.guard import guard_options
from convserve_server.process.messages import Listen, decode
from convserve_server.process.worker_spec import (
    GuardSpec,
    WorkerSpec,
    decode_guard,
    decode_spec,
    encode_spec,
    receive_spec,
)
from convserve_server.settings.settings import make_settings

GIVEN: dict[str, Any] = {
    "number": 2,
    "port": 50051,
    "http_port": 0,
    "settings": make_settings(
        {
            "mnist": {"max_batch": 3, "max_delay_ms": 1.5, "versions": (3, 5)},
            "cats": {"labels": {"stable": 3, "canary": 5}, "versions": "all"},
        },
        versions=(1, 2),
        models="here",
        workers=2,
        engine_threads=1,
        scan_s=0.5,
    ),
    "cpus": (0, 1),
    "many_threads": 2,
    "low_memory": True,
    "batch_s": 0.06,
    "engine_activity": 3,
    "switch": 4,
    "statistics": 5,
    "statistics_slot": 1,
}
SPEC = WorkerSpec(**GIVEN)


def test_spec_comes_back_as_it_was_and_is_one_line() -> None:
    line = encode_spec(SPEC)
    assert line.count(b"\n") == 1
    assert decode_spec(line) == SPEC


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("number", 0, "number: expected a whole number from 1 to 2, got 0"),
        ("number", 3, "number: expected a whole number from 1 to 2, got 3"),
        ("number", "1", "number: expected a whole number from 1 to 2, got '1'"),
        ("port", 0, "port: expected a whole number from 1 to 65535, got 0"),
        ("port", True, "port: expected a whole number from 1 to 65535, got True"),
        ("http_port", -1, "http_port: expected a whole number from 0 to 65535, got -1"),
        ("many_threads", 0, "many_threads: expected a whole number 1 or more, got 0"),
        ("engine_activity", -1, "engine_activity: expected a whole number 0 or more, got -1"),
        ("switch", -1, "switch: expected a whole number 0 or more, got -1"),
        ("statistics", -1, "statistics: expected a whole number 0 or more, got -1"),
        ("statistics_slot", 4, "statistics_slot: expected a whole number from 0 to 3, got 4"),
        ("batch_s", -0.1, "batch_s: expected a number 0 or more, got -0.1"),
        ("batch_s", float("nan"), "batch_s: expected a number 0 or more, got nan"),
        ("low_memory", 1, "low_memory: expected true or false, got 1"),
        ("cpus", (0,), "cpus: expected none or 2, got 1"),
        ("cpus", (0, -1), "cpus: expected a whole number 0 or more, got -1"),
    ],
)
def test_value_that_is_not_valid_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        WorkerSpec(**{**GIVEN, field: value})
    assert str(caught.value) == message


def test_line_that_is_not_a_spec_is_refused_without_its_values() -> None:
    values = json.loads(encode_spec(SPEC))
    values["settings"]["models"]["folder"] = "hunter2"
    missing = {key: value for key, value in values.items() if key != "port"}
    extra = {**values, "extra": "hunter2"}
    strange = {**values, "settings": {**values["settings"], "log": {"level": "hunter2"}}}
    wrongs: list[object] = [missing, extra, strange, [], {}, "text"]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="worker spec: expected number, port, ") as caught:
            decode_spec(json.dumps(wrong).encode())
        assert "hunter2" not in str(caught.value)


def test_settings_in_a_spec_are_checked() -> None:
    values = json.loads(encode_spec(SPEC))
    values["settings"]["batching"]["max_batch"] = -1
    with pytest.raises(ValueError, match="^max_batch: expected .*, got -1$"):
        decode_spec(json.dumps(values).encode())


def test_spec_is_received_from_any_pieces_and_what_follows_stays() -> None:
    tables = {f"model-{number}": {"max_queue": 7} for number in range(20_000)}
    settings = make_settings(tables, models="here", workers=2)
    spec = WorkerSpec(**{**GIVEN, "settings": settings})
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send_line(encode_spec(spec))
    channel.send(Listen())
    # More than the socket holds: a worker that has not begun to read blocks nobody.
    assert channel.wants_to_write

    def send_the_rest() -> None:
        while channel.wants_to_write:
            channel.flush()

    thread = threading.Thread(target=send_the_rest)
    thread.start()
    assert receive_spec(theirs) == spec
    thread.join()
    with theirs.makefile("rb") as lines:
        assert decode(lines.readline()) == Listen()
    channel.close()
    theirs.close()


def test_supervisor_that_is_gone_is_an_end_of_file() -> None:
    ours, theirs = socket.socketpair()
    ours.send(encode_spec(SPEC)[:10])
    ours.close()
    with pytest.raises(EOFError):
        receive_spec(theirs)
    theirs.close()


@pytest.mark.parametrize(
    ("workers", "of_all", "own", "many_threads", "expected"),
    [
        (2, 1, None, 4, 4),
        (2, 1, 0, 4, 4),
        # What a user has chosen for the model is never exceeded.
        (2, 1, 2, 4, 2),
        (2, 1, 6, 4, 6),
        (1, 4, None, 8, 4),
    ],
)
def test_many_threads_are_for_models_without_threads_of_their_own(
    workers: int, of_all: int, own: int | None, many_threads: int, expected: int
) -> None:
    tables = {} if own is None else {"mnist": {"engine_threads": own}}
    settings = make_settings(tables, models="m", workers=workers, engine_threads=of_all)
    given = {"number": 1, "cpus": (), "settings": settings, "many_threads": many_threads}
    spec = WorkerSpec(**{**GIVEN, **given})
    assert spec.many_threads_of("mnist") == expected


def test_spec_of_a_guard_comes_back_and_each_guard_has_its_part() -> None:
    settings = make_settings(
        models="here",
        workers=3,
        max_connections=100,
        max_message_bytes=1000,
        max_received_bytes=6000,
        max_connection_bytes=2000,
    )
    spec = GuardSpec(
        port=50051,
        guards=2,
        field="guard-1",
        settings=settings,
        statistics=5,
        statistics_slot=7,
    )
    line = encode_spec(spec)
    assert line.count(b"\n") == 1
    assert decode_guard(line) == spec
    options = guard_options(spec)
    assert options.max_connections == 150
    assert options.max_received_bytes == 9000
    assert (options.max_message_bytes, options.max_connection_bytes) == (1000, 2000)


@pytest.mark.parametrize("line", [b"[]", b'{"port": 1}', b"no"])
def test_line_that_is_no_spec_of_a_guard_is_refused_without_what_it_holds(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"guard spec: expected|Expecting value"):
        decode_guard(line)
