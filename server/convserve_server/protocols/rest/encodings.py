"""Compressed bodies, gzip and deflate, with a limit to what they become."""

import zlib

from convserve_server.core.errors import quoted
from convserve_server.protocols.rest.messages import HttpAnswer, HttpRequest, Problem

#: Bodies of answers from which on compressing them is worth its time, bytes.
LARGE_BYTES = 4096

#: zlib's sizes of window: gzip's header, zlib's own.
_GZIP, _ZLIB = 31, 15


def decoded_body(request: HttpRequest, most: int) -> bytes:
    """Returns the body of a request as it was before it was compressed.

    Args:
        request: with its body as it came.
        most: bytes of the result; no more are made.

    Raises:
        Problem: if the body is not what its Content-Encoding states, or becomes too large.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return request.body
    if encoding in ("gzip", "x-gzip"):
        return _inflated(request.body, encoding, _GZIP, most)
    if encoding == "deflate":
        # Its name means zlib's form; some send the bare one.
        bare = len(request.body) < 2 or int.from_bytes(request.body[:2]) % 31
        return _inflated(request.body, encoding, -_ZLIB if bare else _ZLIB, most)
    raise Problem(
        415,
        "UNSUPPORTED_ENCODING",
        f"content-encoding: expected gzip, deflate or identity, got {quoted(encoding)}",
        (("accept-encoding", "gzip, deflate, identity"),),
    )


def too_large(most: int, got: str) -> Problem:
    """Returns the error of a body over the limit.

    Args:
        most: bytes that are allowed.
        got: what came.
    """
    return Problem(413, "MESSAGE_TOO_LARGE", f"body: expected at most {most} bytes, got {got}")


def encoded_answer(request: HttpRequest, answer: HttpAnswer) -> HttpAnswer:
    """Returns an answer, compressed where that is asked for and worth it."""
    if len(answer.body) < LARGE_BYTES or not _accepts_gzip(request):
        return answer
    packer = zlib.compressobj(1, wbits=_GZIP)
    body = packer.compress(answer.body) + packer.flush()
    headers = (*answer.headers, ("content-encoding", "gzip"), ("vary", "accept-encoding"))
    return HttpAnswer(answer.status, body, answer.content_type, headers)


def _inflated(data: bytes, encoding: str, window: int, most: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        result = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise _damaged(encoding, "others") from error
    if len(result) > most:
        raise too_large(most, f"more once it was decompressed from {len(data)} bytes")
    if not unpacker.eof:
        raise _damaged(encoding, "bytes that end too early")
    if unpacker.unused_data:
        raise _damaged(encoding, f"{len(unpacker.unused_data)} bytes behind their end")
    return result


def _damaged(encoding: str, got: str) -> Problem:
    return Problem(400, "INVALID_REQUEST", f"body: expected bytes of {encoding}, got {got}")


def _accepts_gzip(request: HttpRequest) -> bool:
    for each in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, parameters = each.partition(";")
        if name.strip() in ("gzip", "*"):
            weight = parameters.strip().removeprefix("q=").strip()
            return weight.strip("0.") != "" or not weight
    return False
