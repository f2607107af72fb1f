"""What is logged of a worker that the kernel has killed."""

import signal

import pytest

from convserve_server.host.resources import MIB
from convserve_server.process import exit_reasons
from convserve_server.process.exit_reasons import ExitReasons
from convserve_server.process.slot import Slot

KILLED = -signal.SIGKILL
SAYS = (
    " (killed by the kernel, out of memory at the limit of 512 MiB: "
    "give the server more memory, or fewer workers (--workers))"
)


class Kernel:
    """Counts the processes that it has killed for want of memory."""

    kills = 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    result = Kernel()
    monkeypatch.setattr(exit_reasons, "oom_kills", lambda: result.kills)
    return result


@pytest.fixture
def reasons() -> ExitReasons:
    return ExitReasons(512 * MIB)


def test_kill_after_the_kernels_count_rose_says_so_and_what_to_do(
    kernel: Kernel, reasons: ExitReasons
) -> None:
    kernel.kills = 3
    slot = Slot(1, oom_kills=3)
    assert reasons.exit_reason(slot, KILLED) == ""
    kernel.kills = 4
    assert reasons.exit_reason(slot, KILLED) == SAYS


@pytest.mark.parametrize("status", [0, 1, -signal.SIGSEGV, -signal.SIGTERM])
def test_other_ends_are_not_the_kernels(kernel: Kernel, reasons: ExitReasons, status: int) -> None:
    kernel.kills = 1
    assert reasons.exit_reason(Slot(1), status) == ""


def test_each_kill_explains_one_death(kernel: Kernel, reasons: ExitReasons) -> None:
    first, second, third = Slot(1), Slot(2), Slot(3)
    kernel.kills = 2
    assert reasons.exit_reason(first, KILLED) == SAYS
    assert reasons.exit_reason(second, KILLED) == SAYS
    # This one somebody has killed by hand.
    assert reasons.exit_reason(third, KILLED) == ""
