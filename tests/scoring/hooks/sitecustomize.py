"""Python imports this at its start where a test has put the folder into PYTHONPATH.

It makes some image files harmful, in whatever process scores them: one that begins with POISON ends
the process as the kernel would; at one that begins with "GATE " and a folder, the process writes
its id into the pipe `pid` of that folder, and goes on when the pipe `go` is opened.
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "convserve_scoring.scorer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _make_harmful(module.Scorer)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _make_harmful(scorer: Any) -> None:
    score_block = scorer.score_block

    def harmful(self: Any, files: Sequence[bytes | None]) -> Any:
        for file in files:
            if file is not None and file.startswith(b"POISON"):
                os.kill(os.getpid(), signal.SIGKILL)
            if file is not None and file.startswith(b"GATE "):
                _wait(Path(file.removeprefix(b"GATE ").decode()))
        return score_block(self, files)

    scorer.score_block = harmful


def _wait(folder: Path) -> None:
    try:
        # Not by open(), which would make a file of that name.
        descriptor = os.open(folder / "pid", os.O_WRONLY)
    except FileNotFoundError:  # A gate is passed once.
        return
    os.write(descriptor, str(os.getpid()).encode())
    os.close(descriptor)
    with (folder / "go").open() as pipe:
        pipe.read()


sys.meta_path.insert(0, _Finder())
