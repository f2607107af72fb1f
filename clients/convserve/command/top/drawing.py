"""Draws a snapshot: for a terminal of any width, or as plain text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from convserve.command.terminal_text import printable, shortened
from convserve.command.top.numbers import count, mebibytes, short
from convserve.command.top.snapshot import Snapshot
from convserve.command.top.tables import HEAD, TROUBLE, WIDE, table_of
from convserve.command.top.version_table import name_of, version_table

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
    space = None if height is None else height - len(head) - sum(lines for _, lines in below) - 1
    return Group(
        *head, Text(), *version_table(snapshot, width, space), *(part for part, _ in below)
    )


def as_text(frame: Frame, width: int) -> str:
    """Returns it as plain text, all rows, without a newline at the end."""
    written = io.StringIO()
    console = console_for(written, width=width, colours=False)
    console.print(draw(frame, width, None))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).rstrip()


def _head(frame: Frame, width: int) -> list[Text]:
    snapshot, build = frame.snapshot, frame.snapshot.build
    title = Text(f"convserve {printable(build.get('version', ''))}".rstrip(), style=HEAD)
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
        lines.append(Text("the server has started anew: its counters began at 0", TROUBLE))
    if frame.trouble:
        reason = frame.trouble.removeprefix(f"metrics page {frame.url}: ")
        lines.append(Text(f"no page now: {printable(reason)}", TROUBLE))
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


def _below(snapshot: Snapshot, width: int) -> list[tuple[RenderableType, int]]:
    """Returns the smaller tables, those that are beside each other in one, and their lines."""
    tables = [_processes(snapshot), _refusals(snapshot), _codes(snapshot, width)]
    lines = [tables] if width >= WIDE else [tables[:2], tables[2:]]
    below: list[tuple[RenderableType, int]] = []
    for beside in lines:
        beside = [table for table in beside if table.row_count]
        if beside:
            grid = Table.grid(padding=(0, 4, 0, 0))
            grid.add_row(*beside)
            below.append((Group(Text(), grid), 2 + max(table.row_count for table in beside)))
    return below


def _processes(snapshot: Snapshot) -> Table:
    table = table_of("<process", ">MiB", ">restarts")
    for row in snapshot.processes:
        restarts = Text(count(row.restarts), style=TROUBLE if row.new_restarts else "")
        table.add_row(printable(row.name), mebibytes(row.memory_bytes), restarts)
    return table


def _refusals(snapshot: Snapshot) -> Table:
    rows = [(printable(reason), *numbers) for reason, numbers in snapshot.refused.items()]
    return _counts("refused", rows, snapshot.seconds)


def _codes(snapshot: Snapshot, width: int) -> Table:
    """Returns the errors of each version by code, most of the last interval first."""
    rows = []
    for row in snapshot.versions:
        name = shortened(name_of(row), width // 4)
        for code, total in row.since_start.errors.items():
            new = row.interval.errors.get(code, 0.0) if row.interval else 0.0
            rows.append((f"{name} {printable(code)}", total, new))
    return _counts("error", sorted(rows, key=lambda row: (-row[2], -row[1])), snapshot.seconds)


def _counts(head: str, rows: Sequence[tuple[str, float, float]], seconds: float | None) -> Table:
    table = table_of(f"<{head}", ">/s", ">in all")
    for name, total, new in rows[:_MOST_REASONS]:
        table.add_row(name, short(new / seconds if seconds else None), count(total))
    return table
