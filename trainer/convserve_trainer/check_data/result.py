"""A picture set, checked: what `check-data` prints, as JSON or as a report."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from convserve_imaging import PHOTO_BILINEAR
from convserve_trainer.check_data import listed, summary, tree
from convserve_trainer.check_data.findings import Finding, Item, Severity
from convserve_trainer.check_data.moves import MoveResult
from convserve_trainer.check_data.rules import findings
from convserve_trainer.check_data.survey import SIZE, Survey, survey
from convserve_trainer.check_data.tree import Tree
from convserve_trainer.datasets import photo_methods, registry
from convserve_trainer.datasets.photo_folders import Choice
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say


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


def check(
    source: Source, counter: Callable[[Tree], Callable[[int], None]], say: Say
) -> CheckResult:
    """Reads and checks a picture set.

    Args:
        source: which set, the method that reads its files, and where they may lie.
        counter: called with the set before it is read; what it returns takes the number of
            pictures that are done.
        say: takes lines on what is done.

    Raises:
        DataError: a list is not as it should be.
        UsageError: there is no such folder.
        OSError: a folder may not be read.
    """
    assert source.folder is not None, "the command names it"
    method = source.method or PHOTO_BILINEAR
    lister = registry.find_lister(source.folder)
    if lister is None:
        choice = Choice(photo_methods.suffixes(method), source.subfolders)
        read = tree.read(source.folder, choice)
    else:
        read = listed.read(lister, source, say)
    surveyed = survey(read, counter(read), method)
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
