"""Labels on object storage: they move only as they were read, and servers' copies follow."""

import logging
from multiprocessing import get_context
from pathlib import Path

import pytest

from convserve_bundle.labels_file import VersionLabels
from convserve_server.process.label_copies import LabelCopies
from convserve_server.process.messages import InUse
from convserve_server.process.mirror import Mirror
from convserve_server.settings.settings import make_settings
from convserve_store.bundles import BundleStore
from convserve_store.errors import ChangedError, StoreError
from convserve_store.labels import LabelStore, Move, open_labels
from convserve_store.location import open_location
from tests.store.stand_in import StandIn

OPERATORS, MOVES = 3, 4


@pytest.fixture
def labels(store: BundleStore, url: str) -> LabelStore:
    """Of a store with mnist/1 to mnist/4."""
    for version in (1, 2, 3, 4):
        store.publish(b"model %d" % version, "mnist", version)
    return open_labels(url, "models")


def test_label_moves_forth_and_back_and_is_listed(labels: LabelStore) -> None:
    assert labels.move("mnist", "stable", 1) == Move(1, None)
    assert labels.move("mnist", "stable", 2) == Move(2, 1)
    assert labels.move("mnist", "stable", 1) == Move(1, 2)
    assert labels.read("mnist") == VersionLabels({"stable": 1}, {"stable": 2})
    assert (labels.names(), labels.versions()) == (["mnist"], {"mnist": [1, 2, 3, 4]})
    with pytest.raises(StoreError, match=r"^version: expected one of mnist in s3://.*, got 9$"):
        labels.move("mnist", "stable", 9)


def test_move_of_another_operator_meanwhile_is_kept_or_named(
    labels: LabelStore, stand_in: StandIn, url: str
) -> None:
    labels.move("mnist", "stable", 1)
    other = open_labels(url, "models")
    moves = [("canary", 3), ("stable", 4)]

    def meanwhile(request: str) -> None:
        if request.startswith("PUT") and request.endswith("labels.json") and moves:
            other.move("mnist", *moves.pop(0))

    # The condition comes with the request that waits: what the other writes is there before it.
    stand_in.holds = meanwhile
    with pytest.raises(ChangedError, match="expected version 1 as it was read, got version 4: so"):
        labels.move("mnist", "stable", 2)
    assert moves == []
    assert labels.read("mnist") == VersionLabels({"stable": 4, "canary": 3}, {"stable": 1})


def _operate(url: str, number: int) -> None:
    labels = open_labels(url, "models")
    for turn in range(MOVES):
        while True:
            try:
                labels.move("mnist", f"label{number}-{turn}", 1)
                break
            except ChangedError:  # Others were faster ten times in a row.
                continue


def test_no_move_of_several_operators_at_once_is_lost(labels: LabelStore, url: str) -> None:
    context = get_context("spawn")
    operators = [context.Process(target=_operate, args=(url, one)) for one in range(OPERATORS)]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()
    assert [operator.exitcode for operator in operators] == [0] * OPERATORS
    assert len(labels.read("mnist").labels) == OPERATORS * MOVES


def test_store_that_would_undo_what_others_do_is_refused(
    labels: LabelStore, stand_in: StandIn
) -> None:
    stand_in.ignores.add("HTTP_IF_MATCH")
    with pytest.raises(StoreError, match="only if it is what was read .If-Match., got one that ov"):
        labels.move("mnist", "stable", 1)
    assert labels.names() == []


# Copies


class Copies:
    """A mirror that follows labels, in a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        self.folder = folder
        settings = make_settings(models=url, models_cache=str(folder), rollout="label")
        self.mirror = Mirror(folder, settings, lambda: BundleStore(open_location(url, "models")))
        self.labels = LabelCopies(folder)

    def update(self, *served: str) -> list[str]:
        self.mirror.in_use = InUse(served)
        self.mirror.update()
        return sorted(
            path.relative_to(self.folder).as_posix() for path in self.folder.glob("mnist/*")
        )


@pytest.fixture
def copies(labels: LabelStore, tmp_path: Path, url: str) -> Copies:
    return Copies(tmp_path / "copies", url)


def test_versions_with_labels_and_those_before_are_copied(
    labels: LabelStore, copies: Copies, stand_in: StandIn
) -> None:
    labels.move("mnist", "stable", 1)
    assert copies.update() == ["mnist/1", "mnist/4", "mnist/labels.json"]
    labels.move("mnist", "stable", 2)
    assert copies.update() == ["mnist/1", "mnist/2", "mnist/4", "mnist/labels.json"]
    labels.move("mnist", "stable", 3)
    assert copies.update("mnist/1") == [
        *("mnist/1", "mnist/2", "mnist/3", "mnist/4", "mnist/labels.json"),
    ]
    assert copies.update() == ["mnist/2", "mnist/3", "mnist/4", "mnist/labels.json"]
    assert copies.labels.versions("mnist") == {2, 3}
    stand_in.requests.clear()
    copies.update()
    assert len(stand_in.requests) == 1


def test_damaged_file_of_labels_is_not_copied_and_named_once(
    labels: LabelStore, copies: Copies, store: BundleStore, caplog: pytest.LogCaptureFixture
) -> None:
    labels.move("mnist", "stable", 1)
    copies.update()
    file = store.where.child("mnist", "labels.json")
    file.filesystem.pipe_file(file.path, b"{")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert copies.update() == ["mnist/1", "mnist/4", "mnist/labels.json"]
    (message,) = caplog.messages
    assert message.startswith("mnist/labels.json is not copied, its labels stay as they were: ")
    assert copies.labels.versions("mnist") == {1}


def test_file_of_labels_that_is_gone_stays(
    labels: LabelStore, copies: Copies, store: BundleStore
) -> None:
    labels.move("mnist", "stable", 1)
    copies.update()
    file = store.where.child("mnist", "labels.json")
    file.filesystem.rm(file.path)
    assert copies.update() == ["mnist/1", "mnist/4", "mnist/labels.json"]
