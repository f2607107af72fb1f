import copy
import dataclasses
import json
import logging
import pickle
from pathlib import Path

import pytest

from convserve_server.security.secrets import Secret

KEY = "hunter2-and-more"


@dataclasses.dataclass(frozen=True)
class Holder:
    key: Secret


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(KEY)),
        repr(Secret(KEY)),
        f"{Secret(KEY)}",
        f"{Secret(KEY):>9}",
        "{}".format(Secret(KEY)),  # noqa: UP032 - one of the ways
        "%s and %r" % (Secret(KEY), Secret(KEY)),  # noqa: UP031 - one of the ways
        repr(Holder(Secret(KEY))),
        repr([Secret(KEY)]),
        str(dataclasses.asdict(Holder(Secret(KEY)))),
        json.dumps({"key": Secret(KEY)}, default=str),
    ],
)
def test_secret_is_shown_as_stars(shown: str) -> None:
    assert "***" in shown
    assert "hunter2" not in shown


def test_secret_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("key %s %r", Secret(KEY), Secret(KEY))
    assert "***" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_secret_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Holder(Secret(KEY)), protocol)


def test_secret_is_not_written_as_json_by_accident() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"key": Secret(KEY)})


def test_secret_is_revealed_only_by_its_method() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert not hasattr(secret, "__dict__")
    assert copy.copy(secret) is secret
    assert copy.deepcopy(Holder(secret)).key is secret


def test_secrets_are_equal_by_their_text() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY), Secret("other")}) == 2


def test_secret_is_read_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert Secret.from_file(file) == Secret(KEY)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "expected a secret, got an empty file"), (b" \n", "got an empty file"),
     (b"\xff" + KEY.encode(), "expected UTF-8, got other bytes")],
)  # fmt: skip
def test_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=problem) as caught:
        Secret.from_file(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "hunter2" not in str(caught.value)


def test_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Secret.from_file(tmp_path / "none")


def test_secret_is_read_from_a_variable() -> None:
    assert Secret.from_variable("CONVSERVE_KEY", {"CONVSERVE_KEY": KEY}) == Secret(KEY)


@pytest.mark.parametrize("environ", [{}, {"CONVSERVE_KEY": ""}])
def test_variable_without_a_secret_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="^CONVSERVE_KEY: expected a secret, got none$"):
        Secret.from_variable("CONVSERVE_KEY", environ)
