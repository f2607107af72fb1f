"""Estimates machines and network for a load, from measured figures; measures nothing.

    python -m benchmarks.capacity
    python -m benchmarks.capacity --rate 250000 --images 1 --cpu-us 150 --sent 863 --received 126

Without a rate it prints docs/capacity.md's table, of the figures in figures.toml. With one it
prints the line of your own figures.
"""

import argparse
import math
import sys
from collections.abc import Callable

from benchmarks.capacity.estimate import Load, Machine, cores_of_a_host, estimate, once
from benchmarks.capacity.figures import read_figures
from benchmarks.harness.command import BenchmarkError, execute, new_parser, whole

_ONCE = 1e9


def loads() -> list[Load]:
    """Returns the loads of the table, from the measured figures."""
    found = {name: figure.value for name, figure in read_figures().items()}
    photo = {"cpu_us": found["photo_cpu_us"], "sent": found["photo_sent"]}
    return [
        Load(
            name="1,000,000 digits/s, one a call",
            rate=1e6,
            images=1,
            cpu_us=found["digit_cpu_us"],
            sent=found["digit_sent"],
            received=found["digit_received"],
            host_rate=found["digit_gpu"],
            envoy_us=found["digit_envoy_us"],
        ),
        Load(
            name="1,000,000 digits/s, 64 a call",
            rate=1e6,
            images=64,
            cpu_us=found["digits_cpu_us"],
            sent=found["digits_sent"],
            received=found["digits_received"],
            host_rate=found["digits_gpu"],
            envoy_us=found["digits_envoy_us"],
        ),
        Load(
            name="100,000 photographs/s, one a call",
            rate=1e5,
            images=1,
            received=found["photo_received"],
            host_rate=found["photo_gpu"],
            **photo,
        ),
        # The CPU of a call of 16 was not measured without a GPU: that of 16 calls is its bound.
        Load(
            name="100,000 photographs/s, 16 a call",
            rate=1e5,
            images=1,
            received=found["photo_received"],
            host_rate=found["photos_gpu"],
            **photo,
        ),
    ]


def in_bytes(count: float) -> str:
    """Returns bytes as people read them: two digits, in powers of 1000."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            digits = ".0f" if count >= 10 * size else ".1f"
            return f"{count / size:{digits}} {unit}"
    return f"{count:.0f} B"


def table(some: list[Load], machine: Machine) -> str:
    """Returns the table of loads that go on."""
    lines = [
        f"| load | cores busy | machines of {machine.cores} cores | and for Envoy between | "
        "or hosts with an H100 | to the servers | from them |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for load in some:
        need = estimate(load, machine)
        hosts, envoys = (f"{some:,}" if some else "" for some in (need.hosts, need.envoys))
        lines.append(
            f"| {load.name} | {need.busy:,.0f} | {need.machines:,} | {envoys} | {hosts} | "
            f"{in_bytes(need.sent)}/s | {in_bytes(need.received)}/s |"
        )
    return "\n".join(lines)


def table_once(load: Load) -> str:
    """Returns the table of a billion images, once."""
    need = once(_ONCE, load)
    return (
        "| once | core-hours | or host-hours with an H100 | to the servers | from them |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        f"| {_ONCE:,.0f} photographs | {need.core_hours:,.0f} | {need.host_hours:,.0f} | "
        f"{in_bytes(need.sent)} | {in_bytes(need.received)} |"
    )


def table_of_hosts(some: list[Load]) -> str:
    """Returns what a host with a GPU does, in cores."""
    lines = [
        "| load | images/s of a host with an H100 | cores that do as much |",
        "| --- | ---: | ---: |",
    ]
    for load in some:
        kind = load.name.partition("/s, ")
        lines.append(
            f"| {kind[0].partition(' ')[2]}, {kind[2]} | {load.host_rate:,.0f} | "
            f"{cores_of_a_host(load):.0f} |"
        )
    return "\n".join(lines)


def page(machine: Machine) -> str:
    """Returns what the command prints without options of its own."""
    some = loads()
    return "\n\n".join(
        [
            f"Machines work {machine.share:.0%} of the time.",
            table(some, machine),
            "Once, on machines that do nothing else and may work all of the time:",
            table_once(some[-1]),
            "A host has 16 CPUs beside its GPU:",
            table_of_hosts(some),
        ]
    )


def _positive(text: str) -> float:
    return _within(text, math.inf)


def _share(text: str) -> float:
    return _within(text, 1.0)


def _within(text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most or math.isinf(value):
        upper = "" if math.isinf(most) else f" and up to {most:g}"
        raise argparse.ArgumentTypeError(f"expected a number above 0{upper}, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.capacity", __doc__)
    kinds: tuple[tuple[str, Callable[[str], float], str, str], ...] = (
        ("--rate", _positive, "N", "images a second; with it the next four are needed"),
        ("--cpu-us", _positive, "US", "CPU that a call costs a server, µs"),
        ("--sent", _positive, "BYTES", "of a call"),
        ("--received", _positive, "BYTES", "of its answer"),
        (
            "--envoy-us",
            _positive,
            "US",
            "CPU that Envoy between needs for a call, if it is there, µs",
        ),
        ("--host-rate", _positive, "N", "images/s of a host with a GPU, if you have one"),
    )
    for flag, kind, metavar, help_ in kinds:
        result.add_argument(flag, type=kind, metavar=metavar, help=help_)
    result.add_argument("--images", type=whole(1), metavar="N", help="images of a call")
    result.add_argument(
        "--cores", type=whole(1), default=Machine.cores, metavar="N",
        help=f"of a machine [default: {Machine.cores}]",
    )  # fmt: skip
    result.add_argument(
        "--share", type=_share, default=Machine.share, metavar="SHARE",
        help=f"of the time in which machines may work [default: {Machine.share:g}]",
    )  # fmt: skip
    return result


def own_load(arguments: argparse.Namespace) -> Load:
    """Returns the load that the options describe.

    Raises:
        BenchmarkError: if one is missing.
    """
    needed = ("images", "cpu_us", "sent", "received")
    missing = [name for name in needed if getattr(arguments, name) is None]
    if missing:
        flag = missing[0].replace("_", "-")
        raise BenchmarkError(f"--{flag}: expected a number beside --rate, got none")
    return Load(
        name=f"{arguments.rate:,.0f} images/s, {arguments.images} a call",
        rate=arguments.rate,
        images=arguments.images,
        cpu_us=arguments.cpu_us,
        sent=arguments.sent,
        received=arguments.received,
        host_rate=arguments.host_rate or 0.0,
        envoy_us=arguments.envoy_us or 0.0,
    )


def run(arguments: argparse.Namespace) -> None:
    """Prints the table, or the line of the options.

    Raises:
        BenchmarkError: see own_load.
    """
    machine = Machine(arguments.cores, arguments.share)
    if arguments.rate is None:
        print(page(machine))
    else:
        print(table([own_load(arguments)], machine))


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
