"""Dask: a future for each shard. Only names travel; what was begun how often is counted by us."""

from collections.abc import Callable, Iterator
from typing import Any

from convserve_scoring.engines.base import Job
from convserve_scoring.engines.local import processes
from convserve_scoring.errors import ScoringError
from convserve_scoring.work import Result, State, work

#: Of a cluster of our own: what it does ten to a hundred times a second costs as long as it runs.
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "2s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
}
#: Futures for each thread of a worker that Dask knows of at a time.
_AHEAD = 4


def run(job: Job, report: Callable[[Result], None]) -> None:
    """See Engine."""
    import dask
    from distributed import Client

    dask.config.set(_QUIET)
    workers = {"n_workers": processes(job.workers), "threads_per_worker": 1}
    try:
        client = Client(job.address) if job.address else Client(**workers, dashboard_address=None)
    except OSError as error:
        raise ScoringError(f"address: expected a Dask scheduler, got {error}") from error
    with client:
        for result in _results(client, job):
            report(result)


def _results(client: Any, job: Job) -> Iterator[Result]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    shards = list(reversed(job.shards))
    names: dict[Any, str] = {}
    done = as_completed()
    while shards or names:
        ahead = _AHEAD * max(1, sum(client.nthreads().values()))
        while shards and len(names) < ahead:
            future = client.submit(work, job.target, name := shards.pop(), job.run, pure=False)
            names[future] = name
            done.add(future)
        future = next(done)
        name = names.pop(future)
        try:
            result = future.result()
        except KilledWorker as error:
            # Of what its worker held when it ended; our own count knows which one it was.
            result = Result(name, State.AGAIN, error=str(error))
        if result.state is State.AGAIN:
            shards.insert(0, name)
        yield result
