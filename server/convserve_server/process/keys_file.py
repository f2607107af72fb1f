"""The file of keys: read when the server starts, and again when it changes, by the supervisor.

Workers get what it has read: so a worker that starts while the file is wrong has the keys of the
others.
"""

import logging
import queue
from collections.abc import Callable
from pathlib import Path

from convserve_server.host import shared_memory
from convserve_server.security.file_watch import LOOK_S, FileWatch
from convserve_server.security.keys import KeyTable, read_keys
from convserve_server.security.rates import Rates, rates_bytes

log = logging.getLogger(__name__)


def read_keys_file(path: Path) -> tuple[str, KeyTable]:
    """Returns the text of a file of keys, and what it says.

    Raises:
        ValueError: It is not valid, or cannot be read.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ValueError(
            f"keys: expected a file that can be read, got {path}: {error.strerror}"
        ) from error
    except UnicodeDecodeError:
        raise ValueError(f"keys: expected UTF-8, got other bytes in {path}") from None
    return text, read_keys(text)


class KeysFile:
    """The keys of a server, and the memory in which their calls are counted.

    Args:
        path: Of the file.
        changed: Called, on another thread, when there are others; take() then returns them.
        every_s: How often to look.

    Attributes:
        text: What the workers get: the file as it last was valid.
        memory: Descriptor of the file in memory that they inherit; see security/rates.py.

    Raises:
        ValueError: The file is not valid, or cannot be read.
        OSError: No memory is left.
    """

    def __init__(self, path: Path, changed: Callable[[], None], every_s: float = LOOK_S) -> None:
        self._path = path
        self._changed = changed
        # First: what changes while the file is read is then seen.
        self._watch = FileWatch([path], self._read_again, every_s)
        self.text, table = read_keys_file(path)
        self.memory = shared_memory.create("convserve-rates", rates_bytes())
        self._rates = Rates(shared_memory.shared(self.memory), self.memory)
        self._rates.prepare()
        self._rates.reserve((*table.keys, table.anonymous))
        self._read: queue.SimpleQueue[str] = queue.SimpleQueue()
        log.info("keys: %s", _names(table))

    def start(self) -> None:
        """Looks for changes from now on."""
        self._watch.start()

    def close(self) -> None:
        """Looks no more."""
        self._watch.close()

    def take(self) -> str | None:
        """Returns the file as it is valid now, once after each change; None if there was none."""
        text = None
        while not self._read.empty():
            text = self.text = self._read.get()
        return text

    def _read_again(self) -> None:
        text, table = read_keys_file(self._path)
        self._rates.reserve((*table.keys, table.anonymous))
        self._read.put(text)
        log.info("keys: %s", _names(table))
        self._changed()


def _names(table: KeyTable) -> str:
    """Returns what the log has of keys."""
    names = ", ".join(key.name for key in table.keys) or "none"
    permissions = ", ".join(sorted(table.anonymous.permissions)) or "nothing"
    return f"{names}; allowed without a key: {permissions}"
