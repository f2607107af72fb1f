"""What a user reads when a store cannot be used."""

import socket

import pytest

from convserve_store.errors import StoreError
from convserve_store.location import open_location
from tests.store.stand_in import StandIn


def failure(url: str) -> str:
    where = open_location(url, "models")
    with pytest.raises(StoreError) as caught, where.errors():
        where.filesystem.find(where.path)
    return str(caught.value)


@pytest.mark.usefixtures("stand_in")
def test_bucket_that_is_not_there() -> None:
    assert failure("s3://other/models") == (
        "models: expected an existing bucket and object at s3://other/models, got none: The "
        "specified bucket does not exist"
    )


@pytest.mark.usefixtures("stand_in")
def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert failure("s3://other/models") == (
        "models: expected credentials for s3://other/models (AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role), got none"
    )


def test_credentials_that_do_not_allow_it(stand_in: StandIn) -> None:
    stand_in.denies = lambda request: True
    assert failure("s3://convserve-test/models") == (
        "models: expected credentials that allow this at s3://convserve-test/models, got a "
        "refusal: Access Denied"
    )


@pytest.mark.usefixtures("stand_in")
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        message = failure("s3://other/models")
    assert message.startswith(
        "models: expected a store that answers at s3://other/models, got EndpointConnectionError: "
    )
    assert endpoint in message
