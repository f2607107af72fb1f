"""How long batches take, as it was measured: in memory, and in a folder if there is one.

The file there only saves measuring. If it is damaged, of another version or of another machine, it
is measured again; if it cannot be written, the next start of the server measures again.
"""

import dataclasses
import json
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convserve_host.atomic_file import replaced

log = logging.getLogger(__name__)

#: Name of the file in the folder.
FILE = "batch_times.json"

#: Of what is in the file.
_VERSION = 2

#: Tables that are kept; beyond, those that were measured first are forgotten.
_MOST = 1000

#: A file that is larger is not one of ours; 1000 tables take less than 1 MB.
_MOST_BYTES = 2**24


@dataclass(frozen=True)
class TimesKey:
    """What the times of batches depend on, beside the machine.

    Attributes:
        digest: SHA-256 of the version's files, hexadecimal; see Content.
        device: as set: auto, cpu or cuda.
        engine: as set: auto, onnxruntime or openvino.
        engine_threads: of the engine on the CPU.
        max_batch: as set; 0 if the server chooses.
    """

    digest: str
    device: str
    engine: str
    engine_threads: int
    max_batch: int


class TimeStore:
    """Tables of batch size, images, to seconds. A file that fails is logged, once for each reason.

    Only one thread may use it; the file is written by one of its own.

    Args:
        folder: where they are kept, one for each server; None to keep them in memory alone.
        machine: what computes; see host/processors.py.
    """

    def __init__(self, folder: Path | None = None, machine: str = "") -> None:
        self._machine = machine
        self._file = None if folder is None else folder / FILE
        self._tables: dict[TimesKey, Mapping[int, float]] = {}
        #: Of the file, as it should be.
        self._content = ""
        self._writing = threading.Lock()
        self._writer: threading.Thread | None = None
        self._complaints: set[str] = set()
        if self._file is not None:
            self._tables = self._read(self._file)

    def get(self, key: TimesKey) -> Mapping[int, float]:
        """Returns seconds by size; empty if they are not known."""
        return self._tables.get(key, {})

    def put(self, key: TimesKey, batch_s: Mapping[int, float]) -> None:
        """Keeps a table, unless it is empty or known; does not wait for the file."""
        known = self._tables.get(key)
        if not batch_s or known == batch_s:
            return
        self._tables[key] = dict(batch_s)
        while len(self._tables) > _MOST:
            del self._tables[next(iter(self._tables))]
        if self._file is not None:
            self._content = self._encode()
            # Daemonic: a file system that hangs does not keep the server from ending.
            self._writer = threading.Thread(target=self._write, args=(self._file,), daemon=True)
            self._writer.start()

    def flush(self, timeout_s: float) -> None:
        """Waits until the file is written, at most so long."""
        if self._writer is not None:
            self._writer.join(timeout_s)

    def _encode(self) -> str:
        tables = [
            {**dataclasses.asdict(key), "batch_s": {str(size): s for size, s in table.items()}}
            for key, table in self._tables.items()
        ]
        content = {"version": _VERSION, "machine": self._machine, "tables": tables}
        return json.dumps(content, indent=1) + "\n"

    def _write(self, file: Path) -> None:
        try:
            # Whoever is last writes what was put last.
            with self._writing, replaced(file) as temporary:
                temporary.write_text(self._content)
        except OSError as error:
            self._complain(
                f"{file} cannot be written: {error.strerror or error}; the times of batches are "
                "measured again at the next start"
            )

    def _read(self, file: Path) -> dict[TimesKey, Mapping[int, float]]:
        try:
            with file.open("rb") as stream:
                content = stream.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise ValueError(f"expected at most {_MOST_BYTES} bytes, got more")
            return self._decode(json.loads(content))
        except FileNotFoundError:
            return {}
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
        except (ValueError, RecursionError) as error:
            why = str(error)
        self._complain(f"{file}: {why}; the times of batches are measured again")
        return {}

    def _decode(self, content: Any) -> dict[TimesKey, Mapping[int, float]]:
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        if content.get("version") != _VERSION:
            raise ValueError(f"version: expected {_VERSION}, got {content.get('version')!r}")
        if content.get("machine") != self._machine:
            raise ValueError(f"machine: expected {self._machine!r}, got {content.get('machine')!r}")
        if not isinstance(content.get("tables"), list):
            raise ValueError("tables: expected a list, got none")
        return dict(_decode_table(table) for table in content["tables"])

    def _complain(self, complaint: str) -> None:
        if complaint not in self._complaints:
            self._complaints.add(complaint)
            log.warning(complaint)


def _decode_table(table: Any) -> tuple[TimesKey, Mapping[int, float]]:
    """Reads one entry of the file.

    Raises:
        ValueError: it is not a table.
    """
    try:
        values = dict(table)
        batch_s = {int(size): s for size, s in values.pop("batch_s").items()}
        key = TimesKey(**values)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"tables: expected tables of times, got another thing: {error}") from error
    fields = dataclasses.astuple(key)
    if [type(value) for value in fields] != [str, str, str, int, int] or 1 not in batch_s:
        raise ValueError(
            f"tables: expected digest, device, engine, threads and sizes from 1, got {fields}"
        )
    for size, s in batch_s.items():
        if size < 1 or type(s) is not float or not 0.0 < s < math.inf:
            raise ValueError(f"batch_s: expected seconds by size, got {s!r} for {size}")
    return key, batch_s
