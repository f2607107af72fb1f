"""Header blocks: those of requests are written once, those of replies are read without a table.

The peer is asked to keep no table of what it sent (SETTINGS_HEADER_TABLE_SIZE of 0), so that the
same block always means the same. Our own requests are alike: after the first one, which fills the
server's table, each field is one byte, as with any other client that keeps its connection.

Source: RFC 7541, sections 2.3, 4, 5 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import hpack
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

Field = tuple[bytes, bytes]

DEFAULT_TABLE_BYTES = 4096

_OVERHEAD_BYTES = 32  # That an entry of a table counts, beside name and value.


def decode(block: bytes) -> list[Field]:
    """Returns the fields of a header block whose sender has no table.

    Raises:
        ValueError: It is damaged, or refers to a table.
    """
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack.HPACKError as error:
        raise ValueError(f"a header block cannot be read: {error}") from error


def status_number(block: bytes) -> bytes | None:
    """Returns grpc-status as it is written in a block; None: it is not there, or damaged.

    Equal numbers may be written in two ways. Nothing else is read, which is a tenth of the work
    where each refusal has a message of its own.

    Args:
        block: Of a sender that has no table.
    """
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:  # A field of the static table, which has no grpc-status.
                _, at = _integer(block, at, 0x7F)
                continue
            if first & 0xE0 == 0x20:  # The table's size.
                _, at = _integer(block, at, 0x1F)
                continue
            index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
            name = b""
            if not index:
                name, at = _string(block, at)
            value, at = _string(block, at)
            if name in _GRPC_STATUS:
                return value
    except IndexError:
        pass
    return None


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Returns an integer, and where what follows it begins."""
    value = block[at] & prefix
    at += 1
    if value < prefix:
        return value, at
    shift = 0
    while True:
        more = block[at]
        at += 1
        value += (more & 0x7F) << shift
        shift += 7
        if more < 0x80:
            return value, at


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """Returns a string as it is written, and where what follows it begins."""
    size, at = _integer(block, at, 0x7F)
    if at + size > len(block):
        raise IndexError("a string is longer than its block")
    return block[at : at + size], at + size


def _huffman(text: bytes) -> bytes:
    return HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)


_GRPC_STATUS = {b"grpc-status", _huffman(b"grpc-status")}


def encode(fields: Sequence[Field], table_bytes: int) -> tuple[bytes, bytes]:
    """Returns the block of the first request of a connection, and that of every other one.

    Args:
        fields: Of all requests.
        table_bytes: The largest table that the server is willing to keep.
    """
    encoder = hpack.Encoder()
    size = min(table_bytes, DEFAULT_TABLE_BYTES)
    if size != DEFAULT_TABLE_BYTES:
        encoder.header_table_size = size
    # What does not fit as a whole is kept out of the table: each field would push another one out.
    kept_out = sum(len(name) + len(value) + _OVERHEAD_BYTES for name, value in fields) > size
    written = [(name, value, kept_out) for name, value in fields]
    first, later = (encoder.encode(written, huffman=False) for _ in range(2))
    return first, later
