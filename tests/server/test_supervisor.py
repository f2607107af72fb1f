"""What the supervisor says of a worker that the kernel has killed."""

import signal

import pytest

from convserve_server import supervisor
from convserve_server.config import Settings
from convserve_server.host.sizing import MIB, choose_sizes
from convserve_server.process.slot import Slot
from convserve_server.supervisor import Supervisor

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
    monkeypatch.setattr(supervisor, "oom_kills", lambda: result.kills)
    return result


@pytest.fixture
def watcher() -> Supervisor:
    settings = choose_sizes(Settings(models="m", workers=2), 2, 512 * MIB)
    return Supervisor(settings, memory=512 * MIB)


def test_kill_after_the_kernels_count_rose_says_so_and_what_to_do(
    kernel: Kernel, watcher: Supervisor
) -> None:
    kernel.kills = 3
    slot = Slot(1, oom_kills=3)
    assert watcher._why(slot, KILLED) == ""
    kernel.kills = 4
    assert watcher._why(slot, KILLED) == SAYS


@pytest.mark.parametrize("status", [0, 1, -signal.SIGSEGV, -signal.SIGTERM])
def test_other_ends_are_not_the_kernels(kernel: Kernel, watcher: Supervisor, status: int) -> None:
    kernel.kills = 1
    assert watcher._why(Slot(1), status) == ""


def test_each_kill_explains_one_death(kernel: Kernel, watcher: Supervisor) -> None:
    first, second, third = Slot(1), Slot(2), Slot(3)
    kernel.kills = 2
    assert watcher._why(first, KILLED) == SAYS
    assert watcher._why(second, KILLED) == SAYS
    # This one somebody has killed by hand.
    assert watcher._why(third, KILLED) == ""
