"""The database that several workers keep the trials of a sweep in."""

import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import URL
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from convserve_trainer.errors import CheckpointError, UsageError

EXPECTED = "postgresql://HOST/DATABASE, mysql+DRIVER://HOST/DATABASE or sqlite:///FILE"
#: The driver of our extra; SQLAlchemy's choice for the bare word has changed between its versions.
DRIVERS = {"postgresql": "postgresql+psycopg"}
#: Of a driver: seconds until a host that does not answer, or a file in use, is an error.
PATIENCE = {"postgresql": {"connect_timeout": 30}, "sqlite": {"timeout": 60}}
MAKING = 8  # tries to make the tables: workers that start at once hinder each other

Stale = Callable[[optuna.Study, FrozenTrial], None]
"""Takes a trial that had no heartbeat for too long, once it is marked failed."""


@dataclass(frozen=True)
class Address:
    """Where a database is.

    Attributes:
        url: of it, with a password perhaps.
    """

    url: URL

    def __str__(self) -> str:
        """Returns it without anything secret."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    __repr__ = __str__

    @property
    def has_password(self) -> bool:
        """Whether a password is in the URL."""
        return bool(self.url.password) or any("pass" in name.lower() for name in self.url.query)

    def secrets(self) -> Iterator[str]:
        """Yields what a message may not show."""
        if self.url.password:
            yield str(self.url.password)
        for name, value in self.url.query.items():
            if "pass" in name.lower():
                yield from [value] if isinstance(value, str) else value


class Storage(RDBStorage):
    """Trials in a database; a heartbeat that cannot be written is tried again at the next one.

    Args:
        address: of the database, whose tables are made if they are not there.
        grace_s: after so many seconds without a heartbeat a trial counts as lost.
        stale: is called for each trial that was lost.
        say: takes a line on a heartbeat that could not be written.
    """

    def __init__(
        self, address: Address, grace_s: int, stale: Stale, say: Callable[[str], None]
    ) -> None:
        self._address = address
        self._say = say
        arguments = PATIENCE.get(address.url.get_backend_name(), {})
        given = {name: value for name, value in arguments.items() if name not in address.url.query}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                super().__init__(
                    address.url.render_as_string(hide_password=False),
                    # A database may have been restarted between two trials.
                    engine_kwargs={"pool_pre_ping": True, "connect_args": given},
                    heartbeat_interval=max(1, grace_s // 4),
                    grace_period=grace_s,
                    heartbeat_stale_trial_callback=stale,
                )
        except (SQLAlchemyError, StorageInternalError):
            self.close()
            raise

    def close(self) -> None:
        """Ends the connections."""
        if hasattr(self, "scoped_session"):  # not if it could not be made
            self.remove_session()
            self.engine.dispose()

    def record_heartbeat(self, trial_id: int) -> None:
        """Says that the process of a trial is alive."""
        try:
            super().record_heartbeat(trial_id)
        except StorageInternalError as error:
            self._say(f"no heartbeat: {self._address}: {reason(error, self._address)}")

    def trial_id(self, study: optuna.Study, number: int) -> int:
        """Returns the id of a trial of a study by its number."""
        study_id = self.get_study_id_from_name(study.study_name)
        return self.get_trial_id_from_study_id_trial_number(study_id, number)


def parse(text: str) -> Address:
    """Returns the address that a URL states.

    Raises:
        UsageError: it is not one of a database that can be used, or its driver is not there.
        ModuleNotFoundError: psycopg is not installed.
    """
    try:
        url = sqlalchemy.make_url(text)
    except (ArgumentError, ValueError) as error:  # the latter for a port
        raise UsageError(f"--storage: expected {EXPECTED}, got something else") from error
    backend = url.get_backend_name()
    if backend not in ("postgresql", "mysql", "mariadb", "sqlite"):
        raise UsageError(f"--storage: expected {EXPECTED}, got {url.drivername}://")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("--storage: expected sqlite:///FILE, got no file")
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    try:
        url.get_dialect().import_dbapi()
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise UsageError(f"--storage: expected {EXPECTED}, got {url.drivername}://") from error
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "psycopg":
            raise
        raise UsageError(
            f"--storage: the driver of {url.drivername} cannot be used: "
            f"{' '.join(str(error).split())}; install it, or name one that is installed: {EXPECTED}"
        ) from error
    return Address(url)


def opened(address: Address, grace_s: int, stale: Stale, say: Callable[[str], None]) -> Storage:
    """Returns the trials in a database; makes its tables.

    Args:
        address: of the database.
        grace_s: after so many seconds without a heartbeat a trial counts as lost.
        stale: is called for each trial that was lost.
        say: takes a line on a heartbeat that could not be written.

    Raises:
        SQLAlchemyError: the database refuses.
    """
    for left in reversed(range(MAKING)):
        try:
            return Storage(address, grace_s, stale, say)
        except (SQLAlchemyError, StorageInternalError) as error:
            if not left or not _made_meanwhile(error):
                raise
            time.sleep(random.random())  # so that they are apart the next time
    raise AssertionError("unreachable")


def _made_meanwhile(error: BaseException) -> bool:
    """Returns whether another worker was making the same tables or rows."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, OperationalError):  # so SQLite says it; also what no time mends
        return re.search("already exists|locked|deadlock", str(cause), re.IGNORECASE) is not None
    return isinstance(cause, IntegrityError | ProgrammingError | InternalError)


@contextmanager
def errors(address: Address) -> Iterator[None]:
    """Raises CheckpointError, one line without anything secret, where the database refuses."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise CheckpointError(
            f"{address}: {reason(error, address)}; finished trials are kept, go on with the same "
            "command"
        ) from error


def reason(error: BaseException, address: Address) -> str:
    """Returns what the database's driver says, on one line and without anything secret."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    text = " ".join(str(getattr(cause, "orig", None) or cause).split())
    for secret in address.secrets():
        text = text.replace(secret, "***")
    return text
