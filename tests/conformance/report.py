"""Results as tables, and as JSON.

    python -m tests.conformance.report ours.json other.json

compares the results of several servers in a table of Markdown.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from tests.conformance.suite import Result, Verdict


def show(results: Sequence[Result], out: TextIO) -> None:
    """Writes how many cases of each group passed, then each that failed, with the reason.

    Args:
        results: of all cases.
        out: where to.
    """
    for each in results:
        if each.verdict is Verdict.FAILED:
            print(f"FAILED {each.front} {each.group}: {each.name}", file=out)
            print(f"       {each.detail} [{each.source}]", file=out)
    absent: dict[tuple[str, str], list[str]] = {}
    for each in results:
        if each.verdict is Verdict.NOT_APPLICABLE:
            absent.setdefault((each.front, each.group), []).append(each.detail)
    for (front, group), reasons in absent.items():
        why = "; ".join(dict.fromkeys(reasons))
        print(f"not applicable: {front} {group}, {_cases(len(reasons))}: {why}", file=out)
    print(f"\n{'front':6}{'group':20}{'passed':>8}{'failed':>8}{'not applicable':>16}", file=out)
    for row in rows(results):
        print("{:6}{:20}{:8}{:8}{:16}".format(*row), file=out)
    malformed = [each for each in results if each.malformed]
    print(f"{_cases(len(results))}, of which {len(malformed)} malformed", file=out)


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def rows(results: Iterable[Result]) -> list[tuple[str, str, int, int, int]]:
    """Front, group, and the numbers of cases that passed, failed and did not apply; then sums."""
    counts = Counter((each.front, each.group, each.verdict) for each in results)
    groups = list(dict.fromkeys((front, group) for front, group, _ in counts))
    lines = [
        (
            front,
            group,
            counts[front, group, Verdict.PASSED],
            counts[front, group, Verdict.FAILED],
            counts[front, group, Verdict.NOT_APPLICABLE],
        )
        for front, group in sorted(groups)
    ]
    total = Counter(verdict for _, _, verdict in counts.elements())
    passed, failed, absent = (total[each] for each in Verdict)
    return [*lines, ("all", "", passed, failed, absent)]


def to_json(results: Iterable[Result]) -> str:
    """All results, as a list of objects."""
    return json.dumps(
        [{**asdict(each), "verdict": each.verdict.value} for each in results], indent=1
    )


def from_json(text: str) -> list[Result]:
    """What to_json() has written."""
    return [Result(**{**each, "verdict": Verdict(each["verdict"])}) for each in json.loads(text)]


def compared(results: Sequence[tuple[str, Sequence[Result]]]) -> str:
    """A table of Markdown: passed / failed of each group, the servers beside each other.

    Args:
        results: name and results of each server.
    """
    tables = {name: {row[:2]: row[2:] for row in rows(each)} for name, each in results}
    names = list(tables)
    lines = [
        f"| front | group | cases | {' | '.join(names)} |",
        f"| --- | --- | ---: | {' | '.join('---:' for _ in names)} |",
    ]
    groups = {key for table in tables.values() for key in table}
    for front, group in sorted(groups, key=lambda key: (key[0] == "all", key)):
        counts = [table.get((front, group)) for table in tables.values()]
        total = max(sum(each) for each in counts if each)
        cells = [f"{each[0]} / {each[1]}" if each else "" for each in counts]
        lines.append(f"| {front} | {group} | {total} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    files = [Path(each) for each in sys.argv[1:]]
    print(compared([(each.stem, from_json(each.read_text())) for each in files]))
