"""The age at which a connection ends, where that is asked for."""

import random

#: Of the age, more or less, as grpcio has it: connections that were made together do not all come
#: back in one moment. Source: gRFC A9, server-side connection management.
_SPREAD = 0.1


def new_age_s(max_connection_age_s: float) -> float:
    """Returns the age at which a new connection ends, s; a little different each time.

    Args:
        max_connection_age_s: 0: never, which is infinity.
    """
    if not max_connection_age_s:
        return float("inf")
    return max_connection_age_s * random.uniform(1 - _SPREAD, 1 + _SPREAD)
