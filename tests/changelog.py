"""Fails if the newest version in CHANGELOG.md is not the version of the package."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if released[:1] == [version]:
        return 0
    print(
        f"pyproject.toml says {version}, CHANGELOG.md begins with {released[:1]}", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
