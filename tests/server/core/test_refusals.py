"""The texts of refusals: few, so that what a protocol makes of one is kept for the next."""

import random

import pytest

from convserve_server.core.refusals import cannot_meet, coarse_ms


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [(0.0, 1), (0.0002, 1), (0.007, 7), (0.0101, 12), (0.019, 20), (0.031, 35), (0.073, 80),
     (0.1, 100), (0.101, 120), (0.26, 300), (1.21, 1300), (14.99, 15000)],
)  # fmt: skip
def test_times_are_rounded_up_to_few_numbers(seconds: float, ms: int) -> None:
    assert coarse_ms(seconds) == ms


def test_refusals_of_a_second_have_few_texts() -> None:
    chance = random.Random(7)
    texts = set()
    for _ in range(20_000):
        left_s = chance.uniform(0.0, 1.0)
        texts.add(str(cannot_meet("mnist/1", left_s, left_s + chance.uniform(0.0, 0.5), 0.001)))
    assert len(texts) < 600
