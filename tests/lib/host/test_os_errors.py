import errno
import os

import pytest

from convserve_host import os_errors


def _error(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "/m: Permission denied to user 10001; give it that owner, or run as anoth"),
        (errno.EPERM, "/m: Operation not permitted to user 10001; give it that owner, or run as"),
        (errno.EROFS, "/m: Read-only file system; mount it writable"),
        (errno.ENOSPC, "/m: No space left on device; free some space there"),
        (errno.EIO, "/m: Input/output error"),
    ],
)
def test_refusal_says_what_to_do(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    assert os_errors.described(_error(number, "/m")).startswith(message)


def test_refusal_without_a_file_or_number_is_one_line() -> None:
    assert os_errors.described(_error(errno.EIO)) == "Input/output error"
    assert os_errors.described(OSError("no\n  number")) == "no number"
