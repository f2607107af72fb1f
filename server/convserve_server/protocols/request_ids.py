"""The id of a request, by which a caller finds it in the server's log."""

import random
import re

#: Header field of the request with it, and of the answer.
REQUEST_ID = "x-request-id"

_ID = re.compile(r"[!-~]{1,128}")


def accepted_id(value: str | bytes | None) -> str:
    """Returns the id that a caller gives; empty if there is none, or it is not printable ASCII."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""


def new_id() -> str:
    """Returns an id for a request that has none."""
    return f"{random.getrandbits(64):016x}"
