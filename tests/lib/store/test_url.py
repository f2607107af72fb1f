"""URLs of stores, without fsspec: what is asked for by a user who has not installed it."""

import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from convserve_store import location
from convserve_store.errors import StoreUrlError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "find_spec", lambda name: ModuleSpec(name, None))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/models", True),
        ("hf://name", True),
        ("models", False),
        ("/srv/models", False),
        ("./s3:/models", False),
        ("c:/models", False),
    ],
)
def test_url_is_distinguished_from_a_folder(text: str, url: bool) -> None:
    assert location.is_url(text) is url


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "only"),
    [
        ("s3://bucket/models/", "s3://bucket/models"),
        ("S3://bucket", "s3://bucket"),
        ("gs://bucket/a/b", "gs://bucket/a/b"),
        ("az://container/a", "az://container/a"),
        ("file:///tmp/a", "file:///tmp/a"),
    ],
)
def test_url_has_one_form(given: str, only: str) -> None:
    assert location.check_url(given) == only


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///a", "s3://a//b", "s3://a/../b", "s3://a/b?c", "s3://a/*", "s3://a/b\n", "a"],
)
def test_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlError, match=r"^models: expected a URL as s3://BUCKET/FOLDER, got"):
        location.check_url(url, "models")


@pytest.mark.parametrize("scheme", ["http", "hf", "oci", "ftp"])
def test_other_scheme_is_refused(scheme: str) -> None:
    with pytest.raises(StoreUrlError) as caught:
        location.check_url(f"{scheme}://bucket/x", "models")
    assert str(caught.value) == (
        f"models: expected a URL of s3://, gs:// or az://, got one of {scheme}://"
    )


@pytest.mark.usefixtures("installed")
def test_secret_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(StoreUrlError, match="without credentials") as caught:
        location.check_url("s3://KEY:hunter2@bucket/x", "models")
    assert "hunter2" not in str(caught.value)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs"), ("memory", "fsspec")]
)
def test_missing_client_is_named_with_its_extra(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> ModuleSpec | None:
        return None if name == package else importlib.util.find_spec(name)

    monkeypatch.setattr(location, "find_spec", without)
    with pytest.raises(StoreUrlError) as caught:
        location.open_location(f"{scheme}://bucket/x", "models")
    extra = "s3" if scheme == "memory" else scheme
    assert str(caught.value) == (
        f"models: expected {package} to be installed for {scheme}://, got an installation without "
        f"it; run: pip install 'convserve[{extra}]'"
    )
