import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve_bench import header_blocks

FIELDS = [
    (b":method", b"POST"),
    (b":path", b"/convserve.v1.Classifier/Classify"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


def with_huffman_value(encoded: str) -> bytes:
    """A block of one field, te, that no table keeps."""
    value = bytes.fromhex(encoded)
    return bytes([0x00, 2]) + b"te" + bytes([0x80 | len(value)]) + value


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        # RFC 7541, appendix C.4 and C.6.
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("25a849e95ba97d7f", b"custom-key"),
        ("25a849e95bb8e8b4bf", b"custom-value"),
        ("6402", b"302"),
        ("aec3771a4b", b"private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
    ],
)
def test_huffman_strings_of_the_standard_are_read(encoded: str, text: bytes) -> None:
    assert header_blocks.decode(with_huffman_value(encoded)) == [(b"te", text)]


@pytest.mark.parametrize("damaged", ["f1e3c2e5f23a6ba0ab90f400", "ffffffff", "25a849e95ba97d7fff"])
def test_huffman_string_that_does_not_end_is_refused(damaged: str) -> None:
    with pytest.raises(ValueError, match="a header block cannot be read: "):
        header_blocks.decode(with_huffman_value(damaged))


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        # RFC 7541, appendix C.2, the first one shortened.
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            [(b"custom-key", b"custom-header")],
        ),
        ("040c2f73616d706c652f70617468", [(b":path", b"/sample/path")]),
        ("100870617373776f726406736563726574", [(b"password", b"secret")]),
        ("82", [(b":method", b"GET")]),
        # A new size of the table goes before the first block.
        ("2088", [(b":status", b"200")]),
    ],
)
def test_header_blocks_of_the_standard_are_read(
    block: str, fields: list[header_blocks.Field]
) -> None:
    assert header_blocks.decode(bytes.fromhex(block)) == fields


@pytest.mark.parametrize(
    "block",
    [
        "be",  # Entry 62, of a table that is empty.
        "80",
        "04ff",
        "0405ab",
        "ffffffffffffff",
    ],
)
def test_damaged_header_block_is_refused(block: str) -> None:
    with pytest.raises(ValueError, match="a header block cannot be read: "):
        header_blocks.decode(bytes.fromhex(block))


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.binary(max_size=300))))
def test_what_is_written_is_read_again(fields: list[header_blocks.Field]) -> None:
    first, later = header_blocks.encode(fields, 0)
    assert header_blocks.decode(first) == header_blocks.decode(later) == fields


def test_later_requests_are_a_byte_a_field() -> None:
    first, later = header_blocks.encode(FIELDS, header_blocks.DEFAULT_TABLE_BYTES)
    assert header_blocks.decode(first) == FIELDS
    # POST, then the newest entries of the table: the last one added is 62.
    assert later == bytes([0x80 | 3, 0x80 | 64, 0x80 | 63, 0x80 | 62])


def test_server_with_a_small_table_gets_plain_fields() -> None:
    first, later = header_blocks.encode(FIELDS, 100)
    # The table is made smaller first.
    assert first[:2] == bytes([0x3F, 100 - 31])
    assert first[2:] == later
    assert header_blocks.decode(later) == FIELDS


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize("number", [b"0", b"8", b"14"])
def test_status_is_found_without_reading_the_rest(number: bytes, huffman: bool) -> None:
    fields = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-message", b"the queue is full, " * 20),
        (b"grpc-status", number),
        (b"grpc-status-details-bin", b"CAgSA"),
    ]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode(fields, huffman=huffman)
    found = header_blocks.status_number(block)
    assert found is not None
    # As written: a Huffman string is padded with ones.
    written = hpack.Encoder().encode([(b"x", number, True)], huffman=huffman)
    assert written.endswith(found)
    for end in range(len(block) - 20):
        assert header_blocks.status_number(block[:end]) in (None, found)


@given(st.binary())
def test_any_bytes_are_looked_through_for_a_status(block: bytes) -> None:
    found = header_blocks.status_number(block)
    assert found is None or found in block
