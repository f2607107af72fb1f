"""The settings of TLS, as far as a server that starts looks at their files."""

import os
from pathlib import Path

import pytest

from convserve_server.main import main
from convserve_server.process.tls_settings import check_tls, tls_files
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings, make_settings
from tests.certificates import Authority


def settings(**files: object) -> Settings:
    return make_settings(models="m", **{name: str(path) for name, path in files.items()})


def test_without_settings_there_is_no_tls() -> None:
    assert tls_files(settings()) is None
    assert check_tls(settings()) == []


def test_files_are_those_of_the_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine = authority.server(days=100)
    given = settings(tls_cert=mine.cert, tls_key=mine.key, tls_client_ca=authority.ca)
    found = tls_files(given)
    assert found is not None
    assert found.paths == (mine.cert, mine.key, authority.ca)
    assert found.clients == "required"
    assert check_tls(given) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_cert": "c"}, "tls_key: expected a file beside tls_cert, got none"),
        ({"tls_key": "k"}, "tls_cert: expected a file beside tls_key, got none"),
        ({"tls_client_ca": "a"}, "tls_cert: expected a file beside tls_client_ca, got none"),
    ],
)
def test_setting_without_those_that_it_needs_is_refused(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingError) as caught:
        check_tls(settings(**given))
    assert str(caught.value) == message


@pytest.mark.parametrize("missing", ["tls_cert", "tls_key", "tls_client_ca"])
def test_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path, missing: str) -> None:
    authority = Authority(tmp_path)
    mine = authority.server()
    files = {"tls_cert": mine.cert, "tls_key": mine.key, "tls_client_ca": authority.ca}
    files[missing].unlink()
    with pytest.raises(SettingError) as caught:
        check_tls(settings(**files))
    assert str(caught.value) == (
        f"{missing}: expected a file that user {os.getuid()} can read, got {files[missing]}: No "
        "such file or directory"
    )


def test_command_checks_the_files_and_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    mine, other = authority.server(days=-1), authority.server()
    flags = ["--models", str(tmp_path), "--check", "--tls-cert", str(mine.cert)]
    assert main([*flags, "--tls-key", str(mine.key)]) == 0
    printed = capsys.readouterr()
    assert str(mine.cert) in printed.out
    assert "has expired on" in printed.err
    assert main([*flags, "--tls-key", str(other.key)]) == 2
    assert (
        "tls_cert, tls_key: expected a certificate and its private key" in capsys.readouterr().err
    )
    assert main(flags) == 2
    assert "tls_key: expected a file beside tls_cert, got none" in capsys.readouterr().err
