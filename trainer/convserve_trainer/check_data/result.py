"""A picture set, checked: what `check-data` prints, as JSON or as a report."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convserve_trainer.check_data import summary, tree
from convserve_trainer.check_data.findings import Finding, Item, Severity
from convserve_trainer.check_data.moves import MoveResult
from convserve_trainer.check_data.rules import findings
from convserve_trainer.check_data.survey import SIZE, Survey, survey
from convserve_trainer.check_data.tree import Tree


@dataclass(frozen=True)
class CheckResult:
    """A picture set and what is found in it.

    Attributes:
        survey: the set and its pictures.
        findings: the gravest first.
    """

    survey: Survey
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Returns how many things of a severity are found."""
        return sum(len(f.items) for f in self.findings if f.kind.severity == severity)


def check(folder: Path, counter: Callable[[Tree], Callable[[int], None]]) -> CheckResult:
    """Reads and checks a picture set.

    Args:
        folder: of the set.
        counter: called with the set before it is read; what it returns takes the number of
            pictures that are done.

    Raises:
        UsageError: there is no such folder.
        OSError: a folder may not be read.
    """
    read = tree.read(folder)
    surveyed = survey(read, counter(read))
    return CheckResult(surveyed, tuple(findings(surveyed)))


def as_dict(before: CheckResult, aside: MoveResult | None, after: CheckResult) -> dict[str, Any]:
    """Returns everything for JSON; the keys are stable.

    Args:
        before: the set as it was found.
        aside: what was moved; None without `--fix`.
        after: the set as it is left; `before` if nothing was moved.
    """
    surveyed = before.survey
    sizes = summary.sizes(surveyed)
    return {
        "folder": str(surveyed.tree.folder),
        "ok": not after.count(Severity.ERROR),
        "errors": after.count(Severity.ERROR),
        "warnings": after.count(Severity.WARNING),
        "training_size": SIZE,
        "files": len(surveyed.tree.files),
        "usable": len(surveyed.pictures),
        "passed_over": summary.skipped(surveyed),
        "classes": [asdict(count) for count in summary.class_counts(surveyed)],
        "sizes": asdict(sizes) if sizes else None,
        "findings": [_finding(finding) for finding in before.findings],
        "set_aside": _move_summary(aside, after) if aside else None,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.name,
        "severity": finding.kind.severity.value,
        "title": finding.kind.title,
        "count": len(finding.items),
        "items": [_item(item) for item in finding.items],
    }


def _item(item: Item) -> dict[str, Any]:
    return {
        "path": item.path,
        "others": list(item.others),
        "reason": item.reason,
        "detail": item.detail,
    }


def _move_summary(aside: MoveResult, after: CheckResult) -> dict[str, Any]:
    return {
        "folder": str(aside.folder),
        "manifest": str(aside.manifest),
        "moved": [
            {"from": move.source, "to": move.target, "reason": move.reason} for move in aside.moves
        ],
        "behind_links": list(aside.left),
        "left": [_finding(finding) for finding in after.findings],
    }
