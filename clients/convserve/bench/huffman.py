"""The Huffman code of header strings: read, never written.

Source: RFC 7541, section 5.2 and appendix B. The code is canonical: codes of one length follow each
other in the order of their symbols, so the lengths alone define it.
"""

from __future__ import annotations

# fmt: off
_LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
)
# fmt: on
_END = 256  # A symbol that no string may hold.
_LONGEST_PADDING = 7


def _codes() -> dict[tuple[int, int], int]:
    """Returns the symbol of each code, by its length in bits and its value."""
    symbols: dict[tuple[int, int], int] = {}
    code = before = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda each: (_LENGTHS[each], each)):
        code <<= _LENGTHS[symbol] - before
        before = _LENGTHS[symbol]
        symbols[before, code] = symbol
        code += 1
    return symbols


_SYMBOLS = _codes()


def decode(data: bytes) -> bytes:
    """Returns the string that was encoded.

    Raises:
        ValueError: It does not end with padding of less than 8 bits, all set, or has the end in it.
    """
    decoded = bytearray()
    length = code = 0
    for byte in data:
        for place in range(7, -1, -1):
            code = code << 1 | byte >> place & 1
            length += 1
            symbol = _SYMBOLS.get((length, code))
            if symbol is None:
                continue
            if symbol == _END:
                raise ValueError("a Huffman string holds its own end")
            decoded.append(symbol)
            length = code = 0
    if length > _LONGEST_PADDING or code != (1 << length) - 1:
        raise ValueError("a Huffman string ends with something else than padding")
    return bytes(decoded)
