"""How much sooner than its deadline a call is planned to be answered, learnt from what is late."""

import pytest

from convserve_server.transports.margin import AnswerMargin

LEFT_S = 0.1


def play(margin: AnswerMargin, delay_s: float, calls: int, now: float = 1.0) -> tuple[int, float]:
    """Answers calls so much later than planned, one after the other.

    Returns: how many of the last hundred were late, and the time after them.
    """
    late = []
    for _ in range(calls):
        arrived = now
        planned = margin.deadline(arrived, LEFT_S)
        now = planned + delay_s
        late.append(now >= arrived + LEFT_S)
        margin.note(arrived, planned, now, gone=False)
    return sum(late[-100:]), now


def test_margin_grows_until_answers_are_in_time() -> None:
    margin = AnswerMargin()
    late, _ = play(margin, 0.006, 2000)
    assert late == 0
    assert 0.006 < margin.seconds < 0.012


def test_margin_shrinks_when_answers_are_in_time_without() -> None:
    margin = AnswerMargin()
    least = margin.seconds
    _, now = play(margin, 0.006, 2000)
    play(margin, 0.0, 10_000, now)
    assert margin.seconds == pytest.approx(least)


def test_margin_leaves_most_of_the_time_to_the_call() -> None:
    margin = AnswerMargin()
    play(margin, 1.0, 5000)
    assert margin.deadline(0.0, LEFT_S) >= 0.5 * LEFT_S
    # A call with more time is not planned as if it were lost.
    assert margin.deadline(0.0, 10.0) > 9.0


def test_calls_from_before_a_change_tell_nothing() -> None:
    margin = AnswerMargin()
    before = margin.seconds
    for _ in range(1000):
        margin.note(1.0, 1.1, 1.2, gone=True)
    once = margin.seconds
    assert before < once < 2 * before
    for _ in range(1000):
        margin.note(1.1, 1.2, 1.3, gone=True)
    assert margin.seconds == once


def test_callers_that_are_gone_count_as_late() -> None:
    margin = AnswerMargin()
    before = margin.seconds
    for _ in range(1000):
        margin.note(1.0, 2.0, 1.5, gone=True)
    assert margin.seconds > before
