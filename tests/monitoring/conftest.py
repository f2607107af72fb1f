import shutil

import pytest


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    """Prometheus and its tool, which Debian has in one package."""
    for program in ("prometheus", "promtool"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program} here")
