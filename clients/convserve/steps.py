"""The steps of a flow: what a client performs with its own I/O.

A flow is a generator that yields one step after the other and returns the answer. A client sends
what came of each step into the flow, or throws the error into it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from grpc_health.v1 import health_pb2_grpc

from convserve.call_set import CallSet
from convserve.calls import Metadata
from convserve.deadline import Deadline
from convserve_protos import classifier_pb2_grpc

T = TypeVar("T")


class Stubs:
    """The services of a server, over a channel of either kind."""

    def __init__(self, channel: Any) -> None:
        # Whether a method returns its reply or an awaitable of it, only the channel decides.
        self.classifier: Any = classifier_pb2_grpc.ClassifierStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@dataclass(frozen=True, slots=True)
class UnaryCall:
    """A step: make one call; its reply is sent into the flow.

    Attributes:
        method: Finds the method of the stubs.
        request: The message.
        deadline: That of the call.
        metadata: Sent beside the message.
    """

    method: Callable[[Stubs], Any]
    request: Any
    deadline: Deadline
    metadata: Metadata = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """A step: wait before the next one; the client may be closed meanwhile, which ends the wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class BlockingWork:
    """A step: run a function that reads files or encodes pictures; its result is sent.

    Attributes:
        run: The function.
    """

    run: Callable[[], object]


Step: TypeAlias = UnaryCall | CallSet | Wait | BlockingWork
Flow: TypeAlias = Generator[Step, Any, T]
