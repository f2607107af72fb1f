"""Lists the benchmarks: what each measures, and how it is run.

    python -m benchmarks

A benchmark is a file in a subject's folder whose docstring shows its own command; `harness` holds
what they share. Nothing is imported, so the list needs no package but Python itself.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent


class Benchmark(NamedTuple):
    """A program of this package.

    Attributes:
        module: for python -m.
        summary: first line of its docstring.
        usage: the commands that its docstring shows.
    """

    module: str
    summary: str
    usage: tuple[str, ...]


def benchmarks(folder: Path = _FOLDER) -> Iterator[Benchmark]:
    """Yields the benchmarks of each subject, the subject's own (`__main__.py`) first."""
    for file in sorted(folder.glob("*/*.py")):
        if file.parent.name == "harness":
            continue
        names = [folder.name, file.parent.name, *([] if file.stem == "__main__" else [file.stem])]
        module = ".".join(names)
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        lines = [line.strip() for line in text.splitlines()]
        usage = tuple(line for line in lines if f"{line} ".startswith(f"python -m {module} "))
        if usage:
            yield Benchmark(module, lines[0], usage)


def main() -> None:
    """Prints the list, by subject."""
    subject = ""
    for one in benchmarks():
        _, current, *_ = one.module.split(".")
        if current != subject:
            subject = current
            print(f"\n{subject}")
        print(f"  {one.summary}", *(f"      {command}" for command in one.usage), sep="\n")
    print("\nEach has --help. docs/performance.md says what they found, and on which machine.")


if __name__ == "__main__":
    main()
