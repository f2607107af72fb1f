"""What a net is trained on and what it is asked are the same, byte for byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convserve_imaging import PHOTO_BILINEAR
from convserve_protos import classifier_pb2 as pb
from convserve_trainer.datasets import photo_reader
from convserve_trainer.datasets.photo_cache import MODES, PhotoCache
from convserve_trainer.datasets.photo_decoding import Decoder
from convserve_trainer.datasets.photo_list import Photo
from convserve_trainer.datasets.unreadable_photos import UnreadablePhotos
from tests.bundles import PHOTO_SHAPE
from tests.jpegs import DATA, folder, odd_files
from tests.server.conftest import Serve
from tests.server.core.test_image_files_call import request_of

HEIGHT, WIDTH, _ = PHOTO_SHAPE
A_CALL = 64


def photographs() -> list[Path]:
    """Two hundred, of both classes and both parts."""
    files = sorted(folder("cats_dogs").glob("*/*/*.jpg"))
    assert len(files) == 3000
    return files[::15]


def decodable_odd_files() -> list[Path]:
    found = []
    for name, _, _ in odd_files():
        path = DATA / "jpeg_odd" / name
        try:
            photo_reader.pixels_of([path], HEIGHT, WIDTH)
        except Exception:  # noqa: BLE001 - what training refuses is another test's matter
            continue
        found.append(path)
    return found


@pytest.mark.parametrize(
    ("files", "least"), [(photographs, 200), (decodable_odd_files, 100)], ids=["photos", "odd"]
)
def test_training_and_engine_see_the_same_pixels(
    serve: Serve,
    front: str,
    files: Callable[[], list[Path]],
    least: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = files()
    assert len(paths) >= least
    served = serve(front, photos=True)
    for start in range(0, len(paths), A_CALL):
        data = [path.read_bytes() for path in paths[start : start + A_CALL]]
        response: pb.ClassifyResponse = served.classify(request_of(*data)).result()
        assert all(result.HasField("prediction") for result in response.results)
    reached = np.concatenate(served.engine.seen)
    assert np.array_equal(reached, photo_reader.pixels_of(paths, HEIGHT, WIDTH))
    cache = PhotoCache(tmp_path, PHOTO_SHAPE, PHOTO_BILINEAR, len(paths), "disk")
    photos = cache.survey.find([Photo(path, path.name, 0) for path in paths]).table
    for mode in MODES:
        losses = UnreadablePhotos(tmp_path, len(paths), 0.0)
        decoder = Decoder(cache, mode, PHOTO_SHAPE, PHOTO_BILINEAR, losses, print)
        [(kept, _)] = decoder.decoded(photos).pictures.batches(range(len(paths)), len(paths))
        assert np.array_equal(reached, kept), mode
