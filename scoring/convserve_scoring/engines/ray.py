"""Ray: a task for each shard. Only names travel; what was begun how often is counted by us."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from convserve_scoring.engines.base import Job
from convserve_scoring.engines.local import processes
from convserve_scoring.errors import ScoringError
from convserve_scoring.work import Result, State, work

#: Tasks for each CPU that Ray knows of at a time: it is not asked to remember a million.
_AHEAD = 4


def run(job: Job, report: Callable[[Result], None]) -> None:
    """See Engine."""
    # Ray reports to its maker unless this is set before it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    # Metrics that nobody reads cost as long as it runs.
    quiet = {"enable_metrics_collection": False}
    here = {"num_cpus": processes(job.workers), "include_dashboard": False, "_system_config": quiet}
    address = job.address or os.environ.get("RAY_ADDRESS", "")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        where = {"address": address} if address else here
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise ScoringError(f"address: expected a Ray cluster, got {address}: {error}") from error
    # Ray's own exits with another status.
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        for result in _results(ray, job):
            report(result)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        ray.shutdown()


def _results(ray: Any, job: Job) -> Iterator[Result]:
    # A task whose process ends is begun again until our own count refuses it.
    task = ray.remote(num_cpus=1, max_retries=-1, retry_exceptions=False)(work)
    shards = list(reversed(job.shards))
    pending: list[Any] = []
    while shards or pending:
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while shards and len(pending) < ahead:
            pending.append(task.remote(job.target, shards.pop(), job.run))
        ready, pending = ray.wait(pending)
        for result in ray.get(ready):
            if result.state is State.AGAIN:
                shards.insert(0, result.shard)
            yield result
