"""What --check prints."""

import json
from pathlib import Path

import pytest

from convserve_server.main import main
from convserve_server.process.effective_settings import (
    CHOSEN,
    as_json,
    as_table,
    effective_settings,
)
from convserve_server.settings import sources
from convserve_server.settings.settings import PER_MODEL, SETTINGS


def check(*arguments: str) -> sources.Loaded:
    return sources.load(["--models", "here", "--check", *arguments], {})


def test_table_has_the_values_that_would_be_used_and_their_origins() -> None:
    effective = effective_settings(check("--workers", "1"), "grpcio")
    header, *lines = (line.split(maxsplit=2) for line in as_table(effective).splitlines())
    assert header == ["setting", "value", "from"]
    rows = {name: (value, origin) for name, value, origin in lines}
    assert rows.keys() == SETTINGS.keys()
    assert rows["workers"] == ("1", "--workers")
    assert rows["port"] == ("50051", "default")
    assert rows["front"] == ("grpcio", CHOSEN)
    assert int(rows["max_message_bytes"][0]) >= 2**23
    assert rows["max_message_bytes"][1] == CHOSEN


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "settings.toml"
    file.write_text(
        '[models."mnist.v2"]\nmax_batch = 32\nengine_threads = 0\n'
        "labels = {stable = 3, canary = 5}\n"
    )
    return str(file)


def test_model_with_a_table_has_each_of_its_values_and_their_origins(config: str) -> None:
    effective = effective_settings(
        check(
            *("--config", config, "--max-batch", "8", "--max-queue", "5", "--workers", "1"),
            *("--versions", "all"),
        ),
        "grpcio",
    )
    own = {name: one for name, one in effective.items() if name not in SETTINGS}
    assert {name: one.origin for name, one in own.items()} == {
        "models.mnist.v2.max_queue": "--max-queue",
        "models.mnist.v2.max_batch": config,
        "models.mnist.v2.max_delay_ms": "default",
        "models.mnist.v2.max_wait_ms": "default",
        "models.mnist.v2.priority": "default",
        "models.mnist.v2.device": "default",
        "models.mnist.v2.engine": "default",
        "models.mnist.v2.engine_threads": CHOSEN,
        "models.mnist.v2.versions": "--versions",
        "models.mnist.v2.control": "default",
        "models.mnist.v2.rollout": "default",
        "models.mnist.v2.unload_after_s": "default",
        "models.mnist.v2.labels": config,
    }
    assert own["models.mnist.v2.max_batch"].value == 32
    assert own["models.mnist.v2.max_queue"].value == 5
    assert own["models.mnist.v2.engine_threads"].value == effective["engine_threads"].value
    lines = [" ".join(line.split()) for line in as_table(effective).splitlines()]
    assert f"models.mnist.v2.max_batch 32 {config}" in lines
    assert "models.mnist.v2.versions all --versions" in lines
    assert f"models.mnist.v2.labels {{stable = 3, canary = 5}} {config}" in lines


def test_json_is_one_document_by_section_and_model(config: str) -> None:
    effective = effective_settings(check("--config", config, "--port", "7"), "grpcio")
    document = json.loads(as_json(effective, ("CONVSERVE_X",)))
    assert document["settings"]["listen"]["port"] == {"value": 7, "from": "--port"}
    names = [name for section in document["settings"].values() for name in section]
    assert names == list(SETTINGS)
    assert list(document["by_model"]) == ["mnist.v2"]
    assert list(document["by_model"]["mnist.v2"]) == list(PER_MODEL)
    labels = {"value": {"stable": 3, "canary": 5}, "from": config}
    assert document["by_model"]["mnist.v2"]["labels"] == labels
    assert document["by_model"]["mnist.v2"]["max_batch"] == {"value": 32, "from": config}
    assert document["unknown_variables"] == ["CONVSERVE_X"]


def test_check_prints_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_MAX_BACH", "3")
    arguments = ["--models", str(tmp_path), "--check"]
    unknown = (
        "convserve-serve: the variable CONVSERVE_MAX_BACH (did you mean CONVSERVE_MAX_BATCH?) "
        "is not a setting and changes nothing\n"
    )
    assert main(arguments) == 0
    text, problems = capsys.readouterr()
    assert text.splitlines()[0].split() == ["setting", "value", "from"]
    assert problems == unknown
    assert main([*arguments, "--format", "json"]) == 0
    text, problems = capsys.readouterr()
    assert json.loads(text)["settings"]["models"]["models"]["value"] == str(tmp_path)
    assert problems == unknown
