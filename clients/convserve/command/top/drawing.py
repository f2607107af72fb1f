"""Draws a snapshot: for a terminal of any width, or as plain text."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from convserve.command.terminal_text import printable, shortened
from convserve.command.top.numbers import count, mebibytes, milliseconds, short
from convserve.command.top.snapshot import Activity, Snapshot, VersionRow

WIDE = 130
"""Columns from which on all numbers of a version are shown."""

# Colours that a terminal has names for, which it shows readably on light and on dark ground.
_STATE_STYLES = {"served": "green", "refused": "bold red"}
_OTHER_STATE = "magenta"
_TROUBLE = "bold red"
_HEAD = "bold"

_MODEL_COLUMNS, _WIDE_MODEL_COLUMNS = 15, 32
_MOST_REASONS = 6


@dataclass(frozen=True)
class Frame:
    """What is drawn at one time.

    Attributes:
        snapshot: What the server does, or did when the page could last be read.
        url: Of the metrics page.
        read: When that page was read.
        trouble: Why it cannot be read now; empty if it can.
    """

    snapshot: Snapshot
    url: str
    read: datetime
    trouble: str = ""


def console_for(stream: TextIO, *, width: int | None, colours: bool) -> Console:
    """Returns what writes to a stream; what comes from a page is text to it, and nothing else.

    Args:
        stream: Where to.
        width: Columns of a line; None: those of the terminal that the stream is.
        colours: Write escape sequences for colours.
    """
    return Console(
        file=stream,
        width=width,
        no_color=not colours,
        force_terminal=width is None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def draw(frame: Frame, width: int, height: int | None) -> RenderableType:
    """Returns what is drawn.

    Args:
        frame: What there is to draw.
        width: Columns of the terminal.
        height: Its lines; None: as many as there is to draw.
    """
    snapshot = frame.snapshot
    below = [*_below(snapshot, width)]
    head = _head(frame, width)
    space = None if height is None else height - len(head) - sum(lines for _, lines in below) - 2
    return Group(*head, Text(), *_versions(snapshot, width, space), *(part for part, _ in below))


def as_text(frame: Frame, width: int) -> str:
    """Returns it as plain text, all rows, without a newline at the end."""
    written = io.StringIO()
    console = console_for(written, width=width, colours=False)
    console.print(draw(frame, width, None))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).rstrip()


def _head(frame: Frame, width: int) -> list[Text]:
    snapshot, build = frame.snapshot, frame.snapshot.build
    title = Text(f"convserve {printable(build.get('version', ''))}".rstrip(), style=_HEAD)
    clock = f"{frame.read:%H:%M:%S}"
    url = shortened(printable(frame.url), max(8, width - len(title) - len(clock) - 4))
    first = Text.assemble(title, f"  {url}")
    first.append(" " * max(2, width - first.cell_len - len(clock)) + clock)
    provider = build.get("provider", "").removesuffix("ExecutionProvider")
    facts = [printable(fact) for fact in (build.get("front"), provider) if fact]
    workers = [f"{count(n)} {printable(state)}" for state, n in snapshot.workers.items() if n]
    facts.append("workers: " + (", ".join(workers) or "none"))
    facts.append(f"{count(snapshot.in_flight)} in flight")
    facts.append(_interval(snapshot))
    lines = [first, Text(" · ".join(facts)), Text(_totals(snapshot))]
    if snapshot.restarted:
        lines.append(Text("the server has started anew: its counters began at 0", _TROUBLE))
    if frame.trouble:
        reason = frame.trouble.removeprefix(f"metrics page {frame.url}: ")
        lines.append(Text(f"no page now: {printable(reason)}", _TROUBLE))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _interval(snapshot: Snapshot) -> str:
    if snapshot.seconds is None:
        return "rates follow"
    return f"last {snapshot.seconds:.1f} s"


def _totals(snapshot: Snapshot) -> str:
    calls = sum(row.since_start.calls for row in snapshot.versions)
    new_calls = sum(row.interval.calls for row in snapshot.versions if row.interval)
    parts = [f"{count(calls)} calls"]
    if snapshot.seconds:
        parts.append(f"{short(new_calls / snapshot.seconds)} calls/s")
    parts += [f"{count(total)} {name}" for name, (total, _) in snapshot.others.items()]
    if snapshot.in_other:
        parts.append(f"{count(snapshot.in_other)} versions counted together, as (other)")
    return " · ".join(parts)


@dataclass(frozen=True)
class _Column:
    """A column of the table of versions: what it shows of a row, by seconds of the interval."""

    head: str
    cell: Callable[[VersionRow, float], str | Text]
    left: bool = False


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


def _name(row: VersionRow) -> str:
    return printable(row.model) or "(no model)"


_CALLS = _Column("calls/s", _rate(lambda activity: activity.calls))
_IMAGES = _Column("images/s", _rate(lambda activity: activity.images))
_P50, _P99 = _Column("p50 ms", _quantile(0.5)), _Column("p99 ms", _quantile(0.99))
_BATCH = _Column("batch", _last(lambda activity: short(activity.batches.mean)))
_QUEUE = _Column("queue", lambda row, _: count(row.queue_images))
_WORK = _Column("work s", lambda row, _: short(row.queue_work_s))
_FAILED = _Column("err/s", _rate(_errors))


def _narrow_name(row: VersionRow, _: float) -> str:
    version = f"/{printable(row.version)}" if row.version else ""
    return shortened(_name(row), max(4, _MODEL_COLUMNS - len(version))) + version


_NARROW_COLUMNS = (
    _Column("model", _narrow_name, left=True),
    _Column("state", _state, left=True),
    *(_CALLS, _IMAGES, _P50, _P99, _BATCH, _QUEUE, _WORK, _FAILED),
)
_WIDE_COLUMNS = (
    _Column("model", lambda row, _: shortened(_name(row), _WIDE_MODEL_COLUMNS), left=True),
    _Column("version", lambda row, _: printable(row.version) or "-"),
    _Column("state", _state, left=True),
    *(_CALLS, _IMAGES, _P50, _Column("p95 ms", _quantile(0.95)), _P99),
    _Column("queue p99", _p99_of("queue")),
    _Column("decode p99", _p99_of("decode")),
    _Column("compute p99", _p99_of("compute")),
    *(_BATCH, _QUEUE, _WORK, _FAILED),
    _Column("calls", lambda row, _: count(row.since_start.calls)),
    _Column("errors", lambda row, _: count(_errors(row.since_start))),
    _Column("MiB", lambda row, _: mebibytes(row.memory_bytes)),
    _Column("load s", lambda row, _: short(row.load_s)),
)


def _versions(snapshot: Snapshot, width: int, space: int | None) -> list[RenderableType]:
    """Returns the table of versions, in at most so many lines, its head included."""
    rows = snapshot.versions
    shown = len(rows) if space is None or len(rows) < space else max(1, space - 2)
    columns = _WIDE_COLUMNS if width >= WIDE else _NARROW_COLUMNS
    table = _table(*(("<" if column.left else ">") + column.head for column in columns),
                   gap=2 if width >= WIDE else 1)  # fmt: skip
    for row in rows[:shown]:
        table.add_row(*(column.cell(row, snapshot.seconds or 1.0) for column in columns))
    if not rows:
        table.add_row("(none)")
    if shown < len(rows):
        return [table, Text(f"and {len(rows) - shown} more, less busy"), Text()]
    return [table, Text()]


def _below(snapshot: Snapshot, width: int) -> list[tuple[RenderableType, int]]:
    """Returns the smaller tables, and how many lines each has."""
    parts = [_processes(snapshot), _refusals(snapshot), _codes(snapshot)]
    tables = [table for table in parts if table.row_count]
    rows = [tables] if width >= WIDE else [tables[:2], tables[2:]]
    below: list[tuple[RenderableType, int]] = []
    for beside in filter(None, rows):
        grid = Table.grid(padding=(0, 4, 0, 0))
        grid.add_row(*beside)
        below.append((grid, 1 + max(table.row_count for table in beside)))
    return below


def _processes(snapshot: Snapshot) -> Table:
    table = _table("<process", ">MiB", ">restarts")
    for row in snapshot.processes:
        restarts = Text(count(row.restarts), style=_TROUBLE if row.new_restarts else "")
        table.add_row(printable(row.name), mebibytes(row.memory_bytes), restarts)
    return table


def _refusals(snapshot: Snapshot) -> Table:
    rows = [(printable(reason), *numbers) for reason, numbers in snapshot.refused.items()]
    return _counts("refused", rows, snapshot.seconds)


def _codes(snapshot: Snapshot) -> Table:
    """Returns the errors of each version by code, most of the last interval first."""
    rows = []
    for row in snapshot.versions:
        name = _narrow_name(row, 0.0)
        for code, total in row.since_start.errors.items():
            new = row.interval.errors.get(code, 0.0) if row.interval else 0.0
            rows.append((f"{name} {printable(code)}", total, new))
    return _counts("error", sorted(rows, key=lambda row: (-row[2], -row[1])), snapshot.seconds)


def _counts(head: str, rows: Sequence[tuple[str, float, float]], seconds: float | None) -> Table:
    table = _table(f"<{head}", ">/s", ">in all")
    for name, total, new in rows[:_MOST_REASONS]:
        table.add_row(name, short(new / seconds if seconds else None), count(total))
    return table


def _table(*heads: str, gap: int = 2) -> Table:
    """Returns a table without rows; each head begins with < or >, the side of its column."""
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style=_HEAD)
    for head in heads:
        side = "left" if head[0] == "<" else "right"
        table.add_column(head[1:], justify=side, no_wrap=True)  # type: ignore[arg-type]
    return table
