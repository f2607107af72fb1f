"""Answers to the calls of one batch, which are sent one right after the other.

Whoever sends an answer wakes a thread of its transport. While the next answer was being made, that
thread would have sent the first one and be asleep again: a wake-up for each call, in place of a few
for the batch.
"""

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Outbox:
    """Answers that are made and not sent yet; used by one thread."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: dict[Callable[[list[Any]], None], list[Any]] = {}

    def put(self, send: Callable[[list[Any]], None], answer: object) -> None:
        """Keeps an answer.

        Args:
            send: sends all answers that were put with it.
            answer: as that needs it.
        """
        answers = self._answers.get(send)
        if answers is None:
            self._answers[send] = [answer]
        else:
            answers.append(answer)

    def send(self) -> None:
        """Sends all answers; never raises."""
        for send, answers in self._answers.items():
            try:
                send(answers)
            except Exception:
                # It must not end the thread, and so every later call.
                log.exception("answering calls failed")
