"""The lists of what is shipped, and the question for known vulnerabilities."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.supply.conftest import ROOT, SUPPLY_PYTHON
from tests.test_licences import locked

pytestmark = pytest.mark.supply


def run(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SUPPLY_PYTHON, ROOT / "locks" / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )


def test_list_has_what_is_locked_and_is_the_same_each_time(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        done = run("sbom.py", tmp_path / folder, "wheel-serve", "image-server")
        assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["image-server.cdx.json", "wheel-serve.cdx.json"]
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        document: dict[str, Any] = json.loads(content)
        assert document["bomFormat"] == "CycloneDX"
        found = {(one["name"], one["version"]) for one in document["components"]}
        pins = {(pin.name, pin.version) for pin in locked.pins("serve.txt")}
        assert found <= pins
        missing = {name for name, _ in pins} - {name for name, _ in found}
        # What is for Windows alone is not in an image.
        assert missing == (set() if name.startswith("wheel") else {"colorama"})


def test_list_is_valid_by_the_schema_of_cyclonedx(tmp_path: Path) -> None:
    assert run("sbom.py", tmp_path, "wheel-client").returncode == 0
    code = """if True:
        import pathlib, sys
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
        content = pathlib.Path(sys.argv[1]).read_text()
        sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(content) or 0) != "0")
    """
    path = tmp_path / "wheel-client.cdx.json"
    subprocess.run([SUPPLY_PYTHON, "-c", code, path], check=True)


def test_service_that_cannot_be_reached_has_a_line_and_a_status_of_its_own() -> None:
    nowhere = "http://127.0.0.1:9"
    done = run("audit.py", "client.txt", HTTPS_PROXY=nowhere, https_proxy=nowhere)
    assert done.returncode == 3
    (line,) = done.stdout.splitlines()
    assert line.startswith("audit: client.txt: not asked, the service cannot be used: ")
    assert done.stderr == ""
