"""--models as a URL, on a store in memory; a stand-in for S3 is in tests/store."""

import io
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from convserve_bundle.contract import DIGESTS_FILE, MODEL_FILE
from convserve_store import location
from convserve_store.location import Location
from convserve_trainer.bundles import bundle
from convserve_trainer.main import main
from tests.trainer.conftest import Small

URL = "s3://bucket/models"


class Files(dict[str, bytes]):
    """What the code asks of a filesystem of fsspec."""

    def find(self, path: str, detail: bool) -> dict[str, Any]:
        assert detail
        return {key: self.info(key) for key in self if key.startswith(f"{path}/")}

    def info(self, path: str) -> dict[str, Any]:
        return {"size": len(self[path]), "ETag": str(hash(self[path]))}

    def cat_file(self, path: str) -> bytes:
        return self[path]

    def get_file(self, path: str, target: str) -> None:
        Path(target).write_bytes(self[path])

    def pipe_file(self, path: str, content: bytes) -> None:
        self[path] = content

    def rm(self, path: str, recursive: bool) -> None:
        assert recursive
        for key in [key for key in self if key.startswith(f"{path}/")]:
            del self[key]

    def open(self, path: str, mode: str) -> io.BytesIO:
        assert mode == "xb"
        if path in self:
            raise FileExistsError(path)
        files = self

        class File(io.BytesIO):
            def close(self) -> None:
                files[path] = self.getvalue()
                super().close()

        return File()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    found = Files()
    monkeypatch.setattr(location, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(
        location,
        "open_location",
        lambda url, field: Location(url, found, url.removeprefix("s3://"), field),
    )
    return found


def models_of(files: Files) -> list[str]:
    return sorted(key for key in files if key.endswith(MODEL_FILE))


@pytest.mark.usefixtures("undrawn")
def test_fit_publishes_onto_a_store_and_knows_what_is_there(
    files: Files,
    small: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [URL if each == "models" else each for each in small.fit(Path("models"))]
    assert main(command) == 0
    [model] = models_of(files)
    published = capsys.readouterr().out.splitlines()[-1]
    assert published == f"published {URL}/small/1 ({len(files[model]):,} bytes)"
    assert f"bucket/models/small/1/{DIGESTS_FILE}" in files
    (tmp_path / MODEL_FILE).write_bytes(files[model])
    assert bundle.read_manifest(tmp_path / MODEL_FILE).name == "small"
    assert {Path(key).name for key in files} >= {"history.csv", "net.keras", "report.html"}
    assert not list(tmp_path.glob("models/**/*.onnx"))

    assert main([*command, "--unless-published"]) == 0
    known = capsys.readouterr().out.splitlines()[-1]
    assert known == f"{URL}/small/1 is published already, from these settings and data"
    assert main([*command, "--version", "1"]) == 1
    assert capsys.readouterr().err == (
        f"convserve-train: {URL}/small/1 exists; a published version is never overwritten\n"
    )
    data = ["--data", str(small.data)]
    options = ["--precision", "tf32", "--models", URL]
    assert main(["convert", str(tmp_path / MODEL_FILE), *options, *data]) == 0
    assert f"published {URL}/small/2 (" in capsys.readouterr().out
    assert len(models_of(files)) == 2


@pytest.mark.parametrize("command", [["fit", "digits"], ["convert", "x"], ["publish", "x"]])
def test_missing_client_is_named_before_anything_else(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--models", URL])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(
        "error: argument --models: url: expected s3fs to be installed for s3://, got an "
        "installation without it; run: pip install 'convserve[s3]'\n"
    )
