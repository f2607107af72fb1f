"""Logging to standard output: lines for people, or one JSON object a line for machines."""

import json
import logging
import sys
import time

#: Attributes that every record has; what else is there came with `extra` and is logged as it is.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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


def configure_logging(level: str, format_: str) -> None:
    """Send all logging of this process to standard output.

    Args:
        level: debug, info, warning or error.
        format_: text or json.
    """
    handler = logging.StreamHandler(sys.stdout)
    if format_ == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s [%(process)d] %(message)s")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
