"""How often each shard was begun: files of the target folder, so that no engine has to count.

A worker writes one before it begins a shard, and removes it when the rows are written. One that is
killed leaves it there. So the count outlives the driver, and holds for workers that know nothing of
each other. A worker that is asked to stop takes its file back: only a shard that ends its process,
or cannot be read, uses up its attempts.
"""

import hashlib
import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from convserve_scoring.folders import Folder
from convserve_scoring.plan import Shard

#: Of the target folder.
ATTEMPTS = "attempts"

#: What is known of an attempt that left nothing else.
ENDED = "the process ended while it scored this shard"


class Attempt(msgspec.Struct, frozen=True):
    """The content of a file.

    Attributes:
        shard: its name.
        run: that the attempt belongs to.
        process: that made it, as HOST:PID.
        error: why it failed; empty while nobody knows.
    """

    shard: str
    run: str
    process: str
    error: str = ""


class Attempts:
    """The attempts of all shards.

    Args:
        target: folder in which they are.
        most: how often a shard may be begun.
    """

    def __init__(self, target: Folder, most: int) -> None:
        self._target = target
        self._most = most

    def begin(self, shard: Shard, run: str) -> str | None:
        """Counts one more attempt; returns its file's name, or None if there were enough.

        Raises:
            OSError: it cannot be written.
        """
        if len(self._of(shard)) >= self._most:
            return None
        name = f"{ATTEMPTS}/{_key(shard)}.{run}.{uuid.uuid4().hex[:12]}.json"
        self._write(name, shard, run, "")
        return name

    def note(self, name: str, shard: Shard, run: str, error: str) -> None:
        """Writes down why an attempt failed."""
        self._write(name, shard, run, error)

    def withdraw(self, name: str) -> None:
        """Has an attempt not count."""
        self._target.remove(name)

    def note_ended(self, shard: Shard, run: str, error: str) -> None:
        """Writes down why the process of a run ended, in its attempts of a shard."""
        for name in self._of(shard):
            if self._is_open(name, run):
                self._write(name, shard, run, error)

    def withdraw_run(self, run: str) -> None:
        """Has attempts not count that a run began, and that were stopped with their processes."""
        for name, _ in list(self._target.files(ATTEMPTS)):
            if self._is_open(name, run):
                self.withdraw(name)

    def forget(self, shard: Shard) -> None:
        """Removes all of a shard: it is done, or is tried again."""
        for name in self._of(shard):
            self._target.remove(name)

    def last_error(self, shard: Shard) -> str | None:
        """Returns why a shard failed; None while it may still be begun."""
        return self.failures([shard]).get(shard.name)

    def failures(self, shards: Iterable[Shard]) -> dict[str, str]:
        """Returns why shards failed, by name; of those that may still be begun nothing.

        The attempts are listed once, for all of them.
        """
        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for name, _ in self._target.files(ATTEMPTS):
            by_key[name.removeprefix(f"{ATTEMPTS}/").partition(".")[0]].append(name)
        failed = {}
        for shard in shards:
            names = by_key.get(_key(shard), [])
            if len(names) >= self._most:
                errors = [error for name in names if (error := self._read(name).error)]
                failed[shard.name] = errors[-1] if errors else ENDED
        return failed

    def _of(self, shard: Shard) -> list[str]:
        # Those of shards that are done are removed: there are few.
        prefix = f"{ATTEMPTS}/{_key(shard)}."
        return [name for name, _ in self._target.files(ATTEMPTS) if name.startswith(prefix)]

    def _is_open(self, name: str, run: str) -> bool:
        """Returns whether an attempt is one of a run, and nobody knows how it ended."""
        return name.split(".")[1] == run and not self._read(name).error

    def _read(self, name: str) -> Attempt:
        try:
            return msgspec.json.decode(self._target.read(name), type=Attempt)
        except FileNotFoundError:  # Another worker has finished the shard.
            return Attempt("", "", "")

    def _write(self, name: str, shard: Shard, run: str, error: str) -> None:
        process = f"{socket.gethostname()}:{os.getpid()}"
        content = msgspec.json.encode(Attempt(shard.name, run, process, error))
        self._target.write(name, content)


def _key(shard: Shard) -> str:
    """Returns what begins the names of a shard's files: its name may be too long, or have "/"."""
    return hashlib.sha256(shard.name.encode()).hexdigest()[:32]
