"""Prints the licence of each locked package that is installed here: make licences.

It needs no package; what it reads is what the packages say of themselves.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

from locked import SHIPPED, canonical, pins

#: The last words of classifiers that name a licence, as SPDX; others say so in other fields.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
}
#: Longer texts are the licence itself; only its name is printed.
_MOST_SHOWN = 60


@dataclass(frozen=True)
class Licensed:
    """A package and its licence.

    Attributes:
        name: Of it.
        version: Of it.
        licence: As the package states it; empty if it does not, or is not installed.
    """

    name: str
    version: str
    licence: str


def licensed(locks: Sequence[str]) -> Iterator[Licensed]:
    """Yields the packages of locks that are installed here, by name, each once."""
    names = {canonical(pin.name) for lock in locks for pin in pins(lock)}
    for name in sorted(names):
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        yield Licensed(name, found["Version"], licence_of(found))


def licence_of(found: metadata.PackageMetadata) -> str:
    """Returns what a package says of its licence; empty if nothing."""
    if "License-Expression" in found:
        return found["License-Expression"]
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in found.get_all("Classifier") or ()
        if one.startswith("License :: ") and not one.endswith(":: OSI Approved")
    ]
    if classifiers:
        return " OR ".join(sorted(_CLASSIFIERS.get(one, one) for one in classifiers))
    lines = (found.get_all("License") or [""])[0].strip().splitlines()
    return lines[0].strip()[:_MOST_SHOWN] if lines else ""


def main(locks: Sequence[str]) -> None:
    """Prints a table."""
    rows = list(licensed(locks))
    width = max(len(f"{one.name} {one.version}") for one in rows)
    for one in rows:
        print(f"{one.name} {one.version}".ljust(width), one.licence or "not stated", sep="  ")
    missing = {canonical(pin.name) for lock in locks for pin in pins(lock)}
    missing -= {one.name for one in rows}
    if missing:
        print(f"not installed here: {', '.join(sorted(missing))}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:] or SHIPPED)
