"""What one caller may do, as its key says; found once for each call, and asked by its handler."""

import math
import time
from collections.abc import Mapping

from convserve_server.core.errors import (
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServeError,
    Unauthenticated,
    quoted,
)
from convserve_server.security.keys import NOBODY, Key, KeyTable, Permission, found
from convserve_server.security.rates import Excess, Limit, Rates

#: Parts of a second to which the time is rounded after which a call may succeed.
_PARTS = 100

_BEARER = "Bearer "


class Access:
    """What the callers of one key may do.

    Args:
        key: of theirs.
        limit: how often they may call; None: as often as they like.

    Attributes:
        digest: of the key.
        connection: by which their calls share batches with those of others: one for all
            connections of the key; empty: each connection for itself.
        counts_images: whether their images are counted.
        is_limited: whether their calls are counted.
        sees_all: whether they may ask and see every model.
    """

    __slots__ = (
        "_expires",
        "_key",
        "_limit",
        "_models",
        "_permissions",
        "connection",
        "counts_images",
        "digest",
        "is_limited",
        "sees_all",
    )

    def __init__(self, key: Key, limit: Limit | None) -> None:
        self._key = key
        self._limit = limit
        self._permissions = key.permissions
        # Most are names, which need no pattern.
        self._models = frozenset(key.models)
        self._expires = key.expires
        self.digest = key.digest
        self.connection = "" if key.name == NOBODY.name else f"key {key.name}"
        self.is_limited = limit is not None
        self.counts_images = limit is not None and limit.counts_images
        self.sees_all = key.sees_all

    def check(self, permission: Permission | None) -> None:
        """Checks whether calls that need a permission are allowed, however many there are.

        Args:
            permission: that they need; None: one that nobody can have.

        Raises:
            Unauthenticated: no key came, or one that has expired.
            PermissionDenied: the key does not have the permission.
        """
        if self._expires is not None and time.time() >= self._expires:
            raise Unauthenticated("authorization: expected a key that holds, got one that expired")
        if permission is None:
            raise self._denied("method: expected one that a key can allow, got another")
        if permission not in self._permissions:
            raise self._denied(f"permission: expected {permission}, got a key without it")

    def take_call(self, *, asks: bool) -> None:
        """Counts a call; only where is_limited.

        Args:
            asks: whether it runs a model.

        Raises:
            RateLimited, QuotaExceeded: there were too many.
        """
        assert self._limit is not None
        excess = self._limit.take_call()
        if excess is None and asks and self.counts_images:
            excess = self._limit.images_excess()
        if excess is not None:
            raise self._exceeded(excess)

    def sees(self, model: str) -> bool:
        """Returns whether a model may be asked and seen, whether or not it exists."""
        return self.sees_all or model in self._models or self._key.sees(model)

    def check_model(self, model: str) -> None:
        """Checks whether a model may be asked and seen.

        Raises:
            Unauthenticated: no key came.
            PermissionDenied: the key is not for it: the same for one that does not exist.
        """
        if not self.sees(model):
            raise self._denied(f"model: expected one of this key, got {quoted(model)}")

    def take_images(self, images: int) -> None:
        """Counts the images of a call.

        Args:
            images: of the call, or rows of its tensors.

        Raises:
            RateLimited: there were too many before them.
        """
        assert self._limit is not None
        if (excess := self._limit.take_images(images)) is not None:
            raise self._exceeded(excess)

    def _denied(self, message: str) -> ServeError:
        # To a caller without a key: with one it may be allowed.
        return PermissionDenied(message) if self.connection else no_key()

    def _exceeded(self, excess: Excess) -> ServeError:
        # Rounded, so that those who are refused together get the same answer, which is made once.
        after_s = math.ceil(excess.retry_after_s * _PARTS) / _PARTS
        if excess.field == "quota_per_day":
            message = f"quota_per_day: expected at most {self._key.quota_per_day} calls, got more"
            return QuotaExceeded(message, math.ceil(after_s))
        most = self._key.rate if excess.field == "rate" else self._key.images_rate
        message = f"{excess.field}: expected at most {most:g} in a second, got more"
        return RateLimited(message, after_s)


class Accesses:
    """What the callers of all keys may do.

    Args:
        table: of the keys.
        rates: in which the keys with limits are reserved.
    """

    def __init__(self, table: KeyTable, rates: Rates) -> None:
        limits = rates.limits((*table.keys, table.anonymous))

        def access(key: Key) -> Access:
            return Access(key, limits.get(key.name))

        self._by_digest: Mapping[bytes, Access] = {
            key.digest: access(key) for key in table.by_digest.values()
        }
        self._by_certificate: Mapping[str, Access] = {
            name: access(key) for name, key in table.by_certificate.items()
        }
        self.has_certificates = bool(self._by_certificate)
        self.anonymous = access(table.anonymous)

    def find(self, authorization: str | bytes | None, identity: str) -> Access:
        """Returns what a caller has access to.

        Args:
            authorization: header field of the call; None without one.
            identity: see Caller.

        Raises:
            Unauthenticated: the header field has another key than these.
        """
        if authorization is None:
            return self.by_identity(identity)
        return self.by_header(authorization)

    def by_header(self, authorization: str | bytes) -> Access:
        """Returns what the header field authorization gives access to.

        Raises:
            Unauthenticated: nothing.
        """
        if isinstance(authorization, str):
            scheme, token = authorization[:7], authorization[7:].strip()
            # As nearly all write it, and then as they may.
            if scheme == _BEARER or scheme.title() == _BEARER:
                access: Access | None = found(self._by_digest, token)
                if access is not None:
                    return access
        raise Unauthenticated("authorization: expected Bearer and a key that holds, got another")

    def by_identity(self, identity: str) -> Access:
        """Returns what a client's certificate gives access to, else what no key does.

        Args:
            identity: whom the certificate names; empty without one.
        """
        return self._by_certificate.get(identity, self.anonymous)


def no_key() -> Unauthenticated:
    """Returns the error of a call without a key that needs one."""
    return Unauthenticated("authorization: expected Bearer and a key, got none")
