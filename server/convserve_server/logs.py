"""Logging to standard output: lines for people, or one JSON object a line for machines.

Who logs never waits for who reads: a thread writes, and what does not fit into its queue is
dropped, counted and reported once somebody reads again.
"""

import collections
import json
import logging
import os
import threading
import time

#: Attributes that every record has; all others came with `extra` and are logged as they are.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Bytes that wait to be written; more are dropped.
_MOST_BYTES = 2**20

#: Its descriptor; see host/standard_streams.py for a process that was started without.
STDOUT = 1

#: At the end of the process, for lines that nobody reads, s.
_LAST_LINES_S = 1.0


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, process, message, extras."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter.format."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        entry.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class PatientHandler(logging.Handler):
    """Writes records to a file descriptor on a thread of its own.

    Args:
        descriptor: Of a file, pipe or terminal; may block, be full or have no reader.
        most_bytes: That wait to be written.
    """

    def __init__(self, descriptor: int, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._lines: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._dropped = 0
        self._writing = False
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that could not be written and were not reported yet."""
        return self._dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a record, or counts it if there is no space for it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - of the message's arguments; logging's own way to report
            self.handleError(record)
            return
        self._queue(line.encode(errors="backslashreplace") + b"\n")

    def flush(self) -> None:
        """Waits until all is written, but no longer than a reader may need."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, _LAST_LINES_S)

    def _queue(self, line: bytes) -> None:
        with self._changed:
            if self._bytes + len(line) > self._most_bytes:
                self._dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                self._thread.start()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                line = self._lines.popleft()
                self._writing = True
            written = self._write(line)
            with self._changed:
                self._writing = False
                self._bytes -= len(line)
                if not written:
                    self._dropped += 1
                elif self._dropped and not self._lines:
                    report = self._report(self._dropped)
                    self._lines.append(report)
                    self._bytes += len(report)
                    self._dropped = 0
                self._changed.notify_all()

    def _write(self, line: bytes) -> bool:
        """Writes a line; returns False if it cannot be: a full disk, a reader that is gone."""
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            return False
        return True

    def _report(self, count: int) -> bytes:
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "%d lines of the log were dropped, because they could not be written",
                "args": (count,),
            }
        )
        return self.format(record).encode() + b"\n"


def configure_logging(level: str, format_: str) -> None:
    """Sends all logging of this process to standard output.

    Args:
        level: debug, info, warning or error.
        format_: text or json.
    """
    handler = PatientHandler(STDOUT)
    if format_ == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s [%(process)d] %(message)s")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
