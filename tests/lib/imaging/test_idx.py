import numpy as np
import pytest

from convserve_imaging import idx
from convserve_imaging.errors import DatasetError

SHAPE = (2, 3)
VALID = bytes.fromhex("00000802 00000002 00000003 000102030405")


def test_decode_reads_the_published_format() -> None:
    array = idx.decode(VALID, SHAPE, "digits")
    assert array.dtype == np.uint8
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_header_and_bytes_make_a_file() -> None:
    assert idx.header(SHAPE) + bytes(range(6)) == VALID
    assert idx.size(SHAPE) == len(VALID)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"",
            "digits: expected an IDX file of bytes with 2 axes, which begins with 00000802, got no",
        ),
        (b"PK\3\4" + VALID[4:], "which begins with 00000802, got 504b0304"),
        (bytes.fromhex("00000d02") + VALID[4:], "which begins with 00000802, got 00000d02"),
        (bytes.fromhex("00000801") + VALID[4:], "which begins with 00000802, got 00000801"),
        (VALID[:4] + VALID[8:12] + VALID[4:8] + VALID[12:], "digits: expected 2 x 3, got 3 x 2"),
        (VALID[:7], "digits: expected 18 bytes, got 7"),
        (VALID[:-1], "digits: expected 18 bytes, got 17"),
        (VALID + b"\0", "digits: expected 18 bytes, got 19"),
    ],
)
def test_decode_of_a_damaged_file_says_what_it_has_and_what_is_expected(
    data: bytes, message: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        idx.decode(data, SHAPE, "digits")
    assert message in str(caught.value)
