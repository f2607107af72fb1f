"""Keys for tests: their tokens, a file that has them, and a check that goes by it."""

import hashlib
import mmap
import time
from collections.abc import Callable

from convserve_server.protocols.key_check import KeyCheck
from convserve_server.security.keys import KeyTable, read_keys
from convserve_server.security.rates import Rates, rates_bytes


def token_of(name: str) -> str:
    """The token of a test's key."""
    return f"token-of-{name}"


def key_table(name: str, *lines: str) -> str:
    """The table of a key, with more fields."""
    digest = hashlib.sha256(token_of(name).encode()).hexdigest()
    return "\n".join(["[[key]]", f'name = "{name}"', f'sha256 = "{digest}"', *lines, ""])


def metadata_of(name: str | None) -> tuple[tuple[str, str], ...]:
    """Header fields of a call with a key; of none without a name."""
    return () if name is None else (("authorization", f"Bearer {token_of(name)}"),)


def make_rates(
    clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
) -> Rates:
    """Rates of this process alone."""
    rates = Rates(mmap.mmap(-1, rates_bytes()), clock=clock, wall_clock=wall_clock)
    rates.prepare()
    return rates


def reserve(rates: Rates, table: KeyTable) -> KeyTable:
    """Find where the keys of a table are counted."""
    rates.reserve((*table.keys, table.anonymous))
    return table


def make_key_check(text: str, rates: Rates | None = None) -> KeyCheck:
    """A check that goes by a file of keys."""
    rates = rates or make_rates()
    return KeyCheck(reserve(rates, read_keys(text)), rates)
