"""Header blocks: those of requests are written once, those of replies are read without a table.

The peer is told to keep no table of what it sent (SETTINGS_HEADER_TABLE_SIZE of 0), so that the
same block always means the same. Our own requests are alike: after the first one, which fills the
server's table, each field is one byte, as with any other client that keeps its connection.

Source: RFC 7541, sections 2.3, 4, 5 and 6, appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

from convserve.bench import huffman

Field = tuple[bytes, bytes]

DEFAULT_TABLE_BYTES = 4096

_OVERHEAD_BYTES = 32  # That an entry of a table counts, beside name and value.

_WITH_VALUES = (
    b":authority=|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|"
    b":status=200|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|"
    b"accept-charset=|accept-encoding=gzip, deflate|accept-language=|accept-ranges=|accept=|"
    b"access-control-allow-origin=|age=|allow=|authorization=|cache-control=|content-disposition=|"
    b"content-encoding=|content-language=|content-length=|content-location=|content-range=|"
    b"content-type=|cookie=|date=|etag=|expect=|expires=|from=|host=|if-match=|if-modified-since=|"
    b"if-none-match=|if-range=|if-unmodified-since=|last-modified=|link=|location=|max-forwards=|"
    b"proxy-authenticate=|proxy-authorization=|range=|referer=|refresh=|retry-after=|server=|"
    b"set-cookie=|strict-transport-security=|transfer-encoding=|user-agent=|vary=|via=|"
    b"www-authenticate="
)
_STATIC: list[Field] = [
    (name, value) for name, _, value in (each.partition(b"=") for each in _WITH_VALUES.split(b"|"))
]
_PLACES = {field: place for place, field in enumerate(_STATIC, 1)}
_NAMES = {name: place for place, (name, _) in reversed([*enumerate(_STATIC, 1)])}

# The first bits of each representation, and how many bits of the byte are left for an integer.
_INDEXED, _INDEXED_BITS = 0x80, 7
_ADDED, _ADDED_BITS = 0x40, 6
_RESIZED, _RESIZED_BITS = 0x20, 5
_PLAIN, _PLAIN_BITS = 0x00, 4
_HUFFMAN, _STRING_BITS = 0x80, 7


def decode(block: bytes) -> list[Field]:
    """Returns the fields of a header block whose sender has no table.

    Raises:
        ValueError: It is damaged, or refers to a table.
    """
    try:
        return _decoded(block)
    except IndexError as error:
        raise ValueError("a header block ends too early") from error


def _decoded(block: bytes) -> list[Field]:
    fields: list[Field] = []
    at = 0
    while at < len(block):
        first = block[at]
        if first & _INDEXED:
            index, at = _integer(block, at, _INDEXED_BITS)
            fields.append(_static(index))
        elif first & _ADDED or not first & _RESIZED:
            index, at = _integer(block, at, _ADDED_BITS if first & _ADDED else _PLAIN_BITS)
            name, at = (_static(index)[0], at) if index else _string(block, at)
            value, at = _string(block, at)
            fields.append((name, value))
        else:
            _, at = _integer(block, at, _RESIZED_BITS)
    return fields


def _static(index: int) -> Field:
    if not 1 <= index <= len(_STATIC):
        raise ValueError(f"a header block refers to entry {index} of a table that is empty")
    return _STATIC[index - 1]


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Returns an integer, and where what follows begins."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in range(0, 35, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a header block holds an integer that is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    encoded = block[at] & _HUFFMAN
    length, at = _integer(block, at, _STRING_BITS)
    end = at + length
    if end > len(block):
        raise ValueError("a header block ends too early")
    text = block[at:end]
    return huffman.decode(text) if encoded else text, end


def blocks_of(fields: Sequence[Field], table_bytes: int) -> tuple[bytes, bytes]:
    """Returns the block of the first request of a connection, and that of every other one.

    Args:
        fields: Of all requests.
        table_bytes: The largest table that the server is willing to keep.
    """
    size = min(table_bytes, DEFAULT_TABLE_BYTES)
    added = [field for field in fields if field not in _PLACES]
    fits = sum(len(name) + len(value) + _OVERHEAD_BYTES for name, value in added) <= size
    first = bytearray()
    if size != DEFAULT_TABLE_BYTES:
        first += _written(_RESIZED, _RESIZED_BITS, size)
    later = bytearray()
    # The entry that was added last has the lowest number.
    number = len(_STATIC) + len(added)
    for field in fields:
        if field in _PLACES:
            part = _written(_INDEXED, _INDEXED_BITS, _PLACES[field])
            first += part
            later += part
        elif fits:
            first += _literal(_ADDED, _ADDED_BITS, field)
            later += _written(_INDEXED, _INDEXED_BITS, number)
            number -= 1
        else:
            part = _literal(_PLAIN, _PLAIN_BITS, field)
            first += part
            later += part
    return bytes(first), bytes(later)


def _literal(kind: int, bits: int, field: Field) -> bytes:
    name, value = field
    index = _NAMES.get(name, 0)
    named = b"" if index else _written(0, _STRING_BITS, len(name)) + name
    return _written(kind, bits, index) + named + _written(0, _STRING_BITS, len(value)) + value


def _written(kind: int, bits: int, value: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([kind | value])
    written = bytearray([kind | most])
    value -= most
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
