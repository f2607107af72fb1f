"""JSON for programs: objects a line each, or all of them in one document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from convserve.command.file_outcomes import Answered, FileOutcome, Trouble
from convserve.results import ClassScore


@contextmanager
def json_objects(form: str) -> Iterator[Callable[[str], None]]:
    """Gives what prints objects to standard output, each as soon as it is there.

    Args:
        form: "jsonl": each is a line; "json": they are the elements of one array, which is whole
            also where an error or an interrupt ends it early.

    Yields:
        Prints an object that is JSON already, in one write, so that an interrupt leaves whole ones.
    """
    first, following, after = ("\n", ",\n", "") if form == "json" else ("", "", "\n")
    before = first

    def write(text: str) -> None:
        nonlocal before
        # Before it is written: an interrupt may come right after.
        this, before = before, following
        sys.stdout.write(f"{this}{text}{after}")
        sys.stdout.flush()

    if form == "json":
        sys.stdout.write("[")
    try:
        yield write
    finally:
        if form == "json":
            sys.stdout.write("]\n" if before == first else "\n]\n")


def json_line(file: FileOutcome, *, classes: bool) -> str:
    """Returns the object of a file in plain ASCII, without a newline.

    Args:
        file: The file and what became of it.
        classes: List all classes that were asked for, most probable first.
    """
    outcome = file.outcome
    fields = _of_trouble(outcome) if isinstance(outcome, Trouble) else _of_answer(outcome, classes)
    return json.dumps({"file": file.file} | fields)


def _of_trouble(trouble: Trouble) -> dict[str, object]:
    error = {"code": trouble.code, "reason": trouble.reason, "message": trouble.message}
    return {"error": error}


def _scores(scores: Iterable[ClassScore]) -> list[dict[str, object]]:
    return [{"label": each.label, "probability": each.probability} for each in scores]


def _of_answer(answered: Answered, classes: bool) -> dict[str, object]:
    classification = answered.classification
    scores = _scores(classification.top())
    timings = classification.timings
    return {
        "model": classification.model,
        "version": classification.version,
        **scores[0],
        **({"classes": scores} if classes else {}),
        **({"assigned": _scores(classification.assigned)} if classification.thresholds else {}),
        "timings_us": {
            "queue": timings.queue_us,
            "decode": timings.decode_us,
            "compute": timings.compute_us,
            "total": timings.total_us,
        },
    }
