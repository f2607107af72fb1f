"""Load from several processes of convserve bench at once: more than one of them can make."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.load import LoadError

_WARM_UP_S = 1.0
#: Beyond the time that they were asked to take.
_LATE_S = 60.0


@dataclass(frozen=True)
class CombinedLoad:
    """What the processes measured together.

    Attributes:
        calls: of all, those of the warm-up counted.
        calls_per_s: of all.
        p50_ms: median of theirs.
        p99_ms: the largest of theirs.
        generator_cpus: processor time of all, in CPUs.
    """

    calls: float
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    generator_cpus: float


def drive(
    address: str, processes: int, callers: int, seconds: float, flags: Sequence[str]
) -> CombinedLoad:
    """Make the calls.

    Args:
        address: of the server.
        processes: that make them; no more than there are callers.
        callers: of all together.
        seconds: that are measured.
        flags: more for convserve bench.

    Raises:
        LoadError: if any call failed, or one of them did not end.
    """
    processes = min(processes, callers)
    shares = [len(range(first, callers, processes)) for first in range(processes)]
    running = [
        start(address, [*flags, f"--callers={share}", f"--connections={min(16, share)}"], seconds)
        for share in shares
    ]
    try:
        results = [result_of(one, seconds) for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()
    medians = sorted(each["latency_ms"]["p50"] for each in results)
    rate = sum(each["calls_per_s"] for each in results)
    return CombinedLoad(
        calls=rate * (seconds + _WARM_UP_S),
        calls_per_s=rate,
        p50_ms=medians[len(medians) // 2],
        p99_ms=max(each["latency_ms"]["p99"] for each in results),
        generator_cpus=sum(
            each["generator"]["cpu_us_a_call"] * each["calls_per_s"] / 1e6 for each in results
        ),
    )


def start(address: str, flags: Sequence[str], seconds: float) -> "subprocess.Popen[str]":
    """Starts one process of convserve bench, for `result_of` to wait for."""
    command = [sys.executable, "-m", "convserve.main", "bench", address, "--format", "jsonl"]
    command += [f"--seconds={seconds}", f"--warm-up={_WARM_UP_S}", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result_of(one: "subprocess.Popen[str]", seconds: float) -> dict[str, Any]:
    """What a process of convserve bench printed, once it has ended.

    Raises:
        LoadError: if a call failed, or it did not end in time; it is killed then.
    """
    try:
        output, errors = one.communicate(timeout=seconds + _WARM_UP_S + _LATE_S)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"convserve bench did not end within {error.timeout:g} s") from error
    finally:
        one.kill()  # it has ended unless something is wrong, or the user wants no more
        one.wait()
    if one.returncode:
        raise LoadError(f"{output}{errors}")
    result: dict[str, Any] = json.loads(output)
    return result
