"""What a worker is to be: one message of the supervisor, the first on the worker's socket.

It is not on the worker's command line, which every user of the machine can read. Both ends are of
the same program, so it has no version.
"""

import dataclasses
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convserve_server.settings.settings import SECTIONS, Settings
from convserve_server.telemetry.shared_statistics import SLOTS_OF_PROCESS

_CHUNK = 65536


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """One worker among the others.

    Attributes:
        number: Of the worker, from 1.
        port: To listen on, shared with the other workers.
        http_port: The same for HTTP; 0 for none.
        settings: With sizes chosen; see host/resources.py.
        cpus: That all workers are kept on, one each; empty if the system chooses.
        many_threads: Of an engine while the engines of all other workers are idle.
        low_memory: Whether none is kept for later.
        batch_s: Longest batch on the CPU, s, where its size is not set.
        engine_activity: Descriptor of the file of the engines at work; see
            host/engine_activity.py.
        switch: Descriptor of the file with the number of the table that counts; see
            core/repository.py.
        statistics: Descriptor of the file with the counts of all workers; see
            telemetry/shared_statistics.py.
        statistics_slot: In which this worker counts, and no other one.
        guard_field: Header field in which guards tell who calls, a secret; empty without guards.
        keys: Text of the file of keys, which is valid; None: there are none.
        rates: Descriptor of the file with what is counted of them; see security/rates.py.

    Raises:
        ValueError: When it is made, a value is of another type or out of range.
    """

    number: int
    port: int
    http_port: int
    settings: Settings
    cpus: tuple[int, ...]
    many_threads: int
    low_memory: bool
    batch_s: float
    engine_activity: int
    switch: int
    statistics: int
    statistics_slot: int
    guard_field: str = ""
    keys: str | None = None
    rates: int = -1

    def __post_init__(self) -> None:
        """Checks every value; the settings have checked theirs."""
        workers = self.settings.process.workers
        for name, value, low, high in (
            ("number", self.number, 1, workers),
            ("port", self.port, 1, 65535),
            ("http_port", self.http_port, 0, 65535),
            ("many_threads", self.many_threads, 1, None),
            ("engine_activity", self.engine_activity, 0, None),
            ("switch", self.switch, 0, None),
            ("statistics", self.statistics, 0, None),
            ("statistics_slot", self.statistics_slot, 0, workers * SLOTS_OF_PROCESS - 1),
            *(("cpus", cpu, 0, None) for cpu in self.cpus),
        ):
            _check_number(name, value, int, low, high)
        _check_number("batch_s", self.batch_s, float, 0, None)
        if self.keys is not None:
            _check_number("rates", self.rates, int, 0, None)
        if type(self.low_memory) is not bool:
            raise ValueError(f"low_memory: expected true or false, got {self.low_memory!r}")
        if self.cpus and len(self.cpus) != workers:
            raise ValueError(f"cpus: expected none or {workers}, got {len(self.cpus)}")

    def many_threads_of(self, model: str) -> int:
        """Returns the threads of a model's engine while the engines of other workers are idle.

        It is the number of the engine's own threads if there are no more: those that a user has
        chosen for the model are never exceeded, and a single worker has its CPUs anyway.
        """
        own = self.settings.for_model(model).engine_threads
        chosen = self.settings.by_model.get(model, {}).get("engine_threads")
        if chosen or self.settings.process.workers == 1:
            return own
        return max(own, self.many_threads)


def encode_spec(spec: "WorkerSpec | GuardSpec") -> bytes:
    """Returns a spec as one line of JSON."""
    return json.dumps(dataclasses.asdict(spec)).encode() + b"\n"


def decode_spec(line: bytes) -> WorkerSpec:
    """Returns the spec of a line.

    Raises:
        ValueError: It is not one.
    """
    try:
        values = json.loads(line)
        values["settings"] = _settings(values["settings"])
        values["cpus"] = tuple(values["cpus"])
        return WorkerSpec(**values)
    except (AttributeError, KeyError, TypeError) as error:
        # Without the line, which may hold secrets.
        raise ValueError(f"worker spec: expected {_fields()}, got other fields: {error}") from error


def receive_spec(connection: socket.socket) -> WorkerSpec:
    """Returns the spec from the socket to the supervisor, and reads nothing behind it.

    Raises:
        EOFError: The supervisor is gone.
        OSError: The socket fails.
        ValueError: It is not a spec.
    """
    return decode_spec(receive_line(connection))


def receive_line(connection: socket.socket) -> bytes:
    """Returns the first line from the socket to the supervisor, and reads nothing behind it.

    Raises:
        EOFError: The supervisor is gone.
        OSError: The socket fails.
    """
    line = b""
    while not line.endswith(b"\n"):
        seen = connection.recv(_CHUNK, socket.MSG_PEEK)
        if not seen:
            raise EOFError("the supervisor is gone")
        line += connection.recv(seen.find(b"\n") + 1 or len(seen))
    return line


@dataclass(frozen=True, kw_only=True)
class GuardSpec:
    """One guard among the others.

    Attributes:
        port: To listen on, shared with the other guards.
        guards: How many there are.
        field: Header field in which workers hear who calls, a secret.
        settings: With sizes chosen.
        statistics: See WorkerSpec.
        statistics_slot: See WorkerSpec.
    """

    port: int
    guards: int
    field: str
    settings: Settings
    statistics: int
    statistics_slot: int


def decode_guard(line: bytes) -> GuardSpec:
    """Returns the spec of a line.

    Raises:
        ValueError: It is not one.
    """
    try:
        values = json.loads(line)
        values["settings"] = _settings(values["settings"])
        return GuardSpec(**values)
    except (AttributeError, KeyError, TypeError) as error:
        # Without the line, which holds secrets.
        raise ValueError(f"guard spec: expected all fields, got others: {error}") from error


def encode_settings(settings: Settings) -> bytes:
    """Returns settings as one line of JSON, the first message to any other process."""
    return json.dumps(dataclasses.asdict(settings)).encode() + b"\n"


def decode_settings(line: bytes) -> Settings:
    """Returns the settings of a line.

    Raises:
        ValueError: They are not settings.
    """
    try:
        return _settings(json.loads(line))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"settings: expected all of them, got other fields: {error}") from error


def _settings(values: Mapping[str, Any]) -> Settings:
    sections: dict[str, Any] = {name: section(**values[name]) for name, section in SECTIONS.items()}
    return Settings(**sections, by_model=values["by_model"])


def _check_number(
    name: str, value: object, type_: type[int] | type[float], low: int, high: int | None
) -> None:
    # type(), since a bool is an int as well; written so that nan is wrong, too.
    right = type(value) is type_ and value >= low and (high is None or value <= high)
    if not right:
        kind = "a whole number" if type_ is int else "a number"
        most = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}: expected {kind} {most}, got {value!r}")


def _fields() -> str:
    return ", ".join(field.name for field in dataclasses.fields(WorkerSpec))
