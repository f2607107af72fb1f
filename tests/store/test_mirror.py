"""Copies of what a store has: those that are wanted, whole, and as long as they are wanted."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from convserve_bundle.contract import DIGESTS_FILE, MODEL_FILE
from convserve_server.process import mirror
from convserve_server.process.messages import InUse
from convserve_server.process.mirror import Mirror
from convserve_server.settings.kinds import Value
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings, make_settings
from convserve_store.bundles import BundleStore
from convserve_store.errors import AccessError, StoreError
from convserve_store.location import open_location
from tests.store.stand_in import StandIn

NOTHING = InUse()


class Copies:
    """A mirror of the store of a test, in a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self._url = folder, url
        folder.mkdir()
        self.opened = 0
        self.mirror = Mirror(folder, self.settings(), self._open)
        self.mirror.in_use = NOTHING

    def settings(
        self, by_model: Mapping[str, Mapping[str, Value]] | None = None, **values: Value
    ) -> Settings:
        values = {"models": self._url, "models_cache": str(self.folder), **values}
        return make_settings(by_model, **values)

    def update(self, in_use: InUse = NOTHING) -> list[str]:
        self.mirror.in_use = in_use
        self.mirror.update()
        return self.names()

    def names(self) -> list[str]:
        """What is there, unfinished folders too."""
        found = self.folder.glob("*/*")
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def content(self, version: str) -> bytes:
        return (self.folder / version / MODEL_FILE).read_bytes()

    def _open(self) -> BundleStore:
        self.opened += 1
        return BundleStore(open_location(self._url, "models"))


@pytest.fixture
def copies(store: BundleStore, tmp_path: Path, url: str) -> Copies:
    return Copies(tmp_path / "copies", url)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, mirror.__name__):
        yield caplog


def errors(log: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in log.records if one.levelno >= logging.ERROR]


def test_newest_version_of_each_model_is_copied_and_no_other(
    store: BundleStore, copies: Copies, stand_in: StandIn
) -> None:
    assert copies.update() == []
    for version in (1, 2, 3):
        store.publish(b"model %d" % version, "mnist", version)
    store.publish(b"photos", "photos")
    assert copies.update() == ["mnist/3", "photos/1"]
    assert copies.content("mnist/3") == b"model 3"
    assert sorted(path.name for path in (copies.folder / "mnist/3").iterdir()) == [
        DIGESTS_FILE,
        MODEL_FILE,
    ]
    assert not [one for one in stand_in.requests if one.startswith("GET") and "/mnist/1/" in one]


def test_store_in_which_nothing_is_new_costs_one_request(
    store: BundleStore, copies: Copies, stand_in: StandIn
) -> None:
    store.publish(b"model", "mnist")
    copies.update()
    stand_in.requests.clear()
    assert copies.update() == ["mnist/1"]
    assert len(stand_in.requests) == 1
    assert copies.opened == 1


def test_policies_say_what_is_copied(store: BundleStore, copies: Copies) -> None:
    for version in (1, 2, 3):
        store.publish(b"%d" % version, "mnist", version)
        store.publish(b"%d" % version, "photos", version)
        store.publish(b"%d" % version, "any", version)
    tables: dict[str, dict[str, Value]] = {
        "photos": {"versions": (1, 3)},
        "any": {"control": "explicit"},
    }
    copies.mirror.settings = copies.settings(tables, versions=2)
    assert copies.update() == [
        *("any/1", "any/2", "any/3", "mnist/2", "mnist/3", "photos/1", "photos/3"),
    ]
    copies.mirror.settings = copies.settings(None, versions=1)
    assert copies.update() == ["any/3", "mnist/3", "photos/3"]


def test_version_that_is_served_is_kept_while_the_store_has_it(
    store: BundleStore, copies: Copies
) -> None:
    store.publish(b"1", "mnist", 1)
    copies.update()
    store.publish(b"2", "mnist", 2)
    assert copies.update(InUse(served=("mnist/1",))) == ["mnist/1", "mnist/2"]
    assert copies.update(InUse(served=("mnist/2",))) == ["mnist/2"]
    folder = store.where.child("mnist", "2")
    folder.filesystem.rm(folder.path, recursive=True)
    assert copies.update(InUse(served=("mnist/2",))) == ["mnist/1"]


def test_nothing_is_removed_before_it_is_known_what_is_served(
    store: BundleStore, copies: Copies
) -> None:
    store.publish(b"1", "mnist", 1)
    copies.update()
    store.publish(b"2", "mnist", 2)
    copies.mirror.in_use = None
    copies.mirror.update()
    assert copies.names() == ["mnist/1", "mnist/2"]


def test_older_version_is_copied_for_one_that_is_refused(
    store: BundleStore, copies: Copies
) -> None:
    store.publish(b"1", "mnist", 1)
    store.publish(b"2", "mnist", 2)
    assert copies.update() == ["mnist/2"]
    refused = InUse(refused=("mnist/2",))
    # The refused one stays: it is known by its file.
    assert copies.update(refused) == ["mnist/1", "mnist/2"]


def test_version_with_wrong_digests_is_named_once_and_harms_no_other(
    store: BundleStore, copies: Copies, log: pytest.LogCaptureFixture
) -> None:
    store.publish(b"1", "mnist", 1)
    store.publish(b"2", "mnist", 2)
    store.publish(b"photos", "photos")
    location = store.read(store.look().versions["mnist"][2])[1].location
    file = store.where.child("mnist", "2", location, MODEL_FILE)
    file.filesystem.pipe_file(file.path, b"other")
    assert copies.update() == ["mnist/1", "photos/1"]
    assert copies.update() == ["mnist/1", "photos/1"]
    assert errors(log) == [
        "mnist/2 is not copied: digests.json: expected the files that it covers, as they were: "
        "model.onnx was changed"
    ]


def test_version_that_may_not_be_read_is_named_once_and_harms_no_other(
    store: BundleStore, copies: Copies, stand_in: StandIn, log: pytest.LogCaptureFixture
) -> None:
    store.publish(b"1", "mnist", 1)
    store.publish(b"2", "mnist", 2)
    store.publish(b"photos", "photos")
    stand_in.denies = lambda request: "/mnist/2/" in request
    assert copies.update() == ["mnist/1", "photos/1"]
    assert copies.update() == ["mnist/1", "photos/1"]
    assert len(errors(log)) == 1
    assert errors(log)[0].startswith("mnist/2 is not copied: models: expected credentials that al")
    stand_in.behave()
    assert copies.update() == ["mnist/2", "photos/1"]


def test_store_of_which_nothing_may_be_read_is_an_error(
    store: BundleStore, copies: Copies, stand_in: StandIn
) -> None:
    store.publish(b"1", "mnist", 1)
    stand_in.denies = lambda request: request.endswith(DIGESTS_FILE)
    with pytest.raises(AccessError, match="^models: expected credentials that allow this at s3://"):
        copies.update()


def test_version_whose_files_exclude_each_other_harms_no_other(
    store: BundleStore, copies: Copies, log: pytest.LogCaptureFixture
) -> None:
    store.publish(b"1", "mnist", 1, extra_files={"a": b"file", "a/b": b"in a folder of its name"})
    store.publish(b"photos", "photos")
    assert copies.update() == ["photos/1"]
    assert copies.update() == ["photos/1"]
    assert len(errors(log)) == 1
    assert errors(log)[0].startswith("mnist/1 is not copied: models_cache: ")


def test_download_that_breaks_is_never_seen(
    store: BundleStore, copies: Copies, stand_in: StandIn
) -> None:
    store.publish(b"1", "mnist", 1)
    copies.update()
    store.publish(b"2", "mnist", 2, extra_files={"weights.bin": b"w"})
    stand_in.fails = lambda request: request.endswith("weights.bin")
    with pytest.raises(StoreError):
        copies.update()
    assert copies.names() == ["mnist/1"]
    stand_in.behave()
    assert copies.update() == ["mnist/2"]
    assert copies.opened == 2, "after a failure the client is made anew"


def test_store_that_is_away_changes_nothing(
    store: BundleStore, copies: Copies, stand_in: StandIn
) -> None:
    store.publish(b"1", "mnist", 1)
    copies.update()
    with stand_in.away(), pytest.raises(StoreError, match="^models: expected a store that answers"):
        copies.update()
    assert copies.names() == ["mnist/1"]
    assert copies.update() == ["mnist/1"]


def test_copies_are_bounded_and_what_does_not_fit_is_named_once(
    store: BundleStore, copies: Copies, log: pytest.LogCaptureFixture
) -> None:
    half = 600 * 1024
    store.publish(b"1" * half, "mnist", 1)
    store.publish(b"p" * half, "photos")
    copies.mirror.settings = copies.settings(max_cache_mib=1)
    assert copies.update() == ["mnist/1"]
    assert copies.update() == ["mnist/1"]
    assert len(errors(log)) == 1
    assert errors(log)[0].startswith("photos/1 is not copied: max_cache_mib is 1: photos/1: expec")
    copies.mirror.settings = copies.settings(max_cache_mib=2)
    assert copies.update() == ["mnist/1", "photos/1"]


def test_version_that_was_published_anew_under_its_number_is_copied_anew(
    store: BundleStore, copies: Copies
) -> None:
    store.publish(b"before", "mnist", 1)
    copies.update()
    folder = store.where.child("mnist", "1")
    folder.filesystem.rm(folder.path, recursive=True)
    store.publish(b"after", "mnist", 1)
    assert copies.update(InUse(served=("mnist/1",))) == ["mnist/1"]
    assert copies.content("mnist/1") == b"after"


def test_copies_of_an_earlier_start_are_used_if_they_still_are_what_the_store_has(
    store: BundleStore, copies: Copies, stand_in: StandIn, url: str
) -> None:
    store.publish(b"1", "mnist", 1)
    store.publish(b"p", "photos", 1)
    copies.update()
    digests = copies.folder / "photos/1" / DIGESTS_FILE
    digests.write_bytes(digests.read_bytes() + b"\n")
    stand_in.requests.clear()
    again = Mirror(copies.folder, copies.settings(), copies._open)
    again.in_use = NOTHING
    again.update()
    models = [one for one in stand_in.requests if one.endswith(MODEL_FILE)]
    assert len(models) == 1
    assert "/photos/" in models[0]


def test_model_that_was_copied_there_is_named_once(
    store: BundleStore, copies: Copies, log: pytest.LogCaptureFixture
) -> None:
    file = store.where.child("mnist", "3", MODEL_FILE)
    file.filesystem.pipe_file(file.path, b"model")
    assert copies.update() == []
    assert copies.update() == []
    assert len(errors(log)) == 1
    assert errors(log)[0].startswith("mnist/3: expected a version that was published there")


def test_folder_is_of_one_server_at_a_time(tmp_path: Path) -> None:
    with (
        mirror.held(tmp_path / "a", "s3://b/x"),
        pytest.raises(SettingError, match="^models_cache: expected a folder of this server alone"),
        mirror.held(tmp_path / "a", "s3://b/x"),
    ):
        pass


def test_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mnist" / "1").mkdir(parents=True)
    with (
        pytest.raises(SettingError, match="^models_cache: expected an empty folder, or one of an"),
        mirror.held(tmp_path, "s3://b/x"),
    ):
        pass
    assert (tmp_path / "mnist" / "1").is_dir()


def test_folder_of_another_store_is_left_alone(tmp_path: Path) -> None:
    with mirror.held(tmp_path, "s3://b/x") as complete:
        assert not complete
    with (
        pytest.raises(SettingError, match="expected a folder of copies of s3://b/y, got .* s3://b"),
        mirror.held(tmp_path, "s3://b/y"),
    ):
        pass


def test_folder_is_complete_once_that_is_noted_and_unfinished_copies_are_removed(
    tmp_path: Path,
) -> None:
    with mirror.held(tmp_path, "s3://b/x"):
        (tmp_path / "mnist" / ".1-abcd.tmp").mkdir(parents=True)
        mirror.note_complete(tmp_path, "s3://b/x")
    with mirror.held(tmp_path, "s3://b/x") as complete:
        assert complete
    assert list((tmp_path / "mnist").iterdir()) == []


def test_damaged_note_is_refused(tmp_path: Path) -> None:
    (tmp_path / mirror.STATE).write_text("{")
    with (
        pytest.raises(SettingError, match="^models_cache: expected .convserve-mirror.json as a"),
        mirror.held(tmp_path, "s3://b/x"),
    ):
        pass
