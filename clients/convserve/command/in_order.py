"""Work on many things at once: results in the order of the things, memory that stays flat."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Things read for each thread before the first is given back: so much waits for a slow one."""


def in_order(
    work: Callable[[T], R], things: Iterable[T], *, at_once: int, abandon: Callable[[], None]
) -> Generator[R, None, None]:
    """Does work on things in threads and yields the results in the order of the things.

    At most AHEAD * at_once things have been read and their results not yet given back. The things
    are read in the caller's thread.

    Args:
        work: What is done with each.
        things: Read one by one, as results are given back.
        at_once: Threads.
        abandon: Makes work that is under way end soon; called if not all results are wanted.

    Raises:
        Exception: Whatever work, or reading the things, raised first in their order.
    """
    window: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="convserve")
    try:
        for thing in things:
            while window and (len(window) == AHEAD * at_once or window[0].done()):
                yield window.popleft().result()
            window.append(pool.submit(work, thing))
        while window:
            yield window.popleft().result()
    except BaseException:
        abandon()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
