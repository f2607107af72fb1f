"""Asks PyPI for known vulnerabilities of the locked packages: make audit.

Run by the Python of locks/supply.txt. Exit status 0: none is known; 1: some are; 3: not all
packages could be asked for, as where the service cannot be reached.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from locked import LOCKS, SHIPPED

FOUND, NOT_ASKED = 1, 3


def main(locks: Sequence[str]) -> int:
    """Prints what is known; returns the exit status."""
    status = 0
    for lock in locks:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--requirement", str(LOCKS / lock)),
                *("--require-hashes", "--disable-pip", "--progress-spinner", "off"),
                *("--format", "json"),
            ],
            capture_output=True,
            text=True,
        )
        try:
            packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        except ValueError:
            why = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            print(f"audit: {lock}: not asked, the service cannot be used: {why[-1][:200]}")
            return NOT_ASKED
        faults = [
            f"{one['name']} {one['version']}: {fault['id']}, mended in "
            f"{', '.join(fault['fix_versions']) or 'no version'}"
            for one in packages
            for fault in one.get("vulns", ())
        ]
        unknown = [one["name"] for one in packages if "skip_reason" in one]
        for fault in faults:
            print(f"audit: {lock}: {fault}")
        if unknown:
            print(f"audit: {lock}: {len(unknown)} of {len(packages)} packages: not known there")
        elif not faults:
            print(f"audit: {lock}: {len(packages)} packages, no known vulnerability")
        status = FOUND if faults else status or (NOT_ASKED if unknown else 0)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or SHIPPED))
