"""Which versions of a model an operator wants."""

import pytest

from convserve_server.core.policies import ModelPolicy, VersionPolicy


@pytest.mark.parametrize(
    ("versions", "usable", "expected"),
    [
        (1, [1, 3, 2], (3,)),
        (2, [1, 3, 2], (3, 2)),
        (2, [7], (7,)),
        (2, [], ()),
        ("all", [1, 3, 2], (3, 2, 1)),
        ("all", [], ()),
        ((3, 5), [1, 3, 5, 7], (5, 3)),
        ((3, 5), [1, 3], (3,)),
        ((3, 5), [1, 2], ()),
        # By number, not as text.
        (1, [9, 10], (10,)),
        # Each once, whoever lists it twice.
        (2, [4, 4, 3], (4, 3)),
        ((3, 3), [3], (3,)),
    ],
)
def test_versions_to_serve_are_the_newest_all_or_those_listed(
    versions: VersionPolicy, usable: list[int], expected: tuple[int, ...]
) -> None:
    assert ModelPolicy(versions=versions).select(usable) == expected


@pytest.mark.parametrize(
    ("versions", "labelled", "expected"),
    [(1, {1, 2}, (4, 2, 1)), (2, {4}, (4, 3)), ((3,), {1, 9}, (3, 1)), ("all", {1}, (4, 3, 2, 1))],
)
def test_versions_with_labels_are_served_beside(
    versions: VersionPolicy, labelled: set[int], expected: tuple[int, ...]
) -> None:
    policy = ModelPolicy(versions=versions, rollout="label")
    assert policy.select([1, 2, 3, 4], labelled) == expected
    assert (policy.default_label, ModelPolicy().default_label) == ("stable", "")


def test_without_a_word_the_newest_is_served_as_the_folder_changes_and_kept() -> None:
    policy = ModelPolicy()
    assert policy.select({1, 2, 3}) == (3,)
    assert (policy.labels, policy.control, policy.unload_after_s) == ({}, "poll", 0.0)
