"""The entry point of the image, over real processes that stand in for a training."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convserve_host import cgroups
from convserve_trainer import job

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 64 * 2**20
WAIT_S = 250

#: Runs job.main with a command of ours in place of the trainer.
HARNESS = "import sys; from convserve_trainer import job; sys.exit(job.main(['fit'], {}))"
EATER = "kept = []\nwhile True: kept.append(b'x' * 2**20)"
#: Says its process id, then what signals come; ends with 7 on a line of input, or a SIGTERM.
LISTENER = """
import signal, sys
def say(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(7)
signal.signal(signal.SIGINT, say)
signal.signal(signal.SIGTERM, say)
import os
print(os.getpid(), flush=True)
for line in sys.stdin:
    sys.exit(7)
"""


def _start(code: str, *prefix: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", HARNESS.format(command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a terminal: a group of its own
    )


def _main(code: str, arguments: list[str]) -> int:
    return job.main(arguments, [sys.executable, "-c", code])


@pytest.mark.parametrize("status", [0, 1, 2, 130])
def test_status_and_arguments_are_passed_on(status: int, capfd: pytest.CaptureFixture[str]) -> None:
    code = f"import sys; print(sys.argv[1:]); print('bad', file=sys.stderr); sys.exit({status})"
    assert _main(code, ["fit", "digits"]) == status
    captured = capfd.readouterr()
    assert captured.out == "['fit', 'digits']\n"
    assert captured.err == "bad\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGSEGV, 139), (signal.SIGABRT, 134), (signal.SIGTERM, 143)]
)
def test_death_by_a_signal_is_named(
    number: signal.Signals, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    assert _main(f"{code}signal.raise_signal({int(number)})", []) == status
    assert capfd.readouterr().err == f"convserve-train: ended by {number.name}\n"


@pytest.fixture(params=["v1", "v2"])
def counted(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Makes a cgroup with this memory limit; returns the file that counts its kills."""

    def make(limit: str) -> Path:
        folder = tmp_path / "cgroup" / ("memory/job" if request.param == "v1" else "job")
        folder.mkdir(parents=True)
        v1 = request.param == "v1"
        (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(f"{limit}\n")
        (tmp_path / "self").write_text("4:memory:/job\n0::/\n" if v1 else "0::/job\n")
        counter = folder / ("memory.oom_control" if v1 else "memory.events")
        counter.write_text("oom_kill 5\n")
        return counter

    monkeypatch.setattr(cgroups, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "SELF", tmp_path / "self")
    return make


def _killed(counter: Path | None) -> str:
    """A program that raises the counter, if one is given, and is killed."""
    count = f"open({str(counter)!r}, 'w').write('oom_kill 6\\n'); " if counter else ""
    return f"import os, signal; {count}os.kill(os.getpid(), signal.SIGKILL)"


def test_want_of_memory_is_reported_with_the_limit_and_the_ways_out(
    counted: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    code = _killed(counted(str(512 * 2**20)))
    assert _main(code, ["fit", "photos"]) == 137
    assert capfd.readouterr().err == (
        "convserve-train: killed by the kernel: out of memory at the limit of 512 MiB; raise it "
        "(mem_limit in docker-compose.yml); finished epochs are kept, go on with --resume "
        "(--cache none takes less, too); a smaller --batch-size takes less memory, but starts "
        "anew\n"
    )


def test_want_of_memory_without_a_limit_is_the_machines(
    counted: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert _main(_killed(counted("max")), ["evaluate", "x"]) == 137
    assert capfd.readouterr().err == (
        "convserve-train: killed by the kernel: the machine is out of memory; give it more\n"
    )


def test_kill_by_somebody_else_is_not_blamed_on_memory(
    counted: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    counted("4096")
    assert _main(_killed(None), ["fit", "digits"]) == 137
    error = capfd.readouterr().err
    assert error.startswith("convserve-train: killed (SIGKILL), but not for want of memory in its ")
    assert error.count("\n") == 1
    assert "go on with --resume; " in error
    assert _main(_killed(None), ["sweep", "digits"]) == 137
    assert capfd.readouterr().err.endswith("; finished trials are kept, the same command goes on\n")


def test_kill_where_nothing_is_counted_leaves_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cgroups, "SELF", tmp_path / "none")
    assert _main(_killed(None), []) == 137
    assert "the system does not say by whom" in capfd.readouterr().err


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A real cgroup of 64 MiB."""
    group = MEMORY_GROUPS / f"convserve-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v1 of memory can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(f"{LIMIT}\n")
        swap = group / "memory.memsw.limit_in_bytes"
        if swap.exists():
            swap.write_text(f"{LIMIT}\n")
        yield group
    finally:
        group.rmdir()


def test_process_that_outgrows_a_real_cgroup_is_explained(memory_group: Path) -> None:
    enter = f'echo $$ > {memory_group}/cgroup.procs && exec "$@"'
    with _start(EATER, "/bin/sh", "-c", enter, "sh") as process:
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 137
    assert errors.startswith(
        "convserve-train: killed by the kernel: out of memory at the limit of 64 MiB; raise it "
    )
    assert errors.count("\n") == 1


def test_ctrl_c_of_a_terminal_reaches_the_child_once() -> None:
    with _start(LISTENER) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "SIGINT\n"
        # A second one would have been printed before it reads this.
        rest, _ = process.communicate("end\n", timeout=WAIT_S)
    assert rest == ""
    assert process.returncode == 7


def test_sigterm_reaches_the_child_and_its_status_is_the_jobs() -> None:
    with _start(LISTENER) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.readline() == "SIGTERM\n"  # the end of its input would end it too
        assert process.wait(WAIT_S) == 7


def test_sigterm_before_the_child_is_there_reaches_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    popen = subprocess.Popen

    def late(*arguments: object, **named: object) -> "subprocess.Popen[bytes]":
        # To the thread, as no other one of this process has the signal blocked.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        return popen(*arguments, **named)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", late)
    assert _main("import signal; signal.pause()", []) == 143
    assert "ended by SIGTERM" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_child_does_not_outlive_a_job_that_is_killed() -> None:
    with _start(LISTENER) as process:
        assert process.stdout is not None
        child = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
        ended, _, _ = select.select([child], [], [], WAIT_S)
        os.close(child)
        process.wait()
    assert ended
    assert process.returncode == -signal.SIGKILL


def test_job_is_light() -> None:
    code = "import sys, convserve_trainer.job; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
