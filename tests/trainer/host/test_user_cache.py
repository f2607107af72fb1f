from pathlib import Path

import pytest

from convserve_trainer.host import user_cache


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    user_cache._for_this_process.cache_clear()
    return folder


def test_configured_folder_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/configured")
    assert user_cache.folder("mnist") == Path("/configured/convserve/mnist")


@pytest.mark.parametrize("configured", ["", "relative"])
def test_home_is_taken_where_none_is_configured(
    configured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", configured)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache.folder("mnist") == tmp_path / ".cache/convserve/mnist"


def test_home_that_does_not_exist_gives_a_temporary_folder(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    folder = user_cache.folder("mnist")
    assert folder.is_relative_to(temporary)
    assert user_cache.folder("mnist") == folder, "the same for all of the process"
    assert folder.parents[1].stat().st_mode & 0o777 == 0o700


def test_user_without_home_and_passwd_entry_gets_a_temporary_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    assert user_cache.folder("mnist").is_relative_to(temporary)
