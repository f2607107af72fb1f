"""The manifests of deploy/kubernetes as data, and as kustomize and Helm render them."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PLAIN = ROOT / "deploy/kubernetes"
CHART = ROOT / "deploy/helm/convserve"
#: Made by make test-kubernetes.
ENVIRONMENT = ROOT / ".venv-kubernetes"
TOOLS = ENVIRONMENT / "tools"

#: An object of Kubernetes.
Object = Mapping[str, Any]


def objects(text: str) -> list[Object]:
    """Returns the objects of a YAML text."""
    return [one for one in yaml.safe_load_all(text) if one is not None]


def files() -> Iterator[Path]:
    """Yields every manifest, but for what only kustomize reads."""
    for file in sorted(PLAIN.rglob("*.yaml")):
        patch = file.parent.parent.name == "components" and file.name == "deployment.yaml"
        if file.name != "kustomization.yaml" and not patch:
            yield file


def the(kind: str, found: Sequence[Object]) -> Any:
    """Returns the one object of a kind."""
    (one,) = [one for one in found if one["kind"] == kind]
    return one


def container(deployment: Object) -> Any:
    """Returns the one container of a deployment, or of a job."""
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return one


def run(*command: str | Path) -> str:
    """Runs a program, which must succeed; returns what it printed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kustomized(folder: Path) -> list[Object]:
    """Returns what `kubectl apply -k` would apply."""
    return objects(run(TOOLS / "kubectl", "kustomize", folder))


def overlay(folder: Path, *components: str) -> list[Object]:
    """Returns the base with components, in the namespace that the docs use.

    Args:
        folder: for the kustomization; below the repository's root, as kustomize wants it.
        components: names of folders in components/.
    """
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "convserve",
        "resources": [str(_relative(PLAIN / "base", folder))],
        "components": [str(_relative(PLAIN / "components" / one, folder)) for one in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return kustomized(folder)


def _relative(target: Path, start: Path) -> Path:
    return Path(*[".."] * len(start.parts[1:]), *target.parts[1:])


def chart(*flags: str) -> list[Object]:
    """Returns what the Helm chart renders as, with flags of `helm template`."""
    return objects(run(TOOLS / "helm", "template", "convserve", CHART, "-n", "convserve", *flags))
