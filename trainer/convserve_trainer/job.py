"""The entry point of the trainer's image: convserve-train as a child process, watched.

    python -m convserve_trainer.job fit digits --unless-published

Who is killed by the kernel for want of memory cannot say so; its parent can. Signals are passed
on, so that it may be process 1 of a container; the exit status is the child's.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from convserve_host import memory
from convserve_trainer.host import streams

COMMAND = (sys.executable, "-m", "convserve_trainer.main")
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: Sequence[str] | None = None, command: Sequence[str] = COMMAND) -> int:
    """Runs the command and returns its exit status; 128 and the signal if one killed it.

    Args:
        arguments: of the command; None for the process's own.
        command: that is run.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    streams.settle()
    kills = memory.oom_kills()
    status = _run([*command, *arguments])
    if status >= 0:
        return status
    killed_by = signal.Signals(-status)
    if killed_by == signal.SIGKILL:
        why = _killed(kills, memory.oom_kills())
        advice = f"; {go_on}" if (go_on := _go_on(arguments)) else ""
        print(f"convserve-train: {why}{advice}", file=sys.stderr)
    else:
        print(f"convserve-train: ended by {killed_by.name}", file=sys.stderr)
    return 128 + killed_by


def _run(command: Sequence[str]) -> int:
    """Returns the command's exit status; minus the signal that killed it."""
    # Waited for instead of handled: one that comes before the child is there waits for it.
    waited_for = {signal.SIGCHLD, *PASSED_ON}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    parent = os.getpid()

    def in_child() -> None:
        _die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    # In a session of its own, the child does not get a terminal's Ctrl-C beside the one passed on.
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=in_child)
    try:
        while (status := child.poll()) is None:
            number = signal.sigwait(waited_for)
            if number in PASSED_ON:
                child.send_signal(number)
        return status
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _die_with(parent: int) -> None:
    """Makes the kernel kill this process when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was faster
            os._exit(1)


def _killed(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return "killed; the system does not say by whom (a lack of memory is the usual reason)"
    if after <= before:
        return "killed (SIGKILL), but not for want of memory in its own group: by a user, or a tool"
    limit = memory.cgroup_limit()
    if limit is None:
        return "killed by the kernel: the machine is out of memory; give it more"
    return (
        f"killed by the kernel: out of memory at the limit of {limit / 2**20:,.0f} MiB; raise it "
        "(mem_limit in docker-compose.yml)"
    )


def _go_on(arguments: Sequence[str]) -> str:
    """Returns what the command keeps; nothing of one that keeps nothing."""
    command = next(iter(arguments), "")
    if command == "sweep":
        return "finished trials are kept, the same command goes on"
    if command != "fit":
        return ""
    photos = " (--cache none takes less, too)" if "photos" in arguments else ""
    return (
        f"finished epochs are kept, go on with --resume{photos}; a smaller --batch-size takes less "
        "memory, but starts anew"
    )


if __name__ == "__main__":
    sys.exit(main())
