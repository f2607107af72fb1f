"""Has every call shown its key before anything of it is parsed: which method, model, how often.

It wraps all methods of all services, health and reflection as any, and those that do not exist: who
has no key does not hear which do. What a handler may show is up to it, by Call.access.
"""

from convserve_server.core.errors import NoModel
from convserve_server.protocols.access import Access, Accesses, no_key
from convserve_server.protocols.base import (
    Call,
    Caller,
    Failure,
    Interceptor,
    Stream,
    StreamHandler,
    UnaryHandler,
    header_in,
)
from convserve_server.protocols.permissions import RULES, Rule, unnamed
from convserve_server.security.keys import KeyTable, Permission
from convserve_server.security.rates import Rates

AUTHORIZATION = "authorization"


class KeyCheck(Interceptor):
    """See above. Its methods may be called from any thread.

    Args:
        table: of the keys.
        rates: in which those with limits are reserved.

    Raises:
        ValueError: one is not reserved.
    """

    def __init__(self, table: KeyTable, rates: Rates) -> None:
        self._rates = rates
        self._accesses = Accesses(table, rates)

    @property
    def accesses(self) -> Accesses:
        """By which calls are admitted now."""
        return self._accesses

    def use(self, table: KeyTable) -> None:
        """Goes by other keys from now on.

        Raises:
            ValueError: one with limits is not reserved; those before hold.
        """
        self._accesses = Accesses(table, self._rates)

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """See Interceptor.unary."""
        rule = RULES.get(method)
        permission, asks = _needs(rule)

        def checked(call: Call) -> None:
            access = call.access
            if access is None:
                access = call.access = self._of_call(call)
                access.check(permission)
                if access.is_limited:
                    access.take_call(asks=asks)
            if access.connection:
                call.connection = access.connection
            if access.sees_all or rule is None:
                handler(call)
            else:
                _handle_some_models(call, access, rule, handler)

        return checked

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        """See Interceptor.stream."""
        rule = RULES.get(method)

        async def checked(stream: Stream) -> None:
            accesses = self._accesses
            access = _access_of(accesses, stream.caller())
            self._admit(access, rule)
            assert rule is not None
            await handler(_CheckedStream(stream, self, rule, accesses, access))

        return checked

    def check_unknown(self, method: str, caller: Caller) -> None:
        """See Interceptor.check_unknown."""
        del method
        self._check_any(_access_of(self._accesses, caller))

    def admit(self, method: str, authorization: str | None, identity: str) -> Access | None:
        """Admits a call before there is one: of a protocol that has something to parse first.

        Args:
            method: "/package.Service/Method".
            authorization: header field of the request.
            identity: see Caller.

        Returns: what the call gets as its access; then it is not admitted once more. None of a
            method that is not in the table, and probably does not exist.

        Raises:
            Unauthenticated, PermissionDenied, RateLimited, QuotaExceeded: it is not allowed.
        """
        access, rule = self._accesses.find(authorization, identity), RULES.get(method)
        if rule is None:
            self._check_any(access)
            return None
        self._admit(access, rule)
        return access

    def _check_any(self, access: Access) -> None:
        """Checks whether a caller has a key, whatever it allows.

        Raises:
            Unauthenticated: it has none.
        """
        if access is self._accesses.anonymous:
            raise no_key()

    def _of_call(self, call: Call) -> Access:
        accesses = self._accesses
        authorization = call.header(AUTHORIZATION)
        if authorization is not None:
            return accesses.by_header(authorization)
        if accesses.has_certificates:
            return accesses.by_identity(call.caller().identity)
        return accesses.anonymous

    def _admit(self, access: Access, rule: Rule | None) -> None:
        """Counts a call, if its caller may make it.

        Raises:
            Unauthenticated, PermissionDenied, RateLimited, QuotaExceeded: see Access.
        """
        permission, asks = _needs(rule)
        access.check(permission)
        if access.is_limited:
            access.take_call(asks=asks)


class _CheckedStream(Stream):
    """A stream of a caller who may do only some things, and perhaps fewer while it is open.

    Args:
        stream: of the transport.
        keys: that have admitted it.
        rule: of its method.
        accesses: by which it was admitted.
        access: of its caller then.
    """

    def __init__(
        self, stream: Stream, keys: KeyCheck, rule: Rule, accesses: Accesses, access: Access
    ) -> None:
        connection = access.connection or stream.connection
        super().__init__(stream.method, stream.deadline, connection, stream.handle)
        self._stream = stream
        self._keys = keys
        self._rule = rule
        self._accesses = accesses
        self.access = access

    def caller(self) -> Caller:
        return self._stream.caller()

    async def open(self) -> None:
        await self._stream.open()

    async def read(self) -> bytes | None:
        """See Stream.read.

        Raises:
            Unauthenticated, PermissionDenied: its caller may no longer use it.
        """
        payload = await self._stream.read()
        if payload is not None:
            self._check()
        return payload

    async def write(self, payload: bytes) -> None:
        """See Stream.write.

        Raises:
            Unauthenticated, PermissionDenied: its caller may no longer use it.
        """
        # Those whose messages are calls get the answers to all that were allowed.
        if not self._rule.messages_count:
            self._check()
        await self._stream.write(payload)

    async def fail(self, failure: Failure) -> None:
        await self._stream.fail(failure)

    def _check(self) -> None:
        accesses = self._keys.accesses
        if accesses is not self._accesses:
            self.access = _access_of(accesses, self._stream.caller())
            self._accesses = accesses
        assert self.access is not None
        self.access.check(self._rule.permission)


def _needs(rule: Rule | None) -> tuple[Permission | None, bool]:
    """Returns the permission that a method needs, and whether a call of it runs a model."""
    if rule is None:
        return None, False
    return rule.permission, rule.named_model is not unnamed


def _access_of(accesses: Accesses, caller: Caller) -> Access:
    return accesses.find(header_in(caller.metadata, AUTHORIZATION), caller.identity)


def _handle_some_models(call: Call, access: Access, rule: Rule, handler: UnaryHandler) -> None:
    """Has a call handled whose caller may see only some models."""
    name = rule.named_model(call.payload)
    if name is not None:
        access.check_model(name)
    try:
        handler(call)
    except NoModel as error:
        raise error.seen_by(access.sees) from None
