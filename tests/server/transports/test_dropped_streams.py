"""Clients that leave in the middle of something are nothing to write in the log."""

import itertools
import logging

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.server.conftest import WAIT_S, Serve, answers, request_for
from tests.server.protocols.test_stream_bounds import handler_of
from tests.server.protocols.test_streams import Outgoing
from tests.server.transports.test_conformance import until

_ROUNDS = 40


def leave(address: str, number: int) -> None:
    """Begin a stream, a watch, a reflection and a call, and go away in the middle of them."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        outgoing = Outgoing()
        outgoing.send(*[request_for(1, id=str(n)) for n in range(100)])
        replies = ClassifierStub(channel).StreamClassify(iter(outgoing))
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        reflections = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            itertools.repeat(ask, 50)
        )
        call = ClassifierStub(channel).Classify.future(request_for(2), timeout=WAIT_S)
        next(itertools.islice(replies, number % 5, None))
        if number % 2:
            for each in (replies, watch, reflections, call):
                each.cancel()
        outgoing.end()


def test_clients_that_leave_in_the_middle_leave_no_traceback(
    serve: Serve, front: str, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(front)
    for number in range(_ROUNDS):
        leave(served.address, number)
        # Statuses on their way to watchers who are gone.
        served.worker._health.set("mnist", number % 2 == 0)
        served.worker._health.set("", number % 2 == 0)
    until(lambda: not handler_of(served)._open)
    assert answers(served.classify(request_for(5)).result()) == [5]
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in loud] == []
