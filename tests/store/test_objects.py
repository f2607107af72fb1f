"""Single objects: created once, replaced only as they were read."""

import pytest

from convserve_store import objects
from convserve_store.errors import ChangedError, StoreError
from convserve_store.location import Location, open_location
from tests.store.stand_in import StandIn


@pytest.fixture
def where(stand_in: StandIn, url: str) -> Location:
    return open_location(url, "models")


def test_object_is_created_once(where: Location) -> None:
    one = where.child("one")
    assert objects.create(one, b"first")
    assert not objects.create(one, b"second")
    found = objects.read(one)
    assert found is not None
    assert found.content == b"first"


def test_object_that_is_not_there_is_none(where: Location) -> None:
    assert objects.read(where.child("none")) is None


def test_creation_whose_answer_is_lost_is_ours(where: Location, stand_in: StandIn) -> None:
    stand_in.loses = lambda request: request.startswith("PUT") and request.endswith("/lost")
    assert objects.create(where.child("lost"), b"ours")
    assert sum(one.startswith("PUT") for one in stand_in.requests) == 2
    assert not objects.create(where.child("lost"), b"another's")


def test_object_is_replaced_only_as_it_was_read(where: Location) -> None:
    one = where.child("one")
    objects.replace(one, b"1", None)
    first = objects.read(one)
    assert first is not None
    objects.replace(one, b"2", first.tag)
    with pytest.raises(ChangedError, match="^s3://convserve-test/models/one: expected it as it"):
        objects.replace(one, b"3", first.tag)
    with pytest.raises(ChangedError):
        objects.replace(one, b"3", None)
    second = objects.read(one)
    assert second is not None
    assert second.content == b"2"
    one.filesystem.rm(one.path)
    with pytest.raises(ChangedError):
        objects.replace(one, b"3", second.tag)


def test_replacement_whose_answer_is_lost_is_ours(where: Location, stand_in: StandIn) -> None:
    one = where.child("one")
    objects.create(one, b"1")
    first = objects.read(one)
    assert first is not None
    stand_in.loses = lambda request: request.startswith("PUT")
    objects.replace(one, b"2", first.tag)
    second = objects.read(one)
    assert second is not None
    assert second.content == b"2"


def test_probe_costs_one_request_once_its_object_is_there(
    where: Location, stand_in: StandIn
) -> None:
    objects.probe(where)
    stand_in.requests.clear()
    objects.probe(where)
    assert [one.split()[0] for one in stand_in.requests].count("PUT") == 1
    objects.probe_replace(where)


@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_store_that_overwrites_is_refused(where: Location, stand_in: StandIn, before: bool) -> None:
    if before:
        objects.probe(where)
    stand_in.ignores.add("HTTP_IF_NONE_MATCH")
    with pytest.raises(StoreError) as caught:
        objects.probe(where)
    assert str(caught.value).startswith(
        "models: expected a store that creates an object only if there is none (If-None-Match), "
        "got one that overwrites: s3://convserve-test/models"
    )


def test_store_that_replaces_whatever_is_there_is_refused(
    where: Location, stand_in: StandIn
) -> None:
    stand_in.ignores.add("HTTP_IF_MATCH")
    objects.probe(where)
    with pytest.raises(StoreError, match=r"only if it is what was read \(If-Match\), got one that"):
        objects.probe_replace(where)


def test_object_of_another_scheme_is_created_once_and_not_replaced() -> None:
    one = open_location("memory://a/one", "labels")
    assert objects.create(one, b"1")
    assert not objects.create(one, b"2")
    found = objects.read(one)
    assert found is not None
    with pytest.raises(StoreError, match="^labels: expected s3://, whose objects are replaced by"):
        objects.replace(one, b"2", found.tag)
