import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.pictures import pictures
from convserve_imaging.photos import decode
from tests.jpegs import jpeg_of


def lying(data: bytes) -> bytes:
    """The same JPEG with Exif that says it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_photographs_are_found_at_any_depth_and_odd_ones_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = jpeg_of("red")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.JPEG").write_bytes(whole)
    (tmp_path / "2.jpg").write_bytes(whole[:-200])
    (tmp_path / "3.jpg").write_bytes(lying(whole))
    (tmp_path / "4.png").write_bytes(b"no matter")
    found = pictures(tmp_path, 10)
    assert found.files == (whole,)
    assert found.about.startswith(f"1 photographs, {len(whole) / 1e3:.1f} kB and 0.04 megapixels")
    assert "left out 2" in capsys.readouterr().err


def test_same_photographs_are_chosen_again(tmp_path: Path) -> None:
    for seed in range(8):
        (tmp_path / f"{seed}.jpg").write_bytes(jpeg_of("green", (16, 16), seed))
    assert pictures(tmp_path, 3).files == pictures(tmp_path, 3).files
    assert pictures(tmp_path, 3).files != pictures(tmp_path, 3, seed=1).files


def test_folder_without_a_jpeg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no folder .*absent"):
        pictures(tmp_path / "absent", 1)
    with pytest.raises(BenchmarkError, match="no JPEG that can be decoded"):
        pictures(tmp_path, 1)


def test_made_up_scenes_are_like_photographs_and_differ() -> None:
    made = pictures(None, 6)
    assert made.about.startswith("6 made-up scenes")
    assert made.files == pictures(None, 6).files
    assert len(set(made.files)) == 6
    assert all(15_000 < len(data) < 50_000 for data in made.files)
    assert all(decode(data, 150, 150).std() > 20 for data in made.files)
