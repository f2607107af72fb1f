"""From what a call costs to machines and network: plain arithmetic."""

import math
from dataclasses import dataclass

#: Seconds of an hour.
_HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of the servers.

    Attributes:
        name: for the table.
        rate: images a second.
        images: of a call.
        cpu_us: CPU of a call, µs.
        sent: bytes of a call.
        received: bytes of its answer.
        host_rate: images/s that a host with a GPU has; 0: unknown.
        envoy_us: CPU of Envoy for a call, µs; 0: unknown.
    """

    name: str
    rate: float
    images: int
    cpu_us: float
    sent: float
    received: float
    host_rate: float = 0.0
    envoy_us: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What the servers run on.

    Attributes:
        cores: of a machine.
        share: of the time in which it may work, 0 to 1: the rest is for peaks and machines that
            fail.
    """

    cores: int = 16
    share: float = 0.6


@dataclass(frozen=True)
class Estimate:
    """What a load needs.

    Attributes:
        busy: cores that work all the time.
        machines: so many.
        envoys: more of them, for Envoy between; 0: unknown.
        hosts: with a GPU each; 0: unknown.
        sent: bytes/s to all servers together.
        received: bytes/s from them.
    """

    busy: float
    machines: int
    envoys: int
    hosts: int
    sent: float
    received: float


def estimate(load: Load, machine: Machine) -> Estimate:
    """Returns what a load needs, if machines beside each other do as much as each alone."""
    calls = load.rate / load.images
    busy = calls * load.cpu_us / 1e6
    at_work = machine.cores * machine.share
    return Estimate(
        busy=busy,
        machines=math.ceil(busy / at_work),
        envoys=math.ceil(calls * load.envoy_us / 1e6 / at_work),
        hosts=math.ceil(load.rate / (load.host_rate * machine.share)) if load.host_rate else 0,
        sent=calls * load.sent,
        received=calls * load.received,
    )


@dataclass(frozen=True)
class Once:
    """What a number of images needs, once, on machines that do nothing else.

    Attributes:
        core_hours: of CPUs.
        host_hours: of hosts with a GPU; 0: unknown.
        sent: bytes to all servers together.
        received: bytes from them.
    """

    core_hours: float
    host_hours: float
    sent: float
    received: float


def once(images: float, load: Load) -> Once:
    """Returns what so many images need, whatever the rate of the load."""
    calls = images / load.images
    return Once(
        core_hours=calls * load.cpu_us / 1e6 / _HOUR_S,
        host_hours=images / load.host_rate / _HOUR_S if load.host_rate else 0.0,
        sent=calls * load.sent,
        received=calls * load.received,
    )


def cores_of_a_host(load: Load) -> float:
    """Returns how many cores, all of them busy, do what a host with a GPU does."""
    return load.host_rate / load.images * load.cpu_us / 1e6
