"""convserve-train publish onto a store, by real processes at the same time."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from convserve_bundle.contract import DIGESTS_FILE, MODEL_FILE, SIGNATURE_FILE
from convserve_bundle.publish import publish
from convserve_store.bundles import BundleStore
from tests.bundles import write_bundle
from tests.program import Program
from tests.signing_keys import new_key
from tests.store.stand_in import StandIn

WAIT_S = 120.0


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "convserve_trainer.main", "publish", *map(str, arguments)]


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=WAIT_S)


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Three bundles of one model, which differ in a file."""
    model = write_bundle(tmp_path / "made").read_bytes()
    return [
        publish(model, tmp_path / str(number), "mnist", 1, None, {"report.html": b"%d" % number})
        for number in range(3)
    ]


def test_of_three_publishers_of_a_version_one_wins_and_the_others_say_why(
    store: BundleStore, stand_in: StandIn, bundles: list[Path], url: str, tmp_path: Path
) -> None:
    begun: set[str] = set()

    def hold(request: str) -> None:
        # All three have found the version free, and have written their files, before any goes on.
        if request.startswith("PUT") and request.endswith(DIGESTS_FILE):
            begun.add(request)
            together.wait(WAIT_S)

    together = threading.Barrier(3)
    stand_in.holds = hold
    programs = [
        Program(
            command(bundle, "--models", url, "--version", "4"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for bundle in bundles
    ]
    ends = []
    for program in programs:
        with program:
            out, err = program.communicate(timeout=WAIT_S)
            ends.append((program.returncode, out.rstrip("\n") + err.rstrip("\n")))
    won = f"published {url}/mnist/4 (32,043 bytes, 1 other files)"
    lost = f"convserve-train: {url}/mnist/4 exists; a published version is never overwritten"
    assert sorted(ends) == [(0, won), (1, lost), (1, lost)]
    winner = [status for status, _ in ends].index(0)
    folder = tmp_path / "fetched"
    folder.mkdir()
    store.fetch(store.look().versions["mnist"][4], folder, 2**30)
    assert (folder / "report.html").read_bytes() == b"%d" % winner
    objects = {*store.look().objects} - {".convserve-probe"}
    assert len(objects) == 3, "the others have removed their files"


def test_publishers_without_a_number_get_one_each(
    store: BundleStore, bundles: list[Path], url: str
) -> None:
    programs = [
        Program(command(bundle, "--models", url), stdout=subprocess.PIPE, text=True)
        for bundle in bundles
    ]
    lines = []
    for program in programs:
        with program:
            lines.append(program.communicate(timeout=WAIT_S)[0])
            assert program.returncode == 0
    assert sorted(lines) == [
        f"published {url}/mnist/{number} (32,043 bytes, 1 other files)\n" for number in (1, 2, 3)
    ]
    assert sorted(store.look().versions["mnist"]) == [1, 2, 3]


def test_killed_publisher_is_not_seen_and_its_number_is_free(
    store: BundleStore, stand_in: StandIn, bundles: list[Path], url: str
) -> None:
    def kill(request: str) -> bool:
        last = request.startswith("PUT") and request.endswith(DIGESTS_FILE)
        if last:
            program.kill()
        return last

    stand_in.fails = kill
    with Program(command(bundles[0], "--models", url, "--version", "1")) as program:
        pass
    assert program.returncode < 0
    stand_in.behave()
    assert [key for key in store.look().objects if key.endswith("report.html")]
    assert store.look().versions == {}
    assert run(bundles[1], "--models", url, "--version", "1").returncode == 0


def test_any_onnx_file_is_published_and_signed(
    store: BundleStore, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "any" / "1"
    (folder / "data").mkdir(parents=True)
    write_bundle(tmp_path / "made").rename(folder / MODEL_FILE)
    (folder / "data" / "labels.txt").write_bytes(b"a b")
    key = new_key(tmp_path / "publisher")
    done = run(folder, "--models", url, "--sign-key", key.private)
    assert done.returncode == 0, done.stderr
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    store.fetch(store.look().versions["any"][1], fetched, 2**30)
    names = {path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file()}
    assert names == {DIGESTS_FILE, MODEL_FILE, SIGNATURE_FILE, "data/labels.txt"}


@pytest.mark.usefixtures("stand_in")
def test_store_without_conditional_put_is_refused(
    stand_in: StandIn, bundles: list[Path], url: str
) -> None:
    stand_in.ignores.add("HTTP_IF_NONE_MATCH")
    done = run(bundles[0], "--models", url)
    assert done.returncode == 1
    assert done.stderr == (
        "convserve-train: --models: expected a store that creates an object only if there is none "
        f"(If-None-Match), got one that overwrites: {url}; two publishers could mix their files "
        "there\n"
    )


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("models", "status", "message"),
    [
        ("s3://missing/models", 1, "--models: expected an existing bucket and object at s3://mis"),
        ("http://host/models", 2, "argument --models: url: expected a URL of s3://, gs:// or az:"),
    ],
)
def test_store_that_cannot_be_used_is_named(
    bundles: list[Path], models: str, status: int, message: str
) -> None:
    done = run(bundles[0], "--models", models)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bundle_is_published_into_a_folder_as_well(bundles: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "there"
    done = run(bundles[0].parent, "--models", target, "--name", "copy")
    assert done.stdout == f"published {target}/copy/1 (32,043 bytes, 1 other files)\n"
    assert (target / "copy" / "1" / "report.html").read_bytes() == b"0"
    again = run(bundles[0].parent, "--models", target, "--name", "copy", "--version", "1")
    assert again.returncode == 1
    assert "exists; a published version is never overwritten" in again.stderr
    assert os.listdir(target / "copy") == ["1"]
