"""Header blocks: those of requests are written once, those of replies are read without a table.

The peer is asked to keep no table of what it sent (SETTINGS_HEADER_TABLE_SIZE of 0), so that the
same block always means the same. Our own requests are alike: after the first one, which fills the
server's table, each field is one byte, as with any other client that keeps its connection.

Source: RFC 7541, sections 2.3, 4, 5 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import hpack

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
