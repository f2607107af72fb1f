"""Outcomes of files as JSON, one object on a line, for programs."""

from __future__ import annotations

import json

from convserve.command.file_outcomes import Answered, FileOutcome, Trouble


def json_line(file: FileOutcome, *, classes: bool) -> str:
    """Returns the object of a file in plain ASCII, without a newline.

    Args:
        file: The file and what became of it.
        classes: List all classes that were asked for, most probable first.
    """
    outcome = file.outcome
    said = _of_trouble(outcome) if isinstance(outcome, Trouble) else _of_answer(outcome, classes)
    return json.dumps({"file": file.file} | said)


def _of_trouble(trouble: Trouble) -> dict[str, object]:
    error = {"code": trouble.code, "reason": trouble.reason, "message": trouble.message}
    return {"error": error}


def _of_answer(answered: Answered, classes: bool) -> dict[str, object]:
    classification = answered.classification
    guesses = [
        {"label": guess.label, "probability": guess.probability} for guess in classification.top()
    ]
    timings = classification.timings
    return {
        "model": classification.model,
        "version": classification.version,
        **guesses[0],
        **({"classes": guesses} if classes else {}),
        "timings_us": {
            "queue": timings.queue_us,
            "decode": timings.decode_us,
            "compute": timings.compute_us,
            "total": timings.total_us,
        },
    }
