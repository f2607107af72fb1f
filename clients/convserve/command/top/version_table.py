"""The table of model versions: its columns, and which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from convserve.command.terminal_text import printable, shortened
from convserve.command.top.numbers import count, mebibytes, milliseconds, percent, short
from convserve.command.top.snapshot import Activity, Snapshot, VersionRow
from convserve.command.top.tables import TROUBLE, WIDE, table_of

_STATE_STYLES = {"served": "green", "refused": TROUBLE}
_OTHER_STATE = "magenta"
# Columns of a model's name and version that there are at least.
_LEAST_NAME = 12


@dataclass(frozen=True)
class _Column:
    """A column of the table of versions: what it shows of a row, by seconds of the interval.

    Attributes:
        head: Its head.
        cell: Returns what it shows.
        left: Whether it begins at the left.
        rank: It is left out of a narrow terminal before those with a lower one; 0: never.
    """

    head: str
    cell: Callable[[VersionRow, float], str | Text]
    left: bool = False
    rank: int = 0


def _rate(count: Callable[[Activity], float]) -> Callable[[VersionRow, float], str]:
    return lambda row, seconds: short(count(row.interval) / seconds if row.interval else None)


def _last(number: Callable[[Activity], str]) -> Callable[[VersionRow, float], str]:
    return lambda row, _: number(row.interval) if row.interval else "-"


def _quantile(share: float) -> Callable[[VersionRow, float], str]:
    return _last(lambda activity: milliseconds(activity.whole.quantile(share)))


def _p99_of(stage: str) -> Callable[[VersionRow, float], str]:
    return _last(
        lambda activity: milliseconds(
            activity.stages[stage].quantile(0.99) if stage in activity.stages else None
        )
    )


def _errors(activity: Activity) -> float:
    return sum(activity.errors.values())


def _state(row: VersionRow, _: float) -> Text:
    if not row.state:
        return Text("-")
    return Text(printable(row.state), style=_STATE_STYLES.get(row.state, _OTHER_STATE))


def name_of(row: VersionRow, _: float = 0.0) -> str:
    """Returns model and version, as "mnist/1"."""
    version = f"/{printable(row.version)}" if row.version else ""
    return (printable(row.model) or "(no model)") + version


_COLUMNS = (
    _Column("model", name_of, left=True),
    _Column("state", _state, left=True),
    _Column("calls/s", _rate(lambda activity: activity.calls)),
    _Column("images/s", _rate(lambda activity: activity.images)),
    _Column("p50 ms", _quantile(0.5)),
    _Column("p95 ms", _quantile(0.95), rank=1),
    _Column("p99 ms", _quantile(0.99)),
    _Column("queue p99", _p99_of("queue"), rank=5),
    _Column("decode p99", _p99_of("decode"), rank=7),
    _Column("compute p99", _p99_of("compute"), rank=6),
    _Column("batch", _last(lambda activity: short(activity.batches.mean))),
    _Column("busy", lambda row, _: percent(row.busy), rank=2),
    _Column("queue", lambda row, _: count(row.queue_images)),
    _Column("work s", lambda row, _: short(row.queue_work_s)),
    _Column("err/s", _rate(_errors)),
    _Column("calls", lambda row, _: count(row.since_start.calls), rank=3),
    _Column("errors", lambda row, _: count(_errors(row.since_start)), rank=4),
    _Column("MiB", lambda row, _: mebibytes(row.memory_bytes), rank=8),
    _Column("load s", lambda row, _: short(row.load_s), rank=9),
)


def version_table(snapshot: Snapshot, width: int, space: int | None) -> list[RenderableType]:
    """Returns the table of versions, in at most so many lines, its head included."""
    rows = snapshot.versions
    shown = rows if space is None or len(rows) < space else rows[: max(1, space - 2)]
    gap = 1 if width < WIDE else 2
    columns, name_width = _that_fit(shown, snapshot.seconds or 1.0, width, gap)
    table = table_of(*(("<" if column.left else ">") + column.head for column in columns), gap=gap)
    for row in shown:
        name, *cells = (column.cell(row, snapshot.seconds or 1.0) for column in columns)
        table.add_row(shortened(str(name), name_width), *cells)
    if not rows:
        table.add_row("(none)")
    more = len(rows) - len(shown)
    return [table, Text(f"and {more} more, less busy")] if more else [table]


def _that_fit(
    rows: Sequence[VersionRow], seconds: float, width: int, gap: int
) -> tuple[list[_Column], int]:
    """Returns the columns for which there is space, and how wide that of the names may be."""

    def width_of_column(column: _Column) -> int:
        cells = (cell_len(str(column.cell(row, seconds))) for row in rows)
        return gap + max(len(column.head), *cells, 0)

    widths = {column.head: width_of_column(column) for column in _COLUMNS}
    wished = widths.pop("model") - gap
    left = width - sum(widths[column.head] for column in _COLUMNS[1:] if not column.rank)
    chosen = [column for column in _COLUMNS if not column.rank]
    for column in sorted((each for each in _COLUMNS if each.rank), key=lambda each: each.rank):
        left -= widths[column.head]
        if left < wished:
            left += widths[column.head]
            break
        chosen.append(column)
    return [column for column in _COLUMNS if column in chosen], max(_LEAST_NAME, min(wished, left))
