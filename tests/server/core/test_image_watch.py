"""What images are like that a version is asked about: as the trainer measures, and seldom."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve_bundle import distributions
from convserve_bundle.stability import Known, stability_index
from convserve_imaging import photos
from convserve_protos.bundle_pb2 import PictureStatistics
from convserve_server.core.image_watch import ImageWatch
from convserve_server.engines.base import LoadedModel, Pixels
from convserve_server.engines.bundles import load_model
from convserve_server.engines.loader import EngineOptions
from convserve_server.telemetry.observer import Observer
from convserve_trainer.main import main
from tests.bundles import PHOTO_SHAPE, write_photo_bundle
from tests.jpegs import jpeg_of

ALL = ("brightness", "contrast", "size", "confidence")
ROWS = np.array([[0.25, 0.75]], np.float32)


class Clock:
    """A time that passes by so much each time that it is asked for."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now = 100.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


class Heard(Observer):
    def __init__(self) -> None:
        self.values: list[Mapping[str, float]] = []

    def sampled(self, model: str, values: Mapping[str, float], now: float) -> None:
        assert model == "colours/1"
        self.values.append(values)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def watch(heard: Heard, clock: Clock, *names: str, a_second: float = 2.0) -> ImageWatch:
    return ImageWatch("colours/1", names, a_second, heard, clock)


def grey(level: int, height: int = 4) -> Pixels:
    return np.full((1, height, 4, 1), level, np.uint8)


def test_image_is_measured_with_the_answer_that_is_its_own(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = watch(heard, Clock(), *ALL)
    parts = [np.concatenate([grey(10), grey(20)]), grey(30), np.concatenate([grey(40), grey(50)])]
    rows = np.array([[0.1, level / 100] for level in (11, 22, 33, 44, 55)], np.float32)
    for index in range(5):
        monkeypatch.setattr("random.randrange", lambda _, index=index: index)
        one.look(parts, rows)
    found = [(each["brightness"], round(each["confidence"], 4)) for each in heard.values]
    assert found == [(10, 0.11), (20, 0.22), (30, 0.33), (40, 0.44), (50, 0.55)]
    assert all(each["contrast"] == 0 and "size" not in each for each in heard.values)


def test_only_what_the_manifest_has_is_reported(heard: Heard) -> None:
    one = watch(heard, Clock(), "brightness")
    one.look([grey(7)], ROWS)
    assert heard.values == [{"brightness": 7.0}]
    assert one.size_due == math.inf


def test_pause_is_what_the_setting_says_a_little_more_or_less(heard: Heard) -> None:
    clock = Clock()
    one = watch(heard, clock, *ALL, a_second=4.0)
    assert one.due <= clock.now
    pauses = []
    for _ in range(300):
        one.look([grey(7)], ROWS)
        pauses.append(one.due - clock.now)
    assert 0.125 <= min(pauses) < 0.15
    assert 0.35 < max(pauses) <= 0.375
    assert np.mean(pauses) == pytest.approx(0.25, abs=0.02)


def test_expensive_images_are_looked_at_less_often(heard: Heard) -> None:
    """An image takes 2 s of this clock: a quarter of a per cent of 800."""
    clock = Clock(step_s=1.0)
    one = watch(heard, clock, *ALL)
    one.look([grey(7)], ROWS)
    assert 400 <= one.due - clock.now <= 1200


def test_answer_that_is_no_number_is_not_counted(heard: Heard) -> None:
    watch(heard, Clock(), *ALL).look([grey(7)], np.array([[np.nan, 0.5]], np.float32))
    assert heard.values == []


def test_fault_of_ours_ends_looking_and_is_logged_once(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    one = watch(heard, Clock(), *ALL)
    one.look([np.zeros((1, 4, 4, 2), np.uint8)], ROWS)  # no picture has two channels
    assert one.due == math.inf
    assert [record.message for record in caplog.records] == [
        "colours/1: images cannot be looked at, and are not any more"
    ]
    assert heard.values == []


def test_size_of_a_file_is_that_of_its_header(heard: Heard) -> None:
    one = watch(heard, Clock(), *ALL)
    one.look_at_file([jpeg_of("red")])
    side = np.sqrt(np.prod(Image.open(io.BytesIO(jpeg_of("red"))).size))
    assert heard.values == [{"size": pytest.approx(side, abs=1e-4)}]
    one.look_at_file([b"no picture at all"])
    assert len(heard.values) == 1
    assert one.size_due < math.inf


def test_index_is_that_of_convserve_train_drift(
    heard: Heard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same pictures, each of them looked at."""
    random = np.random.default_rng(3)
    known = PictureStatistics(
        brightness=distributions.summarise(random.normal(120, 30, 200)),
        contrast=distributions.summarise(random.normal(50, 10, 200)),
        size=distributions.summarise(random.normal(60, 10, 200)),
        confidence=distributions.summarise(random.uniform(0.5, 1.0, 200)),
    )
    file = write_photo_bundle(tmp_path / "models", statistics=known)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(60):
        noise = random.normal(random.integers(60, 200), 40, (*random.integers(30, 90, 2), 3))
        image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        image.save(pictures / f"{number}.jpg", quality=90)

    loaded = load_model(file, EngineOptions("cpu", max_batch=1))
    assert isinstance(loaded, LoadedModel)
    one = watch(heard, Clock(), *ALL)
    for path in sorted(pictures.iterdir()):
        data = path.read_bytes()
        one.look_at_file([data])
        pixels = photos.decode(data, *PHOTO_SHAPE[:2])[np.newaxis]
        one.look([pixels], loaded.engine.run([pixels]))

    main(["drift", str(file), str(pictures), "--json"])
    stated = json.loads(capsys.readouterr().out)["measures"]
    assert [each["name"] for each in stated] == list(ALL)
    for each in stated:
        own: Known = loaded.known[each["name"]]
        values = [float(found[each["name"]]) for found in heard.values if each["name"] in found]
        counts = np.bincount(np.searchsorted(own.bounds, values), minlength=len(own.counts))
        assert len(values) == 60
        assert stability_index(own.counts, counts.tolist()) == pytest.approx(each["psi"], rel=1e-9)


def test_bundle_whose_statistics_are_damaged_is_served_without_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = PictureStatistics(brightness=distributions.summarise(np.arange(20.0)))
    known.brightness.counts.append(3)
    file = write_photo_bundle(tmp_path / "models", statistics=known)
    loaded = load_model(file, EngineOptions("cpu", max_batch=1))
    assert isinstance(loaded, LoadedModel)
    assert loaded.known == {}
    assert "colours: statistics.brightness.counts: expected" in caplog.text
