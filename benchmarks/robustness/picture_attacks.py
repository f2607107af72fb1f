"""Calls whose pictures or names cost a server more than they cost the client to send."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

from benchmarks.harness.answers import CLASSIFY
from benchmarks.harness.expensive_files import (
    EMPTY_COMMENT,
    EMPTY_TABLE,
    FILL_BYTE,
    RESTART,
    Colours,
    arithmetic_coded_empty,
    jpeg_after,
    png,
)
from benchmarks.harness.raw_http2 import RawConnection
from benchmarks.robustness.attack import Attack
from benchmarks.robustness.attacks import DECODED, over_grpc
from convserve_protos import bundle_pb2
from convserve_protos import classifier_pb2 as pb

#: Of images, as a model expects them.
Kind: TypeAlias = bundle_pb2.ImageKind.ValueType

_DIGITS, _PHOTO = bundle_pb2.IMAGE_KIND_DIGITS, bundle_pb2.IMAGE_KIND_PHOTO
#: For all answers together, s. A server that is well needs little of it.
_PATIENCE_S = 10.0
#: Below the largest picture that a server accepts by default, pixels of a side.
_PNG_SIDE, _JPEG_SIDE = 6320, 6600


def picture_attacks(limit: int, models: Mapping[Kind, str]) -> list[Attack]:
    """All of them that the models there are can be asked for.

    Args:
        limit: largest message that the server accepts, bytes.
        models: name of one of each kind of images.
    """
    named = pb.ClassifyRequest(model="a" * 10_000).SerializeToString
    found = [_attack("100 calls for a model with a name of 10,000 letters", 1, named, 100)]
    for kind, name in models.items():
        found += _jpegs(name, limit - 2**12) if kind == _PHOTO else _pngs(name, kind)
    return found


def _pngs(model: str, kind: Kind) -> list[Attack]:
    what = "a digit" if kind == _DIGITS else "pixels"
    return [
        _attack(
            f"8 connections, a PNG for {what} of {_PNG_SIDE:,} x {_PNG_SIDE:,}, {colours.name}",
            8,
            _files(model, functools.partial(png, _PNG_SIDE, colours)),
        )
        for colours in Colours
    ]


def _jpegs(model: str, size: int) -> list[Attack]:
    parts = {
        "empty comments": EMPTY_COMMENT,
        "empty tables": EMPTY_TABLE,
        "fill bytes": FILL_BYTE,
        "restart markers": RESTART,
    }
    found = [
        _attack(
            f"4 connections, a JPEG of {round(size / 2**20)} MiB of {what}",
            4,
            _files(model, functools.partial(jpeg_after, part, size)),
        )
        for what, part in parts.items()
    ]
    nothing = functools.partial(arithmetic_coded_empty, _JPEG_SIDE)
    name = f"4 connections, 256 arithmetic-coded JPEGs of {len(nothing())} bytes each"
    return [*found, _attack(name, 4, _files(model, nothing, times=256))]


def _files(model: str, file: Callable[[], bytes], times: int = 1) -> Callable[[], bytes]:
    def request() -> bytes:
        encoded = pb.EncodedImages(images=[file()] * times)
        return pb.ClassifyRequest(model=model, encoded=encoded).SerializeToString()

    return request


def _attack(name: str, connections: int, request: Callable[[], bytes], calls: int = 1) -> Attack:
    """Calls at once on each connection, whose answers are waited for."""
    made = functools.cache(request)

    def send(connection: RawConnection) -> None:
        streams = [connection.ask(made(), CLASSIFY) for _ in range(calls)]
        connection.wait(lambda: all(map(connection.is_over, streams)))

    return over_grpc(name, connections, send, DECODED, patience_s=_PATIENCE_S, prepare=made)
