from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what JAX has compiled."""
    return tmp_path_factory.mktemp("compiled")
