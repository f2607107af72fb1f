"""What is shipped may be shipped: the licences of the packages of client, bench and server."""

import importlib.util
import re
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

LOCKS = Path(__file__).parents[1] / "locks"


def _script(name: str) -> ModuleType:
    """A script of locks/, which imports its neighbours by their names."""
    spec = importlib.util.spec_from_file_location(name, LOCKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


locked = _script("locked")
licences = _script("licences")

#: Licences under which a package may be used, changed and passed on beside ours. Those of the MPL
#: hold for files of theirs, which we do not change.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License"),
    *("CC0-1.0", "ISC", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib"),
}


@pytest.mark.parametrize("lock", ["client.txt", "bench.txt", "serve.txt"])
def test_packages_have_licences_that_allow_what_we_do(lock: str) -> None:
    found = {one.name: one.licence for one in licences.licensed([lock])}
    assert len(found) >= 8
    others = {
        name: licence
        for name, licence in found.items()
        if not {*re.split(r" AND | OR ", licence)} <= ALLOWED
    }
    assert others == {}


def test_every_package_of_a_lock_is_seen() -> None:
    for lock in locked.SHIPPED:
        lines = (LOCKS / lock).read_text().splitlines()
        expected = [line.partition("==")[0] for line in lines if re.match(r"[a-zA-Z0-9]", line)]
        assert [pin.name for pin in locked.pins(lock)] == expected
        assert [pin.name for pin, _ in locked.blocks(lock)] == expected
        assert "".join(text for _, text in locked.blocks(lock)) == (LOCKS / lock).read_text()


@pytest.mark.parametrize(
    ("lock", "more"),
    [
        *product(
            ["client.txt", "serve.txt"],
            ["serve-signing.txt", "serve-openvino.txt", "serve-s3.txt"],
        ),
        # Not train-s3.txt: the client of S3 needs an older python-dateutil.
        ("train.txt", "train-sweep.txt"),
    ],
)
def test_locks_with_more_have_the_versions_of_those_without(lock: str, more: str) -> None:
    assert {*locked.pins(lock)} <= {*locked.pins(more)}
