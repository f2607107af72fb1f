"""The priority that a call gives in its header fields."""

from convserve_server.core.errors import InvalidRequest, quoted
from convserve_server.core.jobs import Priority
from convserve_server.protocols.base import Call

#: Header field of a call.
PRIORITY = "convserve-priority"

_VALUES: dict[str | bytes, Priority] = {one.name.lower(): one for one in Priority}


def priority_of(call: Call) -> Priority | None:
    """Returns the priority of a call; None if it does not give one.

    Raises:
        InvalidRequest: if it is none of those that there are.
    """
    value = call.header(PRIORITY)
    if value is None:
        return None
    priority = _VALUES.get(value)
    if priority is None:
        raise InvalidRequest(
            PRIORITY, f"expected {' or '.join(map(str, _VALUES))}, got {quoted(str(value))}"
        )
    return priority
