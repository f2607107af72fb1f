"""The threads' way to make the calls of one request: several in flight, none after a failure."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from convserve.calls import Images, Question
from convserve.deadline import Deadline
from convserve.replies import Reply
from convserve.settings import Settings
from convserve.statuses import bad_image
from convserve_protos import classifier_pb2

if TYPE_CHECKING:
    from convserve_protos.classifier_pb2_grpc import ClassifierStub


def call_all(
    stub: ClassifierStub,
    calls: Sequence[Images],
    question: Question,
    deadline: Deadline,
    settings: Settings,
) -> list[Reply]:
    """Makes all calls of a request and returns the reply to each, in their order.

    Raises:
        RpcError: A call failed; the others are cancelled. Not for the only image of one call among
            several: what is wrong with it is the reply.
    """
    if len(calls) == 1:
        return [
            stub.Classify(
                question.request(calls[0]),
                timeout=deadline.left_s(),
                wait_for_ready=settings.wait_for_ready,
            )
        ]
    replies: dict[int, Reply] = {}
    flying: dict[int, grpc.Future[classifier_pb2.ClassifyResponse]] = {}
    landed: queue.SimpleQueue[int] = queue.SimpleQueue()

    def take_off(number: int, request: classifier_pb2.ClassifyRequest) -> None:
        call = stub.Classify.future(
            request, timeout=deadline.left_s(), wait_for_ready=settings.wait_for_ready
        )
        flying[number] = call
        call.add_done_callback(lambda _: landed.put(number))

    def land_one() -> None:
        number = landed.get()
        try:
            replies[number] = flying.pop(number).result()
        except grpc.RpcError as error:
            if len(calls[number]) > 1:
                raise
            replies[number] = bad_image(error, settings.server, deadline)

    try:
        for number, images in enumerate(calls):
            if len(flying) == settings.max_in_flight:
                land_one()
            take_off(number, question.request(images))
        while flying:
            land_one()
    finally:
        for call in flying.values():
            call.cancel()
    return [replies[number] for number in range(len(calls))]
