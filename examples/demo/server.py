"""A server on a free port, for as long as the demo needs it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class ServerFailed(Exception):
    """The server ended before it served; str() is what it logged."""


@contextmanager
def serving(models: Path) -> Iterator[str]:
    """Run convserve-serve over a models folder; yields its address, stops it at the end.

    Raises:
        ServerFailed: if it does not come up, or does not stop cleanly.
    """
    command = [sys.executable, "-m", "convserve_server.main", "--models", str(models)]
    server = subprocess.Popen(
        [*command, "--port", "0", "--log-format", "json"],
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the demo, which then stops the server.
        start_new_session=True,
    )
    try:
        yield _address(server)
    finally:
        server.terminate()
        rest, _ = server.communicate()
    if server.returncode:
        raise ServerFailed(f"the server ended with status {server.returncode}:\n{rest}")


def _address(server: "subprocess.Popen[str]") -> str:
    """Wait for the log entry that says where the server listens."""
    assert server.stdout is not None
    entries = []
    for line in server.stdout:
        entry: dict[str, Any] = json.loads(line)
        if "address" in entry:
            return str(entry["address"])
        entries.append(f"{entry['level']}: {entry['message']}")
    raise ServerFailed("the server did not start:\n" + "\n".join(entries))
