"""--models as a URL, before anybody is asked; a stand-in for S3 is in tests/store."""

from pathlib import Path

import pytest

from convserve_server.main import check_models, folder_of_copies
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import make_settings
from convserve_store import location

URL = "s3://bucket/models"


def test_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "find_spec", lambda name: None)
    with pytest.raises(SettingError) as caught:
        check_models(make_settings(models=URL))
    assert str(caught.value) == (
        "models: expected s3fs to be installed for s3://, got an installation without it; run: pip "
        "install 'convserve[s3]'"
    )


def test_folder_of_copies_is_the_one_that_is_set(tmp_path: Path) -> None:
    with folder_of_copies(make_settings(models=URL, models_cache=str(tmp_path))) as folder:
        assert folder == str(tmp_path)
    assert tmp_path.is_dir()


def test_folder_of_copies_is_a_temporary_one_that_is_removed() -> None:
    with folder_of_copies(make_settings(models=URL)) as folder:
        assert Path(folder).is_dir()
    assert not Path(folder).exists()


def test_folder_on_this_machine_has_no_copies(tmp_path: Path) -> None:
    settings = make_settings(models=str(tmp_path))
    assert settings.models.path == tmp_path
    with folder_of_copies(settings) as folder:
        assert folder == ""
