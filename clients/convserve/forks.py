"""Notices that this process was forked from one that used gRPC, which does not outlive a fork.

A fork copies the memory of a process and one of its threads: gRPC's own threads are missing in the
child, and locks that they held stay locked. Every call would wait there beyond its timeout, on an
old channel or a new one, and so may what tidies a channel up. GRPC_ENABLE_FORK_SUPPORT mends that
only where no call was in flight, and where one was it may harm the parent's; so it is not relied
on, and off unless somebody switched it on (__init__.py, since gRPC reads it as it is imported).

Source: https://github.com/grpc/grpc/blob/master/doc/fork_support.md
"""

from __future__ import annotations

import os
import weakref

from convserve.errors import ForkedProcess

_used_in: int | None = None
_held: weakref.WeakSet[object] = weakref.WeakSet()


def use() -> None:
    """Notes that this process uses gRPC from here on.

    Raises:
        ForkedProcess: The process that it was forked from did so before.
    """
    global _used_in
    if _used_in is None:
        _used_in = os.getpid()
    elif is_child():
        raise ForkedProcess(
            f"gRPC was used in process {_used_in} before this one was forked from it, and does not"
            " work here: make the first call after the fork, or start processes by"
            ' multiprocessing\'s "spawn" or "forkserver"'
        )


def is_child() -> bool:
    """Returns whether this process was forked from one that had used gRPC."""
    return _used_in not in (None, os.getpid())


def hold(thing: object) -> None:
    """Keeps an object of gRPC from being tidied up in a child, where that may wait for ever."""
    _held.add(thing)


def _hold_for_ever() -> None:
    if not is_child():
        return
    # Here, since few processes fork. No list is safe enough: those are emptied at exit.
    import ctypes

    for thing in list(_held):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):  # Windows has no forks.
    os.register_at_fork(after_in_child=_hold_for_ever)
