"""What rendering needs; make test-kubernetes makes it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kubernetes.manifests import ENVIRONMENT, TOOLS, Object, overlay

#: Returns the base with some components, as kustomize renders it.
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def _tools() -> None:
    if not (ENVIRONMENT / "bin/kubernetes-validate").exists():
        pytest.skip("needs the environment that make test-kubernetes makes")
    if not (TOOLS / "kubectl").exists():
        pytest.skip("there is no kubectl and no helm for this machine (locks/kubernetes_tools.py)")


@pytest.fixture
def render(_tools: None, tmp_path: Path) -> Render:
    folder = tmp_path / "overlay"
    folder.mkdir()
    return lambda *components: overlay(folder, *components)
