"""The threads that decode: order, bounds, and what happens to requests that end early."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from convserve_imaging.errors import DamagedPictureError
from convserve_server.core.decode_pool import Decoded, DecodeJob, DecodePool, Pixels
from convserve_server.core.errors import (
    CannotMeetDeadline,
    DeadlinePassed,
    InternalFault,
    QueueFull,
    ServeError,
)
from convserve_server.core.jobs import Job, Priority
from tests.pngs import header

WAIT_S = 60.0


def image_of(data: bytes) -> Pixels:
    """An image that says which file it was."""
    if data == b"damaged":
        raise DamagedPictureError("damaged")
    return np.frombuffer(data.ljust(3, b"\0")[:3], np.uint8).reshape(1, 1, 3)


class Held:
    """Decodes what the test lets through."""

    def __init__(self) -> None:
        self.entered: queue.Queue[bytes] = queue.Queue()
        self.gate = threading.Event()

    def __call__(self, data: bytes) -> Pixels:
        self.entered.put(data)
        assert self.gate.wait(WAIT_S)
        return image_of(data)


Start = Callable[..., DecodePool]


@pytest.fixture
def start() -> Iterator[Start]:
    pools: list[DecodePool] = []

    def make(
        threads: int = 1, max_queue: int = 1000, max_bytes: int = 10**6, max_work_s: float = 10.0
    ) -> DecodePool:
        pools.append(DecodePool(threads, max_queue, max_bytes, max_work_s))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def job_of(
    *data: bytes,
    decode: Callable[[bytes], Pixels] = image_of,
    deadline: float | None = None,
    connection: str = "",
) -> tuple[DecodeJob, "queue.Queue[Decoded | ServeError]"]:
    outcomes: queue.Queue[Decoded | ServeError] = queue.Queue()
    return DecodeJob(data, decode, deadline, outcomes.put, connection), outcomes


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_images_come_back_in_the_order_of_the_files(start: Start, threads: int) -> None:
    pool = start(threads)
    many = [job_of(*(bytes([n, k, 1]) for k in range(7))) for n in range(50)]
    for job, _ in many:
        pool.submit(job)
    for n, (_, outcomes) in enumerate(many):
        outcome = outcomes.get(timeout=WAIT_S)
        assert isinstance(outcome, Decoded)
        assert [image.ravel().tolist() for image in outcome.images] == [  # type: ignore[union-attr]
            [n, k, 1] for k in range(7)
        ]
        assert outcome.wait_s >= 0
        assert outcome.decode_s > 0
    assert pool.waiting == 0


def test_files_of_one_request_are_decoded_by_all_threads(start: Start) -> None:
    pool = start(threads=3)
    held = Held()
    job, outcomes = job_of(b"a", b"b", b"c", b"d", decode=held)
    pool.submit(job)
    assert {held.entered.get(timeout=WAIT_S) for _ in range(3)} == {b"a", b"b", b"c"}
    assert pool.waiting == 1
    held.gate.set()
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


def test_damaged_file_is_one_of_the_images(start: Start) -> None:
    job, outcomes = job_of(b"a", b"damaged", b"c")
    start().submit(job)
    outcome = outcomes.get(timeout=WAIT_S)
    assert isinstance(outcome, Decoded)
    assert [isinstance(image, DamagedPictureError) for image in outcome.images] == [
        False,
        True,
        False,
    ]


def test_fault_ends_the_request_once_and_spares_the_rest(start: Start) -> None:
    calls: list[bytes] = []

    def faulty(data: bytes) -> Pixels:
        calls.append(data)
        raise ZeroDivisionError

    pool = start()
    job, outcomes = job_of(b"a", b"b", b"c", decode=faulty)
    after, later = job_of(b"d")
    pool.submit(job)
    pool.submit(after)
    assert isinstance(later.get(timeout=WAIT_S), Decoded)
    assert isinstance(outcomes.get_nowait(), InternalFault)
    assert outcomes.empty()
    assert calls == [b"a"]
    assert pool.waiting == 0


def test_expired_files_are_not_decoded(start: Start) -> None:
    pool = start()
    held = Held()
    busy, _ = job_of(b"busy", decode=held)
    pool.submit(busy)
    held.entered.get(timeout=WAIT_S)
    late, outcomes = job_of(b"late", b"late", decode=held, deadline=time.monotonic() - 1)
    pool.submit(late)
    held.gate.set()
    assert isinstance(outcomes.get(timeout=WAIT_S), DeadlinePassed)
    assert held.entered.empty()
    assert pool.waiting == 0


def test_deadline_that_passes_between_two_files_of_a_request_ends_it(start: Start) -> None:
    pool = start()
    held = Held()
    job, outcomes = job_of(b"a", b"b", decode=held, deadline=time.monotonic() + 3600)
    pool.submit(job)
    held.entered.get(timeout=WAIT_S)
    job.deadline = time.monotonic() - 1
    held.gate.set()
    assert isinstance(outcomes.get(timeout=WAIT_S), DeadlinePassed)
    assert held.entered.empty()
    assert outcomes.empty()


@pytest.mark.parametrize("when", ["before", "waiting", "decoding"])
def test_cancelled_files_have_no_outcome_and_free_the_queue(start: Start, when: str) -> None:
    pool = start(max_queue=3)
    held = Held()
    busy, busy_outcomes = job_of(b"busy", decode=held)
    if when != "decoding":
        pool.submit(busy)
        held.entered.get(timeout=WAIT_S)
    left, outcomes = job_of(b"x", b"y", decode=held)
    if when != "before":
        pool.submit(left)
    if when == "decoding":
        held.entered.get(timeout=WAIT_S)
    pool.cancel(left)
    pool.cancel(left)
    if when == "before":
        pool.submit(left)
    if when == "decoding":
        pool.submit(busy)
    assert pool.waiting == (1 if when == "decoding" else 0)
    held.gate.set()
    assert isinstance(busy_outcomes.get(timeout=WAIT_S), Decoded)
    after, later = job_of(b"a", b"b", b"c")
    pool.submit(after)
    assert isinstance(later.get(timeout=WAIT_S), Decoded)
    assert outcomes.empty()
    assert pool.waiting == 0


def test_full_queue_refuses_before_decoding_but_an_empty_one_takes_any_request(
    start: Start,
) -> None:
    pool = start(max_queue=2)
    held = Held()
    large, large_outcomes = job_of(*[b"a"] * 5, decode=held)
    pool.submit(large)
    held.entered.get(timeout=WAIT_S)
    refused, outcomes = job_of(b"b", decode=held)
    with pytest.raises(QueueFull, match="4 images wait, 1 more exceed the limit of 2") as caught:
        pool.submit(refused)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    held.gate.set()
    assert isinstance(large_outcomes.get(timeout=WAIT_S), Decoded)
    assert outcomes.empty()
    pool.submit(refused)
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


@dataclass
class Engine:
    """Where decoded images wait, as far as the pool asks."""

    waiting: int = 0
    max_queue: int = 1000
    max_wait_s: float = 0.0
    image_s: float = 0.0
    asked: list[tuple[float, float, int]] = field(default_factory=list)
    error: QueueFull | None = None

    def later_refusal(
        self, job: Job[Any], wait_s: float, before_s: float, coming: int
    ) -> QueueFull | None:
        self.asked.append((wait_s, before_s, coming))
        return self.error

    def seconds(self, count: int) -> float:
        return count * self.image_s


def test_images_ahead_count_as_waiting(start: Start) -> None:
    pool = start(max_queue=4)
    refused, outcomes = job_of(b"b", b"c")
    with pytest.raises(QueueFull, match="3 images wait, 2 more exceed the limit of 4"):
        pool.submit(refused, Engine(waiting=3))
    pool.submit(refused, Engine(waiting=2))
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


@pytest.mark.parametrize(("max_waiting", "limit"), [(3, 3), (9, 4)])
def test_smaller_of_the_two_queues_bounds_both(start: Start, max_waiting: int, limit: int) -> None:
    pool = start(max_queue=4)
    refused, _ = job_of(*[b"b"] * 3)
    with pytest.raises(QueueFull, match=f"2 images wait, 3 more exceed the limit of {limit}"):
        pool.submit(refused, Engine(2, max_waiting))
    # As ever, a request that is larger than the queue may have an empty one.
    large, outcomes = job_of(*[b"c"] * 10)
    pool.submit(large, Engine(0, max_waiting))
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


def test_refused_picture_does_not_hold_the_thread_that_refused_it(start: Start) -> None:
    job, outcomes = job_of(b"damaged")
    start().submit(job)
    outcome = outcomes.get(timeout=WAIT_S)
    assert isinstance(outcome, Decoded)
    (error,) = outcome.images
    assert isinstance(error, DamagedPictureError)
    assert error.__traceback__ is None


@pytest.mark.parametrize("how", ["decoded", "cancelled"])
def test_bytes_that_wait_are_bounded_until_they_are_decoded_or_dropped(
    start: Start, how: str
) -> None:
    pool = start(max_bytes=10_000_000)
    held = Held()
    busy, busy_outcomes = job_of(b"x" * 9_000_000, decode=held)
    pool.submit(busy)
    held.entered.get(timeout=WAIT_S)
    refused, outcomes = job_of(b"y" * 500_000, b"z" * 600_000)
    full = "9000000 bytes wait, 1100000 more exceed the limit of 10000000$"
    with pytest.raises(QueueFull, match=full):
        pool.submit(refused)
    if how == "cancelled":
        pool.cancel(busy)
        pool.submit(refused)
        held.gate.set()
    else:
        held.gate.set()
        assert isinstance(busy_outcomes.get(timeout=WAIT_S), Decoded)
        pool.submit(refused)
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


def test_request_larger_than_all_the_bytes_is_taken_by_an_empty_queue(start: Start) -> None:
    job, outcomes = job_of(b"x" * 500)
    start(max_bytes=100).submit(job)
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


def test_callback_that_fails_does_not_take_the_thread(start: Start) -> None:
    def fail(_: Decoded | ServeError) -> None:
        raise RuntimeError

    pool = start(threads=1)
    pool.submit(DecodeJob([b"a"], image_of, None, fail))
    job, outcomes = job_of(b"b")
    pool.submit(job)
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


def test_single_file_is_decoded_in_its_turn_however_many_another_connection_sent(
    start: Start,
) -> None:
    pool = start()
    held = Held()
    many, _ = job_of(b"0", b"1", b"2", b"3", decode=held, connection="many")
    more, _ = job_of(b"4", b"5", decode=held, connection="many")
    one, outcomes = job_of(b"x", decode=held, connection="one")
    pool.submit(many)
    assert held.entered.get(timeout=WAIT_S) == b"0"
    pool.submit(more)
    pool.submit(one)
    held.gate.set()
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)
    assert [held.entered.get(timeout=WAIT_S) for _ in range(6)] == [
        *(b"1", b"x", b"2", b"3", b"4", b"5")
    ]


def _of_cost(pixels: int) -> bytes:
    """A file of a few bytes whose header promises so many pixels, eight nanoseconds each."""
    return header(pixels, 1)


def test_work_that_waits_is_bounded_by_what_it_costs(start: Start) -> None:
    pool = start(max_work_s=1.0)
    held = Held()
    busy, _ = job_of(b"busy", decode=held, connection="attacker")
    pool.submit(busy)
    held.entered.get(timeout=WAIT_S)
    # An empty queue takes anything; then each connection has a share.
    expensive, _ = job_of(*[_of_cost(50_000_000)] * 10, decode=held, connection="attacker")
    pool.submit(expensive)
    for connection in ("attacker", "another", "third"):
        more, _ = job_of(*[_of_cost(50_000_000)] * 2, decode=held, connection=connection)
        with pytest.raises(
            QueueFull, match=r"images wait that take 4\.0 s to decode, 0\.8 s more "
        ):
            pool.submit(more)
    cheap, outcomes = job_of(*[b"x"] * 100, decode=held, connection="photographs")
    pool.submit(cheap)
    held.gate.set()
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)


@pytest.mark.parametrize("how", ["decoded", "cancelled", "expired"])
def test_work_that_is_over_frees_the_queue(start: Start, how: str) -> None:
    pool = start(max_work_s=1.0)
    held = Held()
    busy, _ = job_of(b"busy", decode=held)
    pool.submit(busy)
    held.entered.get(timeout=WAIT_S)
    expensive, outcomes = job_of(*[_of_cost(50_000_000)] * 3, decode=held)
    pool.submit(expensive)
    if how == "cancelled":
        pool.cancel(expensive)
    elif how == "expired":
        expensive.deadline = time.monotonic() - 1
    held.gate.set()
    if how != "cancelled":
        outcomes.get(timeout=WAIT_S)
    wait_s = time.monotonic() + WAIT_S
    while pool.waiting and time.monotonic() < wait_s:
        time.sleep(0.01)
    gate = Held()
    blocker, _ = job_of(b"blocker", decode=gate)
    pool.submit(blocker)
    gate.entered.get(timeout=WAIT_S)
    cheap, _ = job_of(b"cheap", decode=gate)
    pool.submit(cheap)
    again, done = job_of(*[_of_cost(50_000_000)] * 2, decode=gate)
    pool.submit(again)
    gate.gate.set()
    assert isinstance(done.get(timeout=WAIT_S), Decoded)


def test_cheap_images_of_one_connection_pass_expensive_ones_of_many(start: Start) -> None:
    pool = start(max_work_s=1000.0)
    held = Held()
    busy, _ = job_of(b"busy", decode=held, connection="busy")
    pool.submit(busy)
    held.entered.get(timeout=WAIT_S)
    for number in range(20):
        expensive, _ = job_of(
            *[_of_cost(50_000_000)] * 5, decode=held, connection=f"attacker {number}"
        )
        pool.submit(expensive)
    cheap, outcomes = job_of(*[b"x"] * 30, decode=held, connection="photographs")
    pool.submit(cheap)
    held.gate.set()
    assert isinstance(outcomes.get(timeout=WAIT_S), Decoded)
    assert [held.entered.get(timeout=WAIT_S) for _ in range(30)] == [b"x"] * 30


# Time


def busy_pool(start: Start, *data: bytes) -> tuple[DecodePool, Held, DecodeJob]:
    """A pool whose only thread is at a file, with others waiting, as of one connection."""
    pool, held = start(), Held()
    job, _ = job_of(b"first", *data, decode=held, connection="much")
    pool.submit(job)
    held.entered.get(timeout=WAIT_S)
    return pool, held, job


def test_engine_is_asked_with_the_time_that_decoding_takes(start: Start) -> None:
    pool, held, _ = busy_pool(start, b"b", b"c")
    engine = Engine()
    job, _ = job_of(b"d", b"e", decode=held, deadline=time.monotonic() + WAIT_S)
    pool.submit(job, engine)
    [(wait_s, own_s, coming)] = engine.asked
    # No more than fair shares of what the other connection sent; all cost the same.
    assert wait_s == pytest.approx(job.cost(0, 2))
    assert own_s == pytest.approx(job.cost(0, 2))
    assert coming == 2
    held.gate.set()


def test_job_for_which_there_is_no_time_is_refused_and_not_decoded(start: Start) -> None:
    pool, held, _ = busy_pool(start)
    job, outcomes = job_of(b"late", decode=held, deadline=time.monotonic() + WAIT_S)
    error = CannotMeetDeadline("too late", None)
    with pytest.raises(CannotMeetDeadline):
        pool.submit(job, Engine(error=error))
    held.gate.set()
    after, done = job_of(b"after")
    pool.submit(after)
    assert isinstance(done.get(timeout=WAIT_S), Decoded)
    assert outcomes.empty()
    assert held.entered.empty()


def test_job_that_has_no_time_left_for_the_engine_is_not_decoded(start: Start) -> None:
    pool, held, _ = busy_pool(start)
    # The engine alone needs longer than there is, which it has found out since.
    job, outcomes = job_of(b"late", decode=held, deadline=time.monotonic() + WAIT_S)
    pool.submit(job, Engine(image_s=2 * WAIT_S))
    held.gate.set()
    outcome = outcomes.get(timeout=WAIT_S)
    assert isinstance(outcome, DeadlinePassed)
    assert str(outcome) == "the deadline would have passed before the answer"
    assert held.entered.empty()


def test_job_that_has_waited_as_long_as_it_may_is_not_decoded(start: Start) -> None:
    pool, held, _ = busy_pool(start)
    job, outcomes = job_of(b"late", decode=held)
    pool.submit(job, Engine(max_wait_s=0.001))
    while time.monotonic() < job.start_by:
        pass
    held.gate.set()
    outcome = outcomes.get(timeout=WAIT_S)
    assert isinstance(outcome, QueueFull)
    assert "for decoding is full: a wait of " in str(outcome)
    assert held.entered.empty()


def test_interactive_files_pass_batch_ones(start: Start) -> None:
    pool, held, _ = busy_pool(start)
    for name, priority in ((b"b1", Priority.BATCH), (b"i1", Priority.INTERACTIVE)):
        job = DecodeJob([name], held, None, lambda _: None, "x", priority)
        pool.submit(job)
    held.gate.set()
    assert [held.entered.get(timeout=WAIT_S) for _ in range(2)] == [b"i1", b"b1"]


def test_how_much_longer_files_take_than_estimated_is_learnt(start: Start) -> None:
    pool = start()
    for _ in range(200):
        with pool._changed:
            pool._note(0.001, 0.004)
    assert pool._factor == pytest.approx(4.0, rel=0.01)
    with pool._changed:
        pool._note(0.001, 100.0)
    assert pool._factor < 6.0


@pytest.mark.parametrize("end", ["decoded", "cancelled", "refused", "fault", "expired"])
def test_images_that_are_on_their_way_are_counted_until_they_are_not(
    start: Start, end: str
) -> None:
    pool, held, first = busy_pool(start)
    deadline = time.monotonic() + (0.001 if end == "expired" else WAIT_S)

    def faulty(_: bytes) -> Pixels:
        raise ZeroDivisionError

    decode = faulty if end == "fault" else image_of
    job, outcomes = job_of(b"b", b"c", decode=decode, deadline=deadline)
    if end == "refused":
        with pytest.raises(QueueFull):
            pool.submit(job, Engine(waiting=999))
    else:
        pool.submit(job)
        assert pool._coming[decode] == 2
    if end == "cancelled":
        pool.cancel(job)
        pool.cancel(job)
    while end == "expired" and time.monotonic() < deadline:
        pass
    held.gate.set()
    if end in ("decoded", "fault", "expired"):
        outcomes.get(timeout=WAIT_S)
    assert decode not in pool._coming
