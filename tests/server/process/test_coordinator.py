"""Who is answered by the supervisor for what."""

from pathlib import Path
from typing import cast

import pytest

from convserve_server.host import shared_memory
from convserve_server.process.channel import Channel
from convserve_server.process.coordinator import Coordinator
from convserve_server.process.messages import AdminReply, AdminRequest, Message
from convserve_server.process.slot import ADMIN_HOST, WORKER, Slot
from convserve_server.settings.settings import make_settings
from tests.bundles import write_bundle


class Replies:
    """A coordinator of a folder with mnist/1, which nobody loads, and what it sends."""

    def __init__(self, models: Path) -> None:
        write_bundle(models)
        self.sent: list[tuple[Slot, Message]] = []
        settings = make_settings(models=str(models), control="explicit", workers=2)
        self.coordinator = Coordinator(
            settings,
            shared_memory.create_number("test"),
            lambda slot, message: self.sent.append((slot, message)),
            lambda: None,
        )
        self.coordinator._scanner.scan()
        self.coordinator.tick()

    def ask(self, slot: Slot, number: int) -> None:
        self.coordinator.on_message(slot, AdminRequest(number, "load", "mnist", 1))


def slot_of(module: str, number: int) -> Slot:
    return Slot(number, module, channel=cast("Channel", object()))


@pytest.fixture
def replies(tmp_path: Path) -> Replies:
    return Replies(tmp_path / "models")


def test_each_process_that_asks_is_answered_by_its_own_number(replies: Replies) -> None:
    workers, host = [slot_of(WORKER, 1), slot_of(WORKER, 2)], slot_of(ADMIN_HOST, 0)
    for number, slot in enumerate([*workers, host]):
        replies.ask(slot, number)
    assert replies.sent == []
    replies.coordinator.stop()
    assert [(slot, cast("AdminReply", reply).number) for slot, reply in replies.sent] == [
        (workers[0], 0),
        (workers[1], 1),
        (host, 2),
    ]


def test_successor_is_not_answered_for_what_the_process_before_it_asked(replies: Replies) -> None:
    worker = slot_of(WORKER, 1)
    replies.ask(worker, 1)
    worker.channel = None
    worker.channel = cast("Channel", object())
    replies.ask(worker, 1)
    replies.coordinator.stop()
    # One reply: that to the successor's own request.
    assert len(replies.sent) == 1
