"""The file of the labels of a model's versions."""

import json

import pytest

from convserve_bundle.errors import BundleError
from convserve_bundle.labels_file import (
    MOST_BYTES,
    MOST_LABELS,
    VersionLabels,
    read_labels,
    write_labels,
)

LABELS = VersionLabels({"stable": 4, "canary": 5}, {"stable": 3})


def test_what_is_written_is_read() -> None:
    content = write_labels(LABELS)
    assert json.loads(content) == {
        "format": 1,
        "labels": {"canary": 5, "stable": 4},
        "previous": {"stable": 3},
    }
    assert read_labels(content) == LABELS
    assert LABELS.versions == {3, 4, 5}


def test_label_that_moves_keeps_the_version_before() -> None:
    moved = LABELS.moved("stable", 6)
    assert moved == VersionLabels({"stable": 6, "canary": 5}, {"stable": 4})
    assert moved.moved("stable", 4) == VersionLabels({"stable": 4, "canary": 5}, {"stable": 6})


def test_label_that_moves_to_its_own_version_keeps_the_one_before_that() -> None:
    assert LABELS.moved("stable", 4) == LABELS


def test_label_that_is_new_has_no_version_before() -> None:
    assert VersionLabels().moved("stable", 1) == VersionLabels({"stable": 1}, {})


def test_label_that_is_removed_leaves_nothing() -> None:
    assert LABELS.moved("stable", None) == VersionLabels({"canary": 5}, {})
    assert LABELS.moved("other", None) == LABELS


def test_version_before_of_a_label_that_is_not_there_does_not_count() -> None:
    content = b'{"format": 1, "labels": {"stable": 4}, "previous": {"old": 1}}'
    assert read_labels(content) == VersionLabels({"stable": 4}, {})


def test_too_many_labels_are_refused() -> None:
    many = VersionLabels({f"label{number}": 1 for number in range(MOST_LABELS)})
    assert len(read_labels(write_labels(many)).labels) == MOST_LABELS
    with pytest.raises(BundleError, match="labels: expected at most 100, got 101"):
        many.moved("stable", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "labels.json: expected JSON, got Expecting value"),
        (b"\xff", "labels.json: expected JSON, got "),
        (b"[" * 10_000, "labels.json: expected JSON, got "),
        (b"[]", r"labels.json: expected an object of format, labels, previous, got \[\]"),
        (b'{"lables": {}}', r"expected an object of format, labels, previous, got \{'lables'"),
        (b'{"labels": {}}', "labels.json: format: expected 1, got None"),
        (b'{"format": 2, "labels": {}}', "labels.json: format: expected 1, got 2"),
        (b'{"format": true, "labels": {}}', "labels.json: format: expected 1, got True"),
        (b'{"format": 1}', "labels: expected an object of labels, each with its version, got None"),
        (b'{"format": 1, "labels": {"a b": 1}}', "labels: expected as a label 1 to 64 .*, got 'a"),
        (b'{"format": 1, "labels": {"a": 0}}', "labels.a: expected as a version 1, .*, got 0"),
        (b'{"format": 1, "labels": {"a": true}}', "labels.a: expected as a version .*, got True"),
        (b'{"format": 1, "labels": {"a": 1.0}}', "labels.a: expected as a version .*, got 1.0"),
        (b'{"format": 1, "labels": {}, "previous": 3}', "previous: expected an object of labels"),
        (b" " * (MOST_BYTES + 1), "labels.json: expected at most 65536 bytes, got 65537"),
    ],
)
def test_what_is_no_file_of_labels_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_labels(content)
