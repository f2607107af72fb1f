"""Wake-ups that wait for their thread, and answers that wait for those of their batch."""

import threading

import pytest

from convserve_server.core.batch_request import Answer, BatchRequest, Outcome
from convserve_server.core.outbox import TOGETHER, Outbox
from convserve_server.core.wake_ups import HeldWakeUps, held
from tests.server.gated_engine import PATIENCE_S, Caller, Stage, images_of


def test_wake_ups_wait_for_the_end_and_come_in_their_order() -> None:
    woken: list[int] = []
    assert not held(lambda: woken.append(0))
    with HeldWakeUps():
        assert held(lambda: woken.append(1))
        assert held(lambda: woken.append(2))
        assert woken == []
    assert woken == [1, 2]
    assert not held(lambda: woken.append(3))


def test_an_error_meanwhile_loses_no_wake_up() -> None:
    woken: list[int] = []

    def fails() -> None:
        with HeldWakeUps():
            held(lambda: woken.append(1))
            raise ValueError("another fault")

    with pytest.raises(ValueError, match="another"):
        fails()
    assert woken == [1]


def test_other_threads_wake_at_once() -> None:
    found: list[bool] = []
    with HeldWakeUps():
        other = threading.Thread(target=lambda: found.append(held(lambda: None)))
        other.start()
        other.join(PATIENCE_S)
    assert found == [False]


def test_requests_of_a_thread_that_holds_wake_ups_are_answered() -> None:
    stage = Stage()
    batcher = stage.batcher()
    stage.engine.open()
    for _ in range(3):  # its thread sleeps from the second time on
        callers = [Caller(number) for number in range(3)]
        with HeldWakeUps():
            stage.submit(batcher, *callers)
        for caller in callers:
            assert caller.rows() == caller.own_rows()
    stage.end()


def test_answers_of_a_batch_are_sent_when_all_are_made() -> None:
    happened: list[str] = []
    sent = threading.Event()

    def send(answers: list[int]) -> None:
        happened.append(f"sent {answers}")
        sent.set()

    def request(number: int) -> BatchRequest:
        def done(outcome: Outcome) -> None:
            assert isinstance(outcome, Answer)
            assert outcome.outbox is not None
            happened.append(f"made {number}")
            outcome.outbox.put(send, number)

        return BatchRequest(images_of(number, 1), None, done)

    stage = Stage()
    batcher = stage.batcher()
    stage.occupy(batcher)
    for number in (1, 2):
        batcher.submit(request(number))
    stage.engine.open()
    assert sent.wait(PATIENCE_S)
    assert happened == ["made 1", "made 2", "sent [1, 2]"]
    stage.end()


def test_answers_that_cannot_be_sent_leave_those_of_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(answers: list[int]) -> None:
        raise ConnectionError(f"no way for {answers}")

    sent: list[int] = []
    outbox = Outbox()
    outbox.put(broken, 1)
    outbox.put(sent.extend, 2)
    outbox.put(sent.extend, 3)
    outbox.send()
    assert sent == [2, 3]
    assert "no way for [1]" in caplog.text


def test_of_many_answers_some_are_sent_before_the_others_are_made() -> None:
    sent: list[list[int]] = []
    outbox = Outbox()
    for number in range(2 * TOGETHER + 1):
        outbox.put(sent.append, number)
        assert sum(map(len, sent)) == (number + 1) // TOGETHER * TOGETHER
    outbox.send()
    assert sum(sent, []) == [*range(2 * TOGETHER + 1)]
