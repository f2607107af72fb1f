"""How the system schedules threads of the server."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

log = logging.getLogger(__name__)


@contextlib.contextmanager
def patient_threads() -> Iterator[None]:
    """Threads that are started meanwhile do not interrupt another one when they are woken.

    Without this, a thread that is woken by each of many events gets the CPU at once from the one
    that computes, does little, and sleeps again: two switches for every event, and none of them
    are handled together. A patient thread waits until the other one sleeps, or has had its time
    (about 3 ms), and where a CPU is idle it runs as soon as any other.

    Where the system does not know this, or does not allow it, nothing is changed.

    Source: sched(7), SCHED_BATCH.
    """
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        log.debug("threads keep their scheduling policy: %s", error)
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)
