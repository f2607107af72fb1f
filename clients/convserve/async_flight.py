"""The event loop's way to make the calls of one request: as flight, with tasks for threads."""

from __future__ import annotations

import asyncio
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
    from convserve_protos.classifier_pb2_grpc import ClassifierAsyncStub


async def call_all(
    stub: ClassifierAsyncStub,
    calls: Sequence[Images],
    question: Question,
    deadline: Deadline,
    settings: Settings,
) -> list[Reply]:
    """Makes all calls of a request and returns the reply to each, in their order.

    Raises:
        RpcError: As flight.call_all.
    """

    async def call(images: Images) -> classifier_pb2.ClassifyResponse:
        return await stub.Classify(
            question.request(images),
            timeout=deadline.left_s(),
            wait_for_ready=settings.wait_for_ready,
        )

    if len(calls) == 1:
        return [await call(calls[0])]
    replies: dict[int, Reply] = {}
    waiting = enumerate(calls)

    async def call_in_turn() -> None:
        for number, images in waiting:
            try:
                replies[number] = await call(images)
            except grpc.RpcError as error:
                if len(images) > 1:
                    raise
                replies[number] = bad_image(error, settings.server, deadline)

    lanes = [
        asyncio.create_task(call_in_turn()) for _ in range(min(settings.max_in_flight, len(calls)))
    ]
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
    return [replies[number] for number in range(len(calls))]
