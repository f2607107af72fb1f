"""Whether the native front has guards before it, and how many; see docs/guard.md."""

import secrets

from convserve_server.host.exposure import is_reached_by_others
from convserve_server.settings.settings import Settings

#: A guard needs a quarter of the processor time of the workers behind it.
_WORKERS_OF_ONE = 2


def new_field() -> str:
    """Returns the name of the header field in which guards tell who calls; nobody can guess it."""
    return f"guard-{secrets.token_hex(16)}"


def is_guarded(settings: Settings) -> bool:
    """Returns whether clients reach the workers by way of guards.

    That is so where the native front, which has no TLS and few limits, is asked for TLS, for
    connections that end by their age, or listens where other machines reach it.

    Args:
        settings: with the front chosen.
    """
    listen = settings.listen
    needed = settings.security.tls_cert or listen.max_connection_age_s
    return listen.front == "native" and bool(needed or is_reached_by_others(listen.host))


def guards_of(settings: Settings) -> int:
    """Returns how many guards there are.

    Args:
        settings: with the front and the workers chosen.
    """
    workers = settings.process.workers
    return -(-workers // _WORKERS_OF_ONE) if is_guarded(settings) else 0
