"""Files of labels in the models folder, as a scan of it sees them."""

import os
from pathlib import Path

import pytest

from convserve_bundle.labels_file import VersionLabels, write_labels
from convserve_server.process.scan import Interest, Scan, Scanner
from tests.bundles import write_bundle


class Folder:
    """A models folder with mnist/1, and the scans of it."""

    def __init__(self, path: Path) -> None:
        write_bundle(path)
        self.file = path / "mnist/labels.json"
        self._seen: list[Scan | None] = []
        self._scanner = Scanner(path, Interest, self._seen.append)

    def labels(self) -> dict[str, VersionLabels]:
        """What a scan finds now."""
        self._scanner.scan()
        scan = self._seen[-1]
        assert scan is not None
        assert list(scan.files) == ["mnist"]
        return dict(scan.labels)


STABLE = VersionLabels({"stable": 1})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "models")


def test_file_is_read_when_it_comes_and_when_it_changes(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    assert folder.labels() == {}
    folder.file.write_bytes(write_labels(STABLE))
    assert folder.labels() == {"mnist": STABLE}
    # In place, of the same size.
    moved = STABLE.moved("stable", 2)
    folder.file.write_bytes(write_labels(moved))
    assert folder.labels() == {"mnist": moved}
    assert caplog.messages == []


def test_damaged_file_changes_nothing_and_is_named_once(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.file.write_bytes(write_labels(STABLE))
    folder.labels()
    folder.file.write_text("{")
    for _ in range(2):
        assert folder.labels() == {"mnist": STABLE}
    (message,) = caplog.messages
    assert message.startswith(
        "the file of labels of mnist cannot be used, its labels stay as they were: labels.json: "
        "expected JSON, got "
    )
    folder.file.write_bytes(write_labels(VersionLabels()))
    assert folder.labels() == {"mnist": VersionLabels()}


def test_file_that_is_gone_changes_nothing_and_is_named_once(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.file.write_bytes(write_labels(STABLE))
    folder.labels()
    folder.file.unlink()
    for _ in range(2):
        assert folder.labels() == {"mnist": STABLE}
    assert caplog.messages == ["the file of labels of mnist is gone: its labels stay as they were"]
    folder.file.write_bytes(write_labels(STABLE.moved("stable", 2)))
    assert folder.labels()["mnist"].labels == {"stable": 2}


def test_what_is_no_file_is_not_opened(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(folder.file)
    assert folder.labels() == {}
    assert caplog.messages == [
        "the file of labels of mnist cannot be used, its labels stay as they were: expected a "
        "file, got another kind of entry"
    ]
