"""JPEGs with other tables, whose decoded pixels show what is wrong with the data.

Source: ITU-T T.81 (JPEG), B.2.4.1 (quantisation) and B.2.4.2 (Huffman codes).
"""

from convserve_imaging.jpeg import FRAMES
from convserve_imaging.jpeg_intervals import markers

_DHT, _DQT = 0xC4, 0xDB
#: Of one bit, and no zeros before it.
_SYMBOL = b"\x01"


def with_whole_codes(data: bytes) -> bytes:
    """Returns the file with codes for what its Huffman tables leave free.

    Whoever meets one of those bits reads something else than in the file itself. What no table may
    have a code for, sixteen ones, is still free.

    Args:
        data: a whole file whose header was read.
    """
    whole = memoryview(data)
    parts: list[bytes | memoryview] = []
    at = 0
    for code, position, end in markers(data):
        if code == _DHT:
            parts += (whole[at:position], _with_whole_codes(data[position + 4 : end]))
            at = end
    return b"".join((*parts, whole[at:]))


def _with_whole_codes(tables: bytes) -> bytes:
    """The same for the body of one segment, which becomes a whole segment. Source: B.2.4.2."""
    body = b""
    while len(tables) >= 17:
        counts = bytearray(tables[1:17])
        end = 17 + sum(counts)
        symbols = tables[17:end]
        longest = max((length for length, count in enumerate(counts, 1) if count), default=16)
        for length in range(longest + 1, 17):
            counts[length - 1] = 1
            symbols += _SYMBOL
        body += tables[:1] + counts + symbols
        tables = tables[end:]
    return bytes([0xFF, _DHT]) + (len(body) + 2).to_bytes(2, "big") + body


def with_means_alone(data: bytes) -> tuple[bytes, int]:
    """Returns the file with blocks of one level each, of which 128 is zero, and the step of those.

    A step of the first component of the file itself is so many levels; 0 where that is not known.

    Args:
        data: a whole file whose header was read.
    """
    whole = memoryview(data)
    parts: list[bytes | memoryview] = []
    steps: dict[int, int] = {}
    number = at = 0
    for code, position, end in markers(data):
        if code in FRAMES:
            number = data[position + 12]
        elif code == _DQT:
            body = bytearray(data[position + 4 : end])
            start = 0
            while start < len(body):
                wide = body[start] >> 4
                first = start + 1 + wide
                if first >= len(body):
                    break
                steps.setdefault(body[start] & 15, body[first] + 256 * wide * body[start + 1])
                following = start + 1 + 64 * (1 + wide)
                body[start + 1 : following] = bytes(wide) + b"\1" + bytes(63 * (1 + wide))
                start = following
            parts += (whole[at : position + 4], bytes(body[: end - position - 4]))
            at = end
    return b"".join((*parts, whole[at:])), steps.get(number, 0)
