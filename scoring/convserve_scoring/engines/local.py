"""Processes of this machine, one for each CPU; one that ends is replaced.

A process works for as long as its pipe to the driver is open, and looks at it between blocks of
images: none outlives a driver that is killed, and a shard that is given up then does not count as
an attempt.
"""

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from convserve_host import cpus, memory
from convserve_scoring.attempts import ENDED
from convserve_scoring.engines.base import Job
from convserve_scoring.errors import ScoringError
from convserve_scoring.work import Result, State, Worker

#: What a process needs at the most, for ordinary nets and photographs, bytes.
_PROCESS_BYTES = 512 * 2**20
#: Time that processes have to give up their shards, s.
_PATIENCE_S = 5.0
#: Processes that may end one after the other before any has begun a shard.
_MOST_FALSE_STARTS = 3

#: A new process, not one that has forked from threads: ONNX Runtime and pyarrow have some.
_context = multiprocessing.get_context("spawn")


def processes(asked: int) -> int:
    """Returns how many processes are worth while: one for each CPU, as memory allows."""
    fitting = max(1, memory.available_bytes() // _PROCESS_BYTES)
    return asked or min(cpus.threads(), fitting)


def run(job: Job, report: Callable[[Result], None]) -> None:
    """See Engine."""
    driver = _Driver(job, report)
    try:
        driver.run()
    finally:
        driver.close()


@dataclass(eq=False)
class _Process:
    """A process and the shard that it works on.

    Attributes:
        process: of the system.
        pipe: to it.
        shard: that it works on; None before it is ready.
        ready: whether it has loaded the model.
    """

    process: BaseProcess
    pipe: Connection
    shard: str | None = None
    ready: bool = False


class _Driver:
    def __init__(self, job: Job, report: Callable[[Result], None]) -> None:
        self._job = job
        self._report = report
        self._waiting = deque(job.shards)
        self._processes: list[_Process] = []
        self._false_starts = 0

    def run(self) -> None:
        """Gives shards to processes until none is left."""
        for _ in range(min(processes(self._job.workers), len(self._waiting))):
            self._start()
        while self._processes:
            by_pipe = {each.pipe: each for each in self._processes}
            for pipe in wait(list(by_pipe)):
                assert isinstance(pipe, Connection)
                try:
                    message = pipe.recv()
                except (EOFError, ConnectionResetError):
                    self._replace(by_pipe[pipe])
                else:
                    self._received(by_pipe[pipe], message)

    def close(self) -> None:
        """Ends all processes; those that do not give up in time are killed."""
        for each in self._processes:
            each.pipe.close()
        end = time.monotonic() + _PATIENCE_S
        for each in self._processes:
            each.process.join(max(0.0, end - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join()

    def _start(self) -> None:
        pipe, other = _context.Pipe()
        process = _context.Process(
            target=_serve, args=(self._job.target, self._job.run, other), daemon=True
        )
        process.start()
        # Only the process has it now: it ends with it.
        other.close()
        self._processes.append(_Process(process, pipe))

    def _received(self, process: _Process, message: Result | Exception | None) -> None:
        """Notes what a process has sent: an error of all shards, a result, or that it is ready."""
        if isinstance(message, Exception):
            raise message
        if message is None:
            process.ready = True
            self._false_starts = 0
        else:
            process.shard = None
            if message.state in (State.AGAIN, State.STOPPED):
                self._waiting.append(message.shard)
            self._report(message)
        self._give(process)

    def _give(self, process: _Process) -> None:
        """Gives a process its next shard; without one it ends."""
        if not self._waiting:
            process.pipe.close()
            process.process.join()
            self._processes.remove(process)
            return
        process.shard = self._waiting.popleft()
        # One that has ended meanwhile is seen when its pipe is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.pipe.send(process.shard)

    def _replace(self, process: _Process) -> None:
        """Starts another process for one that has ended, if there is work for it."""
        process.pipe.close()
        process.process.join()
        self._processes.remove(process)
        how = _how(process.process.exitcode)
        if not process.ready:
            self._false_starts += 1
            if self._false_starts >= _MOST_FALSE_STARTS:
                raise ScoringError(f"processes end while they load the model: {how}")
        if process.shard is not None:
            self._waiting.append(process.shard)
            self._report(Result(process.shard, State.AGAIN, error=f"{ENDED}: {how}"))
        if self._waiting:
            self._start()


def _how(status: int | None) -> str:
    """Returns how a process ended: "killed by SIGSEGV", "exit status 1"."""
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _serve(target: str, run: str, pipe: Connection) -> None:
    """The main function of a process: scores shards by their names until the pipe is closed."""
    asked_to_stop: list[int] = []
    # Ctrl-C reaches all processes of a terminal; the driver says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_stop.append(number))
    # Nothing is sent while a shard is scored: what there is to read is the end of the pipe.
    stop = lambda: bool(asked_to_stop) or pipe.poll()  # noqa: E731
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
        try:
            worker = Worker(target)
            pipe.send(None)
            while not asked_to_stop:
                pipe.send(worker.work(pipe.recv(), run, stop))
        except (ScoringError, OSError) as error:
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise
            pipe.send(error)
