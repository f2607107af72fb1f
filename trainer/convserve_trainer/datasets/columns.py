"""Which columns of a list are used: those that a user names, or those of the usual names."""

from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Columns:
    """Names of columns that a user gives; None for one of a usual name.

    Attributes:
        picture: has the path, or the bytes, of a picture.
        label: has its class.
        split: has the part of the data that it belongs to.
    """

    picture: str | None = None
    label: str | None = None
    split: str | None = None


USUAL = Columns()


def parse(text: str) -> Columns:
    """Returns the columns of an option's value: "picture=img,label=breed".

    Raises:
        ValueError: it is not as it should be.
    """
    known = [field.name for field in fields(Columns)]
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, _, column = pair.partition("=")
        if name not in known or not column or name in found:
            raise ValueError(
                f"expected pairs of {', '.join(known)} and a column's name, such as "
                f"label=breed, each once, got {text!r}"
            )
        found[name] = column
    return Columns(**found)


def chosen(given: str | None, usual: Sequence[str], there: Sequence[str]) -> str | None:
    """Returns the column that is used: the one given, else the first usual one that is there."""
    if given is not None:
        return given if given in there else None
    return next((name for name in usual if name in there), None)
