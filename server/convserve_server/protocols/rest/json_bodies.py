"""JSON of requests, read into types; what is wrong is named by its path."""

import re
from typing import Any, TypeVar

import msgspec

from convserve_server.core.errors import quoted
from convserve_server.protocols.rest.messages import Problem
from convserve_server.protocols.rest.parameters import wrong

T = TypeVar("T")

_AT = re.compile(r"(?P<text>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?", re.S)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_TYPE = re.compile(r"Expected `(?P<expected>.*?)`(?P<limit>[^,]*)(?:, got `(?P<got>.*)`)?")
_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")

#: Values of JSON in one request, and elements of one tensor: each is an object of its own for a
#: while, and takes a hundred times as long as its bytes.
MOST_VALUES = 2**20

#: Of JSON, for those of msgspec.
_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}


def read_json(data: bytes, decoder: "msgspec.json.Decoder[T]", where: str = "body") -> T:
    """Returns what JSON states.

    Args:
        data: the JSON.
        decoder: of what is expected.
        where: the field that it is; paths of what is wrong begin with it, but for "body".

    Raises:
        Problem: if it is not JSON, or not what is expected, or has too many values.
    """
    check_values(data, MOST_VALUES)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _problem(data, str(error), where) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        got = str(error) if isinstance(error, msgspec.DecodeError) else "bytes that are not UTF-8"
        if isinstance(error, RecursionError):
            got = "brackets within brackets without end"
        elif not data:
            got = "none"
        raise wrong(f"{where}: expected JSON, got {got}") from error


def check_values(data: bytes, most: int) -> None:
    """Refuses JSON of many values before it is read.

    Args:
        data: the JSON.
        most: values, at which each comma and each opening bracket counts.

    Raises:
        Problem: if it has more.
    """
    # No value is shorter than two bytes with what is before it.
    if len(data) > most and sum(map(data.count, (b",", b"[", b"{"))) > most:
        raise Problem(
            413,
            "MESSAGE_TOO_LARGE",
            f"body: expected at most {most} values as JSON, got more; send tensors as binary data",
        )


def _problem(data: bytes, text: str, where: str) -> Problem:
    """Returns the error of a value of another type, in our words.

    Args:
        data: the JSON.
        text: of msgspec's error.
        where: see read_json.
    """
    found = _AT.fullmatch(text)
    text, path = (text, "") if found is None else (found["text"], found["path"] or "")
    field = f"{where}{path}" if where != "body" or not path else path.lstrip(".")
    if missing := _MISSING.fullmatch(text):
        inner = f"{field}." if field != "body" else ""
        return wrong(f"{inner}{missing['name']}: expected in the request, got none")
    typed = _TYPE.fullmatch(text)
    if typed is None:
        return wrong(f"{field}: expected a number within range, got another: {text}")
    names = (_NAMES.get(name, name) for name in typed["expected"].split(" | "))
    expected = " or ".join(names) + typed["limit"]
    got = typed["got"]
    got = _value_at(data, path) if got is None else _NAMES.get(got, got)
    return wrong(f"{field}: expected {expected}, got {got}")


def _value_at(data: bytes, path: str) -> str:
    """Returns the value at a path of msgspec's, which is in the JSON, as it is shown."""
    value: Any = msgspec.json.decode(data)
    for index, name in _STEP.findall(path):
        if name == "...":
            return "another"
        value = value[int(index)] if index else value[name]
    return quoted(value) if isinstance(value, str) else str(value)
