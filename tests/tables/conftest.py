"""Data sets in tables; see `make test-tables`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.trainer.drawn import draw_parts

#: In that environment alone there is something to collect.
collect_ignore_glob = [] if find_spec("pyarrow") and find_spec("datasets") else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    # Keras converts TensorFlow's variables to NumPy in the way of NumPy 1, wherever it saves them.
    warning = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps tests off the user's cache; returns where tables are unpacked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "convserve" / "tables"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with JPEGs in train and validation."""
    return draw_parts(tmp_path / "data", {"red": 6, "blue": 5}, {"red": 3, "blue": 4})
