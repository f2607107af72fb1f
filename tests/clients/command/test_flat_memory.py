import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from convserve import Classification, Timings
from convserve.calls import ClassifyOptions
from convserve.command.file_classifier import FileClassifier
from convserve.command.in_order import AHEAD, in_order
from convserve.command.json_output import json_line
from convserve.command.picture_paths import Found
from convserve.command.retrying_caller import RetryingCaller
from convserve.command.tally import Tally
from convserve.command.waiting import Wait

FILES = 20_000
AT_ONCE = 8


class Counted(bytes):
    """The bytes of a file, which know how many of them there are."""

    alive = most = 0
    _lock = threading.Lock()

    def __init__(self, _: bytes) -> None:
        with self._lock:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        with self._lock:
            Counted.alive -= 1


class FakeClient:
    """Answers at once and keeps nothing."""

    def classify_images(self, images: bytes, **options: Any) -> Classification:
        return Classification(
            model="cats-dogs",
            versions=(1,),
            labels=("cat", "dog"),
            probabilities=np.array([[0.25, 0.75]], np.float32),
            classes=np.arange(2)[np.newaxis],
            errors={},
            timings=Timings(queue_us=0, decode_us=0, compute_us=0, total_us=0, calls=1),
        )

    def close(self) -> None:
        pass


def test_memory_does_not_grow_with_the_files() -> None:
    def files() -> Iterator[Found]:
        for number in range(FILES):
            yield Found(f"folder/{number}.jpg", data=Counted(b"picture"))

    def connect() -> Any:
        return FakeClient()

    caller = RetryingCaller(connect, Wait(0, "nowhere:1"), timeout_s=10)
    classifier = FileClassifier(caller, ClassifyOptions("cats-dogs", None, 1), lambda data: data)
    tally = Tally()
    blocks: list[int] = []
    outcomes = in_order(classifier, files(), at_once=AT_ONCE, abandon=caller.close)
    for number, outcome in enumerate(outcomes, 1):
        tally.add(outcome)
        assert json_line(outcome, classes=False)
        if number % (FILES // 4) == 0:
            blocks.append(sys.getallocatedblocks())
    caller.close()
    assert tally.classified == FILES
    assert 1 < Counted.most <= AHEAD * AT_ONCE + 2 * AT_ONCE
    # One block kept for each file would be 15,000 more.
    assert max(blocks) - blocks[0] < 2_000
