"""A snapshot for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from convserve.command.top.histograms import Histogram
from convserve.command.top.snapshot import Activity, Snapshot, VersionRow


def as_json(snapshot: Snapshot, url: str, when: datetime) -> str:
    """Returns it as a JSON object on one line.

    Args:
        snapshot: What the server does.
        url: Of the metrics page.
        when: The page was read.
    """
    return json.dumps(
        {
            "metrics": url,
            "time": when.isoformat(timespec="milliseconds"),
            "interval_s": snapshot.seconds,
            "restarted": snapshot.restarted,
            "build": dict(snapshot.build),
            "workers": _integers(snapshot.workers),
            "calls_in_flight": round(snapshot.in_flight),
            "models": [_version(row, snapshot.seconds) for row in snapshot.versions],
            "processes": [
                {
                    "process": row.name,
                    "memory_bytes": _integer(row.memory_bytes),
                    "restarts": _counted((row.restarts, row.new_restarts)),
                }
                for row in snapshot.processes
            ],
            "refused": {reason: _counted(n) for reason, n in snapshot.refused.items()},
            **{name: _counted(numbers) for name, numbers in snapshot.others.items()},
            "models_in_other": round(snapshot.in_other),
        }
    )


def _version(row: VersionRow, seconds: float | None) -> dict[str, object]:
    return {
        "model": row.model,
        "version": row.version,
        "state": row.state,
        "queue_images": round(row.queue_images),
        "queue_work_s": row.queue_work_s,
        "memory_bytes": _integer(row.memory_bytes),
        "load_s": row.load_s,
        "busy": row.busy,
        "calls_per_s": row.interval.calls / seconds if row.interval and seconds else None,
        "images_per_s": row.interval.images / seconds if row.interval and seconds else None,
        "interval": None if row.interval is None else _activity(row.interval),
        "since_start": _activity(row.since_start),
    }


def _activity(activity: Activity) -> dict[str, object]:
    return {
        "calls": round(activity.calls),
        "errors": _integers(activity.errors),
        "images": round(activity.images),
        "engine_s": activity.engine_s,
        "whole_s": _times(activity.whole),
        **{f"{stage}_s": _times(times) for stage, times in activity.stages.items()},
        "batches": round(activity.batches.count),
        "batch_images_mean": activity.batches.mean,
    }


def _times(histogram: Histogram) -> dict[str, float | None]:
    return {
        "mean": histogram.mean,
        "p50": histogram.quantile(0.5),
        "p95": histogram.quantile(0.95),
        "p99": histogram.quantile(0.99),
    }


def _counted(numbers: tuple[float, float]) -> dict[str, int]:
    return {"since_start": round(numbers[0]), "interval": round(numbers[1])}


def _integers(numbers: Mapping[str, float]) -> dict[str, int]:
    return {name: round(number) for name, number in numbers.items()}


def _integer(number: float | None) -> int | None:
    return None if number is None else round(number)
