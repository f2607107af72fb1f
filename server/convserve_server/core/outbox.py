"""Answers to the calls of one batch, which are sent some at a time.

Whoever sends an answer wakes a thread of its transport. While the next answer was being made, that
thread would have sent the first one and be asleep again: a wake-up for each call, in place of a few
for the batch.
"""

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

#: So many answers are sent together: the first of many waits no longer for the others than it takes
#: to make as many, and others are sent while the rest is made.
TOGETHER = 16


class Outbox:
    """Answers that are made and not sent yet; used by one thread."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: dict[Callable[[list[Any]], None], list[Any]] = {}

    def put(self, send: Callable[[list[Any]], None], answer: object) -> None:
        """Keeps an answer until there are enough, or send() is called.

        Args:
            send: sends all answers that were put with it; for one that raises, the log says so.
            answer: as that needs it.
        """
        answers = self._answers.get(send)
        if answers is None:
            answers = self._answers[send] = []
        answers.append(answer)
        if len(answers) == TOGETHER:
            del self._answers[send]
            _send(send, answers)

    def send(self) -> None:
        """Sends all answers that are left; never raises."""
        for send, answers in self._answers.items():
            _send(send, answers)


def _send(send: Callable[[list[Any]], None], answers: list[Any]) -> None:
    try:
        send(answers)
    except Exception:
        # It must not end the thread, and so every later call.
        log.exception("answering calls failed")
