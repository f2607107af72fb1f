"""Files beside an ONNX file that hold weights of it: only those of its version's folder are read.

Where such data may be stated is known from the fields of the message; weights are skipped.

Source: https://onnx.ai/onnx/repo-docs/ExternalData.html and
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (TensorProto: external_data = 13).
"""

import os
import stat
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from convserve_bundle.errors import BundleError
from convserve_bundle.wire_format import BYTES, NO_ONNX, fields

#: What leads to tensors: the fields of each message that are messages, by their numbers.
_FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
_ENTRY = "StringStringEntryProto"
_KEY, _VALUE = 1, 2
#: Key of the entry that has the path.
_LOCATION = b"location"

#: Messages within messages, at the most: protobuf's own limit.
_MOST_DEPTH = 100
#: Most fields of a message: a graph has one for each node and each weight.
_MOST_FIELDS = 10_000_000
#: Bytes that are searched at a time.
_CHUNK = 2**20
#: Longest path that a message repeats, characters.
_MOST_SHOWN = 200


def locations(model: Path) -> list[str]:
    """Returns the paths of external data that an ONNX file states, sorted, each once.

    Args:
        model: The file.

    Raises:
        BundleError: It is not a valid ONNX file.
        OSError: It cannot be read.
    """
    with model.open("rb") as file:
        return locations_in(file, os.fstat(file.fileno()).st_size)


def locations_in(file: BinaryIO, size: int) -> list[str]:
    """Returns the paths of external data that an open ONNX file of so many bytes states.

    Raises:
        BundleError, OSError: See locations.
    """
    # Nearly every file has none, and is not looked at more closely.
    words = _words(file)
    if not words:
        return []
    file.seek(0)
    found = set(_locations(file, size, "ModelProto", words, 0))
    try:
        return sorted(one.decode() for one in found)
    except UnicodeDecodeError as error:
        raise BundleError("external_data: expected a path as text, got other bytes") from error


def file_of(model: Path, location: str) -> Path:
    """Returns the file of external data.

    Args:
        model: The ONNX file.
        location: Of the data, as that states it.

    Raises:
        BundleError: It is not a file in the folder of the model file.
    """
    shown = f"{location[:_MOST_SHOWN]}…" if len(location) > _MOST_SHOWN else location
    problem = BundleError(f"external_data: expected a file in the version's folder, got {shown!r}")
    stated = PurePosixPath(location)
    if not location or "\0" in location or stated.is_absolute() or ".." in stated.parts:
        raise problem
    path = model.parent / stated
    try:
        real = path.resolve(strict=True)
        inside = real.is_relative_to(model.parent.resolve(strict=True))
        if not inside or not stat.S_ISREG(real.stat().st_mode):
            raise problem
    except (OSError, RuntimeError) as error:
        # Not there, not to be read, or links that lead to themselves.
        raise BundleError(f"{problem}: {getattr(error, 'strerror', None) or error}") from error
    return path


def check(model: Path) -> None:
    """Refuses a model file with external data outside its folder.

    Raises:
        BundleError: It has such data, or is not a valid ONNX file.
        OSError: It cannot be read.
    """
    for location in locations(model):
        file_of(model, location)


def _words(file: BinaryIO) -> list[int]:
    """Returns where a file has the key of locations, ascending."""
    found: list[int] = []
    before, rest = 0, b""
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        at = data.find(_LOCATION)
        while at >= 0:
            found.append(before + at)
            at = data.find(_LOCATION, at + 1)
        # The word may be cut.
        rest = data[1 - len(_LOCATION) :]
        before += len(data) - len(rest)
    return found


def _locations(
    file: BinaryIO, end: int, message: str, words: list[int], depth: int
) -> Iterator[bytes]:
    """Yields the locations that a message states.

    Args:
        file: At the beginning of the message.
        end: Of the message, as a position in the file.
        message: Its name in onnx.proto.
        words: See _words.
        depth: Of the message in others.
    """
    if depth > _MOST_DEPTH:
        raise BundleError(f"{NO_ONNX}: expected at most {_MOST_DEPTH} messages within each other")
    for number, kind, length in fields(file, end, _MOST_FIELDS):
        until = file.tell() + length
        inner = _FIELDS[message].get(number) if kind == BYTES else None
        word = bisect_left(words, file.tell())
        # What does not have the word cannot have a location.
        if inner is None or word == len(words) or words[word] >= until:
            file.seek(until)
        elif inner == _ENTRY:
            yield from _value(file, until)
        else:
            yield from _locations(file, until, inner, words, depth + 1)


def _value(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Yields the value of an entry, if it is a location."""
    texts = {_KEY: b"", _VALUE: b""}
    for number, kind, length in fields(file, end, _MOST_FIELDS):
        content = file.read(length)
        if kind == BYTES and number in texts:
            texts[number] = content
    if texts[_KEY] == _LOCATION:
        yield texts[_VALUE]
