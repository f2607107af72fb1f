"""For every test: it ends, Ctrl-C reaches its children, and a marker tells what it starts."""

import os

# ONNX Runtime reports to its maker unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import contextlib
import faulthandler
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType, ModuleType

import pytest
from hypothesis import HealthCheck, settings

#: Seconds that are left to take down what a failed test made, and to end after the last test.
LAST_S = 120.0

#: What a file imports whose tests start something that runs beside them.
STARTERS = ("multiprocessing", "subprocess", "threading")

# Hypothesis would fail what a busy machine makes slow.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores SIGINT in what a script starts in the background, and every child inherits
    # that: then the programs under test would not end where a test presses Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # So is SIGHUP under nohup, and has servers read their settings again.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[_STDERR] = os.dup(2)  # Tests have their output captured.


@pytest.hookimpl(tryfirst=True)  # Before what is not chosen by -m is left out.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    starts: dict[str, bool] = {}
    for item in items:
        for name in _files_of(item):
            if name not in starts:
                starts[name] = any(map(_imports_a_starter, _with_parts(sys.modules[name])))
            if starts[name]:
                item.add_marker("process")
                break


def _files_of(item: pytest.Item) -> Iterator[str]:
    """The modules of a test and of its fixtures, as far as they are ours."""
    assert isinstance(item, pytest.Function)
    yield item.module.__name__
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        yield from (each.func.__module__ for each in definitions if each.baseid.startswith("tests"))


def _with_parts(module: ModuleType) -> Iterator[ModuleType]:
    """A module, and those of tests/ that its functions and classes are from."""
    names = {getattr(value, "__module__", None) for value in vars(module).values()}
    yield module
    yield from (sys.modules[name] for name in names if name and name.startswith("tests."))


def _imports_a_starter(module: ModuleType) -> bool:
    return any(getattr(value, "__name__", "") in STARTERS for value in vars(module).values())


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    """A test past its limit loses its children first, as it may be waiting for one of them."""
    earlier = _children()
    result = yield
    fail = signal.getsignal(signal.SIGALRM)

    def end(number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        for pid in _children() - earlier:
            os.kill(pid, signal.SIGKILL)
        assert callable(fail)
        fail(number, frame)

    if callable(fail):
        signal.signal(signal.SIGALRM, end)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    # A failure has switched both limits off, for whoever debugs it.
    faulthandler.dump_traceback_later(LAST_S, exit=True, file=item.config.stash[_STDERR])


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # Python waits for every thread before it ends.
    faulthandler.dump_traceback_later(LAST_S, exit=True, file=config.stash[_STDERR])


def _children() -> set[int]:
    """The ids of our processes; empty where the system does not list them as Linux does."""
    children: set[int] = set()
    for each in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # A thread that has ended since it was listed.
            children.update(map(int, each.read_text().split()))
    return children
