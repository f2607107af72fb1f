"""How often a key may call: with a clock of the test, also in two processes at once."""

import multiprocessing
import os
import random
import signal

import pytest

from convserve_server.host import shared_memory
from convserve_server.security.keys import Key
from convserve_server.security.rates import MOST_KEYS, Excess, Limit, Rates, rates_bytes
from convserve_server.security.shared_mutex import RecordLock, RobustMutex
from tests.server.keys import make_rates


class Clock:
    """Time that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def limit_of(rates: Rates, key: Key) -> Limit:
    rates.reserve((key,))
    return rates.limits((key,))[key.name]


def admitted(limit: Limit, clock: Clock, until: float, step_s: float) -> int:
    """How many calls are allowed of those that come evenly."""
    count = 0
    while clock.now < until:
        count += limit.take_call() is None
        clock.now += step_s
    return count


def test_rate_allows_its_burst_at_once_and_then_so_many_in_a_second() -> None:
    clock = Clock()
    limit = limit_of(make_rates(clock), Key(name="web", rate=100.0, burst=5))
    assert [limit.take_call() is None for _ in range(7)] == [True] * 5 + [False] * 2
    excess = limit.take_call()
    assert excess is not None
    assert excess.field == "rate"
    assert excess.retry_after_s == pytest.approx(0.01, abs=1e-4)
    clock.now += excess.retry_after_s + 1e-6
    assert limit.take_call() is None
    assert limit.take_call() is not None
    # As fast as one can, for ten seconds: so many in a second, and no more.
    assert admitted(limit, clock, clock.now + 10.0, 0.0007) == pytest.approx(1000, abs=1)
    # What was not used is not kept beyond the burst.
    clock.now += 3600
    assert sum(limit.take_call() is None for _ in range(100)) == 5


def test_calls_below_the_rate_are_all_allowed() -> None:
    clock = Clock()
    limit = limit_of(make_rates(clock), Key(name="web", rate=100.0))
    assert admitted(limit, clock, clock.now + 10.0, 0.0101) == 991


def test_images_are_counted_by_their_number_and_a_large_call_delays_the_next() -> None:
    clock = Clock()
    limit = limit_of(make_rates(clock), Key(name="web", images_rate=100.0))
    assert limit.counts_images
    assert limit.take_images(256) is None
    assert limit.take_call() is None
    excess = limit.take_images(1)
    assert excess is not None
    assert excess.field == "images_rate"
    assert excess.retry_after_s == pytest.approx(2.46)
    assert limit.images_excess() == excess
    clock.now += 2.47
    assert limit.images_excess() is None
    assert limit.take_images(1) is None


def test_quota_is_of_a_day_of_utc() -> None:
    date = Clock(86400 * 20_000 + 86390.0)
    limit = limit_of(make_rates(wall_clock=date), Key(name="web", quota_per_day=3))
    assert [limit.take_call() is None for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.take_call() == Excess("quota_per_day", 10.0)
    date.now += 10
    assert [limit.take_call() is None for _ in range(4)] == [True] * 3 + [False]
    # A clock that is set back gives nothing twice.
    date.now -= 20
    assert limit.take_call() is not None


def test_call_over_the_quota_takes_nothing_of_the_rate() -> None:
    clock = Clock()
    key = Key(name="web", rate=1.0, quota_per_day=1)
    rates = make_rates(clock)
    assert limit_of(rates, key).take_call() is None
    clock.now += 1
    excess = limit_of(rates, key).take_call()
    assert excess is not None
    assert excess.field == "quota_per_day"
    assert limit_of(rates, Key(name="web", rate=1.0)).take_call() is None


def test_what_was_counted_holds_when_the_file_is_read_again_and_for_each_name_by_itself() -> None:
    clock = Clock()
    rates = make_rates(clock)
    assert limit_of(rates, Key(name="web", rate=1.0)).take_call() is None
    assert limit_of(rates, Key(name="other", rate=1.0)).take_call() is None
    assert limit_of(rates, Key(name="web", rate=2.0)).take_call() is not None


def test_more_keys_than_there_is_memory_for_are_refused_and_none_of_them_gets_any() -> None:
    rates = make_rates()
    rates.reserve(tuple(Key(name=f"k{number}", rate=1.0) for number in range(MOST_KEYS)))
    rates.reserve((Key(name="k0", rate=2.0), Key(name="without")))
    with pytest.raises(ValueError, match=f"expected at most {MOST_KEYS} keys with limits"):
        rates.reserve((Key(name="one-more", rate=1.0),))


def take_many(
    descriptor: int, seed: int, until: int, results: "multiprocessing.Queue[int]"
) -> None:
    """Makes many calls by a clock that jumps; all processes see the same times in any order."""
    clock = Clock()
    rates = Rates(shared_memory.shared(descriptor), descriptor, clock=clock)
    limit = rates.limits((KEY,))[KEY.name]
    steps = random.Random(seed)
    count = 0
    for now in range(until):
        clock.now = 1000.0 + now / 1000
        for _ in range(steps.randrange(6)):
            count += limit.take_call() is None
    results.put(count)


KEY = Key(name="web", rate=100.0, burst=10)


def test_two_processes_are_allowed_what_one_is_to_the_call() -> None:
    descriptor = shared_memory.create("test", rates_bytes())
    rates = Rates(shared_memory.shared(descriptor), descriptor, clock=Clock())
    rates.prepare()
    rates.reserve((KEY,))
    processes = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[int] = processes.Queue()
    seconds = 20
    running = [
        processes.Process(target=take_many, args=(descriptor, seed, seconds * 1000, results))
        for seed in (1, 2)
    ]
    for each in running:
        each.start()
    count = sum(results.get(timeout=60) for _ in running)
    for each in running:
        each.join(60)
    # The burst, and one every hundredth of a second until the last one.
    assert count == KEY.burst + seconds * 100 - 1
    os.close(descriptor)


def hold_and_die(descriptor: int) -> None:
    held = RobustMutex(shared_memory.shared(descriptor), 0)
    held.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def test_process_that_is_killed_while_it_counts_holds_up_nobody() -> None:
    descriptor = shared_memory.create("test", rates_bytes())
    memory = shared_memory.shared(descriptor)
    rates = Rates(memory, descriptor, clock=Clock())
    rates.prepare()
    limit = limit_of(rates, KEY)
    process = multiprocessing.get_context("fork").Process(target=hold_and_die, args=(descriptor,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert limit.take_call() is None
    assert limit.take_call() is None
    os.close(descriptor)


def test_lock_of_a_file_does_the_same_where_there_are_no_robust_mutexes() -> None:
    descriptor = shared_memory.create("test", rates_bytes())
    lock = RecordLock(descriptor, 64)
    lock.acquire()
    lock.release()
    lock.acquire()
    lock.release()
    os.close(descriptor)
