"""The keys of callers: who they are, what they may do, and how often; read of a TOML file.

A key is 128 random bits or more. The file has only its SHA-256: to guess it from that is not
possible, so a slow hash, as of passwords, would cost every call for nothing.

Source: RFC 6750 (bearer tokens).
"""

import datetime
import fnmatch
import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_MOST_RATE, _MOST_COUNT = 1e9, 2**53
#: Calls at once that a rate allows, as a share of those in a second.
_BURST_S = 0.1
_ALL = ("*",)


class Permission(StrEnum):
    """What a caller may do.

    Attributes:
        ASK: Run models.
        LIST: See which models there are, and their metadata and statistics.
        HEALTH: Ask whether the server, or a model, is ready.
        REFLECTION: Have services and messages described.
        ADMIN: Load, unload and label models.
    """

    ASK = "ask"
    LIST = "list"
    HEALTH = "health"
    REFLECTION = "reflection"
    ADMIN = "admin"


DEFAULT_PERMISSIONS = frozenset({Permission.ASK, Permission.LIST, Permission.HEALTH})


@dataclass(frozen=True, kw_only=True)
class Key:
    """What holds for one kind of caller.

    Attributes:
        name: In the log, and by which its limits are counted.
        digest: SHA-256 of the bearer token; empty of a certificate.
        certificate: Whom the client's certificate names; empty of a token.
        permissions: What it may do.
        models: Names, or patterns with *, ? and [...], of the models that it may ask and see.
        rate: Calls in a second; None: any number.
        burst: Calls at once that the rate allows after a pause.
        images_rate: Images in a second; None: any number.
        quota_per_day: Calls on one day of UTC; None: any number.
        expires: Seconds since 1970 from which on it does not hold; None: never.
    """

    name: str
    digest: bytes = b""
    certificate: str = ""
    permissions: frozenset[Permission] = DEFAULT_PERMISSIONS
    models: tuple[str, ...] = _ALL
    rate: float | None = None
    burst: int = 1
    images_rate: float | None = None
    quota_per_day: int | None = None
    expires: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether its calls are counted."""
        return not (self.rate is self.images_rate is self.quota_per_day is None)

    @property
    def sees_all(self) -> bool:
        """Whether it may ask and see every model."""
        return "*" in self.models

    def sees(self, model: str) -> bool:
        """Returns whether it may ask and see a model, whether or not that exists."""
        return self._pattern.fullmatch(model) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Without any it matches nothing, not even an empty name.
        return re.compile("|".join(map(fnmatch.translate, self.models)) or r"(?!)")


#: Of callers without a key, where the file does not say.
NOBODY = Key(name="anonymous", permissions=frozenset(), models=())


@dataclass(frozen=True)
class KeyTable:
    """All keys of a file.

    Attributes:
        keys: In their order.
        anonymous: What callers without a key may do.
    """

    keys: tuple[Key, ...]
    anonymous: Key = NOBODY

    @cached_property
    def by_digest(self) -> Mapping[bytes, Key]:
        """The keys that are tokens, by their digests."""
        return {key.digest: key for key in self.keys if key.digest}

    @cached_property
    def by_certificate(self) -> Mapping[str, Key]:
        """The keys that are certificates, by whom they name."""
        return {key.certificate: key for key in self.keys if key.certificate}


def found(by_digest: Mapping[bytes, Any], token: str) -> Any:
    """Returns what belongs to a token, None if nothing does.

    How long a look-up takes may depend on the digest, of which nobody can choose the bytes; the
    comparison that decides does not. Both depend on nothing else of the token but its length.

    Args:
        by_digest: with values that have an attribute digest.
        token: that came.
    """
    try:
        digest = hashlib.sha256(token.encode()).digest()
    except UnicodeEncodeError:
        return None  # A transport has made it of bytes that are not UTF-8.
    one = by_digest.get(digest)
    return one if one is not None and hmac.compare_digest(one.digest, digest) else None


def read_keys(text: str) -> KeyTable:
    """Returns the keys of a file.

    Raises:
        ValueError: Names the field, what was expected and what it is; never shows a digest.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"keys: expected TOML, got others: {error}") from None
    for name in tables:
        if name not in ("key", "anonymous"):
            raise ValueError(f"keys: expected [[key]] and [anonymous], got {name!r}")
    given = tables.get("key", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError("keys: expected tables [[key]], got key as another value")
    if not tables:
        raise ValueError("keys: expected [[key]] or [anonymous], got neither")
    keys = tuple(_Table(f"key[{index}]", each).key() for index, each in enumerate(given))
    for field in ("name", "digest", "certificate"):
        _check_unlike(keys, field)
    anonymous = tables.get("anonymous")
    if anonymous is None:
        return KeyTable(keys)
    if not isinstance(anonymous, dict):
        raise ValueError("keys: expected a table [anonymous], got another value")
    return KeyTable(keys, _Table("anonymous", anonymous).anonymous())


def _check_unlike(keys: Sequence[Key], field: str) -> None:
    seen: dict[object, int] = {}
    for index, key in enumerate(keys):
        value = getattr(key, field)
        if value and value in seen:
            shown = "sha256" if field == "digest" else field
            raise ValueError(
                f"keys: key[{index}].{shown}: expected one of its own, got that of "
                f"key[{seen[value]}]"
            )
        seen[value] = index


class _Table:
    """One table of the file.

    Args:
        where: it is.
        values: as TOML has them.
    """

    _WHO = ("name", "sha256", "certificate", "expires")
    _MAY = ("permissions", "models", "rate", "burst", "images_rate", "quota_per_day")

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self._where = where
        self._values = values

    def key(self) -> Key:
        self._check_fields(self._WHO + self._MAY)
        name = self._text("name", _NAME, "1 to 64 letters, digits, dots, dashes and underscores")
        if name == NOBODY.name:
            raise self._wrong("name", "another name than that of callers without a key", name)
        if ("sha256" in self._values) == ("certificate" in self._values):
            got = "both" if "sha256" in self._values else "neither"
            raise ValueError(f"keys: {self._where}: expected sha256 or certificate, got {got}")
        digest, certificate = b"", ""
        if "sha256" in self._values:
            digest = self._digest()
        else:
            certificate = self._text("certificate", re.compile(".+"), "a name in certificates")
        return Key(
            name=name,
            digest=digest,
            certificate=certificate,
            expires=self._time("expires"),
            **self._may(DEFAULT_PERMISSIONS, _ALL),
        )

    def anonymous(self) -> Key:
        self._check_fields(self._MAY)
        return Key(name=NOBODY.name, **self._may(NOBODY.permissions, NOBODY.models))

    def _may(self, permissions: frozenset[Permission], models: tuple[str, ...]) -> dict[str, Any]:
        rate = self._number("rate")
        burst = max(1, int(rate * _BURST_S)) if rate else 1
        if "burst" in self._values:
            if rate is None:
                raise ValueError(f"keys: {self._where}.burst: expected a rate beside it, got none")
            burst = self._count("burst") or 1
        return {
            "permissions": self._permissions(permissions),
            "models": self._models(models),
            "rate": rate,
            "burst": burst,
            "images_rate": self._number("images_rate"),
            "quota_per_day": self._count("quota_per_day"),
        }

    def _check_fields(self, known: Sequence[str]) -> None:
        for field in self._values:
            if field not in known:
                raise ValueError(
                    f"keys: {self._where}: expected fields of {', '.join(known)}, got {field!r}"
                )

    def _text(self, field: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self._values.get(field)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._wrong(field, expected, value)
        return value

    def _digest(self) -> bytes:
        value = self._values["sha256"]
        if not isinstance(value, str) or not _DIGEST.fullmatch(value):
            # Not shown: somebody may have put the key itself there.
            got = f"{len(value)} characters" if isinstance(value, str) else "another value"
            raise ValueError(
                f"keys: {self._where}.sha256: expected the SHA-256 of a key, 64 hexadecimal "
                f"digits, got {got}"
            )
        return bytes.fromhex(value)

    def _permissions(self, default: frozenset[Permission]) -> frozenset[Permission]:
        expected = f"a list of {', '.join(Permission)}"
        given = self._list("permissions", expected)
        if given is None:
            return default
        for each in given:
            if each not in tuple(Permission):
                raise self._wrong("permissions", expected, each)
        return frozenset(map(Permission, given))

    def _models(self, default: tuple[str, ...]) -> tuple[str, ...]:
        given = self._list("models", "a list of names or patterns of models")
        return default if given is None else tuple(given)

    def _list(self, field: str, expected: str) -> list[str] | None:
        value = self._values.get(field)
        if value is not None and not isinstance(value, list):
            raise self._wrong(field, expected, value)
        for each in value or ():
            if not isinstance(each, str) or not each:
                raise self._wrong(field, expected, each)
        return value

    def _number(self, field: str) -> float | None:
        value = self._values.get(field)
        if value is None:
            return None
        # Written so that nan is wrong, too.
        right = type(value) in (int, float) and 0 < value <= _MOST_RATE
        if not right:
            raise self._wrong(field, f"a number above 0, up to {_MOST_RATE:.0f}", value)
        return float(value)

    def _count(self, field: str) -> int | None:
        value = self._values.get(field)
        if value is None:
            return None
        if type(value) is not int or not 1 <= value <= _MOST_COUNT:
            raise self._wrong(field, f"a whole number from 1 to {_MOST_COUNT}", value)
        return value

    def _time(self, field: str) -> float | None:
        value = self._values.get(field)
        if value is None:
            return None
        if type(value) is datetime.date:
            value = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
        if not isinstance(value, datetime.datetime) or value.tzinfo is None:
            raise self._wrong(
                field, "a day, or a time with its offset as 2027-01-31T00:00:00Z", value
            )
        return value.timestamp()

    def _wrong(self, field: str, expected: str, got: object) -> ValueError:
        shown = "none" if got is None else repr(got) if isinstance(got, str | int | float) else got
        return ValueError(f"keys: {self._where}.{field}: expected {expected}, got {shown}")
