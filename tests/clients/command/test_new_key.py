"""`convserve new-key`: the key is in its file, and what it prints is what a server reads."""

import os
import stat
from pathlib import Path

import pytest

from convserve.main import main
from convserve_server.security.keys import found, read_keys


def test_key_is_in_a_file_of_its_owner_and_its_digest_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ""
    for name in ("one", "two"):
        file = tmp_path / f"{name}.key"
        assert main(["new-key", name, str(file)]) == 0
        tables += capsys.readouterr().out
        token = file.read_text().strip()
        assert len(token) == 43  # 256 bits
        assert token not in tables
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
        key = found(read_keys(tables).by_digest, token)
        assert key.name == name


def test_file_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    file.write_text("a key in use")
    assert main(["new-key", "one", str(file)]) == 1
    assert file.read_text() == "a key in use"
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(
        f"convserve: file: expected one that can be made anew, got {file}: "
    )


@pytest.mark.parametrize("name", ["", "a b", "anonymous", "x" * 65])
def test_name_that_a_server_would_refuse_makes_no_key(name: str, tmp_path: Path) -> None:
    assert main(["new-key", name, str(tmp_path / "key")]) == 1
    assert list(tmp_path.iterdir()) == []
