"""`convserve top` reads the page of a real server, and finds there all that it shows."""

import json

import pytest

from convserve.main import main

pytestmark = pytest.mark.monitoring


def test_top_finds_everything_on_the_page_of_a_server(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["top", "--metrics", f"http://{page}", "--interval", "1", "--format", "json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    models = {each["model"]: each for each in found["models"]}
    assert models.keys() == {"mnist", "colours", ""}
    mnist, colours = models["mnist"], models["colours"]
    assert mnist["state"] == colours["state"] == "served"
    assert mnist["load_s"] > 0
    assert mnist["busy"] > 0
    for model in (mnist, colours):
        interval = model["interval"]
        assert interval["images"] > 0
        assert interval["calls"] > 0
        assert 0 < interval["compute_s"]["p50"] <= interval["whole_s"]["p99"]
        assert interval["batch_images_mean"] >= 1
    assert colours["interval"]["decode_s"]["p50"] > 0
    assert colours["since_start"]["errors"].keys() == {"INVALID_ARGUMENT"}
    assert models[""]["since_start"]["errors"].keys() == {"NOT_FOUND"}
    assert found["refused"]["NOT_FOUND"]["since_start"] > 0
    assert [each["process"] for each in found["processes"]] == [
        "supervisor",
        "worker-1",
        "worker-2",
    ]
    assert all(each["memory_bytes"] > 2**20 for each in found["processes"])
    assert all(each["restarts"]["since_start"] == 0 for each in found["processes"])
    assert found["workers"] == {"serving": 2, "starting": 0}
    assert found["build"]["front"] in ("native", "grpcio")
