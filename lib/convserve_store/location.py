"""Whether a text is the URL of a store, and the store that it names.

    where = open_location("s3://bucket/models", "source")
    with where.errors():
        for path in where.filesystem.find(where.path): ...

Credentials and endpoint come from where users of each store have them: for s3:// the variables
AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL and so on, ~/.aws, or the role of the machine.
fsspec and its clients are imported here, and only when a store is opened.

Source: https://filesystem-spec.readthedocs.io and https://s3fs.readthedocs.io.
"""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from convserve_store.errors import AccessError, StoreError, StoreUrlError


@dataclass(frozen=True)
class _Kind:
    """A kind of store.

    Attributes:
        package: fsspec's client, which the extra brings that is named as the scheme; empty for
            those that come with fsspec.
        credentials: where they are looked for.
        options: of the client.
        first: what the URL names first.
    """

    package: str
    credentials: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    first: str = "bucket"


#: Of the client of S3. Its own defaults wait a minute for each of 25 attempts.
_S3_CLIENT = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
_KINDS = {
    "s3": _Kind(
        "s3fs",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role",
        {"config_kwargs": _S3_CLIENT},
    ),
    "gs": _Kind("gcsfs", "GOOGLE_APPLICATION_CREDENTIALS, or a service account"),
    "az": _Kind(
        "adlfs",
        "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with a key or an identity",
        {"anon": False},
        "container",
    ),
    # For tests, and for those who have mounted a store.
    "file": _Kind("", options={"auto_mkdir": True}, first="folder"),
    "memory": _Kind("", first="folder"),
}
#: Those that a message offers.
_OFFERED = "s3://, gs:// or az://"

#: Errors of the clients that are not OSError, by the module that has them: what is not imported
#: cannot be raised.
_FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)
#: Those that mean that there are no credentials.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_MOST_SHOWN = 300


@dataclass(frozen=True)
class Location:
    """A folder, or an object, in a store that is open.

    Attributes:
        url: without "/" at its end.
        filesystem: fsspec's; it keeps no listings, so each asks the store.
        path: as the filesystem names it, "bucket/models".
        field: what messages call it.
    """

    url: str
    filesystem: Any
    path: str
    field: str = "url"

    def __str__(self) -> str:
        return self.url

    def child(self, *names: str) -> "Location":
        """Returns what lies in it, by the names of folders and at last of the object."""
        rest = "".join(f"/{name}" for name in names)
        return replace(self, url=self.url + rest, path=self.path + rest)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raises StoreError for what a client raises within: of access, network, or the store.

        Raises:
            AccessError: No credentials, no bucket, or not allowed.
            StoreError: Anything else. Both say what to do; their cause is the client's error.
        """
        try:
            yield
        except _client_errors() as error:
            raise _translated(error, self.url, self.field) from error


def is_url(text: str) -> bool:
    """Returns whether a text is a URL, of whatever scheme, rather than the path of a folder."""
    return _URL.match(text) is not None


def check_url(url: str, field: str = "url") -> str:
    """Returns a URL in its only form; imports nothing and asks nobody.

    Args:
        url: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER.
        field: what messages call it.

    Raises:
        StoreUrlError: It is not one, or its client is not installed.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise StoreUrlError(f"{field}: expected a URL as s3://BUCKET/FOLDER, got {url!r}")
    scheme, rest = found[1].lower(), found[2].rstrip("/")
    kind = _KINDS.get(scheme)
    if kind is None:
        raise StoreUrlError(f"{field}: expected a URL of {_OFFERED}, got one of {scheme}://")
    local = not kind.package
    names = (rest.removeprefix("/") if local else rest).split("/")
    if "@" in names[0]:  # Without what may be a secret.
        raise StoreUrlError(
            f"{field}: expected a URL without credentials, got {scheme}://…@…; they are looked for "
            f"in {kind.credentials}"
        )
    if {"", ".", ".."} & {*names} or not rest.isprintable() or set(rest) & set("?#*[]\\"):
        raise StoreUrlError(
            f"{field}: expected a URL as {scheme}://{kind.first.upper()}/FOLDER, got {url!r}"
        )
    if kind.package and find_spec(kind.package) is None:
        raise StoreUrlError(
            f"{field}: expected {kind.package} to be installed for {scheme}://, got an "
            f"installation without it; run: pip install 'convserve[{scheme}]'"
        )
    if local and find_spec("fsspec") is None:
        raise StoreUrlError(
            f"{field}: expected fsspec to be installed for {scheme}://, got an installation "
            "without it; run: pip install 'convserve[s3]'"
        )
    return f"{scheme}://{rest}"


def open_location(url: str, field: str = "url") -> Location:
    """Returns the folder or object that a URL names. Nobody is asked yet whether it is there.

    Args:
        url: see check_url.
        field: what messages call it: the name of an option or setting.

    Raises:
        StoreUrlError: It is not a URL of a store, or its client is not installed.
        AccessError: The client refuses its settings.
        StoreError: It cannot be opened for another reason.
    """
    url = check_url(url, field)
    scheme, _, rest = url.partition("://")
    import fsspec

    try:
        filesystem = fsspec.filesystem(
            scheme,
            **_KINDS[scheme].options,
            # What others write is seen at once; an instance of its own for whoever opens one.
            **{"use_listings_cache": False, "skip_instance_cache": True},
        )
    except ValueError as error:
        raise AccessError(
            f"{field}: expected settings with which {url} can be opened "
            f"({_KINDS[scheme].credentials}), got: {' '.join(str(error).split())}"
        ) from error
    except _client_errors() as error:
        raise _translated(error, url, field) from error
    return Location(url, filesystem, rest, field)


def _client_errors() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [OSError]
    for module, name in _FOREIGN:
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _translated(error: Exception, url: str, field: str) -> StoreError:
    """Returns what was expected of a store and what it did, on one line."""
    kind = _KINDS[url.partition("://")[0]]
    text = " ".join(str(error).split())[:_MOST_SHOWN] or type(error).__name__
    if type(error).__name__ in _NO_CREDENTIALS:
        return AccessError(
            f"{field}: expected credentials for {url} ({kind.credentials}), got none"
        )
    if isinstance(error, FileNotFoundError):
        return AccessError(
            f"{field}: expected an existing {kind.first} and object at {url}, got none: {text}"
        )
    if isinstance(error, PermissionError):
        return AccessError(
            f"{field}: expected credentials that allow this at {url}, got a refusal: {text}"
        )
    return StoreError(
        f"{field}: expected a store that answers at {url}, got {type(error).__name__}: {text}"
    )
