"""Figures as cells of tables."""

from convserve_trainer.evaluation.intervals import Interval

NOTHING = "–"


def shown(value: float | None) -> str:
    """Returns a share, 0 to 1; a dash for none."""
    return NOTHING if value is None else f"{value:.4f}"


def between(found: Interval | None) -> str:
    """Returns an interval; a dash for none."""
    return NOTHING if found is None else f"{found[0]:.4f} to {found[1]:.4f}"
