"""What a launcher says of several processes that train one net together.

Three environment variables, those of Keras's `distribution.initialize`, are set for each process;
the number of the process may instead be that of its engine.

Source: https://keras.io/api/distribution/,
https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode,
https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from convserve_trainer.errors import UsageError

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
NUMBER = "KERAS_DISTRIBUTION_PROCESS_ID"
#: Of a Kubernetes Indexed Job and of SLURM: used where NUMBER is not set.
ENGINE_NUMBERS = ("JOB_COMPLETION_INDEX", "SLURM_PROCID")
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:,\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True)
class Member:
    """One of several processes that train a net together.

    Attributes:
        address: HOST:PORT at which the first of them listens.
        count: of all of them, 2 or more.
        number: of this one, 0 to count - 1. Process 0 keeps and publishes.
    """

    address: str
    count: int
    number: int

    def __str__(self) -> str:
        return f"process {self.number} of {self.count}"


def member(environment: Mapping[str, str]) -> Member | None:
    """Returns what the environment says of this process; None if it is to train alone.

    Raises:
        UsageError: only some of it is set, or a value is wrong.
    """
    variables = (ADDRESSES, COUNT, NUMBER)
    values = {name: environment[name] for name in variables if environment.get(name)}
    if not values:
        return None
    engine = next((name for name in ENGINE_NUMBERS if environment.get(name)), NUMBER)
    source = NUMBER if NUMBER in values else engine
    values.setdefault(NUMBER, environment.get(source, ""))
    for name in variables:
        if not values.get(name):
            others = f", {' or '.join(ENGINE_NUMBERS)}" if name == NUMBER else ""
            raise UsageError(
                f"{name}{others}: expected a value, because {next(iter(values))} is set, got none"
            )
    count = _whole(COUNT, values[COUNT])
    if count < 1:
        raise UsageError(f"{COUNT}: expected 1 or more, got {count}")
    number = _whole(source, values[NUMBER])
    if number >= count:
        raise UsageError(
            f"{source}: expected 0 to {count - 1} for {count} processes ({COUNT}), got {number}"
        )
    address = _first_address(values[ADDRESSES], count)
    return Member(address, count, number) if count > 1 else None


def _first_address(text: str, count: int) -> str:
    """Returns the first of one address or `count` addresses."""
    addresses = text.split(",")
    if len(addresses) not in (1, count):
        raise UsageError(
            f"{ADDRESSES}: expected one address, or one for each of {count} processes ({COUNT}), "
            f"got {len(addresses)}"
        )
    for address in addresses:
        found = ADDRESS.fullmatch(address)
        if found is None or not 1 <= int(found[2]) <= 65535:
            raise UsageError(f"{ADDRESSES}: expected HOST:PORT, got {address!r}")
    return addresses[0]


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"{name}: expected a whole number, 0 or more, got {text!r}")
    return int(text)
