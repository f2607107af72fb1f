"""The score of an evaluation: a table for people, an object for programs."""

from __future__ import annotations

import json

from convserve.command.score import Score
from convserve.command.terminal_text import padded, printable, shortened, width_of
from convserve.models import ModelInfo

_GAP = "  "
_MOST_LABEL = 32


def score_table(score: Score, model: ModelInfo, seconds: float) -> str:
    """Returns the lines for people, without a newline at the end.

    Args:
        score: All that was counted.
        model: What was asked; the order of its labels is that of the rows.
        seconds: What it took.
    """
    tally = score.tally
    lines = [f"model           {printable(model.name)}, {_versions(score)}"]
    share = "" if score.accuracy is None else f" ({score.accuracy:.2%})"
    lines.append(f"right answers   {score.right:,} of {tally.classified:,}{share}")
    if tally.failed:
        asked = tally.classified + tally.failed
        lines.append(f"without answer  {tally.failed:,} of {asked:,} ({tally.reasons()})")
        lines += [
            f"  {printable(picture)}: {printable(trouble.message)}"
            for picture, trouble in score.unanswered
        ]
        if more := tally.failed - len(score.unanswered):
            lines.append(f"  and {more:,} more")
    lines.append(f"images/s        {tally.classified / seconds:,.0f}")
    return "\n".join([*lines, "", *_class_lines(score, model)])


def score_line(score: Score, model: ModelInfo, seconds: float) -> str:
    """Returns the object in plain ASCII on one line, without a newline.

    Args:
        score: As for score_table.
        model: As for score_table.
        seconds: As for score_table.
    """
    tally = score.tally
    return json.dumps(
        {
            "model": model.name,
            "versions": sorted(score.versions, reverse=True),
            "right": score.right,
            "answered": tally.classified,
            "asked": tally.classified + tally.failed,
            "accuracy": score.accuracy,
            "seconds": round(seconds, 3),
            "failures": dict(tally.failures.most_common()),
            "classes": [
                {
                    "label": label,
                    "right": score.right_of(label),
                    "answered": score.answered_of(label),
                    "asked": score.asked[label],
                    "taken_for": dict(score.mistakes_of(label).most_common()),
                }
                for label in score.labels(model.labels)
            ],
        }
    )


def _versions(score: Score) -> str:
    if not score.versions:
        return "no version answered"
    found = ", ".join(str(version) for version in sorted(score.versions, reverse=True))
    # Of several, a new one was published meanwhile, or there are several servers.
    return f"version{'s' if len(score.versions) > 1 else ''} {found}"


def _class_lines(score: Score, model: ModelInfo) -> list[str]:
    # Where all were answered the column would say what the next one says.
    partly = score.tally.failed > 0
    head = [
        "class",
        "right",
        *(["answered"] if partly else []),
        "asked",
        "",
        "most often taken for",
    ]
    rows = [head]
    for label in score.labels(model.labels):
        right, answered = score.right_of(label), score.answered_of(label)
        mistakes = [
            f"{shortened(printable(other), _MOST_LABEL)} ({count:,})"
            for other, count in score.mistakes_of(label).most_common(1)
        ]
        rows.append(
            [
                shortened(printable(label), _MOST_LABEL),
                f"{right:,}",
                *([f"{answered:,}"] if partly else []),
                f"{score.asked[label]:,}",
                f"{right / answered:.2%}" if answered else "",
                *(mistakes or [""]),
            ]
        )
    widths = [max(width_of(row[column]) for row in rows) for column in range(len(head))]
    return [_line(row, widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    first, *numbers, last = row
    cells = [padded(first, widths[0])]
    cells += [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:-1], strict=True)]
    return _GAP.join([*cells, last]).rstrip()
