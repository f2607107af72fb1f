import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.fitting.step_parts import suitable
from convserve_trainer.nets.keras_backend import Threads
from convserve_trainer.recipes import recipe_files

DIGIT = InputSpec(height=28, width=28, channels=1)
PHOTO = InputSpec(height=150, width=150, channels=3)
LECTURE = recipe_files.find("lecture", "digits")


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        (1, Threads()),
        (2, Threads(2, 1)),
        (5, Threads(5, 1)),
        (16, Threads(8, 2)),  # of 64 pictures, 8 a part
        (63, Threads(8, 7)),
    ],
)
def test_small_pictures_are_parted_among_the_threads(threads: int, expected: Threads) -> None:
    assert suitable(LECTURE, DIGIT, threads) == expected


def test_few_large_or_normalised_pictures_stay_together() -> None:
    assert suitable(LECTURE.override(batch_size=15), DIGIT, 2) == Threads()
    assert suitable(recipe_files.find("lecture", "photos"), PHOTO, 2) == Threads()
    assert suitable(recipe_files.find("best", "digits"), DIGIT, 2) == Threads()
    residual = recipe_files.find("best", "photos").override(net=[*_residual()])
    assert suitable(residual, InputSpec(height=32, width=32, channels=3), 2) == Threads()


def _residual() -> list[dict[str, object]]:
    return [{"layer": "residual", "filters": 4}, {"layer": "global_average"}]
