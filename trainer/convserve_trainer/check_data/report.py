"""The report on a picture set, for a terminal of 100 columns."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from convserve_trainer.check_data import summary
from convserve_trainer.check_data.findings import Finding, Item, Severity
from convserve_trainer.check_data.moves import MoveResult
from convserve_trainer.check_data.result import CheckResult
from convserve_trainer.check_data.summary import ClassCount
from convserve_trainer.check_data.tree import printable

WIDTH = 100
NAMED = 10
"""Things named of each kind, unless all are asked for; of notes none are."""

_COPIES = 3
"""Names of further copies that a line has, likewise."""

_PASSED_OVER = {
    "hidden": "hidden file",
    "folder": "folder",
    "outside": "stray picture",
    "unlabelled": "unlabelled picture",
    "other": "other file",
}
_HEADINGS = {Severity.ERROR: "ERRORS", Severity.WARNING: "WARNINGS", Severity.NOTE: "NOTES"}


def report(checked: CheckResult, everything: bool, fix: bool = False) -> str:
    """Returns the figures and findings of a set.

    Args:
        checked: the set.
        everything: whether to name all there is of each kind.
        fix: whether files are moved next, so that the report need not mention that they can be.
    """
    lines = [*_figures(checked), *_findings(checked, everything), "", verdict(checked)]
    movable = {path for f in checked.findings for item in f.items for path in item.moves}
    if movable and not fix:
        lines.append(f"--fix moves {_counted(len(movable), 'file')} aside and deletes none.")
    return "\n".join(lines)


def moved(aside: MoveResult, after: CheckResult, everything: bool) -> str:
    """Returns what `--fix` did, and what is left to do."""
    counts = Counter(move.reason for move in aside.moves)
    lines = ["", f"MOVED  {_counted(len(aside.moves), 'file')}"]
    if aside.moves:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        lines += [
            *_wrapped(f"{reasons}: into {printable(str(aside.folder))}", "  "),
            *_wrapped(f"each with its old path: {printable(str(aside.manifest))}", "  "),
        ]
    if aside.left:
        text = f"{len(aside.left):,} files lie behind a link to a folder and stay where they are"
        lines += [f"  {text}", *_named([Item(path) for path in aside.left], everything)]
    left = [finding for finding in after.findings if finding.kind.severity == Severity.ERROR]
    for finding in left:
        lines += ["", *_finding(finding, everything, mark="still: ")]
    return "\n".join([*lines, "", verdict(after)])


def verdict(checked: CheckResult) -> str:
    """Returns the last line."""
    errors = _counted(checked.count(Severity.ERROR), "error")
    warnings = _counted(checked.count(Severity.WARNING), "warning")
    if checked.count(Severity.ERROR):
        return f"Not fit to train on: {errors}, {warnings}."
    return f"Fit to train on: {errors}, {warnings}."


def _figures(checked: CheckResult) -> Iterator[str]:
    survey = checked.survey
    files = _counted(len(survey.tree.files), "picture")
    yield f"{printable(str(survey.tree.folder))}: {files}, {summary.splits_named(survey)}"
    counts = summary.class_counts(survey)
    if counts:
        yield ""
        yield from _table(counts)
    sizes = summary.sizes(survey)
    if sizes:
        each = ((name, getattr(sizes, name)) for name in ("smallest", "median", "largest"))
        yield ""
        yield "  sizes: " + ", ".join(f"{name} {w:,} x {h:,}" for name, (w, h) in each)
    passed = summary.skipped(survey)
    if passed:
        kinds = (_counted(n, _PASSED_OVER[kind]) for kind, n in passed.items())
        yield f"  passed over: {', '.join(kinds)}"


def _table(counts: Sequence[ClassCount]) -> Iterator[str]:
    rows = [["split", "class", "files", "broken", "turned"]]
    for count in counts:
        figures = (count.files, count.broken, count.turned)
        rows.append([count.split, printable(count.label), *(f"{n:,}" for n in figures)])
    split, label, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        numbers = "".join(f"  {n:>{width}}" for n, width in zip(row[2:], widths, strict=True))
        yield f"  {row[0]:<{split}}  {row[1]:<{label}}{numbers}"


def _findings(checked: CheckResult, everything: bool) -> Iterator[str]:
    for severity, heading in _HEADINGS.items():
        found = [f for f in checked.findings if f.kind.severity == severity]
        if not found:
            continue
        yield ""
        yield heading
        for finding in found:
            yield from _finding(finding, everything)


def _finding(finding: Finding, everything: bool, mark: str = "") -> Iterator[str]:
    title = f"{mark}{finding.kind.name} ({len(finding.items):,}): {finding.kind.title}"
    yield from _wrapped(title, "  ")
    reasons = Counter(item.reason for item in finding.items if item.reason)
    if reasons:
        yield "    " + ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
    if everything or finding.kind.severity != Severity.NOTE:
        yield from _named(finding.items, everything)


def _named(items: Sequence[Item], everything: bool) -> Iterator[str]:
    shown = items if everything else items[:NAMED]
    for item in shown:
        yield from _lines(item, everything)
    if len(shown) < len(items):
        yield f"    and {len(items) - len(shown):,} more (--all names them)"


def _lines(item: Item, everything: bool) -> list[str]:
    others = item.others if everything else item.others[:_COPIES]
    more = len(item.others) - len(others)
    names = [
        *(printable(path) for path in (item.path, *others)),
        *([f"{more:,} more"] * (more > 0)),
    ]
    joined = " and ".join(names)
    if not item.detail:
        return [f"    {joined}"]
    line = f"    {joined}: {printable(item.detail)}"
    return [line] if len(line) <= WIDTH else [f"    {joined}:", f"      {printable(item.detail)}"]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _counted(number: int, noun: str) -> str:
    if not number:
        return f"no {noun}s"
    return f"{number:,} {noun}" + "s" * (number > 1)
