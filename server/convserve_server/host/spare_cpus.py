"""The CPUs of other workers, while their engines are idle.

A connection is with one worker for its whole life, and the kernel chooses which: without this, one
worker may have all the work and the CPU of another none. It is threads of this process that run
there, so nothing is handed to another process, and no other one has to have the same model.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable

from convserve_server.host.engine_activity import EngineActivity

log = logging.getLogger(__name__)

#: Part of the time in which a worker computes, from which its own CPU is full.
_FULL = 0.9

#: Threads at the most: what is received and answered for so many engines fills a worker's own CPU.
_MOST = 7


class SpareCpus:
    """Runs work of one worker on the CPUs of others; the threads start when they are needed.

    Args:
        activity: Of the engines of all workers.
        cpus: Of the other workers; empty to leave it to the system.
        workers: How many there are.
    """

    def __init__(self, activity: EngineActivity, cpus: frozenset[int], workers: int) -> None:
        self._activity = activity
        self._cpus = cpus
        self._most = min(_MOST, workers - 1)
        self._work: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken = self._threads = 0
        # Whether work was to run elsewhere since the last settle().
        self._asked = False
        # Threads that run beside their own CPU, and where they belong; see settle.
        self._roaming: dict[int, set[int]] = {}
        self._settled, self._used = time.monotonic(), time.process_time()

    def run(self, work: Callable[[], bool]) -> bool:
        """Runs work on a thread of its own if a CPU is spare.

        Args:
            work: Returns whether there is more, for which it is called again if the CPU still is.

        Returns: Whether it does.
        """
        self._asked = True
        with self._lock:
            if self._taken >= self._most or self._activity.idle_others() <= self._taken:
                return False
            if self._taken == self._threads and not self._start():
                return False
            self._taken += 1
        self._work.put(work)
        return True

    def settle(self) -> None:
        """Lets all threads run on the CPUs of others too while their own is full and one is idle.

        On its own CPU they wake each other sooner, and a caller who waits for each answer may fill
        it: only where work was to run elsewhere do they leave it. To be called every now and then.
        """
        if not self._cpus:
            return
        now, used = time.monotonic(), time.process_time()
        full = used - self._used >= _FULL * (now - self._settled)
        self._settled, self._used = now, used
        asked, self._asked = self._asked, False
        roam = full and asked and self._activity.idle_others() > 0
        if roam and not self._roaming:
            own = os.sched_getaffinity(0)
            for thread in map(int, os.listdir("/proc/self/task")):
                # Threads of engines may have all CPUs already, and ours have those of others.
                with contextlib.suppress(OSError):
                    if os.sched_getaffinity(thread) == own:
                        os.sched_setaffinity(thread, own | self._cpus)
                        self._roaming[thread] = own
        elif not roam and self._roaming:
            # The number of one that has ended may be another process's by now.
            for thread in self._roaming.keys() & set(map(int, os.listdir("/proc/self/task"))):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(thread, self._roaming[thread])
            self._roaming.clear()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._loop, name="spare CPU", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system allows no more
            log.warning("a spare CPU cannot be used: %s", error)
            return False
        self._threads += 1
        return True

    def _loop(self) -> None:
        while True:
            work = self._work.get()
            if self._cpus:
                # Each time: settle() may have met this thread before it was there, and put it back
                # on its own. The CPUs may have been taken from this container meanwhile.
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, self._cpus)
            try:
                while work() and self._is_spare():
                    pass
            except Exception:
                log.exception("work on a spare CPU failed")
            # What it holds may be a model that is being unloaded.
            del work
            with self._lock:
                self._taken -= 1

    def _is_spare(self) -> bool:
        return self._activity.idle_others() >= self._taken
