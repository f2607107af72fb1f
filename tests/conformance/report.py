"""Results as a table, and as JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
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
