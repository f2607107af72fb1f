"""The process of convserve-serve, from its first instruction."""

import signal
import sys


def run() -> int:
    """Serves until stopped; a signal that comes while the program is being read counts.

    Process 1 of a container has no default handlers: without ours, such a signal would be lost.

    Returns: The exit status.
    """
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    from convserve_server.main import main

    return main(signals=received)


if __name__ == "__main__":
    sys.exit(run())
