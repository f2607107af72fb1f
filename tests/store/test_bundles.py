"""Bundles in a store: published whole by one publisher, read whole, or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from convserve_bundle.contract import DIGESTS_FILE, MODEL_FILE, SIGNATURE_FILE
from convserve_bundle.errors import BundleError, PublishError
from convserve_bundle.signing import Signer, Trust
from convserve_bundle.verification import hash_of, verify_folder
from convserve_store import bundles
from convserve_store.bundles import BundleStore
from tests.signing_keys import new_key
from tests.store.stand_in import StandIn

EXTRA = {"history.csv": b"epoch,loss\n", "net.keras": b"net"}
MOST = 2**30


def keys(store: BundleStore) -> set[str]:
    return {*store.look().objects} - {".convserve-probe"}


def attempt_of(store: BundleStore, name: str = "mnist", version: int = 1) -> str:
    return store.read(store.look().versions[name][version])[1].location


def fetched(store: BundleStore, folder: Path, version: int = 1) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    store.fetch(store.look().versions["mnist"][version], folder, MOST)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bundle_is_read_as_it_was_published(store: BundleStore, tmp_path: Path) -> None:
    numbered: dict[str, Callable[[int], bytes]] = {
        "report.html": lambda version: f"version {version}".encode()
    }
    where = store.publish(b"model", "mnist", None, None, EXTRA, numbered)
    assert where == "s3://convserve-test/models/mnist/1"
    files = fetched(store, tmp_path / "1")
    digests = json.loads(files.pop(DIGESTS_FILE))
    assert files == {**EXTRA, MODEL_FILE: b"model", "report.html": b"version 1"}
    assert digests["subject"][0]["name"] == "1"


def test_next_version_is_published_without_a_number(store: BundleStore) -> None:
    assert store.publish(b"1", "mnist").endswith("/mnist/1")
    assert store.publish(b"2", "mnist", 7).endswith("/mnist/7")
    assert store.publish(b"3", "mnist").endswith("/mnist/8")
    assert store.publish(b"4", "photos").endswith("/photos/1")
    found = store.look().versions
    assert {name: sorted(versions) for name, versions in found.items()} == {
        "mnist": [1, 7, 8],
        "photos": [1],
    }


def test_version_that_exists_is_not_overwritten(store: BundleStore, tmp_path: Path) -> None:
    store.publish(b"first", "mnist", 1)
    before = keys(store)
    problem = "s3://convserve-test/models/mnist/1 exists; a published version is never overwritten"
    with pytest.raises(PublishError, match=f"^{problem}$"):
        store.check_target("mnist", 1)
    with pytest.raises(PublishError, match=f"^{problem}$"):
        store.publish(b"second", "mnist", 1)
    assert keys(store) == before, "the loser has removed its files"
    assert fetched(store, tmp_path / "1")[MODEL_FILE] == b"first"


def test_publisher_that_was_killed_leaves_nothing_that_is_seen(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("convserve_store.objects.create", killed)
        patched.setattr("convserve_store.objects.probe", lambda _: None)
        with pytest.raises(Killed):
            store.publish(b"first", "mnist", 1)
    assert [key for key in keys(store) if key.endswith(MODEL_FILE)]
    assert store.look().versions == {}
    # Another one publishes the same version at once; much later, leftovers are removed.
    store.publish(b"second", "mnist", 1)
    assert len([key for key in keys(store) if key.endswith(MODEL_FILE)]) == 2
    monkeypatch.setattr(bundles, "OLD_S", -60.0)
    store.publish(b"third", "mnist", 2)
    assert len([key for key in keys(store) if key.endswith(MODEL_FILE)]) == 2
    assert fetched(store, tmp_path / "1")[MODEL_FILE] == b"second"
    assert fetched(store, tmp_path / "2", 2)[MODEL_FILE] == b"third"


def test_publisher_whose_last_answer_is_lost_has_published(
    store: BundleStore, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.loses = lambda request: request.startswith("PUT") and request.endswith(DIGESTS_FILE)
    store.publish(b"model", "mnist", 1)
    assert fetched(store, tmp_path / "1")[MODEL_FILE] == b"model"


def test_publisher_that_cannot_know_says_so_and_removes_nothing(
    store: BundleStore, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.loses = lambda request: request.startswith("PUT") and request.endswith(DIGESTS_FILE)
    stand_in.fails = lambda request: (
        request.startswith("GET") and request.endswith("mnist/1/digests.json")
    )
    with pytest.raises(PublishError, match="^it is not known whether s3://.*/mnist/1/digests.json"):
        store.publish(b"model", "mnist", 1)
    stand_in.behave()
    assert fetched(store, tmp_path / "1")[MODEL_FILE] == b"model"


def test_publisher_that_needs_too_long_does_not_publish(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "LONGEST_S", -1.0)
    with pytest.raises(PublishError, match="got a slower connection; nothing was published$"):
        store.publish(b"model", "mnist", 1)
    assert store.look().versions == {}


def test_store_that_overwrites_is_refused_before_anything_is_written(
    store: BundleStore, stand_in: StandIn
) -> None:
    stand_in.ignores.add("HTTP_IF_NONE_MATCH")
    with pytest.raises(PublishError, match=r"\(If-None-Match\), got one that overwrites"):
        store.check_target("mnist", 1)
    with pytest.raises(PublishError, match=r"\(If-None-Match\), got one that overwrites"):
        store.publish(b"model", "mnist", 1)
    assert keys(store) == set()


def test_file_that_was_changed_is_refused(store: BundleStore, tmp_path: Path) -> None:
    store.publish(b"model", "mnist", 1)
    file = store.where.child("mnist", "1", attempt_of(store), MODEL_FILE)
    file.filesystem.pipe_file(file.path, b"other")
    (tmp_path / "1").mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx was changed$"):
        store.fetch(store.look().versions["mnist"][1], tmp_path / "1", MOST)
    file.filesystem.rm(file.path)
    with pytest.raises(BundleError, match=r"^mnist/1: expected the file model\.onnx of its dig"):
        store.fetch(store.look().versions["mnist"][1], tmp_path / "1", MOST)


def test_version_that_is_too_large_is_refused_unread(
    store: BundleStore, stand_in: StandIn, tmp_path: Path
) -> None:
    store.publish(b"x" * 1000, "mnist", 1)
    stand_in.requests.clear()
    with pytest.raises(BundleError, match="^mnist/1: expected at most 999 bytes, got 1000$"):
        store.fetch(store.look().versions["mnist"][1], tmp_path, 999)
    assert not [one for one in stand_in.requests if one.endswith(MODEL_FILE)]


def test_model_that_was_copied_there_is_named(store: BundleStore) -> None:
    file = store.where.child("mnist", "3", MODEL_FILE)
    file.filesystem.pipe_file(file.path, b"model")
    listing = store.look()
    assert listing.versions == {}
    assert listing.problems == {
        "mnist/3": "expected a version that was published there, with digests.json, got model.onnx "
        "alone; use convserve-train publish"
    }


def test_digests_that_lead_elsewhere_are_refused(store: BundleStore, tmp_path: Path) -> None:
    store.publish(b"model", "mnist", 1)
    file = store.where.child("mnist", "1", DIGESTS_FILE)
    text = file.filesystem.cat_file(file.path).decode()
    file.filesystem.pipe_file(file.path, text.replace(attempt_of(store), "..").encode())
    with pytest.raises(BundleError, match="downloadLocation: expected the name of a folder"):
        store.fetch(store.look().versions["mnist"][1], tmp_path, MOST)


def test_signed_bundle_keeps_its_signature(store: BundleStore, tmp_path: Path) -> None:
    key = new_key(tmp_path / "publisher")
    store.publish(b"model", "mnist", 1, Signer(key.private), EXTRA)
    folder = tmp_path / "1"
    assert SIGNATURE_FILE in fetched(store, folder)
    covered = verify_folder(folder / MODEL_FILE, {}, hash_of, Trust(key.public).statement)
    assert covered == {DIGESTS_FILE: 3, SIGNATURE_FILE: 3}
