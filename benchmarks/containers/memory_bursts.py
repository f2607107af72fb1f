"""Calls that take much memory at once, as many clients make them, most without meaning harm."""

import io
import threading
import time
from collections import Counter
from dataclasses import dataclass

import grpc
import numpy as np
from PIL import Image

from benchmarks.harness.answers import CLASSIFY
from benchmarks.harness.expensive_files import (
    EMPTY_COMMENT,
    Colours,
    arithmetic_coded_empty,
    jpeg_after,
    png,
)
from convserve_protos import classifier_pb2 as pb

#: Longer than any queue that is not refused.
_DEADLINE_S = 60.0
_CONNECTIONS = 4


@dataclass(frozen=True)
class MemoryBurst:
    """Calls in flight all the time, all alike.

    Args:
        name: for the table.
        request: a serialized ClassifyRequest.
        callers: each waits for its answer before it asks again.
    """

    name: str
    request: bytes
    callers: int

    def send(self, address: str, seconds: float) -> Counter[str]:
        """Make the calls for so long; returns how many ended with which status.

        Every status is accepted: a server may refuse what it has no memory for.
        """
        statuses: Counter[str] = Counter()
        lock = threading.Lock()
        end = time.monotonic() + seconds
        # Channels to one address share a connection unless an option says otherwise.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        channels = [grpc.insecure_channel(address, options) for _ in range(_CONNECTIONS)]

        def ask(channel: grpc.Channel) -> None:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CLASSIFY)
            while time.monotonic() < end:
                try:
                    method(self.request, timeout=_DEADLINE_S)
                    status = "OK"
                except grpc.RpcError as error:
                    status = error.code().name
                with lock:
                    statuses[status] += 1

        callers = [
            threading.Thread(target=ask, args=(channels[number % _CONNECTIONS],))
            for number in range(self.callers)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        for channel in channels:
            channel.close()
        return statuses


def memory_bursts(digits: str, photos: str) -> list[MemoryBurst]:
    """One of each kind.

    Args:
        digits: name of a model of digits, 28 x 28.
        photos: name of a model of photographs.
    """
    return [
        MemoryBurst("single digits", _pixels(digits, 1), 64),
        MemoryBurst("256 digits a call", _pixels(digits, 256), 16),
        MemoryBurst("photographs of 500 x 375", _files(photos, _jpeg(500, 375)), 64),
        MemoryBurst("256 photographs of 8 x 8 a call", _files(photos, *[_jpeg(8, 8)] * 256), 16),
        MemoryBurst("photographs of 12 megapixels", _files(photos, _jpeg(4000, 3000)), 16),
        MemoryBurst(
            "progressive ones of 5 megapixels", _files(photos, _jpeg(2592, 1944, progressive=1)), 16
        ),
        MemoryBurst("strips of 65,500 x 16", _files(photos, _jpeg(65_500, 16)), 16),
        MemoryBurst(
            "PNGs of 6,320 x 6,320 for a digit", _files(digits, png(6320, Colours.RGBA)), 16
        ),
        MemoryBurst(
            "JPEGs with 4 MiB of empty comments",
            _files(photos, jpeg_after(EMPTY_COMMENT, 2**22)),
            16,
        ),
        MemoryBurst(
            "256 arithmetic-coded ones of nothing a call",
            _files(photos, *[arithmetic_coded_empty(6600)] * 256),
            4,
        ),
        MemoryBurst("names of 10,000 letters", _files("a" * 10_000, b"\xff\xd8"), 64),
        MemoryBurst("messages of 7.5 MiB", _files(photos, b"\xff\xd8" * (15 << 18)), 16),
    ]


def _pixels(model: str, count: int) -> bytes:
    data = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8).tobytes()
    pixels = pb.Pixels(count=count, height=28, width=28, channels=1, data=data)
    return pb.ClassifyRequest(model=model, pixels=pixels).SerializeToString()


def _files(model: str, *files: bytes) -> bytes:
    encoded = pb.EncodedImages(images=files)
    return pb.ClassifyRequest(model=model, encoded=encoded).SerializeToString()


def _jpeg(width: int, height: int, *, progressive: int = 0) -> bytes:
    """A picture of some structure, so that its size is that of a photograph."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, progressive=bool(progressive))
    return file.getvalue()
